//! Reading the file: version, then fields, then what the types cannot say.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use super::{Action, ApplierConfig, Identity, ProcessorConfig, SaslMechanism, WorkerConfig};
use crate::names::{
    GroupId, InstanceId, KeyPrefix, Kind, NameError, Namespace, ResourceName, ResourceUid, TopicName,
    TransactionalIdPrefix,
};
use crate::report::TopicId;

/// Largest file, in bytes: what a `ConfigMap` holds.
pub const MAX_WORKER_CONFIG_BYTES: usize = 1024 * 1024;

/// Why a worker does not start from a file.
#[derive(Debug, thiserror::Error)]
pub enum WorkerConfigError {
    /// More than a `ConfigMap` holds.
    #[error("the configuration has {found} bytes: at most {MAX_WORKER_CONFIG_BYTES} are read")]
    TooLarge {
        /// Bytes found.
        found: usize,
    },
    /// No JSON object.
    #[error("the configuration is no JSON object: {0}")]
    Json(serde_json::Error),
    /// A layout this worker does not know. Said before anything about fields: those of another version mean nothing here.
    #[error(
        "the configuration has version {found}, this worker reads \"v1\": run a worker of the operator's own release"
    )]
    Version {
        /// What stands there, as JSON; `null` when nothing does. Cut to 80 characters.
        found: String,
    },
    /// A field that is missing, unknown or of another type.
    #[error("the configuration does not follow its version: {0}")]
    Field(serde_json::Error),
    /// A name that is none.
    #[error("`{field}`: {error}")]
    Name {
        /// Path of the field.
        field: &'static str,
        /// What is wrong.
        error: NameError,
    },
    /// A topic id that is none.
    #[error("`{field}` of topic {topic:?} is {found:?}: a topic id has 22 characters of base64url")]
    TopicId {
        /// Path of the field.
        field: &'static str,
        /// The topic.
        topic: String,
        /// What stands there.
        found: String,
    },
    /// Neither a processor nor an applier.
    #[error("the configuration has neither `processor` nor `applier`: there is nothing to run")]
    NothingToRun,
    /// Lookups or views without Redis.
    #[error("{part} needs `redis`")]
    RedisMissing {
        /// Who needs it.
        part: &'static str,
    },
    /// A list without items.
    #[error("`{field}` is empty")]
    Empty {
        /// Path of the field.
        field: &'static str,
    },
    /// An item twice.
    #[error("`{field}` has {value:?} twice")]
    Twice {
        /// Path of the field.
        field: &'static str,
        /// The item.
        value: String,
    },
    /// A number outside of its range.
    #[error("`{field}` is {found}: it must be {min} to {max}")]
    Range {
        /// Path of the field.
        field: &'static str,
        /// What stands there.
        found: u64,
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// A password in the clear.
    #[error("`kafka.sasl.mechanism` PLAIN sends the password as it is: it needs `kafka.tls`")]
    PlainWithoutTls,
    /// An output that is also an input.
    #[error("topic {topic:?} is consumed and produced: its records would go round for ever")]
    Loop {
        /// The topic.
        topic: String,
    },
}

impl WorkerConfigError {
    /// Bounded category for logs and metrics.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "TooLarge",
            Self::Json(_) => "Json",
            Self::Version { .. } => "Version",
            Self::Field(_) => "Field",
            Self::Name { .. } => "Name",
            Self::TopicId { .. } => "TopicId",
            Self::NothingToRun => "NothingToRun",
            Self::RedisMissing { .. } => "RedisMissing",
            Self::Empty { .. } => "Empty",
            Self::Twice { .. } => "Twice",
            Self::Range { .. } => "Range",
            Self::PlainWithoutTls => "PlainWithoutTls",
            Self::Loop { .. } => "Loop",
        }
    }
}

type Checked = Result<(), WorkerConfigError>;

/// Reads a configuration. What comes back can be run: every name is one, every list a worker needs has items, every
/// number is in its range.
pub fn parse(bytes: &[u8]) -> Result<WorkerConfig, WorkerConfigError> {
    /// The one field that every version has.
    #[derive(Deserialize)]
    struct Versioned {
        #[serde(default)]
        version: Value,
    }
    if bytes.len() > MAX_WORKER_CONFIG_BYTES {
        return Err(WorkerConfigError::TooLarge { found: bytes.len() });
    }
    let versioned: Versioned = serde_json::from_slice(bytes).map_err(WorkerConfigError::Json)?;
    if versioned.version != "v1" {
        return Err(WorkerConfigError::Version { found: versioned.version.to_string().chars().take(80).collect() });
    }
    let config: WorkerConfig = serde_json::from_slice(bytes).map_err(WorkerConfigError::Field)?;
    check(&config)?;
    Ok(config)
}

fn check(config: &WorkerConfig) -> Checked {
    check_identity(&config.identity)?;
    not_empty("kafka.brokers", &config.kafka.brokers)?;
    if config.kafka.tls.is_none()
        && config.kafka.sasl.as_ref().is_some_and(|sasl| sasl.mechanism == SaslMechanism::Plain)
    {
        return Err(WorkerConfigError::PlainWithoutTls);
    }
    if let Some(redis) = &config.redis {
        not_empty("redis.addresses", &redis.addresses)?;
    }
    if config.processor.is_none() && config.applier.is_none() {
        return Err(WorkerConfigError::NothingToRun);
    }
    if let Some(processor) = &config.processor {
        check_processor(processor, config.redis.is_some())?;
    }
    if let Some(applier) = &config.applier {
        if config.redis.is_none() {
            return Err(WorkerConfigError::RedisMissing { part: "`applier`" });
        }
        check_applier(applier)?;
    }
    Ok(())
}

