//! The reference pipeline under test: `enrich-orders` with views on its main output, under names of the test's own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret;
use sluice_crds::v1alpha1::{
    Expression, Format, LookupType, MaskMethod, OnMiss, OnNoMatch, RedisMode, RouteMatch, ViewType,
};
use sluice_crds::worker_config::{
    Action, ApplierConfig, FieldPath, Identity, KafkaEndpoint, LookupCacheConfig, ProcessorConfig, RedisEndpoint,
    RedisUserFiles, Route, Routing, SaslFiles, SaslMechanism, SetField, Step, TlsFiles, TopicRef, View, ViewTopic,
    WorkerConfig, WorkerConfigVersion,
};

use super::kafka::{self, TopicSpec};
use super::redis::RedisReader;
use super::sampler::SampledKey;
use super::{HarnessError, now_ms};
use crate::checker::{Fate, ViewKind, ViewSpec};
use crate::generator::{self, Expected, RecordId, Sku};
use crate::stack::kafka::Security;
use crate::stack::redis::Mode;
use crate::stack::{Kafka, Redis};
use crate::worker_process::write_private;

/// Life of the view's keys, in seconds.
pub const TTL_SECONDS: u64 = 1_800;

/// Topics, groups, keys and files of one test.
#[derive(Debug)]
pub struct Scenario<'a> {
    /// Kafka.
    pub kafka: &'a Kafka,
    /// Redis.
    pub redis: &'a Redis,
    /// Reads Redis.
    pub reader: RedisReader,
    name: String,
    folder: PathBuf,
    topic_ids: BTreeMap<String, String>,
    engines: Engines,
}

/// What a worker of the scenario runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engines {
    /// The pipeline and its views: an `EventPipeline`.
    Both,
    /// The pipeline only; nobody applies its views.
    Processor,
    /// The views only, over the topic that orders are loaded into: a `CacheSync`.
    Applier,
}

impl<'a> Scenario<'a> {
    /// Makes topics, start offsets and files. `name` needs only be unique among tests that run at the same time.
    pub fn create(
        name: &str,
        kafka: &'a Kafka,
        redis: &'a Redis,
        partitions: u32,
        engines: Engines,
    ) -> Result<Self, HarnessError> {
        let name = format!("dp-{name}-{:x}", now_ms());
        let folder = std::env::temp_dir().join(format!("sluice-{name}"));
        std::fs::create_dir_all(&folder).map_err(|source| HarnessError::File { path: folder.clone(), source })?;
        let reader = RedisReader::new(redis)?;
        let mut scenario = Self { kafka, redis, reader, name, folder, topic_ids: BTreeMap::new(), engines };
        let names = scenario.topics();
        let specs: Vec<TopicSpec<'_>> = names
            .iter()
            .map(|topic| {
                let compacted = *topic == scenario.view_topic();
                let config: &[(&str, &str)] = if compacted { &[("cleanup.policy", "compact")] } else { &[] };
                TopicSpec { name: topic, partitions: i32::try_from(partitions).unwrap_or(1), config }
            })
            .collect();
        kafka::create_topics(kafka, &specs)?;
        kafka::commit_start(kafka, &scenario.processor_group(), &scenario.source())?;
        scenario.topic_ids = kafka::topic_ids(kafka, &names)?;
        Ok(scenario)
    }

    /// What its workers run.
    pub fn engines(&self) -> Engines {
        self.engines
    }

    /// The topic that the views are made of.
    pub fn view_topic(&self) -> String {
        if self.engines == Engines::Applier { self.source() } else { self.enriched() }
    }

    fn topics(&self) -> Vec<String> {
        vec![self.source(), self.enriched(), self.review(), self.rejected()]
    }

    fn topic(&self, name: &str) -> String {
        format!("{}.order.{name}", self.name)
    }

    /// Where orders are loaded.
    pub fn source(&self) -> String {
        self.topic("created")
    }

    /// The main output, which has the views.
    pub fn enriched(&self) -> String {
        self.topic("enriched")
    }

    /// The output of large totals.
    pub fn review(&self) -> String {
        self.topic("review")
    }

    /// The dead letters.
    pub fn rejected(&self) -> String {
        self.topic("rejected")
    }

    /// The processor's group.
    pub fn processor_group(&self) -> String {
        format!("{}.processor", self.name)
    }

    /// The applier's group.
    pub fn applier_group(&self) -> String {
        format!("{}.applier", self.name)
    }

    /// Prefix of every Redis key of the test.
    pub fn key_prefix(&self) -> String {
        format!("{}:", self.name)
    }

    /// Pattern of the views' keys.
    pub fn view_pattern(&self) -> String {
        format!("{}*", self.view_prefix())
    }

    fn view_prefix(&self) -> String {
        format!("{}view:", self.key_prefix())
    }

