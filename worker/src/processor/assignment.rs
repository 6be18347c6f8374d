//! Who owns what: the pure state machine between the group, the lanes and the offsets.
//!
//! ```text
//!             Assign            Located                Rewind (lane aborted, or a result is unknown)
//!  (nothing) ───────► Locating ─────────► Running ─────────► Rewinding ──Located──► Running (new lease)
//!                        │ no committed      │ Stall, offset lost
//!                        ▼ offset            ▼
//!                     Stalled ◄──────────────┘   Revoke, from anywhere: Releasing until the lane let go, then unassign
//! ```
//! Rules that must never break:
//! - a partition is unassigned only after its lane has let go of it: else a lane could commit what somebody else owns;
//! - a lease begins at an offset the broker told as committed after the last lease ended, never at one from memory;
//! - no committed offset means waiting and saying so, never a guess;
//! - librdkafka is given a partition with the offset to read from, not before: one without a start would stop its
//!   fetcher, and a stopped one refuses to be moved (`__STATE`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sluice_clients::kafka::admin::TopicPartition;

use super::lease::{Incarnation, Lease, SharedLease, lane_of};

/// A lane that has not let go after this time is stuck: the process starts anew.
pub const RELEASE_DEADLINE: Duration = Duration::from_secs(30);
/// Time between two questions for committed offsets that could not be had.
const LOCATE_PAUSE: Duration = Duration::from_millis(300);
/// The longest of these times; each is twice the one before.
const LONGEST_LOCATE_PAUSE: Duration = Duration::from_secs(5);
/// Time between two questions for an offset that nobody has committed.
const STALL_RECHECK: Duration = Duration::from_secs(10);
/// A partition that could not be moved so many times in a row has a fetcher that has stopped. Taking it out of the
/// assignment and in again would start it, but also answer a rebalance that is under way and not polled yet.
const MOST_REFUSED_SEEKS: u32 = 6;

/// Why a partition stands still until somebody does something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StallReason {
    /// The group has no committed offset for it, or one that the topic does not hold any more.
    OffsetsLost,
    /// A record cannot be processed and there is no dead-letter topic.
    PoisonedRecord,
    /// The topic is not the one the configuration was made for.
    TopicReplaced,
}

impl StallReason {
    /// CamelCase word for logs and metrics.
    pub fn category(self) -> &'static str {
        match self {
            Self::OffsetsLost => "OffsetsLost",
            Self::PoisonedRecord => "PoisonedRecord",
            Self::TopicReplaced => "TopicReplaced",
        }
    }
}

/// What the broker told of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The committed offset.
    At(i64),
    /// Nothing is committed.
    Nothing,
    /// The committed offset belongs to another topic of the same name.
    OtherTopic,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The group gives these.
    Assign(Vec<TopicPartition>),
    /// The group takes these.
    Revoke(Vec<TopicPartition>),
    /// Answers to [`Effect::Locate`]: partitions that the broker could not tell are left out, and asked for again.
    Located(Vec<(TopicPartition, Found)>),
    /// The broker could not say anything; ask again.
    LocateFailed,
    /// [`Effect::Seek`] failed for this lease.
    SeekFailed(TopicPartition, Incarnation),
    /// A lane has let go of a lease.
    Released(TopicPartition, Incarnation),
    /// A lane dropped the work of a lease: start over from the committed offset.
    Rewind(TopicPartition, Incarnation),
    /// A partition cannot go on.
    Stall(TopicPartition, Incarnation, StallReason),
    /// The position does not exist in the topic.
    OffsetLost(TopicPartition),
    /// Time passes.
    Tick,
}

