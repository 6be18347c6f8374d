//! Committed topic → Redis by compare-and-advance.
//!
//! Each Redis shard (a master) is a replicated state machine that consumes each partition of the view topics. Its state
//! is a watermark record for each partition, on the shard itself. One script applies one batch: it writes data and
//! record together, and only if the record is the expected one. So a second applier can do no harm, nothing is applied
//! twice, values stay plain, and a promoted replica says itself what it holds.
//!
//! ```text
//! source/      Kafka consumers: what to read, records out            decode.rs    record → mutations
//! engine/      all decisions: (State, Event) → (State, Effects)      mutation.rs  mutations, batches
//! redis/       the scripts; finding a shard's records                record.rs    text of the records
//! driver.rs    effects → calls, answers → events                     metrics.rs
//! ```
//!
//! What goes wrong unseen, because no record, header or answer differs afterwards:
//! - a slot that is moved away, loses keys on its new shard, and is moved back, all between two looks at the slot map (5 s;
//!   any time while no applier runs). The shard's record still names it. The shard's configuration epoch would tell that
//!   *some* slot came in, not which: reading the whole shard again at each import was rejected;
//! - two failovers, of source and target, within one slot's move; or a move given up by hand after its target lost keys, or
//!   with keys left on the target. One failover of the source is noticed, see [`redis`];
//! - a topic made again with more records than the old one, until the next look at its id (30 s; at once after an
//!   assignment, and after this process was frozen). Then applying stops until the operator has begun a new epoch.
//!
//! A new epoch repairs all of them.
//!
//! Redirects are never followed, values are never read back to decide, and where to start is never taken from the
//! group's offsets: those are committed for lag and reports only.

mod decode;
mod driver;
pub mod engine;
mod metrics;
pub mod mutation;
pub mod record;
pub mod redis;
mod source;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use sluice_clients::redis::{Links, RedisSettings, RedisUser};
use sluice_crds::names::{InstanceId, ResourceUid, WatermarkKeys};
use sluice_crds::report::TopicId;
use sluice_crds::worker_config::ApplierConfig;

use crate::engine::{EngineContext, EngineError};
use decode::Decoder;
use driver::{DriverSettings, drive};
use engine::{EngineSettings, Times};
use metrics::ApplierMetrics;
use source::SourceSettings;

/// The driver ticks ten times a second; a loop silent for so long does not run.
const SILENCE: Duration = Duration::from_secs(30);

/// Runs the applier until shutdown.
pub async fn run(config: ApplierConfig, context: EngineContext) -> Result<(), EngineError> {
    let invalid = |what: &str, why: String| EngineError { category: "Config", message: format!("{what}: {why}") };
    let decoders: Vec<Decoder> = config
        .topics
        .iter()
        .map(|topic| {
            Decoder::compile(topic).map_err(|errors| {
                let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
                invalid(&topic.topic.name, errors.join("; "))
            })
        })
        .collect::<Result<_, _>>()?;
    let ids: Vec<TopicId> = config
        .topics
        .iter()
        .map(|topic| {
            TopicId::parse(&topic.topic.id).ok_or_else(|| invalid(&topic.topic.name, "not a topic id".to_owned()))
        })
        .collect::<Result<_, _>>()?;
    let (endpoint, user) = context.redis.ok_or_else(|| invalid("redis", "the applier needs it".to_owned()))?;
    let user = user.map(|user| RedisUser { name: user.username, password: user.password });
    let links = RedisSettings::with_user(&endpoint, user)
        .and_then(Links::new)
        .map_err(|error| invalid("redis", error.to_string()))?;
    let identity = &context.identity;
    let instance = InstanceId::parse(&identity.instance).map_err(|error| invalid("instance", error.to_string()))?;
    let uid = ResourceUid::parse(&identity.uid).map_err(|error| invalid("uid", error.to_string()))?;
    let metrics = ApplierMetrics::register(&mut context.metrics.lock().unwrap_or_else(PoisonError::into_inner));
    let decoders = Arc::new(decoders);
    let source = |name: &str| SourceSettings {
        kafka: context.kafka.clone(),
        credentials: context.kafka_credentials.clone(),
        group: config.group.clone(),
        decoders: decoders.clone(),
        health: context.health.register(name, SILENCE, None),
    };
    drive(DriverSettings {
        engine: EngineSettings {
            epoch: config.epoch,
            topics: ids,
            tombstones_kept_ms: config.topics.iter().map(|topic| topic.tombstones_kept_milliseconds).collect(),
            max_batch_items: usize::try_from(config.max_batch_items).unwrap_or(usize::MAX).max(1),
            max_batch_bytes: usize::try_from(config.max_batch_bytes).unwrap_or(usize::MAX).max(1),
            times: Times::default(),
        },
        topics: config.topics.iter().map(|topic| topic.topic.name.clone()).collect(),
        main: source("applier source"),
        repair: source("applier repair source"),
        links: Arc::new(links),
        keys: WatermarkKeys::new(&instance, &uid),
        health: context.health.register("applier", SILENCE, Some("Assignment")),
        metrics,
        shutdown: context.shutdown,
    })
    .await
}
