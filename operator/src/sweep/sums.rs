//! Lag of a group in a whole topic, for those who scale by it. Pure.
//!
//! A number that lacks a partition would scale somebody down: it is known whole, or not at all.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_clients::kafka::admin::{CommittedOffset, TopicPartition};

use super::lag::PartitionLag;
use crate::settings::ConnectionName;

/// What was found before this is not known any more: a minute ago, and where the sweeps are slower three rounds. Unix
/// milliseconds.
pub fn oldest_known(now: i64, sweep_every: Duration) -> i64 {
    let rounds = sweep_every.as_millis().saturating_mul(3).max(60_000);
    now.saturating_sub(i64::try_from(rounds).unwrap_or(i64::MAX))
}

/// A group's topic whose lag somebody may know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Granted {
    /// The connection.
    pub connection: ConnectionName,
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: String,
}

impl Granted {
    /// A topic of a group on a connection.
    pub fn new(connection: &ConnectionName, group: &str, topic: &str) -> Self {
        Self { connection: connection.clone(), group: group.to_owned(), topic: topic.to_owned() }
    }
}

/// Lag of a group in a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicLag {
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// Records, and when that was found, Unix milliseconds; none = it is not known now.
    pub records: Option<(i64, i64)>,
}

/// The last known lag of each group's topic.
#[derive(Debug, Default)]
pub(super) struct Sums {
    known: BTreeMap<Granted, (i64, i64)>,
}

impl Sums {
    /// Notes what a round has found of a group. `found`: lag of a partition at a committed offset, if its end is known.
    ///
    /// A partition without a committed offset counts for nothing: where its reader would begin is not known. A topic without
    /// any is not known either.
    pub(super) fn note(
        &mut self,
        connection: &ConnectionName,
        group: &str,
        topics: &BTreeMap<String, i32>,
        offsets: &BTreeMap<TopicPartition, CommittedOffset>,
        found: impl Fn(&TopicPartition, i64) -> Option<PartitionLag>,
        now: i64,
    ) {
        for (topic, count) in topics {
            let partitions = (0..*count).map(|partition| TopicPartition::new(topic.as_str(), partition));
            let read = partitions.filter_map(|at| offsets.get(&at).map(|committed| found(&at, committed.offset)));
            let lags: Option<Vec<PartitionLag>> = read.collect();
            if let Some(lags) = lags.filter(|lags| !lags.is_empty()) {
                let records = lags.iter().fold(0_i64, |sum, lag| sum.saturating_add(lag.records));
                self.known.insert(Granted::new(connection, group, topic), (records, now));
            }
        }
    }

    /// What is known of one, if it was found since `oldest`.
    pub(super) fn of(&self, granted: Granted, oldest: i64) -> TopicLag {
        let records = self.known.get(&granted).copied().filter(|(_, at)| *at >= oldest);
        TopicLag { group: granted.group, topic: granted.topic, records }
    }

    /// Forgets what is not known any more, so that groups that went leave nothing.
    pub(super) fn forget(&mut self, oldest: i64) {
        self.known.retain(|_, (_, at)| *at >= oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag(records: i64) -> PartitionLag {
        PartitionLag { records, seconds: 0, at_most_seconds: None }
    }

    #[test]
    fn a_topic_is_known_whole_or_not_at_all_and_for_a_minute() {
        let main = ConnectionName::new("main");
        let topics = BTreeMap::from([("t".to_owned(), 3)]);
        let at = |partition| TopicPartition::new("t", partition);
        let committed = |partitions: &[i32]| -> BTreeMap<TopicPartition, CommittedOffset> {
            let offset = || CommittedOffset { offset: 1, metadata: String::new() };
            partitions.iter().map(|partition| (at(*partition), offset())).collect()
        };
        let mut sums = Sums::default();
        let mut round = |partitions: &[i32], unknown: Option<i32>, now| {
            let found = |p: &TopicPartition, _| (Some(p.partition) != unknown).then(|| lag(10));
            sums.note(&main, "g", &topics, &committed(partitions), found, now);
            sums.of(Granted::new(&main, "g", "t"), oldest_known(now, Duration::from_secs(10))).records
        };
        assert_eq!(round(&[], None, 0), None, "nothing committed");
        assert_eq!(round(&[0, 1, 2], Some(1), 0), None, "one end is not known");
        assert_eq!(round(&[0, 2], Some(1), 0), Some((20, 0)), "one partition was never read");
        assert_eq!(round(&[0, 1, 2], None, 10), Some((30, 10)));
        assert_eq!(round(&[0, 1, 2], Some(1), 60_010), Some((30, 10)), "what was found a minute ago");
        assert_eq!(round(&[0, 1, 2], Some(1), 60_011), None);
        sums.forget(11);
        assert!(sums.known.is_empty());
        assert_eq!(oldest_known(1_000_000, Duration::from_secs(100)), 700_000);
        assert_eq!(sums.of(Granted::new(&ConnectionName::new("other"), "g", "t"), 10).records, None);
    }
}