/// What to do.
#[derive(Debug)]
pub enum Effect {
    /// Ask the broker for the committed offsets of these.
    Locate(Vec<TopicPartition>),
    /// Take these from these offsets on.
    Assign(Vec<(TopicPartition, i64)>),
    /// Move an assigned partition there, and read it.
    Seek(TopicPartition, i64),
    /// Tell the lane to let go; it answers with [`Event::Released`].
    Release(SharedLease),
    /// Give these back: all of them have been taken.
    Unassign(Vec<TopicPartition>),
    /// Say that a partition stands still.
    Stalled(TopicPartition, StallReason),
    /// Nothing but a fresh process gets on from here.
    Reexec(&'static str),
}

#[derive(Debug)]
enum Phase {
    /// Assigned by the group, its offset not known yet.
    Locating,
    Running(SharedLease),
    Rewinding,
    Stalled(StallReason, Option<SharedLease>),
}

#[derive(Debug)]
struct Revocation {
    partitions: Vec<TopicPartition>,
    waiting: BTreeMap<TopicPartition, Incarnation>,
    deadline: Instant,
}

/// The state.
#[derive(Debug)]
pub struct Assignment {
    lanes: usize,
    next_incarnation: u64,
    phases: BTreeMap<TopicPartition, Phase>,
    /// Partitions that librdkafka was given and has not given back.
    given: BTreeSet<TopicPartition>,
    /// Partitions of an `Assign` not answered yet. librdkafka waits for one answer to each rebalance.
    answering: Option<Vec<TopicPartition>>,
    revocations: Vec<Revocation>,
    locate_at: Option<Instant>,
    /// Questions in a row that left something open.
    unanswered: u32,
    /// Seeks in a row that failed.
    refused_seeks: BTreeMap<TopicPartition, u32>,
    recheck_at: Option<Instant>,
}

impl Assignment {
    /// Nothing assigned.
    pub fn new(lanes: usize) -> Self {
        Self {
            lanes,
            next_incarnation: 1,
            phases: BTreeMap::new(),
            given: BTreeSet::new(),
            answering: None,
            revocations: Vec::new(),
            locate_at: None,
            unanswered: 0,
            refused_seeks: BTreeMap::new(),
            recheck_at: None,
        }
    }

    /// The lease under which records of this partition may be handed out now.
    pub fn running(&self, partition: &TopicPartition) -> Option<&SharedLease> {
        match self.phases.get(partition) {
            Some(Phase::Running(lease)) => Some(lease),
            _ => None,
        }
    }

    /// All running leases.
    pub fn leases(&self) -> impl Iterator<Item = &SharedLease> {
        self.phases.values().filter_map(|phase| match phase {
            Phase::Running(lease) => Some(lease),
            _ => None,
        })
    }

    /// Partitions by the reason for which they stand still.
    pub fn stalled(&self) -> impl Iterator<Item = (&TopicPartition, StallReason)> {
        self.phases.iter().filter_map(|(partition, phase)| match phase {
            Phase::Stalled(reason, _) => Some((partition, *reason)),
            _ => None,
        })
    }

    /// Number of partitions whose committed offset nobody has told yet.
    pub fn waiting(&self) -> usize {
        self.phases.values().filter(|phase| matches!(phase, Phase::Locating | Phase::Rewinding)).count()
    }

    /// Number of partitions owned.
    pub fn len(&self) -> usize {
        self.phases.len()
    }

    /// Whether none is owned.
    pub fn is_empty(&self) -> bool {
        self.phases.is_empty()
    }

    /// Whether something waits for a lane or a broker: poll in short steps.
    pub fn is_busy(&self) -> bool {
        !self.revocations.is_empty() || self.locate_at.is_some()
    }

    /// Takes an event, gives what to do, in order.
    pub fn on(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        match event {
            Event::Assign(partitions) => self.assign(partitions),
            Event::Revoke(partitions) => self.revoke(partitions, now),
            Event::Located(found) => self.located(found, now),
            Event::LocateFailed => {
                self.ask_later(now);
                Vec::new()
            }
            Event::SeekFailed(partition, incarnation) => self.seek_failed(&partition, incarnation, now),
            Event::Released(partition, incarnation) => self.released(&partition, incarnation),
            Event::Rewind(partition, incarnation) => {
                self.refused_seeks.remove(&partition);
                self.rewind(&partition, incarnation, now)
            }
            Event::Stall(partition, incarnation, reason) => self.stall(&partition, Some(incarnation), reason, now),
            Event::OffsetLost(partition) => self.stall(&partition, None, StallReason::OffsetsLost, now),
            Event::Tick => self.tick(now),
        }
    }

