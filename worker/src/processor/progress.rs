//! What has been done on each partition since its lease began, and the report that says so. Pure.

use std::time::{Duration, Instant};

use sluice_crds::report::{PartitionReport, TopicId};

use super::lease::SharedLease;

/// A partition without a commit for this long gets one, so that its report stays fresh.
pub const IDLE_COMMIT: Duration = Duration::from_secs(15);

/// Progress of one lease.
#[derive(Debug)]
pub struct Progress {
    /// The lease.
    pub lease: SharedLease,
    /// Next offset to read: everything before is committed.
    pub committed: i64,
    since_millis: u64,
    records: u64,
    busy: Duration,
    dead_letters: u64,
    last_timestamp: Option<u64>,
    topic_id: Option<TopicId>,
    last_commit: Instant,
    /// A commit has said at which record the partition stands still.
    stall_told: bool,
}

/// What one transaction did for one lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Next offset to read after it.
    pub position: i64,
    /// Source records.
    pub records: u64,
    /// Of them dead letters.
    pub dead_letters: u64,
    /// Largest timestamp seen, Unix milliseconds.
    pub last_timestamp: Option<u64>,
    /// Time spent.
    pub busy: Duration,
}

impl Progress {
    /// A lease that begins.
    pub fn new(lease: SharedLease, topic_id: Option<TopicId>, now: Instant, unix_millis: u64) -> Self {
        Self {
            committed: lease.start,
            lease,
            since_millis: unix_millis,
            records: 0,
            busy: Duration::ZERO,
            dead_letters: 0,
            last_timestamp: None,
            topic_id,
            last_commit: now,
            stall_told: false,
        }
    }

    /// The report as it will be when `done` is committed.
    pub fn report(&self, done: &Done, unix_millis: u64) -> PartitionReport {
        PartitionReport {
            since: self.since_millis,
            at: unix_millis,
            records: self.records + done.records,
            busy_micros: micros(self.busy + done.busy),
            last_timestamp: done.last_timestamp.max(self.last_timestamp),
            dead_letters: self.dead_letters + done.dead_letters,
            topic_id: self.topic_id,
            ..PartitionReport::default()
        }
    }

    /// `done` is committed; with it, that the partition stands still, if it does at an offset.
    pub fn advance(&mut self, done: &Done, still_at: Option<i64>, now: Instant) {
        self.committed = done.position;
        self.records += done.records;
        self.busy += done.busy;
        self.dead_letters += done.dead_letters;
        self.last_timestamp = done.last_timestamp.max(self.last_timestamp);
        self.last_commit = now;
        // A position before the record (markers lie between them) names another one.
        self.stall_told |= still_at.is_some_and(|at| done.position >= at);
    }

    /// Whether it needs a commit for its report alone: the last one has grown old, or does not say yet that the partition
    /// stands still. Nothing else would: no record of such a partition is committed any more.
    pub fn is_due(&self, stands_still: bool, now: Instant) -> bool {
        let is_old = now.saturating_duration_since(self.last_commit) >= IDLE_COMMIT;
        is_old || (stands_still && !self.stall_told)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use sluice_clients::kafka::admin::TopicPartition;

    use super::super::lease::{Incarnation, LaneId, Lease};
    use super::*;

    #[test]
    fn reports_grow_only_by_what_is_committed() {
        let now = Instant::now();
        let lease = Lease::new(TopicPartition::new("in", 0), Incarnation(1), LaneId(0), 10);
        let mut progress = Progress::new(lease, None, now, 1000);
        let done = Done {
            position: 15,
            records: 5,
            dead_letters: 1,
            last_timestamp: Some(900),
            busy: Duration::from_micros(70),
        };
        let report = progress.report(&done, 2000);
        assert_eq!((report.since, report.at, report.records, report.busy_micros), (1000, 2000, 5, 70));
        assert_eq!(progress.committed, 10, "not committed yet");
        assert_eq!(progress.report(&done, 2000), report, "an aborted attempt leaves no trace");
        progress.advance(&done, None, now);
        assert_eq!(progress.committed, 15);
        let idle = Done { position: 15, ..Done::default() };
        let report = progress.report(&idle, 3000);
        assert_eq!((report.records, report.dead_letters, report.last_timestamp), (5, 1, Some(900)));
    }

    #[test]
    fn due_after_a_while_and_at_once_when_it_stands_still() {
        let now = Instant::now();
        let lease = Lease::new(TopicPartition::new("in", 0), Incarnation(1), LaneId(0), 0);
        let mut progress = Progress::new(lease, None, now, 0);
        assert!(!progress.is_due(false, now) && progress.is_due(false, now + IDLE_COMMIT));
        progress.advance(&Done::default(), None, now + IDLE_COMMIT);
        assert!(!progress.is_due(false, now + IDLE_COMMIT));
        assert!(progress.is_due(true, now + IDLE_COMMIT));
        progress.advance(&Done { position: 7, ..Done::default() }, Some(8), now + IDLE_COMMIT);
        assert!(progress.is_due(true, now + IDLE_COMMIT), "another record would be named");
        progress.advance(&Done { position: 8, ..Done::default() }, Some(8), now + IDLE_COMMIT);
        assert!(!progress.is_due(true, now + IDLE_COMMIT), "said once, then like every other report");
        assert!(progress.is_due(true, now + 2 * IDLE_COMMIT));
    }
}
