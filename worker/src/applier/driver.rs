//! The thin IO around the engine: effects become calls, answers become events. Decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use redis::Pipeline;
use sluice_clients::kafka::admin::Admin;
use sluice_clients::kafka::config::client_config;
use sluice_clients::redis::{Answer, Links, Lost, NodeId, RedisFault, Topology, only};
use sluice_crds::names::WatermarkKeys;
use sluice_crds::report::TopicId;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::engine::{
    Apply, Effect, Engine, EngineSettings, Event, LineId, Now, OpenError, Outcome, PartitionId, Stats, StopReason,
};
use super::metrics::{ApplierMetrics, CauseLabel};
use super::redis::{By, Looked, Opener, Scripts, read_outcome};
use super::source::{Command, Mode, SourceHandle, SourceSettings, Told, spawn};
use crate::engine::{EngineError, Shutdown};
use crate::failpoint;
use crate::health::HealthHandle;

/// Time passes for the engine in steps of this.
const TICK: Duration = Duration::from_millis(100);
/// Longest time to open a shard, its passes over all slots included.
const OPEN: Duration = Duration::from_secs(20);
/// Longest wait for the description of the topics, and the pause before the next attempt.
const TOPICS: Duration = Duration::from_secs(10);
const TOPICS_PAUSE: Duration = Duration::from_secs(1);
/// What sources may have told that was not taken yet.
const TOLD: usize = 256;
/// Between two reminders of what does not heal by itself.
const REMIND: Duration = Duration::from_secs(30);
/// Longest wait for scripts on their way and for the group, when stopping.
const FINISH: Duration = Duration::from_secs(8);

/// What the driver works with.
pub struct DriverSettings {
    /// For the engine.
    pub engine: EngineSettings,
    /// Names of the topics, in the configuration's order.
    pub topics: Vec<String>,
    /// For the source of the group.
    pub main: SourceSettings,
    /// For the source of repairs.
    pub repair: SourceSettings,
    /// Connections to Redis.
    pub links: Arc<Links>,
    /// Names of the hashes of records.
    pub keys: WatermarkKeys,
    /// Probes.
    pub health: HealthHandle,
    /// Metrics.
    pub metrics: ApplierMetrics,
    /// When to stop.
    pub shutdown: Shutdown,
}

/// What tasks share.
struct Shared {
    links: Arc<Links>,
    keys: WatermarkKeys,
    scripts: Scripts,
    looked: Looked,
    topics: Vec<String>,
    metrics: ApplierMetrics,
    kafka: ClientConfig,
    done: mpsc::UnboundedSender<Event>,
}

/// The running applier.
pub struct Driver {
    engine: Engine,
    shared: Arc<Shared>,
    main: SourceHandle,
    repair: SourceHandle,
    topology: Option<Arc<Topology>>,
    health: HealthHandle,
    shutdown: Shutdown,
    started: Instant,
    /// Scripts on their way.
    in_flight: usize,
    assigned: bool,
    partitions: BTreeMap<PartitionId, i64>,
    seen: Stats,
    causes: (Vec<&'static str>, Vec<&'static str>),
    reminded: Option<Instant>,
}

/// Runs until shutdown, or until a client is of no use any more.
pub async fn drive(settings: DriverSettings) -> Result<(), EngineError> {
    let (tell, mut told) = mpsc::channel(TOLD);
    // Bounded by what is asked for: a script a partition and shard, an opening a shard, a map.
    let (done, mut answers) = mpsc::unbounded_channel();
    let kafka = client_config(&settings.main.kafka, settings.main.credentials.as_ref());
    let start = |source, mode| {
        spawn(source, mode, tell.clone()).map_err(|error| EngineError { category: "Kafka", message: error.to_string() })
    };
    let (main, repair) = (start(settings.main, Mode::Group)?, start(settings.repair, Mode::Repair)?);
    let mut driver = Driver {
        engine: Engine::new(settings.engine),
        shared: Arc::new(Shared {
            links: settings.links,
            keys: settings.keys,
            scripts: Scripts::default(),
            looked: Looked::default(),
            topics: settings.topics,
            metrics: settings.metrics,
            kafka,
            done,
        }),
        main,
        repair,
        topology: None,
        health: settings.health,
        shutdown: settings.shutdown,
        started: Instant::now(),
        in_flight: 0,
        assigned: false,
        partitions: BTreeMap::new(),
        seen: Stats::default(),
        causes: (Vec::new(), Vec::new()),
        reminded: None,
    };
    let outcome = driver.run(&mut told, &mut answers).await;
    driver.finish(&mut told, &mut answers).await;
    outcome
}

