//! Consume → look up → steps → produce, one Kafka transaction a batch.
//!
//! ```text
//!  consumer.rs (one thread)                          lane/ (a thread with a transactional producer each)
//!  poll ─► records of a running lease ─► Command ─►  gather ─► steps.rs (+ lookups.rs) ─► settle ─► transact
//!    ▲     assignment.rs: who owns what (pure)  ◄─── Notice: Released, Rewind, Stall
//!    └──── pause and resume by what is in the lanes' hands (work.rs)
//! ```
//! `lease.rs` ties the two together: whatever travels to a lane is worthless once its lease has ended. `classify.rs`
//! says what an error means, `progress.rs` what is reported with each commit, `watchdog.rs` ends calls that never
//! return. Engines are started by [`run`].

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use sluice_clients::kafka::config::client_config;
use sluice_clients::kafka::consumer::{Consumer, consumer_config};
use sluice_clients::kafka::producer::{ProducerLimits, producer_config};
use sluice_clients::redis::lookup::{BlockingLookup, LookupClient, LookupLimits};
use sluice_clients::redis::{RedisSettings, RedisUser};
use sluice_crds::report::TopicId;
use sluice_crds::worker_config::ProcessorConfig;
use sluice_transform::{Limits, Program};

pub mod assignment;
pub mod classify;
mod consumer;
mod lane;
pub mod lease;
mod lookups;
pub mod metrics;
pub mod progress;
mod steps;
mod topics;
mod watchdog;
mod work;

use self::consumer::{Driver, HandLimits, LanePort};
use self::lane::outgoing::Topics;
use self::lane::transact::Transactor;
use self::lane::{BatchLimits, Command, Lane, Notice};
use self::lease::LaneId;
use self::lookups::{Cache, Lookups};
use self::metrics::ProcessorMetrics;
use self::steps::Steps;
use self::watchdog::CallClock;
use self::work::LaneLoad;
use crate::engine::{EngineContext, EngineError, Shutdown};

/// A lane that has not come round for this long is not alive. Above the longest chain of bounded calls.
const LANE_SILENCE: Duration = Duration::from_secs(90);
const CONSUMER_SILENCE: Duration = Duration::from_secs(45);
/// What a producer may hold beyond one batch's worth, in bytes.
const PRODUCER_ROOM: u64 = 2 << 20;
/// A batch closes by bytes not below this: transactions have a price of their own.
const SMALLEST_BATCH: u64 = 1 << 20;

/// Runs the processor until shutdown.
pub async fn run(config: ProcessorConfig, context: EngineContext) -> Result<(), EngineError> {
    let metrics = {
        let mut registry = context.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        ProcessorMetrics::register(&mut registry)
    };
    let parts = Parts::new(&config, &context, metrics)?;
    let Some(health) = topics::are_ours(&parts.topic_ids, &context).await else { return Ok(()) };
    // The threads stop with the process, or because their source is another topic by now.
    let (stop, stopping) = Shutdown::new();
    let source = tokio::spawn(topics::watch(parts.topic_ids.clone(), context.clone(), health, stop));
    let inner = EngineContext { shutdown: stopping, ..context.clone() };
    let (threads, clocks) = parts.start(&config, &inner)?;
    let watchdog = tokio::spawn(watchdog::watch(clocks, inner.shutdown.clone()));
    let ended = tokio::task::spawn_blocking(move || threads.into_iter().all(|thread| thread.join().is_ok()));
    let clean = ended.await.unwrap_or(false);
    watchdog.abort();
    if !clean {
        return Err(failed("Panic", "a thread of the processor panicked"));
    }
    if !inner.shutdown.is_raised() {
        return Err(failed("Stopped", "the processor stopped by itself"));
    }
    if source.await.unwrap_or(false) {
        // Said; a new configuration comes with a new process.
        context.shutdown.raised().await;
    }
    Ok(())
}

/// A lane's ends of what ties it to the consumer.
struct LaneEnds {
    commands: Receiver<Command>,
    notices: Sender<Notice>,
    load: Arc<LaneLoad>,
}

/// What all lanes share.
struct Parts {
    program: Arc<Program>,
    redis: Option<BlockingLookup>,
    topics: Topics,
    topic_ids: TopicIds,
    metrics: ProcessorMetrics,
}

/// Topic ids by topic name.
type TopicIds = Arc<BTreeMap<String, TopicId>>;

impl Parts {
    fn new(config: &ProcessorConfig, context: &EngineContext, metrics: ProcessorMetrics) -> Result<Self, EngineError> {
        let max_record_bytes = usize::try_from(config.max_record_bytes).unwrap_or(usize::MAX);
        let program = Program::compile(config.format, &config.steps, &config.routing, Limits { max_record_bytes })
            .map_err(|errors| {
                let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
                failed("Compile", texts.join("; "))
            })?;
        let redis = if program.has_lookups() { Some(lookup_client(context)?) } else { None };
        let routes = config.routing.routes.iter().map(|route| route.topic.as_str());
        let topics = Topics::new(routes, config.dead_letter_topic.as_deref(), config.max_record_bytes);
        let known = config.topics.iter().filter_map(|topic| Some((topic.name.clone(), TopicId::parse(&topic.id)?)));
        let topic_ids = Arc::new(known.collect());
        Ok(Self { program: Arc::new(program), redis, topics, topic_ids, metrics })
    }