    /// Pattern of the watermark records' keys.
    pub fn record_pattern(&self) -> String {
        format!("*{}*", self.uid())
    }

    /// Names the watermark records.
    pub fn uid(&self) -> String {
        format!("{}-uid", self.name)
    }

    /// Files of the test.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The views as the judge sees them: one hash and one JSON text for each order.
    pub fn views(&self) -> Vec<ViewSpec> {
        let ttl_ms = i64::try_from(TTL_SECONDS * 1_000).ok();
        let spec = |name: &str, kind, ttl_ms| ViewSpec {
            before: format!("{}{name}:{{", self.view_prefix()),
            after: "}".into(),
            kind,
            ttl_ms,
            when: None,
        };
        vec![spec("order", ViewKind::Hash, ttl_ms), spec("text", ViewKind::Json, None)]
    }

    /// What a sampler reads: both keys of the first `orders` order ids.
    pub fn sampled_keys(&self, orders: u32) -> Vec<SampledKey> {
        let views = self.views();
        let keys = (0..orders).map(generator::order_key);
        keys.flat_map(|key| {
            views.iter().map(move |view| SampledKey { key: view.redis_key(&key), kind: view.kind }).collect::<Vec<_>>()
        })
        .collect()
    }

    /// What the judge expects of loaded orders.
    pub fn fates(&self, expected: &BTreeMap<RecordId, (Vec<u8>, Expected)>) -> BTreeMap<RecordId, Fate> {
        let topic = |route| match route {
            generator::Route::Review => self.review(),
            generator::Route::Enriched => self.enriched(),
        };
        expected.iter().map(|(id, (key, expected))| (*id, Fate::of(key, expected, topic))).collect()
    }

    /// Loads prices and stock into Redis.
    pub fn load_reference(&self, skus: impl Iterator<Item = Sku>) -> Result<(), HarnessError> {
        super::redis::load_reference(&self.reader, &self.key_prefix(), skus)
    }

    /// Deletes every Redis key of the test.
    pub fn forget_keys(&self) -> Result<(), HarnessError> {
        let pattern = format!("{}*", self.key_prefix());
        for master in self.reader.masters()? {
            self.reader.delete(&master, &pattern)?;
        }
        Ok(())
    }

    /// The configuration of a worker that runs processor and applier.
    pub fn worker_config(&self) -> Result<WorkerConfig, HarnessError> {
        Ok(WorkerConfig {
            version: WorkerConfigVersion::V1,
            identity: Identity {
                instance: "e2e".into(),
                namespace: "datapath".into(),
                kind: "eventpipeline".into(),
                name: self.name.clone(),
                uid: self.uid(),
            },
            kafka: self.kafka_endpoint()?,
            redis: Some(self.redis_endpoint()?),
            processor: (self.engines != Engines::Applier).then(|| self.processor()),
            applier: (self.engines != Engines::Processor).then(|| self.applier()),
            admin_listen: String::new(),
        })
    }

    /// The configuration of a worker for scenario S1: every order goes, as it is, to the view topic under its order id, and
    /// from there into Redis as a JSON text with a life.
    pub fn projection_config(&self) -> Result<WorkerConfig, HarnessError> {
        let mut config = self.worker_config()?;
        if let Some(processor) = &mut config.processor {
            processor.steps.clear();
            processor.max_batch_records = 10_000;
            processor.max_batch_bytes = 8 << 20;
            let mut route = processor.routing.routes.remove(1);
            route.key = Some(expression("value.orderId"));
            processor.routing.routes = vec![route];
        }
        if let Some(topic) = config.applier.as_mut().and_then(|applier| applier.topics.first_mut()) {
            let mut view = topic.views.remove(1);
            view.ttl_seconds = Some(TTL_SECONDS);
            topic.views = vec![view];
        }
        Ok(config)
    }

    fn secret(&self, name: &str, text: &str) -> Result<String, HarnessError> {
        let path = self.folder.join(name);
        write_private(&path, text.as_bytes())?;
        Ok(path.display().to_string())
    }

    fn kafka_endpoint(&self) -> Result<KafkaEndpoint, HarnessError> {
        let secured = self.kafka.security() == Security::SaslSsl;
        let sasl = SaslFiles {
            mechanism: SaslMechanism::ScramSha512,
            username_file: self.secret("kafka.username", self.kafka.username())?,
            password_file: self.secret("kafka.password", self.kafka.password().expose_secret())?,
        };
        let ca_file = self.kafka.ca_file().map(|file| file.display().to_string());
        Ok(KafkaEndpoint {
            brokers: self.kafka.bootstrap().split(',').map(str::to_owned).collect(),
            tls: secured.then_some(TlsFiles { ca_file }),
            sasl: secured.then_some(sasl),
        })
    }