impl Driver {
    async fn run(
        &mut self,
        told: &mut mpsc::Receiver<Told>,
        answers: &mut mpsc::UnboundedReceiver<Event>,
    ) -> Result<(), EngineError> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shutdown = self.shutdown.clone();
        let raised = shutdown.raised();
        tokio::pin!(raised);
        loop {
            tokio::select! {
                biased;
                () = &mut raised => return Ok(()),
                _ = ticks.tick() => {
                    if self.main.is_finished() || self.repair.is_finished() {
                        let message = "a thread that reads view topics ended by itself".to_owned();
                        return Err(EngineError { category: "Kafka", message });
                    }
                    self.handle(Event::Tick);
                    self.observe();
                }
                Some(event) = answers.recv() => self.handle(event),
                Some(told) = told.recv() => self.told(told)?,
            }
        }
    }

    /// The batches in flight end; then the group is left, so that others take over at once.
    async fn finish(&mut self, told: &mut mpsc::Receiver<Told>, answers: &mut mpsc::UnboundedReceiver<Event>) {
        let end = async {
            while self.in_flight > 0 {
                match answers.recv().await {
                    // Its record counts; nothing new is begun.
                    Some(Event::Script { ticket, outcome }) => {
                        self.in_flight -= 1;
                        let commits = self.engine.handle(self.now(), Event::Script { ticket, outcome });
                        drop(commits);
                    }
                    Some(_) => {}
                    None => break,
                }
            }
            for effect in self.engine.handle(self.now(), Event::Tick) {
                if let Effect::Commit(commits) = effect {
                    self.main.send(Command::Commit(commits));
                }
            }
            self.main.send(Command::Shutdown);
            self.repair.send(Command::Shutdown);
            while !(self.main.is_finished() && self.repair.is_finished()) {
                // A source may be waiting for room to tell something.
                let _ = tokio::time::timeout(Duration::from_millis(10), told.recv()).await;
            }
        };
        if tokio::time::timeout(FINISH, end).await.is_err() {
            tracing::warn!("the applier did not finish in order: the group takes over after its session time-out");
        }
    }

    fn told(&mut self, told: Told) -> Result<(), EngineError> {
        match told {
            Told::Event(event) => {
                if let Event::Assigned(partitions) = &event {
                    self.assigned = true;
                    self.partitions.extend(partitions.iter().map(|id| (*id, 0)));
                } else if let Event::Revoked(partitions) = &event {
                    for id in partitions {
                        self.partitions.remove(id);
                    }
                }
                self.handle(event);
            }
            Told::Ends(ends) => {
                for (id, end) in ends {
                    if let Some(known) = self.partitions.get_mut(&id) {
                        *known = end;
                    }
                }
            }
            Told::Trouble { category, message } => tracing::warn!(category, message, "trouble with Kafka"),
            Told::Fatal(message) => return Err(EngineError { category: "Kafka", message }),
        }
        Ok(())
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        // From 1, so that no time is the clock's beginning.
        Now { millis: millis(self.started.elapsed()) + 1, wall_ms: millis(wall) }
    }

    fn handle(&mut self, event: Event) {
        match &event {
            Event::Script { .. } => self.in_flight = self.in_flight.saturating_sub(1),
            Event::Topology(topology) => self.topology = Some(topology.clone()),
            _ => {}
        }
        for effect in self.engine.handle(self.now(), event) {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        let source = |line| match line {
            LineId::Main => &self.main,
            LineId::Repair => &self.repair,
        };
        match effect {
            Effect::AskTopics { request } => {
                let shared = self.shared.clone();
                tokio::spawn(async move {
                    let found = shared.topic_ids().await;
                    let _ = shared.done.send(Event::Topics { request, found });
                });
            }
            Effect::RefreshTopology => {
                let shared = self.shared.clone();
                tokio::spawn(async move {
                    let event = match shared.links.topology().await {
                        Ok(topology) => Event::Topology(topology),
                        Err(fault) => {
                            tracing::debug!(%fault, "no node says who owns which slots");
                            Event::TopologyFailed
                        }
                    };
                    let _ = shared.done.send(event);
                });
            }
            Effect::OpenShard { request, node } => self.open(request, node),
            Effect::Read { reading, offset } => source(reading.line).send(Command::Read { reading, offset }),
            Effect::StopReading { partition, line } => source(line).send(Command::Stop(partition)),
            Effect::Released { partition, line, weight } => source(line).send(Command::Released { partition, weight }),
            Effect::Commit(commits) => self.main.send(Command::Commit(commits)),
            Effect::Apply(apply) => {
                self.in_flight += 1;
                let shared = self.shared.clone();
                tokio::spawn(async move {
                    let event = shared.apply(apply).await;
                    let _ = shared.done.send(event);
                });
            }
            Effect::Stop(reason) => self.stopped(&reason),
        }
    }

    fn open(&self, request: u64, node: NodeId) {
        let (shared, topology) = (self.shared.clone(), self.topology.clone());
        tokio::spawn(async move {
            let event = shared.open(request, node, topology).await;
            let _ = shared.done.send(event);
        });
    }

    fn stopped(&self, reason: &StopReason) {
        tracing::error!(category = reason.category(), %reason, "applying stopped; nothing more is written");
        let label = CauseLabel { cause: reason.category() };
        self.shared.metrics.stopped.get_or_create(&label).set(1.0);
    }

    /// Metrics, probes, and reminders of what does not heal by itself.
    fn observe(&mut self) {
        let metrics = &self.shared.metrics;
        let stats = self.engine.stats().clone();
        metrics.add(&self.seen, &stats);
        self.seen = stats;
        metrics.slots_behind.set(i64::try_from(self.engine.slots_behind()).unwrap_or(i64::MAX));
        metrics.partitions.set(i64::try_from(self.partitions.len()).unwrap_or(i64::MAX));
        let behind =
            self.engine.positions().filter_map(|(id, position)| Some((self.partitions.get(&id)? - position).max(0)));
        metrics.lag.set(behind.sum());
        let unusable: Vec<&'static str> = self.engine.shards().filter_map(|(_, cause)| cause).collect();
        let mut stalled: Vec<&'static str> = self.engine.stalled().map(|(_, _, poison)| poison.category).collect();
        stalled.extend(self.engine.refused().map(|_| "RefusedByRedis"));
        ApplierMetrics::count(&metrics.shards_unusable, &mut self.causes.0, &unusable);
        ApplierMetrics::count(&metrics.stalled, &mut self.causes.1, &stalled);
        self.health.tick();
        self.health.held_up(self.engine.waits_for());
        match self.engine.stopped() {
            Some(reason) => self.health.wait_for(reason.category()),
            None if !self.assigned => self.health.wait_for("Assignment"),
            None => match unusable.iter().find(|cause| matches!(**cause, "CrossSlotScriptsRefused" | "ServerTooOld")) {
                Some(cause) => self.health.wait_for(cause),
                None => self.health.ready(),
            },
        }
        if self.reminded.is_none_or(|at| at.elapsed() >= REMIND) && self.remind(&unusable) {
            self.reminded = Some(Instant::now());
        }
    }

    fn remind(&self, unusable: &[&'static str]) -> bool {
        for (partition, offset, poison) in self.engine.stalled() {
            tracing::error!(%partition, offset, category = poison.category, why = poison.message, "a record cannot be applied; its partition stands");
        }
        for (partition, error) in self.engine.refused() {
            tracing::error!(%partition, error, "redis refuses a mutation; what comes after it on its shard stands");
        }
        for partition in self.engine.missed_deletions() {
            tracing::error!(%partition, "nobody read this partition for so long that deletions may have been missed; keys that should be gone may stay until the operator rebuilds the views");
        }
        if !unusable.is_empty() {
            tracing::warn!(causes = ?unusable, "shards cannot be written");
        }
        if let Some(reason) = self.engine.stopped() {
            tracing::error!(category = reason.category(), %reason, "applying stopped; nothing more is written");
        }
        !unusable.is_empty()
            || self.engine.stopped().is_some()
            || self.engine.stalled().next().is_some()
            || self.engine.refused().next().is_some()
            || self.engine.missed_deletions().next().is_some()
    }
}

impl Shared {
    /// The topics' ids; asked until the brokers say. The client is made for the question: it is a rare one.
    async fn topic_ids(&self) -> Vec<Option<TopicId>> {
        loop {
            let found = match Admin::new(&self.kafka, TOPICS) {
                Ok(admin) => admin.describe_topics(&self.topics).await,
                Err(error) => Err(error),
            };
            let wrong = match found {
                Ok(found) => {
                    let id = |name: &String| match found.get(name) {
                        Some(Ok(topic)) => Ok(topic.as_ref().and_then(|topic| TopicId::parse(topic.id.as_str()))),
                        Some(Err(error)) => Err(error.to_string()),
                        None => Err("no answer".to_owned()),
                    };
                    match self.topics.iter().map(id).collect::<Result<Vec<_>, _>>() {
                        Ok(ids) => return ids,
                        Err(wrong) => wrong,
                    }
                }
                Err(error) => error.to_string(),
            };
            tracing::warn!(wrong, "the ids of the view topics are not known yet");
            tokio::time::sleep(TOPICS_PAUSE).await;
        }
    }

    async fn apply(&self, apply: Apply) -> Event {
        let started = Instant::now();
        let field = self.topics.get(usize::from(apply.partition.topic)).map(String::as_str).unwrap_or_default();
        let field = field_name(field, apply.partition.partition);
        failpoint::hit("before-apply");
        let mut answer = self.call(&apply, By::Hash, &field).await;
        if answer == Err(RedisFault::NoScript) {
            answer = self.call(&apply, By::Text, &field).await;
        }
        failpoint::hit("after-apply");
        let outcome = read_outcome(answer);
        match &outcome {
            Outcome::Applied { .. } => {
                self.metrics.apply_seconds.observe(started.elapsed().as_secs_f64());
                if let Some(timestamp) = apply.batch.newest_timestamp_ms().filter(|timestamp| *timestamp > 0) {
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                    self.metrics.latency_seconds.observe((now.as_secs_f64() - timestamp as f64 / 1_000.0).max(0.0));
                }
            }
            Outcome::Fault(fault) => {
                self.metrics.faults.get_or_create(&CauseLabel { cause: fault.category() }).inc();
                tracing::debug!(%fault, node = %apply.handle.node, "a batch was not applied");
            }
            Outcome::Refused | Outcome::Failed { .. } => {}
        }
        Event::Script { ticket: apply.ticket, outcome }
    }

    /// Sent to the node and on the connection the plan was made with; redirects are never followed.
    async fn call(&self, apply: &Apply, by: By, field: &str) -> Answer {
        let link = self.links.link(&apply.handle.address)?;
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(self.scripts.apply_command(by, apply, field));
        only(link.pipeline_on(apply.handle.generation, &pipeline).await?)
    }

    async fn open(&self, request: u64, node: NodeId, topology: Option<Arc<Topology>>) -> Event {
        let opened = match &topology {
            None => Err(OpenError::Raced),
            Some(topology) => {
                let Self { links, keys, scripts, looked, .. } = self;
                let opener = Opener { links, topology, keys, scripts, looked };
                let late = Err(OpenError::Fault(RedisFault::UnknownOutcome(Lost::TimedOut)));
                tokio::time::timeout(OPEN, opener.open(&node)).await.unwrap_or(late)
            }
        };
        match opened {
            Ok((handle, fields)) => {
                let fields =
                    fields.into_iter().filter_map(|(field, text)| Some((self.partition(&field)?, text))).collect();
                Event::ShardOpened { request, handle: Arc::new(handle), fields }
            }
            Err(error) => {
                tracing::debug!(%error, %node, "a shard cannot be used");
                Event::ShardFailed { request, node, error }
            }
        }
    }

    /// The partition of a field; none when its topic is not ours any more.
    fn partition(&self, field: &str) -> Option<PartitionId> {
        let (topic, partition) = field.rsplit_once(':')?;
        let topic = self.topics.iter().position(|name| name == topic)?;
        Some(PartitionId { topic: u16::try_from(topic).ok()?, partition: partition.parse().ok()? })
    }
}

/// A topic's name holds no colon.
fn field_name(topic: &str, partition: i32) -> String {
    format!("{topic}:{partition}")
}
