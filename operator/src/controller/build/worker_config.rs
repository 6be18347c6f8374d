//! The file workers start from.

use sluice_crds::names::TopicName;
use sluice_crds::worker_config::{
    ApplierConfig, Identity, KafkaEndpoint, LookupCacheConfig, ProcessorConfig, RedisEndpoint, RedisUserFiles,
    SaslFiles, SaslMechanism, TlsFiles, TopicRef, ViewTopic, WorkerConfig, WorkerConfigVersion,
};

use super::Inputs;
use super::config_map::{KAFKA_CA_KEY, REDIS_CA_KEY};
use crate::controller::validated::{
    Applier, KafkaUse, Processor, RedisPlace, RedisUse, ValidatedResource, WorkerAccess,
};

/// Where the `ConfigMap` is mounted.
pub const CONFIG_DIR: &str = "/etc/sluice/config";
/// Where Kafka's `username` and `password` are mounted.
pub const KAFKA_DIR: &str = "/etc/sluice/kafka";
/// Where Redis's `username` and `password` are mounted.
pub const REDIS_DIR: &str = "/etc/sluice/redis";
/// Where `ca.crt` of a Secret for inline Redis addresses is mounted.
pub const REDIS_CA_DIR: &str = "/etc/sluice/redis-ca";
/// Where workers serve `/livez`, `/readyz` and `/metrics`.
pub const ADMIN_PORT: i32 = 8080;

/// Most source bytes in one transaction.
const MAX_BATCH_BYTES: u64 = 8 * 1024 * 1024;
/// Kafka's default `max.message.bytes`.
const DEFAULT_MAX_MESSAGE_BYTES: u64 = 1_048_588;
/// What a record batch around one record may cost at most: batch header, record header and lengths.
const RECORD_OVERHEAD_BYTES: u64 = 1_024;
/// The lookup cache of a lane.
const LOOKUP_CACHE: LookupCacheConfig = LookupCacheConfig { max_bytes: 4 * 1024 * 1024, ttl_milliseconds: 1_000 };
/// Most mutations of one script call: about a millisecond of a Redis server.
const MAX_APPLY_ITEMS: u32 = 256;
/// Most bytes of one script call.
const MAX_APPLY_BYTES: u64 = 256 * 1024;

pub(super) fn worker_config(resource: &ValidatedResource, inputs: &Inputs<'_>) -> WorkerConfig {
    let id = &resource.id;
    WorkerConfig {
        version: WorkerConfigVersion::V1,
        identity: Identity {
            instance: id.instance.to_string(),
            namespace: id.namespace.to_string(),
            kind: id.kind.as_str().to_owned(),
            name: id.name.to_string(),
            uid: resource.uid.to_string(),
        },
        kafka: kafka(&resource.kafka),
        redis: resource.redis.as_ref().map(redis),
        processor: resource.processor.as_ref().map(|p| processor(resource, p, inputs)),
        applier: resource.applier.as_ref().map(|a| applier(a, inputs)),
        admin_listen: format!("0.0.0.0:{ADMIN_PORT}"),
    }
}

fn kafka(kafka: &KafkaUse) -> KafkaEndpoint {
    let mechanism = kafka.connection.admin.as_ref().map_or(SaslMechanism::ScramSha512, |(mechanism, _)| *mechanism);
    let sasl = || SaslFiles {
        mechanism,
        username_file: format!("{KAFKA_DIR}/username"),
        password_file: format!("{KAFKA_DIR}/password"),
    };
    KafkaEndpoint {
        brokers: kafka.connection.brokers.clone(),
        tls: kafka
            .connection
            .tls
            .as_ref()
            .map(|tls| TlsFiles { ca_file: tls.ca_pem.as_ref().map(|_| format!("{CONFIG_DIR}/{KAFKA_CA_KEY}")) }),
        sasl: (kafka.access != WorkerAccess::Open).then(sasl),
    }
}

fn redis(redis: &RedisUse) -> RedisEndpoint {
    let user = || RedisUserFiles {
        username_file: format!("{REDIS_DIR}/username"),
        password_file: format!("{REDIS_DIR}/password"),
    };
    let user = (redis.access != WorkerAccess::Open).then(user);
    match &redis.place {
        RedisPlace::Connection(connection) => RedisEndpoint {
            mode: connection.mode,
            addresses: connection.addresses.clone(),
            tls: connection
                .tls
                .as_ref()
                .map(|tls| TlsFiles { ca_file: tls.ca_pem.as_ref().map(|_| format!("{CONFIG_DIR}/{REDIS_CA_KEY}")) }),
            user,
        },
        RedisPlace::Inline { mode, addresses, tls } => RedisEndpoint {
            mode: *mode,
            addresses: addresses.clone(),
            tls: tls
                .as_ref()
                .map(|tls| TlsFiles { ca_file: tls.ca_secret.as_ref().map(|_| format!("{REDIS_CA_DIR}/ca.crt")) }),
            user,
        },
    }
}

fn processor(resource: &ValidatedResource, processor: &Processor, inputs: &Inputs<'_>) -> ProcessorConfig {
    ProcessorConfig {
        group: processor.group.to_string(),
        transactional_id_prefix: resource.id.transactional_id_prefix().to_string(),
        topics: processor.sources.iter().map(|topic| topic_ref(topic, inputs)).collect(),
        format: processor.format,
        steps: processor.steps.clone(),
        routing: processor.routing(|topic| inputs.topics.get(topic).is_some_and(|facts| facts.compacted)),
        dead_letter_topic: processor.dead_letter.as_ref().map(ToString::to_string),
        lanes: processor.lanes,
        commit_interval_milliseconds: processor.commit_interval_milliseconds,
        max_batch_records: processor.max_batch_records,
        max_batch_bytes: MAX_BATCH_BYTES,
        max_record_bytes: max_record_bytes(resource, inputs),
        lookup_cache: LOOKUP_CACHE,
    }
}

/// The largest record that every output topic takes.
fn max_record_bytes(resource: &ValidatedResource, inputs: &Inputs<'_>) -> u64 {
    let limits = resource.output_topics().into_iter().filter_map(|topic| inputs.topics.get(topic));
    let smallest = limits.map(|facts| facts.max_message_bytes).min().unwrap_or(DEFAULT_MAX_MESSAGE_BYTES);
    smallest.saturating_sub(RECORD_OVERHEAD_BYTES).max(1)
}

fn applier(applier: &Applier, inputs: &Inputs<'_>) -> ApplierConfig {
    let topics = applier.topics.iter().map(|topic| ViewTopic {
        topic: topic_ref(&topic.topic, inputs),
        format: topic.format,
        tombstones_kept_milliseconds: inputs.topics.get(&topic.topic).and_then(|facts| facts.tombstones_kept_ms),
        views: topic.views.clone(),
    });
    ApplierConfig {
        group: applier.group.to_string(),
        epoch: inputs.epoch,
        topics: topics.collect(),
        max_batch_items: MAX_APPLY_ITEMS,
        max_batch_bytes: MAX_APPLY_BYTES,
    }
}

/// An id that is not known stays empty, which no worker starts with; apply never gets there without all of them.
fn topic_ref(topic: &TopicName, inputs: &Inputs<'_>) -> TopicRef {
    let id = inputs.topics.get(topic).map(|facts| facts.id.clone()).unwrap_or_default();
    TopicRef { name: topic.to_string(), id }
}
