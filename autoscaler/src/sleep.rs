//! How long a group may sleep: without members Kafka keeps its offsets for a while only.
//!
//! The time counts from the moment the group lost its last member, whatever is committed afterwards (KIP-211). So only a
//! member renews it: a group that has slept for long wakes up, and goes to sleep again when nothing is there.

use std::time::Duration;

use jiff::Timestamp;

/// What is assumed when nobody knows how long offsets are kept: a day, the shortest default Kafka ever had.
const ASSUMED: Duration = Duration::from_secs(24 * 3_600);
/// Starting a replica must fit into what is left of the time, also when a node has to be found and an image loaded.
const SHORTEST: Duration = Duration::from_secs(600);

/// The longest sleep: half of the time that offsets are kept. None: too short to sleep at all.
pub(crate) fn longest(offsets_kept: Option<Duration>) -> Option<Duration> {
    Some(offsets_kept.unwrap_or(ASSUMED) / 2).filter(|longest| *longest >= SHORTEST)
}

/// A group that sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asleep {
    /// When it wakes up although nothing has arrived, so that Kafka keeps its offsets.
    pub until: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_what_is_kept_is_slept_and_nothing_of_too_little() {
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        assert_eq!(longest(Some(hours(7 * 24))), Some(hours(84)));
        assert_eq!(longest(None), Some(hours(12)));
        assert_eq!(longest(Some(Duration::from_secs(1_200))), Some(Duration::from_secs(600)));
        assert_eq!(longest(Some(Duration::from_secs(1_199))), None);
        assert_eq!(longest(Some(Duration::ZERO)), None);
    }
}