    fn assign(&mut self, partitions: Vec<TopicPartition>) -> Vec<Effect> {
        if partitions.is_empty() {
            return vec![Effect::Assign(Vec::new())];
        }
        for partition in &partitions {
            self.phases.insert(partition.clone(), Phase::Locating);
        }
        self.answering = Some(partitions);
        vec![Effect::Locate(self.to_locate())]
    }

    fn revoke(&mut self, partitions: Vec<TopicPartition>, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut waiting = BTreeMap::new();
        for partition in &partitions {
            self.refused_seeks.remove(partition);
            let Some(Phase::Running(lease) | Phase::Stalled(_, Some(lease))) = self.phases.remove(partition) else {
                continue;
            };
            lease.end();
            waiting.insert(partition.clone(), lease.incarnation);
            effects.push(Effect::Release(lease));
        }
        // An assignment not answered yet loses these; the answer to the revocation is the answer.
        if let Some(answering) = &mut self.answering {
            answering.retain(|partition| !partitions.contains(partition));
            if answering.is_empty() {
                self.answering = None;
            }
        }
        self.revocations.push(Revocation { partitions, waiting, deadline: now + RELEASE_DEADLINE });
        effects.extend(self.finish_revocations());
        effects
    }

    fn released(&mut self, partition: &TopicPartition, incarnation: Incarnation) -> Vec<Effect> {
        for revocation in &mut self.revocations {
            if revocation.waiting.get(partition) == Some(&incarnation) {
                revocation.waiting.remove(partition);
            }
        }
        self.finish_revocations()
    }

    fn finish_revocations(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        let given = &mut self.given;
        self.revocations.retain_mut(|revocation| {
            if revocation.waiting.is_empty() {
                // An empty list is an answer too; librdkafka refuses a list with a partition that it does not have.
                let partitions = std::mem::take(&mut revocation.partitions);
                effects.push(Effect::Unassign(partitions.into_iter().filter(|one| given.remove(one)).collect()));
            }
            !revocation.waiting.is_empty()
        });
        effects
    }

    fn located(&mut self, found: Vec<(TopicPartition, Found)>, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut starts = Vec::new();
        for (partition, found) in found {
            match self.phases.get(&partition) {
                Some(Phase::Locating | Phase::Rewinding | Phase::Stalled(_, None)) => {}
                _ => continue, // revoked meanwhile
            }
            let offset = match found {
                Found::At(offset) => offset,
                Found::Nothing | Found::OtherTopic => {
                    let reason =
                        if found == Found::Nothing { StallReason::OffsetsLost } else { StallReason::TopicReplaced };
                    let told = matches!(self.phases.get(&partition), Some(Phase::Stalled(..)));
                    self.phases.insert(partition.clone(), Phase::Stalled(reason, None));
                    self.recheck_at = Some(now + STALL_RECHECK);
                    if !told {
                        effects.push(Effect::Stalled(partition, reason));
                    }
                    continue;
                }
            };
            let lease = self.lease(partition.clone(), offset);
            self.phases.insert(partition.clone(), Phase::Running(lease));
            if self.given.insert(partition.clone()) {
                starts.push((partition, offset));
            } else {
                effects.push(Effect::Seek(partition, offset));
            }
        }
        // What is known begins: the others do not hold it up, and librdkafka fetches nothing until it is answered.
        if self.answering.take().is_some() || !starts.is_empty() {
            effects.push(Effect::Assign(starts));
        }
        if self.to_locate().is_empty() {
            self.locate_at = None;
            self.unanswered = 0;
        } else {
            self.ask_later(now);
        }
        effects
    }

    /// Sets the time of the next question: later each time, as long as something is open.
    fn ask_later(&mut self, now: Instant) {
        self.locate_at = Some(now + pause(self.unanswered));
        self.unanswered += 1;
    }

