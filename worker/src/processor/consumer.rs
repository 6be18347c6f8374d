//! The consumer thread: polls, hands records to lanes, and does what [`Assignment`] says.
//!
//! Back-pressure: when a lane has two batches in its hands, polling waits for it a moment (what was fetched stays
//! fetched); if that does not help, the lane's partitions are paused until it has room. Never by lag.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;
use sluice_clients::kafka::admin::TopicPartition;
use sluice_clients::kafka::consumer::{Committed, Consumer, GroupMetadata, Polled, Record};
use sluice_clients::kafka::error::{ErrorCode, KafkaError};
use sluice_crds::report::PartitionReport;

use super::TopicIds;
use super::assignment::{Assignment, Effect, Event, Found, StallReason};
use super::lane::{Command, Notice};
use super::lease::{LaneId, SharedLease};
use super::metrics::{LaneLabel, ProcessorMetrics, reason};
use super::watchdog::CallClock;
use super::work::{Item, LaneLoad};
use crate::engine::Shutdown;
use crate::health::HealthHandle;
use crate::reexec;

/// Most records handed out in one go.
const CHUNK: usize = 1000;
/// Time-out of a poll that finds nothing, when nothing else is going on.
const POLL: Duration = Duration::from_millis(50);
/// The same while a lane or a broker is waited for.
const BUSY_POLL: Duration = Duration::from_millis(5);
/// How long polling waits for a full lane before it pauses partitions: longer than a usual commit, since a pause throws
/// away what was fetched ahead.
const LANE_PATIENCE: Duration = Duration::from_millis(250);
/// Time-out of a question for committed offsets. Longer ones would keep the consumer from polling.
const LOCATE: Duration = Duration::from_secs(2);
const SEEK: Duration = Duration::from_secs(2);
/// How often lanes get a fresh membership, for commits of idle partitions.
const MEMBERSHIP: Duration = Duration::from_secs(5);
/// What giving everything back may take at the end.
const LEAVE: Duration = Duration::from_secs(15);
const CLOSE: Duration = Duration::from_secs(5);

/// The consumer's end of a lane.
pub struct LanePort {
    /// Commands.
    pub commands: Sender<Command>,
    /// What it has in its hands.
    pub load: Arc<LaneLoad>,
}

/// How much a lane may have in its hands.
#[derive(Clone, Copy, Debug)]
pub struct HandLimits {
    /// Records.
    pub records: usize,
    /// Bytes.
    pub bytes: usize,
}

impl HandLimits {
    fn are_reached(self, load: &LaneLoad, share: f64) -> bool {
        let (records, bytes) = load.now();
        records as f64 >= self.records as f64 * share || bytes as f64 >= self.bytes as f64 * share
    }
}

/// What the consumer thread is made of.
pub struct Driver {
    /// The consumer, subscribed.
    pub consumer: Consumer,
    /// Lanes by index.
    pub lanes: Vec<LanePort>,
    /// Notices of all lanes.
    pub notices: Receiver<Notice>,
    /// Bounds.
    pub limits: HandLimits,
    /// Topic ids by name, where they are known.
    pub topic_ids: TopicIds,
    /// Watches its blocking calls.
    pub clock: CallClock,
    /// Metrics.
    pub metrics: ProcessorMetrics,
    /// Probes.
    pub health: HealthHandle,
    /// The stop signal.
    pub shutdown: Shutdown,
}

/// What the driver remembers.
struct State {
    assignment: Assignment,
    /// Leases by topic token and partition; forgotten whenever the assignment changes.
    routes: HashMap<(usize, i32), Option<SharedLease>>,
    /// Lanes that take no more for now.
    full: BTreeSet<LaneId>,
    /// Partitions that librdkafka has.
    assigned: BTreeSet<TopicPartition>,
    /// Partitions of them that are not read. librdkafka remembers a pause over unassign and assign, so a new one counts
    /// as paused until it is resumed.
    paused: BTreeSet<TopicPartition>,
    /// Something changed that decides who is read.
    stale: bool,
    group: Option<(Arc<GroupMetadata>, Instant)>,
    leaving: Option<Instant>,
}