fn check_identity(identity: &Identity) -> Checked {
    name("identity.instance", InstanceId::parse(&*identity.instance))?;
    name("identity.namespace", Namespace::parse(&*identity.namespace))?;
    name("identity.kind", Kind::parse(&identity.kind))?;
    name("identity.name", ResourceName::parse(&*identity.name))?;
    name("identity.uid", ResourceUid::parse(&*identity.uid)).map(drop)
}

fn check_processor(processor: &ProcessorConfig, has_redis: bool) -> Checked {
    name("processor.group", GroupId::parse(&*processor.group))?;
    name("processor.transactionalIdPrefix", TransactionalIdPrefix::parse(&*processor.transactional_id_prefix))?;
    not_empty("processor.topics", &processor.topics)?;
    for topic in &processor.topics {
        check_topic("processor.topics.id", &topic.name, &topic.id)?;
    }
    unique("processor.topics", processor.topics.iter().map(|topic| &topic.name))?;
    unique("processor.steps", processor.steps.iter().map(|step| &step.name))?;
    check_outputs(processor)?;
    for step in &processor.steps {
        if let Action::Lookup { key_prefix, .. } = &step.action {
            if !has_redis {
                return Err(WorkerConfigError::RedisMissing { part: "a lookup step" });
            }
            name("processor.steps.action.lookup.keyPrefix", KeyPrefix::parse(&**key_prefix))?;
        }
    }
    in_range("processor.lanes", processor.lanes, 1, 64)?;
    in_range("processor.commitIntervalMilliseconds", processor.commit_interval_milliseconds, 1, 5_000)?;
    in_range("processor.maxBatchRecords", processor.max_batch_records, 1, 100_000)?;
    in_range("processor.maxBatchBytes", processor.max_batch_bytes, 1 << 10, 1 << 30)?;
    in_range("processor.maxRecordBytes", processor.max_record_bytes, 1 << 10, 1 << 30)?;
    in_range("processor.lookupCache.maxBytes", processor.lookup_cache.max_bytes, 0, 1 << 30)?;
    in_range("processor.lookupCache.ttlMilliseconds", processor.lookup_cache.ttl_milliseconds, 0, 86_400_000)
}

fn check_outputs(processor: &ProcessorConfig) -> Checked {
    let routes = &processor.routing.routes;
    not_empty("processor.routing.routes", routes)?;
    unique("processor.routing.routes", routes.iter().map(|route| &route.name))?;
    for topic in routes.iter().map(|route| &route.topic).chain(&processor.dead_letter_topic) {
        name("processor.routing.routes.topic", TopicName::parse(&**topic))?;
        if processor.topics.iter().any(|source| source.name == *topic) {
            return Err(WorkerConfigError::Loop { topic: topic.clone() });
        }
    }
    Ok(())
}

fn check_applier(applier: &ApplierConfig) -> Checked {
    name("applier.group", GroupId::parse(&*applier.group))?;
    not_empty("applier.topics", &applier.topics)?;
    unique("applier.topics", applier.topics.iter().map(|topic| &topic.topic.name))?;
    for topic in &applier.topics {
        check_topic("applier.topics.topic.id", &topic.topic.name, &topic.topic.id)?;
        not_empty("applier.topics.views", &topic.views)?;
        unique("applier.topics.views", topic.views.iter().map(|view| &view.name))?;
        for view in &topic.views {
            name("applier.topics.views.keyPrefix", KeyPrefix::parse(&*view.key_prefix))?;
            if let Some(seconds) = view.ttl_seconds {
                in_range("applier.topics.views.ttlSeconds", seconds, 1, 315_360_000)?;
            }
        }
    }
    in_range("applier.maxBatchItems", applier.max_batch_items, 1, 10_000)?;
    in_range("applier.maxBatchBytes", applier.max_batch_bytes, 1 << 10, 64 << 20)
}

fn check_topic(field: &'static str, topic: &str, id: &str) -> Checked {
    name(field, TopicName::parse(topic))?;
    match TopicId::parse(id) {
        Some(_) => Ok(()),
        None => {
            Err(WorkerConfigError::TopicId { field, topic: topic.to_owned(), found: id.chars().take(80).collect() })
        }
    }
}

fn name<T>(field: &'static str, parsed: Result<T, NameError>) -> Result<T, WorkerConfigError> {
    parsed.map_err(|error| WorkerConfigError::Name { field, error })
}

fn not_empty<T>(field: &'static str, items: &[T]) -> Checked {
    if items.is_empty() { Err(WorkerConfigError::Empty { field }) } else { Ok(()) }
}

fn unique<'a>(field: &'static str, items: impl Iterator<Item = &'a String>) -> Checked {
    let mut seen = BTreeSet::new();
    for item in items {
        if !seen.insert(item) {
            return Err(WorkerConfigError::Twice { field, value: item.clone() });
        }
    }
    Ok(())
}

fn in_range(field: &'static str, found: impl Into<u64>, min: u64, max: u64) -> Checked {
    let found = found.into();
    if (min..=max).contains(&found) { Ok(()) } else { Err(WorkerConfigError::Range { field, found, min, max }) }
}
