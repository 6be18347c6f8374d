//! What the sweeps know, and what they look at.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use sluice_clients::kafka::admin::TopicPartition;
use sluice_crds::names::{Kind, ResourceId, TopicName};
use sluice_crds::v1alpha1::LagStatus;
use tokio::sync::mpsc;

use super::lag::{Debounced, PartitionLag};
use super::monitors::Foreign;
use super::sums::{Granted, Sums, TopicLag};
use crate::claims::Claimant;
use crate::controller::build::TopicFacts;
use crate::controller::validated::{ValidatedResource, WorkerAccess};
use crate::settings::{ConnectionName, KafkaConnection, LagMonitor, RedisConnection};

/// A resource to look at again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Trigger {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl From<&Claimant> for Trigger {
    fn from(claimant: &Claimant) -> Self {
        Self { kind: claimant.kind, namespace: claimant.namespace.clone(), name: claimant.name.clone() }
    }
}

/// The way to the reconcile loops of both kinds.
#[derive(Clone, Debug)]
pub struct Triggers {
    event_pipelines: mpsc::Sender<Trigger>,
    cache_syncs: mpsc::Sender<Trigger>,
}

/// Triggers under way at the same time; more wait for room.
const TRIGGER_ROOM: usize = 1_024;

impl Triggers {
    /// Triggers and, by kind, where they come out.
    pub fn new() -> (Self, mpsc::Receiver<Trigger>, mpsc::Receiver<Trigger>) {
        let (event_pipelines, pipelines) = mpsc::channel(TRIGGER_ROOM);
        let (cache_syncs, syncs) = mpsc::channel(TRIGGER_ROOM);
        (Self { event_pipelines, cache_syncs }, pipelines, syncs)
    }

    /// Asks for a reconcile; waits for room.
    pub async fn send(&self, trigger: Trigger) {
        let sender = match trigger.kind {
            Kind::EventPipeline => &self.event_pipelines,
            Kind::CacheSync => &self.cache_syncs,
        };
        // Only fails when the loop has ended, at shutdown.
        let _ = sender.send(trigger).await;
    }
}

/// A group to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupTarget {
    /// Its name.
    pub group: String,
    /// Topics it consumes and their partitions.
    pub topics: BTreeMap<String, i32>,
}

/// An applier to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewTarget {
    /// Its group.
    pub group: GroupTarget,
    /// Epoch its workers must have.
    pub epoch: u64,
}

/// What to look at for one resource.
#[derive(Clone, Debug)]
pub struct Target {
    /// Whose it is.
    pub claimant: Claimant,
    /// Topics its groups consume, as they were when it was reconciled: id and partitions.
    pub topics: BTreeMap<String, (String, i32)>,
    /// Where its groups are.
    pub kafka: Arc<KafkaConnection>,
    /// Its processor's group.
    pub processor: Option<GroupTarget>,
    /// Its applier.
    pub applier: Option<ViewTarget>,
    /// Where its Redis user is, and its name.
    pub redis: Option<(Arc<RedisConnection>, String)>,
    /// True when its workers log in to Kafka with a user that we made.
    pub kafka_user: bool,
    /// True when no worker runs with an earlier configuration, which may have had users of ours.
    pub settled: bool,
}

impl Target {
    /// Of a resource whose topics are known.
    pub fn of(
        claimant: Claimant,
        resource: &ValidatedResource,
        facts: &BTreeMap<TopicName, TopicFacts>,
        epoch: u64,
        settled: bool,
    ) -> Self {
        let group = |group: String, topics: BTreeSet<&TopicName>| {
            let partitions = |topic: &TopicName| Some((topic.to_string(), facts.get(topic)?.partitions));
            GroupTarget { group, topics: topics.into_iter().filter_map(partitions).collect() }
        };
        let processor = resource.processor.as_ref();
        let applier = resource.applier.as_ref();
        let consumed: BTreeSet<&TopicName> =
            processor.iter().flat_map(|processor| &processor.sources).chain(resource.view_topics()).collect();
        let known =
            |topic: &TopicName| facts.get(topic).map(|fact| (topic.to_string(), (fact.id.clone(), fact.partitions)));
        let redis = resource.redis.as_ref().filter(|redis| redis.access == WorkerAccess::Generated);
        let redis = redis.and_then(|redis| redis.connection());
        Self {
            claimant,
            topics: consumed.into_iter().filter_map(known).collect(),
            kafka: Arc::clone(&resource.kafka.connection),
            processor: processor.map(|p| group(p.group.to_string(), p.sources.iter().collect())),
            applier: applier.map(|a| ViewTarget { group: group(a.group.to_string(), resource.view_topics()), epoch }),
            redis: redis.map(|redis| (Arc::clone(redis), resource.id.redis_user().to_string())),
            kafka_user: resource.kafka.access == WorkerAccess::Generated,
            settled,
        }
    }
}