    fn seek_failed(&mut self, partition: &TopicPartition, incarnation: Incarnation, now: Instant) -> Vec<Effect> {
        if self.running(partition).is_none_or(|lease| lease.incarnation != incarnation) {
            return Vec::new();
        }
        let refused = self.refused_seeks.entry(partition.clone()).or_default();
        *refused += 1;
        let refused = *refused;
        if refused >= MOST_REFUSED_SEEKS {
            return vec![Effect::Reexec("SeekRefused")];
        }
        let effects = self.rewind(partition, incarnation, now);
        self.locate_at = Some(now + pause(refused));
        effects
    }

    fn lease(&mut self, partition: TopicPartition, start: i64) -> SharedLease {
        let incarnation = Incarnation(self.next_incarnation);
        self.next_incarnation += 1;
        let lane = lane_of(&partition, self.lanes);
        Lease::new(partition, incarnation, lane, start)
    }

    fn rewind(&mut self, partition: &TopicPartition, incarnation: Incarnation, now: Instant) -> Vec<Effect> {
        match self.phases.get(partition) {
            // A partition that stands still has good records before the bad one: they are done anew.
            Some(Phase::Running(lease) | Phase::Stalled(StallReason::PoisonedRecord, Some(lease)))
                if lease.incarnation == incarnation =>
            {
                lease.end();
            }
            _ => return Vec::new(), // of an older lease
        }
        self.phases.insert(partition.clone(), Phase::Rewinding);
        // Several leases of a batch rewind at once: one question for all, at the next tick.
        self.locate_at.get_or_insert(now);
        Vec::new()
    }

    fn stall(
        &mut self,
        partition: &TopicPartition,
        incarnation: Option<Incarnation>,
        reason: StallReason,
        now: Instant,
    ) -> Vec<Effect> {
        let Some(Phase::Running(lease)) = self.phases.get(partition) else { return Vec::new() };
        if incarnation.is_some_and(|incarnation| incarnation != lease.incarnation) {
            return Vec::new();
        }
        // The lease stays with the lane for what came before the trouble; a revoke releases it.
        let lease = lease.clone();
        self.phases.insert(partition.clone(), Phase::Stalled(reason, Some(lease)));
        if reason == StallReason::OffsetsLost {
            self.recheck_at = Some(now + STALL_RECHECK);
        }
        vec![Effect::Stalled(partition.clone(), reason)]
    }

    fn tick(&mut self, now: Instant) -> Vec<Effect> {
        if self.revocations.iter().any(|revocation| revocation.deadline <= now) {
            return vec![Effect::Reexec("LaneDoesNotLetGo")];
        }
        let mut ask = Vec::new();
        if self.locate_at.is_some_and(|at| at <= now) {
            self.locate_at = None;
            ask = self.to_locate();
        }
        if self.recheck_at.is_some_and(|at| at <= now) {
            let lost = |(partition, phase): (&TopicPartition, &Phase)| {
                matches!(phase, Phase::Stalled(_, None)).then(|| partition.clone())
            };
            let before = ask.len();
            ask.extend(self.phases.iter().filter_map(lost));
            // Also if this question is not answered.
            self.recheck_at = (ask.len() > before).then_some(now + STALL_RECHECK);
        }
        if ask.is_empty() { Vec::new() } else { vec![Effect::Locate(ask)] }
    }

    fn to_locate(&self) -> Vec<TopicPartition> {
        let wanted = |(partition, phase): (&TopicPartition, &Phase)| {
            matches!(phase, Phase::Locating | Phase::Rewinding).then(|| partition.clone())
        };
        self.phases.iter().filter_map(wanted).collect()
    }
}

/// The time until the next question, after so many that were in vain.
fn pause(before: u32) -> Duration {
    (LOCATE_PAUSE * 2_u32.pow(before.min(10))).min(LONGEST_LOCATE_PAUSE)
}

#[cfg(test)]
#[path = "assignment_tests.rs"]
mod tests;
