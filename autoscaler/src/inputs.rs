//! One measurement of a consumer group. Hostile or broken numbers end here: what is not a number is absent.

use std::num::NonZeroU32;
use std::time::Duration;

use jiff::Timestamp;

use crate::units::{Messages, Rate, Replicas};

/// Partitions beyond this many are not looked at.
pub const MAX_PARTITIONS: usize = 100_000;

/// What is known at one moment.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The moment, from the caller's clock.
    pub now: Timestamp,
    /// Replicas that the Deployment asks for.
    pub replicas: Replicas,
    /// The consumer group.
    pub group: Group,
    /// Threads that each replica spreads its partitions over; a partition never uses more than one.
    pub lanes: NonZeroU32,
    /// The partitions, or why they are not known.
    pub measured: Measured,
    /// How long a rebalance stops a partition, if somebody measured it. Else it is estimated from the group's phases.
    pub rebalance: Option<Duration>,
    /// How long Kafka keeps the offsets of a group that has no members (`offsets.retention.minutes`), if that is known.
    pub offsets_kept: Option<Duration>,
}

/// The consumer group as its coordinator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Members that joined.
    pub members: u32,
    /// What it is doing.
    pub phase: Phase,
}

impl Group {
    /// Each of so many replicas is a member and has its partitions.
    pub(crate) fn has_all(self, replicas: Replicas) -> bool {
        self.phase == Phase::Stable && self.members == replicas.0
    }
}

/// What a group is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Every member has its partitions, or there is none.
    Stable,
    /// Members come or go.
    Rebalancing,
    /// Nobody could tell.
    Unknown,
}

/// The partitions of all source topics, always in the same order, or why they are not known.
#[derive(Clone, Debug)]
pub enum Measured {
    /// One entry for each partition.
    Partitions(Vec<Partition>),
    /// Nothing could be measured.
    Missing(Missing),
}

/// Why there is no measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No broker answers.
    Unreachable,
    /// The brokers refuse.
    NotAuthorized,
    /// A source topic does not exist, or has no partition.
    NoTopic,
    /// The last answer is too old.
    Stale,
}

impl Missing {
    /// One word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "Unreachable",
            Self::NotAuthorized => "NotAuthorized",
            Self::NoTopic => "NoTopic",
            Self::Stale => "Stale",
        }
    }
}

/// One partition. What is `None` is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Partition {
    /// Records between the committed offset and the end, commit markers not counted.
    pub lag: Option<Messages>,
    /// How long the oldest of them waits.
    pub oldest: Option<Duration>,
    /// Records that arrived, a second, since the last measurement.
    pub arrival: Option<Rate>,
    /// Records that were processed and committed, a second, since the last measurement.
    pub processed: Option<Rate>,
    /// Seconds of work they cost, a second: at most 1 for a partition that one thread processes.
    pub busy: Option<Rate>,
}

impl Partition {
    /// From plain numbers, whatever they are.
    pub fn from_raw(lag: i64, oldest_seconds: f64, arrival: f64, processed: f64, busy: f64) -> Self {
        Self {
            lag: u64::try_from(lag).ok().map(Messages),
            oldest: Duration::try_from_secs_f64(oldest_seconds).ok(),
            arrival: Rate::new(arrival),
            processed: Rate::new(processed),
            busy: Rate::new(busy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_is_absent() {
        let absent = Partition::from_raw(-1, f64::NAN, f64::INFINITY, -0.1, f64::NAN);
        assert_eq!(absent, Partition::default());
        let huge = Partition::from_raw(i64::MAX, f64::MAX, f64::MAX, f64::MAX, f64::MAX);
        assert_eq!(huge.lag, Some(Messages(i64::MAX as u64)));
        assert_eq!(huge.oldest, None);
        assert_eq!(huge.arrival.map(Rate::per_second), Some(1e12));
    }
}