/// How far views are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ViewProgress {
    /// Partitions of all view topics.
    pub partitions: usize,
    /// Those whose views show (nearly) the end of the topic, under the current epoch.
    pub caught_up: usize,
    /// Those with slots that are being re-materialised.
    pub rebuilding: usize,
}

/// A partition whose worker says that it stands still until a person changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StalledPartition {
    /// Where.
    pub partition: TopicPartition,
    /// The record that cannot be processed.
    pub offset: i64,
    /// When the worker said so, Unix milliseconds by its clock.
    pub at: u64,
}

impl StalledPartition {
    /// True when both speak of the same record, whenever they do.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (&self.partition, self.offset) == (&other.partition, other.offset)
    }
}

/// A partition of a view topic that nobody read for so long that tombstones may have gone unread, by what its worker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissedDeletions {
    /// Where.
    pub partition: TopicPartition,
    /// Epoch of the views that may show too much.
    pub epoch: u64,
}

/// What the last rounds found about a resource.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) lag: Debounced<i64>,
    pub(super) views: Debounced<ViewProgress>,
    /// The first of its partitions that stand still.
    pub(super) stalled: Option<StalledPartition>,
    /// Status shows it.
    pub(super) stall_shown: bool,
    /// The first of its partitions whose deletions may have been missed.
    pub(super) missed: Option<MissedDeletions>,
}

/// State of the sweeps, shared with reconciles and metrics.
#[derive(Debug)]
pub struct Board {
    triggers: Triggers,
    state: Mutex<State>,
}

/// What is behind the lock.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) targets: HashMap<String, Target>,
    pub(super) seen: HashMap<String, Seen>,
    /// Lag of every partition looked at, for metrics: group, topic, partition.
    pub(super) lags: BTreeMap<(String, String, i32), PartitionLag>,
    /// The same of groups that are not ours, by connection.
    pub(super) foreign: BTreeMap<ConnectionName, Foreign>,
    /// Lag of whole topics, for those who scale by it.
    pub(super) sums: Sums,
    /// Resources that exist, and their uids.
    alive: HashMap<Trigger, String>,
    /// Rounds in which orphans are looked for, because a resource went: in two, as only what is one twice is removed.
    orphan_rounds: u8,
}

impl State {
    /// True when the resource exists.
    fn knows(&self, claimant: &Claimant) -> bool {
        self.alive.get(&Trigger::from(claimant)) == Some(&claimant.uid)
    }
}