    fn redis_endpoint(&self) -> Result<RedisEndpoint, HarnessError> {
        let ca_file = self.redis.ca_file().map(|file| file.display().to_string());
        Ok(RedisEndpoint {
            mode: if self.redis.mode() == Mode::Cluster { RedisMode::Cluster } else { RedisMode::Standalone },
            addresses: self.redis.addresses().to_vec(),
            tls: self.redis.tls().then_some(TlsFiles { ca_file }),
            user: Some(RedisUserFiles {
                username_file: self.secret("redis.username", self.redis.username())?,
                password_file: self.secret("redis.password", self.redis.password().expose_secret())?,
            }),
        })
    }

    fn topic_ref(&self, topic: &str) -> TopicRef {
        TopicRef { name: topic.to_owned(), id: self.topic_ids.get(topic).cloned().unwrap_or_default() }
    }

    fn processor(&self) -> ProcessorConfig {
        ProcessorConfig {
            group: self.processor_group(),
            transactional_id_prefix: format!("sluice/e2e/datapath/eventpipeline/{}/", self.name),
            topics: vec![self.topic_ref(&self.source())],
            format: Format::Json,
            steps: steps(&self.key_prefix()),
            routing: self.routing(),
            dead_letter_topic: Some(self.rejected()),
            lanes: 2,
            commit_interval_milliseconds: 100,
            max_batch_records: 1_000,
            max_batch_bytes: 1 << 20,
            max_record_bytes: 1_000_000,
            lookup_cache: LookupCacheConfig { max_bytes: 1 << 20, ttl_milliseconds: 1_000 },
        }
    }

    fn routing(&self) -> Routing {
        let route = |name: &str, topic, when: Option<&str>, has_views| Route {
            name: name.into(),
            topic,
            when: when.map(expression),
            key: None,
            has_views,
            compacted: has_views,
        };
        Routing {
            match_: RouteMatch::First,
            on_no_match: OnNoMatch::DeadLetter,
            routes: vec![
                route("review", self.review(), Some("value.total > 10000.0"), false),
                route("enriched", self.enriched(), None, true),
            ],
        }
    }

    fn applier(&self) -> ApplierConfig {
        let view = |spec: &ViewSpec, name: &str, view_type| View {
            name: name.into(),
            key: expression(&format!("'{}' + key + '{}'", spec.before, spec.after)),
            key_prefix: spec.before.clone(),
            view_type,
            when: None,
            ttl_seconds: spec.ttl_ms.and_then(|ttl| u64::try_from(ttl / 1_000).ok()),
        };
        let specs = self.views();
        ApplierConfig {
            group: self.applier_group(),
            epoch: 1,
            topics: vec![ViewTopic {
                topic: self.topic_ref(&self.view_topic()),
                format: Format::Json,
                tombstones_kept_milliseconds: None,
                views: vec![view(&specs[0], "order", ViewType::Hash), view(&specs[1], "text", ViewType::Json)],
            }],
            max_batch_items: 256,
            max_batch_bytes: 256 << 10,
        }
    }
}

impl Drop for Scenario<'_> {
    fn drop(&mut self) {
        // Left behind at worst: names are never used again.
        let topics = self.topics();
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let _ = kafka::delete_topics(self.kafka, &names);
        let _ = self.forget_keys();
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

fn expression(text: &str) -> Expression {
    Expression(text.to_owned())
}

fn path(text: &str) -> FieldPath {
    FieldPath::try_from(text.to_owned()).expect("a path written here")
}

fn steps(prefix: &str) -> Vec<Step> {
    let step = |name: &str, action| Step { name: name.into(), action };
    let set = |field: &str, text: &str| SetField { field: path(field), expression: expression(text) };
    let lookup = |key: &str, prefix: String, lookup_type, on_miss| Action::Lookup {
        key: expression(key),
        key_prefix: prefix,
        lookup_type,
        on_miss,
    };
    let price = lookup(
        &format!("'{prefix}price:' + value.sku"),
        format!("{prefix}price:"),
        LookupType::Json,
        OnMiss::DeadLetter,
    );
    let stock = lookup(
        &format!("'{prefix}stock:{{' + value.sku + '}}'"),
        format!("{prefix}stock:{{"),
        LookupType::Hash,
        OnMiss::Continue,
    );
    vec![
        step("onlyCreated", Action::Filter { keep_when: expression("value.status == \"CREATED\"") }),
        step("price", price),
        step("stock", stock),
        step(
            "totals",
            Action::Set {
                fields: vec![
                    set("total", "double(value.quantity) * double(price.amount)"),
                    set("inStock", "stock != null && int(stock.onHand) >= int(value.quantity)"),
                ],
            },
        ),
        step("pii", Action::Mask { fields: vec![path("customer.email")], method: MaskMethod::Redact }),
        step("tidy", Action::Remove { fields: vec![path("internal")] }),
    ]
}
