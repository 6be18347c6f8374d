//! A batch after its steps → transactions. What fails is tried again, taken apart, set aside, or given back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use sluice_clients::kafka::error::ErrorCode;
use sluice_crds::report::{PartitionReport, Stall};

use super::transact::{Attempt, Offsets};
use super::{Lane, Notice, State, unix_millis};
use crate::processor::assignment::StallReason;
use crate::processor::lease::{Incarnation, SharedLease};
use crate::processor::metrics::{OutcomeLabel, reason};
use crate::processor::progress::{Done, Progress};
use crate::processor::work::{EndMark, Escalation, Outcome, Still, Work, done, escalate, refused, skip_void};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What one transaction commits, by lease.
type Dones = BTreeMap<Incarnation, (SharedLease, Done)>;

impl Lane {
    /// Commits all of `work`, in as few transactions as Kafka lets, or gives it back.
    pub(super) fn settle(
        &mut self,
        state: &mut State,
        work: &mut [Work],
        ends: &BTreeMap<Incarnation, EndMark>,
        busy: Duration,
    ) {
        if self.transactor.topics().dead_letter.is_none() {
            self.stall_dead_letters(state, work);
        }
        let mut ranges = VecDeque::new();
        ranges.push_back(0..work.len());
        while let Some(range) = ranges.pop_front() {
            // Ends come after all records: they go with the last transaction.
            let none = BTreeMap::new();
            let ends = if ranges.is_empty() { ends } else { &none };
            match self.settle_range(state, &mut work[range.clone()], ends, busy) {
                Settled::Done => {}
                Settled::TakeApart => {
                    let (left, right) = halves(range);
                    ranges.push_front(right);
                    ranges.push_front(left);
                }
                Settled::Again => ranges.push_front(range),
                Settled::GivenBack => {
                    self.give_back(state, work[range.start..].iter().map(|one| one.item.lease.clone()));
                    return;
                }
            }
        }
    }