impl Board {
    /// An empty board.
    pub fn new(triggers: Triggers) -> Self {
        Self { triggers, state: Mutex::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The way to the reconcile loops.
    pub fn triggers(&self) -> &Triggers {
        &self.triggers
    }

    /// Looks at a resource from now on, if it still exists: the reconcile that says so may be older than its deletion.
    pub fn register(&self, target: Target) {
        let mut state = self.lock();
        if !state.knows(&target.claimant) {
            return;
        }
        let epoch = |target: &Target| target.applier.as_ref().map(|applier| applier.epoch);
        let uid = target.claimant.uid.clone();
        let before = state.targets.get(&uid).and_then(epoch);
        if before.is_some() && before != epoch(&target) {
            // What was shown was shown of views that are rebuilt now.
            state.seen.entry(uid.clone()).or_default().views.clear();
        }
        let uses_fewer = target.settled && !(target.kafka_user && target.redis.is_some());
        let was_settled = state.targets.insert(uid, target).is_some_and(|before| before.settled);
        if uses_fewer && !was_settled {
            // It may have had users before its workers were replaced.
            state.orphan_rounds = 2;
        }
    }

    /// Notes that a resource exists.
    pub fn born(&self, trigger: Trigger, uid: String) {
        self.lock().alive.insert(trigger, uid);
    }

    /// True when this very resource exists, not only one of its name.
    pub fn is_known(&self, claimant: &Claimant) -> bool {
        self.lock().knows(claimant)
    }

    /// Forgets a resource.
    pub fn gone(&self, uid: &str, trigger: &Trigger) {
        let mut state = self.lock();
        state.targets.remove(uid);
        state.seen.remove(uid);
        if state.alive.get(trigger).is_some_and(|alive| alive == uid) {
            state.alive.remove(trigger);
        }
        state.orphan_rounds = 2;
    }

    /// True when a resource has just gone, and what it left shall be looked for in this round.
    pub(super) fn take_orphan_round(&self) -> bool {
        let mut state = self.lock();
        let due = state.orphan_rounds > 0;
        state.orphan_rounds = state.orphan_rounds.saturating_sub(1);
        due
    }

    /// Keeps only these of a kind: what a fresh listing brought.
    pub fn keep_only(&self, kind: Kind, listed: &HashMap<Trigger, String>) {
        let mut state = self.lock();
        state.alive.retain(|trigger, uid| trigger.kind != kind || listed.get(trigger) == Some(uid));
        state.targets.retain(|uid, target| {
            target.claimant.kind != kind || listed.get(&Trigger::from(&target.claimant)) == Some(uid)
        });
        let State { targets, seen, .. } = &mut *state;
        seen.retain(|uid, _| targets.contains_key(uid));
    }

    /// True when the resource that a name speaks of exists.
    pub fn is_alive(&self, id: &ResourceId) -> bool {
        let trigger = Trigger { kind: id.kind, namespace: id.namespace.to_string(), name: id.name.to_string() };
        self.lock().alive.contains_key(&trigger)
    }

    /// True when the resource exists and none of its workers has a user of ours on Kafka.
    pub(super) fn has_no_kafka_user(&self, id: &ResourceId) -> bool {
        self.target(id).is_some_and(|target| target.settled && !target.kafka_user)
    }

    /// The same for Redis.
    pub(super) fn has_no_redis_user(&self, id: &ResourceId) -> bool {
        self.target(id).is_some_and(|target| target.settled && target.redis.is_none())
    }

    fn target(&self, id: &ResourceId) -> Option<Target> {
        let trigger = Trigger { kind: id.kind, namespace: id.namespace.to_string(), name: id.name.to_string() };
        let state = self.lock();
        state.targets.get(state.alive.get(&trigger)?).cloned()
    }

    /// Lag of a resource in coarse steps.
    pub fn lag(&self, uid: &str) -> Option<LagStatus> {
        let seconds = self.lock().seen.get(uid)?.lag.published()?;
        Some(LagStatus { seconds })
    }

    /// The first partition that stands still, by what its worker says.
    pub fn stalled(&self, uid: &str) -> Option<StalledPartition> {
        self.lock().seen.get(uid)?.stalled.clone()
    }

    /// Notes whether status shows that partition. What workers say while they are rolled out is not believed: until it is shown,
    /// every later word on it is told again.
    pub fn note_stall_shown(&self, uid: &str, shown: bool) {
        if let Some(seen) = self.lock().seen.get_mut(uid) {
            seen.stall_shown = shown;
        }
    }

    /// The first partition of the views of this epoch whose deletions may have been missed.
    pub fn missed_deletions(&self, uid: &str, epoch: u64) -> Option<TopicPartition> {
        let state = self.lock();
        let missed = state.seen.get(uid)?.missed.as_ref()?;
        (missed.epoch == epoch).then(|| missed.partition.clone())
    }

    /// How far a resource's views are; none = no worker has said so under the current epoch.
    pub fn views(&self, uid: &str) -> Option<ViewProgress> {
        self.lock().seen.get(uid)?.views.published()
    }

    /// `kafka_consumer_lag` and `kafka_consumer_lag_seconds` in the text format of Prometheus.
    pub fn encode_lag(&self, out: &mut String) {
        let state = self.lock();
        let foreign = state.foreign.values().flat_map(|foreign| &foreign.lags);
        // One of ours that a monitor names as well is shown once.
        let others = foreign.filter(|(at, _)| !state.lags.contains_key(at));
        let lags: BTreeMap<_, _> = state.lags.iter().chain(others).collect();
        gauge(
            out,
            "kafka_consumer_lag",
            "Records between a group's committed offset and the end of the partition",
            |lag| lag.records,
            &lags,
        );
        let help = "Seconds since the partition's end passed a group's committed offset";
        gauge(out, "kafka_consumer_lag_seconds", help, |lag| lag.seconds, &lags);
    }

    /// Groups and topics that this namespace may know the lag of: of its own resources, and of the monitors that list it.
    pub fn granted<'a>(
        &self,
        namespace: &str,
        monitors: impl Iterator<Item = &'a Arc<LagMonitor>>,
    ) -> BTreeSet<Granted> {
        let state = self.lock();
        let own = state.targets.values().filter(|target| target.claimant.namespace == namespace).flat_map(|target| {
            let topics =
                super::kafka::groups_of(target).flat_map(|group| group.topics.keys().map(move |t| (&group.group, t)));
            topics.map(|(group, topic)| Granted::new(&target.kafka.name, group, topic)).collect::<Vec<_>>()
        });
        let foreign = monitors.filter(|monitor| monitor.namespaces.iter().any(|granted| granted.as_str() == namespace));
        let foreign = foreign.flat_map(|monitor| {
            let topics = monitor.topics.iter();
            topics.map(|topic| Granted::new(&monitor.connection, monitor.group.as_str(), topic.as_str()))
        });
        own.chain(foreign).collect()
    }

    /// What was last found of these, if that was since `oldest` (Unix milliseconds).
    pub fn topic_lags(&self, wanted: impl IntoIterator<Item = Granted>, oldest: i64) -> Vec<TopicLag> {
        let state = self.lock();
        wanted.into_iter().map(|granted| state.sums.of(granted, oldest)).collect()
    }
}

/// One metric of all partitions.
fn gauge(
    out: &mut String,
    name: &str,
    help: &str,
    value: impl Fn(&PartitionLag) -> i64,
    lags: &BTreeMap<&(String, String, i32), &PartitionLag>,
) {
    use std::fmt::Write as _;
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}.\n# TYPE {name} gauge");
    for ((group, topic, partition), lag) in lags {
        let (group, topic) = (escaped(group), escaped(topic));
        let _ = writeln!(out, "{name}{{topic=\"{topic}\",group=\"{group}\",partition=\"{partition}\"}} {}", value(lag));
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::test_support::{PIPELINE, facts, pipeline};

    #[test]
    fn only_a_resource_that_exists_is_looked_at() {
        let board = Board::new(Triggers::new().0);
        let resource = pipeline(PIPELINE).unwrap();
        let who = |uid: &str| Claimant {
            created: 1,
            uid: uid.to_owned(),
            kind: Kind::EventPipeline,
            namespace: "shop".to_owned(),
            name: "enrich".to_owned(),
        };
        let register = |uid: &str| {
            board.register(Target::of(who(uid), &resource, &facts(&resource), 1, true));
            board.lock().targets.len()
        };
        let trigger = Trigger::from(&who("old"));
        board.born(trigger.clone(), "old".to_owned());
        assert_eq!(register("old"), 1);
        board.gone("old", &trigger);
        assert_eq!(register("old"), 0, "a reconcile that was under way when it went");
        board.born(trigger.clone(), "new".to_owned());
        assert_eq!(register("old"), 0);
        assert_eq!(register("new"), 1);
        board.gone("old", &trigger);
        assert!(board.is_known(&who("new")), "a late word on the old one");
        board.keep_only(Kind::EventPipeline, &[(trigger, "newest".to_owned())].into());
        assert!(board.lock().targets.is_empty() && !board.is_known(&who("new")));
    }

    #[test]
    fn users_go_when_no_worker_has_them_any_more() {
        let board = Board::new(Triggers::new().0);
        let generated = pipeline(PIPELINE).unwrap();
        let provided = "spec:\n  kafka: {access: {mode: Provided, secretRef: {name: mine}}}\n  \
                        redis: {access: {mode: Provided, secretRef: {name: mine}}}\n";
        let provided = pipeline(&PIPELINE.replacen("spec:\n", provided, 1)).unwrap();
        let who = Claimant {
            created: 1,
            uid: "u".to_owned(),
            kind: Kind::EventPipeline,
            namespace: "shop".to_owned(),
            name: "enrich".to_owned(),
        };
        let without = || (board.has_no_kafka_user(&generated.id), board.has_no_redis_user(&generated.id));
        let register = |resource: &ValidatedResource, settled| {
            board.register(Target::of(who.clone(), resource, &facts(resource), 1, settled));
            (without(), board.take_orphan_round())
        };
        board.born(Trigger::from(&who), "u".to_owned());
        assert_eq!(without(), (false, false), "not looked at yet");
        assert_eq!(register(&generated, true), ((false, false), false));
        assert_eq!(register(&provided, false), ((false, false), false), "its workers still have them");
        assert_eq!(register(&provided, true), ((true, true), true), "looked for at once");
        board.take_orphan_round();
        assert_eq!(register(&provided, true), ((true, true), false), "and then as seldom as ever");
        assert_eq!(register(&generated, false), ((false, false), false), "the next ones have them again");
    }
}
