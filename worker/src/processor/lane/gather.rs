//! Gathers records and ends of partitions into a batch, and says when it closes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::processor::lease::{Incarnation, SharedLease};
use crate::processor::work::{EndMark, Item};

/// When a batch closes: at the first of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Source records.
    pub records: usize,
    /// Bytes they hold in memory, about.
    pub bytes: usize,
    /// Age of its oldest record.
    pub interval: Duration,
}

/// A closed batch.
#[derive(Debug, Default)]
pub struct Batch {
    /// Records, in order for each lease.
    pub items: Vec<Item>,
    /// Ends of partitions, after the records.
    pub ends: BTreeMap<Incarnation, EndMark>,
}

/// The batch that grows.
#[derive(Debug)]
pub struct Gather {
    limits: BatchLimits,
    batch: Batch,
    bytes: usize,
    opened: Option<Instant>,
}

impl Gather {
    /// An empty batch.
    pub fn new(limits: BatchLimits) -> Self {
        Self { limits, batch: Batch::default(), bytes: 0, opened: None }
    }

    /// Adds records.
    pub fn records(&mut self, items: Vec<Item>, now: Instant) {
        for item in items {
            if item.lease.has_ended() {
                continue;
            }
            self.bytes += item.weight();
            // What was the end has a record after it now.
            self.batch.ends.remove(&item.lease.incarnation);
            self.batch.items.push(item);
            self.opened.get_or_insert(now);
        }
    }

    /// Adds the end of a partition; `committed` is the lease's committed offset. An end that is committed already says
    /// nothing new.
    pub fn end(&mut self, lease: SharedLease, offset: i64, committed: Option<i64>, now: Instant) {
        let pending = self.batch.items.iter().rev().any(|item| item.lease.incarnation == lease.incarnation);
        if lease.has_ended() || (!pending && committed.is_some_and(|committed| committed >= offset)) {
            return;
        }
        self.batch.ends.insert(lease.incarnation, EndMark { lease, offset });
        self.opened.get_or_insert(now);
    }

    /// Drops what belongs to a lease.
    pub fn drop_lease(&mut self, incarnation: Incarnation) {
        self.batch.items.retain(|item| item.lease.incarnation != incarnation);
        self.batch.ends.remove(&incarnation);
        self.bytes = self.batch.items.iter().map(Item::weight).sum();
        if self.batch.items.is_empty() && self.batch.ends.is_empty() {
            self.opened = None;
        }
    }

    /// Whether it takes no more.
    pub fn is_full(&self) -> bool {
        self.batch.items.len() >= self.limits.records || self.bytes >= self.limits.bytes
    }

    /// Time until it closes by age; `None` while it is empty.
    pub fn closes_in(&self, now: Instant) -> Option<Duration> {
        if self.is_full() {
            return Some(Duration::ZERO);
        }
        self.opened.map(|opened| (opened + self.limits.interval).saturating_duration_since(now))
    }

    /// The batch, if it is time.
    pub fn close(&mut self, now: Instant) -> Option<Batch> {
        if self.closes_in(now) != Some(Duration::ZERO) {
            return None;
        }
        self.bytes = 0;
        self.opened = None;
        Some(std::mem::take(&mut self.batch))
    }
}

#[cfg(test)]
mod tests {
    use sluice_clients::kafka::admin::TopicPartition;

    use super::*;
    use crate::processor::lease::{LaneId, Lease};

    fn gather() -> Gather {
        Gather::new(BatchLimits { records: 10, bytes: 1000, interval: Duration::from_millis(100) })
    }

    fn lease() -> SharedLease {
        Lease::new(TopicPartition::new("in", 0), Incarnation(1), LaneId(0), 5)
    }

    #[test]
    fn an_end_closes_by_age_like_a_record() {
        let (mut gather, now) = (gather(), Instant::now());
        assert_eq!(gather.closes_in(now), None);
        gather.end(lease(), 7, Some(5), now);
        assert_eq!(gather.closes_in(now), Some(Duration::from_millis(100)));
        assert!(gather.close(now).is_none());
        let batch = gather.close(now + Duration::from_millis(100)).expect("old enough");
        assert_eq!(batch.ends[&Incarnation(1)].offset, 7);
        assert_eq!(gather.closes_in(now), None);
    }

    #[test]
    fn a_committed_end_or_one_of_an_ended_lease_is_nothing() {
        let (mut gather, now) = (gather(), Instant::now());
        gather.end(lease(), 5, Some(5), now);
        let ended = lease();
        ended.end();
        gather.end(ended, 9, Some(5), now);
        assert_eq!(gather.closes_in(now), None);
    }

    #[test]
    fn dropping_a_lease_leaves_nothing_of_it() {
        let (mut gather, now) = (gather(), Instant::now());
        gather.end(lease(), 7, None, now);
        gather.drop_lease(Incarnation(1));
        assert_eq!(gather.closes_in(now), None);
    }
}