    fn settle_range(
        &mut self,
        state: &mut State,
        work: &mut [Work],
        ends: &BTreeMap<Incarnation, EndMark>,
        busy: Duration,
    ) -> Settled {
        let mut pause = FIRST_PAUSE;
        loop {
            skip_void(work, &state.still);
            let dones = with_ends(done(work, busy), ends, &state.still);
            if dones.is_empty() {
                return Settled::Done;
            }
            let Some(group) = state.group.clone() else { return Settled::GivenBack };
            let offsets = offsets(state, &dones);
            match self.transactor.attempt(work, &offsets, &group) {
                Attempt::Committed(produced) => {
                    self.health.held_up(None);
                    self.committed(state, work, &dones, produced);
                    return Settled::Done;
                }
                Attempt::Aborted(error) => {
                    self.say(state, "transaction aborted, trying again", &error);
                    self.health.tick();
                    self.health.held_up(Some("Transaction"));
                    if self.load.is_asked() {
                        return Settled::GivenBack;
                    }
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Attempt::Rewind(error) => {
                    tracing::info!(lane = self.id.0, %error, "starting over from the committed offsets");
                    return Settled::GivenBack;
                }
                Attempt::Refused(culprits, error) => {
                    tracing::warn!(lane = self.id.0, %error, records = work.len(), "the brokers refuse a record");
                    return self.isolate(state, work, &culprits, error.code());
                }
            }
        }
    }

    /// One known culprit is set aside; an unknown one is searched by taking the batch apart.
    fn isolate(
        &mut self,
        state: &mut State,
        work: &mut [Work],
        culprits: &[usize],
        code: Option<ErrorCode>,
    ) -> Settled {
        let culprits: BTreeSet<usize> = culprits.iter().copied().collect();
        let live: Vec<usize> = (0..work.len()).filter(|index| work[*index].outcome != Outcome::Skip).collect();
        let culprit = match (culprits.len(), culprits.first(), live.as_slice()) {
            (1, Some(one), _) if *one < work.len() => *one,
            (_, _, [one]) => *one,
            // Brokers refuse whole batches of records, so all of them are under suspicion.
            _ => return Settled::TakeApart,
        };
        let has_topic = self.transactor.topics().dead_letter.is_some();
        let letter = refused(code, work[culprit].item.record.key().is_some());
        if escalate(&mut work[culprit].outcome, letter, has_topic) == Escalation::StandStill {
            self.stall(state, work, culprit);
        }
        Settled::Again
    }

    /// Without a dead-letter topic, a record that cannot be processed stops its partition.
    fn stall_dead_letters(&mut self, state: &mut State, work: &[Work]) {
        for index in 0..work.len() {
            let incarnation = work[index].item.lease.incarnation;
            // The first one counts: what comes after it in the partition is not reached.
            if matches!(work[index].outcome, Outcome::DeadLetter(_)) && !state.still.contains_key(&incarnation) {
                self.stall(state, work, index);
            }
        }
    }

    fn stall(&mut self, state: &mut State, work: &[Work], index: usize) {
        let lease = work[index].item.lease.clone();
        let offset = work[index].item.record.offset();
        let cause = match &work[index].outcome {
            Outcome::DeadLetter(letter) | Outcome::Stub(letter) => letter.reason.as_str(),
            _ => "TooLarge",
        };
        tracing::error!(
            topic = lease.partition.topic,
            partition = lease.partition.partition,
            offset,
            cause,
            "a record cannot be processed and there is no dead-letter topic: the partition stands still"
        );
        state.still.insert(lease.incarnation, offset);
        state.gather.drop_lease(lease.incarnation);
        self.tell(Notice::Stall(lease.partition.clone(), lease.incarnation, StallReason::PoisonedRecord));
    }

    fn committed(&mut self, state: &mut State, work: &[Work], dones: &Dones, produced: u64) {
        let (now, unix) = (Instant::now(), unix_millis());
        for (incarnation, (_, done)) in dones {
            if let Some(progress) = state.progress.get_mut(incarnation) {
                progress.advance(done, state.still.get(incarnation).copied(), now);
            }
        }
        self.metrics.outputs.inc_by(produced);
        // One look-up of a metric for each label, not for each record.
        let mut outcomes: BTreeMap<&'static str, u64> = BTreeMap::new();
        for one in work {
            let Some(outcome) = one.outcome.label() else { continue };
            *outcomes.entry(outcome).or_default() += 1;
            if let Outcome::DeadLetter(letter) | Outcome::Stub(letter) = &one.outcome {
                self.metrics.dead_letters.get_or_create(&reason(letter.reason.as_str())).inc();
            }
            if let Some(millis) = one.item.record.timestamp().and_then(|millis| u64::try_from(millis).ok()) {
                self.metrics.latency_seconds.observe(unix.saturating_sub(millis) as f64 / 1000.0);
            }
        }
        for (outcome, count) in outcomes {
            self.metrics.records.get_or_create(&OutcomeLabel { outcome }).inc_by(count);
        }
    }

    /// Drops work that is not committed; its leases start over.
    pub(super) fn give_back(&mut self, state: &mut State, leases: impl Iterator<Item = SharedLease>) {
        // The membership was stale or the outcome is unknown: nothing this lane holds may be committed with it.
        let held = state.progress.values().map(|progress| progress.lease.clone());
        let told: BTreeMap<Incarnation, SharedLease> =
            held.chain(leases).map(|lease| (lease.incarnation, lease)).collect();
        for (incarnation, lease) in told {
            state.gather.drop_lease(incarnation);
            state.progress.remove(&incarnation);
            state.still.remove(&incarnation);
            state.given_back.insert(incarnation);
            self.tell(Notice::Rewind(lease.partition.clone(), incarnation));
        }
        state.group = None;
    }

    /// Commits the position of partitions that had no commit for a while, so that reports stay fresh.
    pub(super) fn commit_idle(&mut self, state: &mut State) {
        let now = Instant::now();
        let is_due = |progress: &&Progress| {
            let stands_still = state.still.contains_key(&progress.lease.incarnation);
            progress.is_due(stands_still, now) && !progress.lease.has_ended()
        };
        let dones: Dones = state
            .progress
            .values()
            .filter(is_due)
            .map(|progress| {
                // Everything before the record that stops a partition is committed by now.
                let still_at = state.still.get(&progress.lease.incarnation).copied().unwrap_or(0);
                let done = Done { position: progress.committed.max(still_at), ..Done::default() };
                (progress.lease.incarnation, (progress.lease.clone(), done))
            })
            .collect();
        let Some(group) = state.group.clone().filter(|_| !dones.is_empty()) else { return };
        let offsets = offsets(state, &dones);
        match self.transactor.attempt(&[], &offsets, &group) {
            Attempt::Committed(_) => self.committed(state, &[], &dones, 0),
            Attempt::Aborted(error) | Attempt::Refused(_, error) => {
                self.say(state, "cannot refresh the reports of idle partitions", &error);
                std::thread::sleep(FIRST_PAUSE);
            }
            Attempt::Rewind(error) => {
                tracing::info!(lane = self.id.0, %error, "starting over from the committed offsets");
                self.give_back(state, std::iter::empty());
            }
        }
    }
}

enum Settled {
    /// Committed, or nothing left to commit.
    Done,
    /// Do it in halves.
    TakeApart,
    /// Do it again.
    Again,
    /// Dropped: start over.
    GivenBack,
}

fn halves(range: Range<usize>) -> (Range<usize>, Range<usize>) {
    let middle = range.start + range.len() / 2;
    (range.start..middle, middle..range.end)
}

/// Adds ends of partitions whose lease runs and that do not stand still; an end is never before the records.
fn with_ends(mut dones: Dones, ends: &BTreeMap<Incarnation, EndMark>, still: &Still) -> Dones {
    for (incarnation, end) in ends {
        if end.lease.has_ended() || still.contains_key(incarnation) {
            continue;
        }
        let (_, done) = dones.entry(*incarnation).or_insert_with(|| (end.lease.clone(), Done::default()));
        done.position = done.position.max(end.offset);
    }
    dones
}

fn offsets(state: &State, dones: &Dones) -> Offsets {
    let unix = unix_millis();
    let entry = |(incarnation, (lease, done)): (&Incarnation, &(SharedLease, Done))| {
        let report = state.progress.get(incarnation).map(|progress| {
            let stall = state.still.get(incarnation).map(|_| Stall::PoisonedRecord);
            PartitionReport { stall, ..progress.report(done, unix) }.encode()
        });
        (lease.partition.clone(), done.position, report.unwrap_or_default())
    };
    dones.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_cover_the_range() {
        assert_eq!(halves(0..5), (0..2, 2..5));
        assert_eq!(halves(7..9), (7..8, 8..9));
    }
}
