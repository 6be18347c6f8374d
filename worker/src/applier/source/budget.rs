//! How much of what was fetched may be held. Pure.
//!
//! A partition that is read faster than it is applied is waited for a moment; one that stands (Redis refuses, a record
//! cannot be applied) is paused, so that the others go on. Pausing throws away what the client fetched ahead, so it is
//! not done for a moment's sake.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::applier::engine::PartitionId;

/// Most weight held over all partitions, in bytes.
const TOTAL: usize = 8 * 1024 * 1024;
/// How long a full partition is waited for before it is paused.
const PATIENCE: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
pub(super) struct Budget {
    held: BTreeMap<PartitionId, usize>,
    full_since: Option<Instant>,
}

/// What to do before polling again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    Poll,
    /// Wait a moment for the engine.
    Wait,
    /// Pause these, then poll.
    Pause(Vec<PartitionId>),
}

impl Budget {
    pub(super) fn take(&mut self, partition: PartitionId, weight: usize) {
        *self.held.entry(partition).or_default() += weight;
    }

    pub(super) fn release(&mut self, partition: PartitionId, weight: usize) {
        if let Some(held) = self.held.get_mut(&partition) {
            *held = held.saturating_sub(weight);
            if *held == 0 {
                self.held.remove(&partition);
            }
        }
    }

    /// A partition's share when `reading` partitions are read.
    fn share(reading: usize) -> usize {
        TOTAL / reading.clamp(1, 8)
    }

    /// What to do, when these partitions are read and not paused.
    pub(super) fn advise(&mut self, reading: &[PartitionId], now: Instant) -> Advice {
        let share = Self::share(reading.len());
        let full: Vec<PartitionId> = reading.iter().filter(|id| self.of(**id) >= share).copied().collect();
        if full.is_empty() {
            self.full_since = None;
            return Advice::Poll;
        }
        let since = *self.full_since.get_or_insert(now);
        if now.duration_since(since) < PATIENCE {
            return Advice::Wait;
        }
        self.full_since = None;
        Advice::Pause(full)
    }

    /// Whether a paused partition has become small enough to be read again.
    pub(super) fn may_resume(&self, partition: PartitionId, reading: usize) -> bool {
        self.of(partition) < Self::share(reading) / 2
    }

    fn of(&self, partition: PartitionId) -> usize {
        self.held.get(&partition).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_partition_is_waited_for_and_then_paused() {
        let (a, b) = (PartitionId { topic: 0, partition: 0 }, PartitionId { topic: 0, partition: 1 });
        let (mut budget, start) = (Budget::default(), Instant::now());
        budget.take(a, TOTAL / 2);
        assert_eq!(budget.advise(&[a, b], start), Advice::Wait);
        assert_eq!(budget.advise(&[a, b], start + PATIENCE), Advice::Pause(vec![a]));
        assert_eq!(budget.advise(&[b], start + PATIENCE), Advice::Poll);
        assert!(!budget.may_resume(a, 2));
        budget.release(a, TOTAL / 2 - 10);
        assert!(budget.may_resume(a, 2));
        budget.release(a, TOTAL);
        assert_eq!(budget.advise(&[a, b], start), Advice::Poll);
    }

    #[test]
    fn a_moment_is_forgotten() {
        let (a, mut budget, start) = (PartitionId { topic: 0, partition: 0 }, Budget::default(), Instant::now());
        budget.take(a, TOTAL);
        assert_eq!(budget.advise(&[a], start), Advice::Wait);
        budget.release(a, 1);
        assert_eq!(budget.advise(&[a], start + PATIENCE / 2), Advice::Poll);
        budget.take(a, 1);
        assert_eq!(budget.advise(&[a], start + PATIENCE), Advice::Wait);
    }
}
