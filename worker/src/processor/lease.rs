//! A lease: the right to work on one partition between one assignment (or rewind) and the next loss of it.
//!
//! Everything that travels to a lane carries its lease. Ending a lease makes all of it worthless at once: the lane drops
//! what is queued and aborts what is open; the new lease begins at the committed offset.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sluice_clients::kafka::admin::TopicPartition;

/// Number of a lease; grows over the life of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// Index of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub usize);

/// The right to work on a partition.
#[derive(Debug)]
pub struct Lease {
    /// Where.
    pub partition: TopicPartition,
    /// Which lease of it.
    pub incarnation: Incarnation,
    /// The lane all of its records go to.
    pub lane: LaneId,
    /// Offset it begins at: the committed one.
    pub start: i64,
    ended: AtomicBool,
}

/// A shared lease.
pub type SharedLease = Arc<Lease>;

impl Lease {
    /// A lease that runs.
    pub fn new(partition: TopicPartition, incarnation: Incarnation, lane: LaneId, start: i64) -> SharedLease {
        Arc::new(Self { partition, incarnation, lane, start, ended: AtomicBool::new(false) })
    }

    /// Ends it; for ever.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

/// The lane of a partition: stable over restarts and processes (FNV-1a over topic and partition), so that each lane's
/// transactions touch the same partitions.
pub fn lane_of(partition: &TopicPartition, lanes: usize) -> LaneId {
    // Partitions of one topic go round: a hash of the number too would leave lanes idle when there are few.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in partition.topic.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let number = u64::from(partition.partition.unsigned_abs());
    let lane = (hash % 1024).wrapping_add(number) % lanes.max(1) as u64;
    LaneId(usize::try_from(lane).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_a_topic_spread_evenly() {
        for lanes in 1..6 {
            let mut counts = vec![0; lanes];
            for partition in 0..12 {
                counts[lane_of(&TopicPartition::new("orders", partition), lanes).0] += 1;
            }
            let (min, max) = (counts.iter().min(), counts.iter().max());
            assert!(max.unwrap_or(&0) - min.unwrap_or(&0) <= 1, "{counts:?}");
        }
    }
}