impl Driver {
    /// Runs until everything is given back after the stop signal.
    pub fn run(self) {
        let mut state = State {
            assignment: Assignment::new(self.lanes.len()),
            routes: HashMap::new(),
            full: BTreeSet::new(),
            assigned: BTreeSet::new(),
            paused: BTreeSet::new(),
            stale: false,
            group: None,
            leaving: None,
        };
        while !self.has_left(&mut state) {
            self.health.tick();
            while let Ok(notice) = self.notices.try_recv() {
                self.notice(&mut state, notice);
            }
            self.event(&mut state, Event::Tick);
            self.balance(&mut state);
            self.poll(&mut state);
            self.refresh_membership(&mut state);
        }
        for lane in &self.lanes {
            let _ = lane.commands.send(Command::Stop);
        }
        self.clock.watch(CLOSE, || match self.consumer.close() {
            Ok(()) => tracing::info!("left the group"),
            Err(error) => tracing::warn!(%error, "cannot leave the group cleanly"),
        });
    }

    /// Begins to leave on the stop signal; true when nothing is left to give back.
    fn has_left(&self, state: &mut State) -> bool {
        if !self.shutdown.is_raised() {
            return false;
        }
        let Some(since) = state.leaving else {
            state.leaving = Some(Instant::now());
            if let Err(error) = self.consumer.unsubscribe() {
                tracing::warn!(%error, "cannot unsubscribe");
            }
            return state.assignment.is_empty();
        };
        if since.elapsed() > LEAVE {
            tracing::warn!("not everything could be given back in time");
        }
        (state.assignment.is_empty() && !state.assignment.is_busy()) || since.elapsed() > LEAVE
    }

    fn poll(&self, state: &mut State) {
        let timeout = if state.assignment.is_busy() || state.leaving.is_some() { BUSY_POLL } else { POLL };
        let mut chunks: Vec<(SharedLease, Vec<Item>)> = Vec::new();
        let mut next = self.consumer.poll(timeout);
        let mut count = 0;
        while let Some(polled) = next {
            match polled {
                Polled::Record(record) => {
                    if self.sort(state, &mut chunks, record) {
                        break;
                    }
                }
                other => {
                    // Everything polled before must reach the lanes before it.
                    self.hand_out(state, &mut chunks);
                    self.other(state, other);
                }
            }
            count += 1;
            next = if count < CHUNK { self.consumer.poll(Duration::ZERO) } else { None };
        }
        self.hand_out(state, &mut chunks);
    }

    /// Puts a record to the others of its lease; one without a running lease is dropped: it will be read again. True
    /// when its lane takes no more.
    fn sort(&self, state: &mut State, chunks: &mut Vec<(SharedLease, Vec<Item>)>, record: Record) -> bool {
        let route = (record.topic_token(), record.partition());
        let assignment = &state.assignment;
        let lease = state
            .routes
            .entry(route)
            .or_insert_with(|| assignment.running(&TopicPartition::new(record.topic(), record.partition())).cloned());
        let Some(lease) = lease else { return false };
        let load = &self.lanes[lease.lane.0].load;
        let item = Item::new(lease.clone(), record, load.clone());
        let is_full = self.limits.are_reached(load, 1.0);
        match chunks.last_mut() {
            Some((last, items)) if last.incarnation == lease.incarnation => items.push(item),
            _ => match chunks.iter_mut().find(|(other, _)| other.incarnation == lease.incarnation) {
                Some((_, items)) => items.push(item),
                None => chunks.push((lease.clone(), vec![item])),
            },
        }
        is_full
    }

    fn hand_out(&self, state: &mut State, chunks: &mut Vec<(SharedLease, Vec<Item>)>) {
        if chunks.is_empty() {
            return;
        }
        // Taken after the records and before the next poll: while these partitions are ours.
        let Some(group) = self.membership(state) else {
            for (lease, _) in chunks.drain(..) {
                self.event(state, Event::Rewind(lease.partition.clone(), lease.incarnation));
            }
            return;
        };
        for (lease, items) in chunks.drain(..) {
            let _ = self.lanes[lease.lane.0].commands.send(Command::Records(items, group.clone()));
        }
    }

    fn membership(&self, state: &mut State) -> Option<Arc<GroupMetadata>> {
        match self.consumer.group_metadata() {
            Ok(group) => {
                let group = Arc::new(group);
                state.group = Some((group.clone(), Instant::now()));
                Some(group)
            }
            Err(error) => {
                tracing::info!(%error, "records polled without a membership are read again");
                None
            }
        }
    }

    /// Lanes without new records commit too, now and then: with a membership that is not older than a few seconds.
    fn refresh_membership(&self, state: &mut State) {
        let fresh = state.group.as_ref().is_some_and(|(_, at)| at.elapsed() < MEMBERSHIP);
        if fresh || state.assignment.is_busy() || state.assignment.leases().next().is_none() {
            return;
        }
        if let Some(group) = self.membership(state) {
            for lane in &self.lanes {
                let _ = lane.commands.send(Command::Membership(group.clone()));
            }
        }
    }