    fn start(
        self,
        config: &ProcessorConfig,
        context: &EngineContext,
    ) -> Result<(Vec<JoinHandle<()>>, Vec<CallClock>), EngineError> {
        let (notices, from_lanes) = channel();
        let mut threads = Vec::new();
        let mut clocks = Vec::new();
        let mut ports = Vec::new();
        for index in 0..config.lanes as usize {
            let clock = CallClock::new();
            let (commands, receiver) = channel();
            let load = Arc::<LaneLoad>::default();
            let ends = LaneEnds { commands: receiver, notices: notices.clone(), load: load.clone() };
            let lane = self.lane(LaneId(index), config, context, ends, clock.clone());
            threads.push(spawn(format!("lane-{index}"), move || lane.run())?);
            clocks.push(clock);
            ports.push(LanePort { commands, load });
        }
        let clock = CallClock::new();
        let base = client_config(&context.kafka, context.kafka_credentials.as_ref());
        let consumer = Consumer::new(&consumer_config(base, &config.group)).map_err(|error| kafka(&error))?;
        consumer.subscribe(config.topics.iter().map(|topic| topic.name.as_str())).map_err(|error| kafka(&error))?;
        let driver = Driver {
            consumer,
            lanes: ports,
            notices: from_lanes,
            limits: HandLimits { records: 2 * config.max_batch_records as usize, bytes: 2 * batch_bytes(config) },
            topic_ids: self.topic_ids,
            clock: clock.clone(),
            metrics: self.metrics,
            health: context.health.register("consumer", CONSUMER_SILENCE, Some("Assignment")),
            shutdown: context.shutdown.clone(),
        };
        threads.push(spawn("consumer".to_owned(), move || driver.run())?);
        clocks.push(clock);
        Ok((threads, clocks))
    }

    fn lane(
        &self,
        id: LaneId,
        config: &ProcessorConfig,
        context: &EngineContext,
        ends: LaneEnds,
        clock: CallClock,
    ) -> Lane {
        let transactional_id = format!("{}{}/{}", config.transactional_id_prefix, context.pod, id.0);
        let base = client_config(&context.kafka, context.kafka_credentials.as_ref());
        let limits = ProducerLimits {
            max_record_bytes: config.max_record_bytes,
            queue_bytes: batch_bytes(config) as u64 + PRODUCER_ROOM,
        };
        let cache = &config.lookup_cache;
        let cache = Cache::new(
            usize::try_from(cache.max_bytes).unwrap_or(usize::MAX),
            Duration::from_millis(cache.ttl_milliseconds),
        );
        let lookups = Lookups::new(cache, self.redis.clone(), self.metrics.clone());
        let max_record_bytes = self.topics.max_record_bytes;
        Lane {
            id,
            commands: ends.commands,
            notices: ends.notices,
            load: ends.load,
            limits: BatchLimits {
                records: config.max_batch_records as usize,
                bytes: batch_bytes(config),
                interval: Duration::from_millis(config.commit_interval_milliseconds.into()),
            },
            steps: Steps::new(self.program.clone(), lookups, max_record_bytes),
            transactor: Transactor::new(
                producer_config(base, &transactional_id, limits),
                self.topics.clone(),
                clock,
                self.metrics.clone(),
            ),
            topic_ids: self.topic_ids.clone(),
            metrics: self.metrics.clone(),
            health: context.health.register(format!("lane {}", id.0), LANE_SILENCE, Some("TransactionalProducer")),
        }
    }
}

/// Bytes at which a lane's batch closes: two batches of each lane together stay below the configured maximum of one, so
/// that memory does not grow with lanes. A single record may be larger.
fn batch_bytes(config: &ProcessorConfig) -> usize {
    let share = config.max_batch_bytes / (2 * u64::from(config.lanes.max(1)));
    usize::try_from(share.max(SMALLEST_BATCH.min(config.max_batch_bytes))).unwrap_or(usize::MAX)
}

fn lookup_client(context: &EngineContext) -> Result<BlockingLookup, EngineError> {
    let (endpoint, credentials) =
        context.redis.as_ref().ok_or_else(|| failed("RedisMissing", "lookups need a `redis` section"))?;
    let user = credentials.clone().map(|user| RedisUser { name: user.username, password: user.password });
    let settings = RedisSettings::with_user(endpoint, user).map_err(|error| failed("Redis", error.to_string()))?;
    let client =
        LookupClient::new(settings, LookupLimits::default()).map_err(|error| failed("Redis", error.to_string()))?;
    BlockingLookup::start(client).map_err(|error| failed("Thread", error.to_string()))
}

fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, EngineError> {
    std::thread::Builder::new().name(name).spawn(body).map_err(|error| failed("Thread", error.to_string()))
}

fn failed(category: &'static str, message: impl Into<String>) -> EngineError {
    EngineError { category, message: message.into() }
}

fn kafka(error: &sluice_clients::kafka::error::KafkaError) -> EngineError {
    failed("Kafka", error.to_string())
}