    fn other(&self, state: &mut State, polled: Polled) {
        match polled {
            // `poll` sorts records.
            Polled::Record(_) => {}
            Polled::End { partition, offset } => {
                let Some(lease) = state.assignment.running(&partition).cloned() else { return };
                let Some(group) = self.membership(state) else { return };
                let _ = self.lanes[lease.lane.0].commands.send(Command::End(lease, offset, group));
            }
            Polled::Assign(partitions) => {
                tracing::info!(partitions = partitions.len(), "assigned");
                self.metrics.rebalances.get_or_create(&reason("Assign")).inc();
                self.event(state, Event::Assign(partitions));
            }
            Polled::Revoke { partitions, lost } => {
                tracing::info!(partitions = partitions.len(), lost, "revoked");
                self.metrics.rebalances.get_or_create(&reason(if lost { "Lost" } else { "Revoke" })).inc();
                self.event(state, Event::Revoke(partitions));
            }
            Polled::PartitionError { partition, code } => self.partition_error(state, partition, code),
            Polled::Trouble { code, fatal, message } => {
                tracing::warn!(%code, fatal, message, "consumer trouble");
                if fatal {
                    reexec::now("FatalConsumerError");
                }
            }
        }
    }

    fn partition_error(&self, state: &mut State, partition: TopicPartition, code: ErrorCode) {
        let (topic, number) = (partition.topic.clone(), partition.partition);
        match code.0 {
            RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::NoOffset => {
                self.event(state, Event::OffsetLost(partition));
            }
            // librdkafka goes on trying by itself.
            _ => tracing::warn!(topic, partition = number, %code, "a partition cannot be read now"),
        }
    }

    fn notice(&self, state: &mut State, notice: Notice) {
        let event = match notice {
            Notice::Released(partition, incarnation) => Event::Released(partition, incarnation),
            Notice::Rewind(partition, incarnation) => Event::Rewind(partition, incarnation),
            Notice::Stall(partition, incarnation, why) => Event::Stall(partition, incarnation, why),
        };
        self.event(state, event);
    }

    /// Gives an event to the state machine and does what it says, until it says nothing more.
    fn event(&self, state: &mut State, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let changes = !matches!(event, Event::Tick);
            for effect in state.assignment.on(event, Instant::now()) {
                events.extend(self.effect(state, effect));
            }
            if changes {
                state.stale = true;
                state.routes.clear();
                self.metrics.partitions.set(i64::try_from(state.assignment.len()).unwrap_or(i64::MAX));
                self.gauge_stalls(state);
            }
        }
    }

    fn effect(&self, state: &mut State, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Locate(partitions) => return Some(self.locate(&partitions)),
            Effect::Assign(starts) => {
                let offsets = starts.iter().map(|(partition, offset)| (partition, *offset));
                if let Err(error) = self.consumer.incremental_assign(offsets) {
                    tracing::error!(%error, "cannot assign");
                    reexec::now("AssignFailed");
                }
                for (partition, _) in starts {
                    state.paused.insert(partition.clone());
                    state.assigned.insert(partition);
                }
                self.health.ready();
            }
            Effect::Seek(partition, offset) => return self.seek(state, &partition, offset),
            Effect::Release(lease) => {
                let lane = &self.lanes[lease.lane.0];
                lane.load.ask_release();
                let _ = lane.commands.send(Command::Release(lease));
            }
            Effect::Unassign(partitions) => {
                if let Err(error) = self.consumer.incremental_unassign(&partitions) {
                    tracing::error!(%error, "cannot give partitions back");
                    reexec::now("UnassignFailed");
                }
                for partition in &partitions {
                    state.assigned.remove(partition);
                    state.paused.remove(partition);
                }
            }
            Effect::Stalled(partition, why) => tracing::error!(
                topic = partition.topic,
                partition = partition.partition,
                reason = why.category(),
                "a partition stands still"
            ),
            Effect::Reexec(why) => reexec::now(why),
        }
        None
    }

    fn locate(&self, partitions: &[TopicPartition]) -> Event {
        match self.clock.watch(LOCATE, || self.consumer.committed(partitions, LOCATE)) {
            Ok(answers) => {
                let mut found = Vec::new();
                for one in answers {
                    match one.error {
                        None => found.push((one.partition.clone(), self.found(&one))),
                        Some(code) => {
                            let (topic, partition) = (one.partition.topic, one.partition.partition);
                            tracing::warn!(topic, partition, %code, "no committed offset told, asking again");
                        }
                    }
                }
                if found.is_empty() { Event::LocateFailed } else { Event::Located(found) }
            }
            Err(error) => {
                tracing::info!(%error, "committed offsets are not to be had yet");
                Event::LocateFailed
            }
        }
    }

    /// A committed offset counts if it belongs to the topic that the configuration was made for.
    fn found(&self, committed: &Committed) -> Found {
        let told = PartitionReport::parse(&committed.metadata).ok().and_then(|report| report.topic_id);
        let ours = self.topic_ids.get(&committed.partition.topic);
        match committed.offset {
            None => Found::Nothing,
            Some(_) if told.is_some_and(|told| ours.is_some_and(|ours| *ours != told)) => Found::OtherTopic,
            Some(offset) => Found::At(offset),
        }
    }

    /// Moves a partition and reads it again. If that fails its new lease is given up, and asked for again.
    fn seek(&self, state: &mut State, partition: &TopicPartition, offset: i64) -> Option<Event> {
        let lease = state.assignment.running(partition)?.clone();
        let moved = self.clock.watch(SEEK, || self.consumer.seek([(partition, offset)], SEEK));
        if let Err(error) = moved {
            tracing::warn!(%error, topic = partition.topic, partition = partition.partition, "cannot seek yet");
            return Some(Event::SeekFailed(partition.clone(), lease.incarnation));
        }
        None
    }

    /// Pauses what goes to full lanes, resumes what goes to lanes with room again.
    fn balance(&self, state: &mut State) {
        let began = Instant::now();
        while self.full_lanes(1.0).any(|lane| !state.full.contains(&lane)) && began.elapsed() < LANE_PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        let full: BTreeSet<LaneId> = self.full_lanes(1.0).collect();
        let half_full: BTreeSet<LaneId> = self.full_lanes(0.5).collect();
        // A lane that was full is so until it has half its room again.
        let full: BTreeSet<LaneId> =
            half_full.into_iter().filter(|lane| full.contains(lane) || state.full.contains(lane)).collect();
        if full != state.full {
            state.full = full;
            state.stale = true;
        }
        self.pause_and_resume(state);
        for (index, lane) in self.lanes.iter().enumerate() {
            let label = LaneLabel { lane: index as u64 };
            let (records, _) = lane.load.now();
            self.metrics.in_flight.get_or_create(&label).set(i64::try_from(records).unwrap_or(i64::MAX));
        }
    }

    fn full_lanes(&self, share: f64) -> impl Iterator<Item = LaneId> {
        let limits = self.limits;
        let full = self.lanes.iter().enumerate().filter(move |(_, lane)| limits.are_reached(&lane.load, share));
        full.map(|(index, _)| LaneId(index))
    }

    /// Reads what has a running lease and a lane with room, and nothing else.
    fn pause_and_resume(&self, state: &mut State) {
        if !std::mem::take(&mut state.stale) {
            return;
        }
        let State { assignment, full, assigned, paused, .. } = state;
        let is_read = |partition: &&TopicPartition| {
            assignment.running(partition).is_some_and(|lease| !full.contains(&lease.lane))
        };
        let (read, idle): (Vec<&TopicPartition>, Vec<&TopicPartition>) = assigned.iter().partition(is_read);
        let resume: Vec<TopicPartition> = read.into_iter().filter(|one| paused.contains(*one)).cloned().collect();
        let pause: Vec<TopicPartition> = idle.into_iter().filter(|one| !paused.contains(*one)).cloned().collect();
        if !pause.is_empty() {
            match self.consumer.pause(&pause) {
                Ok(()) => paused.extend(pause),
                Err(error) => Self::repeat(&mut state.stale, "pause", &error),
            }
        }
        if !resume.is_empty() {
            match self.consumer.resume(&resume) {
                Ok(()) => state.paused.retain(|one| !resume.contains(one)),
                Err(error) => Self::repeat(&mut state.stale, "resume", &error),
            }
        }
    }

    fn repeat(stale: &mut bool, call: &'static str, error: &KafkaError) {
        *stale = true;
        tracing::warn!(call, %error, "cannot change what is read, trying again");
    }

    fn gauge_stalls(&self, state: &State) {
        for why in [StallReason::OffsetsLost, StallReason::PoisonedRecord, StallReason::TopicReplaced] {
            let count = state.assignment.stalled().filter(|(_, reason)| *reason == why).count();
            self.metrics.stalled.get_or_create(&reason(why.category())).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let waiting = i64::try_from(state.assignment.waiting()).unwrap_or(i64::MAX);
        self.metrics.stalled.get_or_create(&reason("OffsetsUnknown")).set(waiting);
    }
}
