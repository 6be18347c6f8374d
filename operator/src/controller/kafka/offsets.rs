//! Where the processor's group starts, and what it means when an offset is missing. Pure.
//!
//! Workers never choose a start by themselves (`auto.offset.reset=error`): a lost offset would silently replay or skip.
//! The operator commits one for every partition before the first worker; partitions that come later start at the
//! beginning; an offset that was there and is gone, or points outside of its partition, waits for a person.

use std::collections::{BTreeMap, BTreeSet};

use sluice_clients::kafka::admin::{OffsetSpec, TopicPartition};
use sluice_crds::names::TopicName;
use sluice_crds::v1alpha1::{StartPosition, TopicStatus};

/// What is known of a source partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// First offset that can be read.
    pub earliest: i64,
    /// One past the last.
    pub latest: i64,
}

/// What Kafka says.
#[derive(Clone, Debug, Default)]
pub struct ObservedOffsets {
    /// Committed offsets of the group.
    pub committed: BTreeMap<TopicPartition, i64>,
    /// Every partition of the source topics.
    pub bounds: BTreeMap<TopicPartition, Bounds>,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffsetPlan {
    /// Offsets to commit while the group is empty.
    pub commit: BTreeMap<TopicPartition, OffsetSpec>,
    /// Partitions whose offsets are lost.
    pub lost: BTreeSet<TopicPartition>,
}

/// Plans the start of a group. `recreated`: topics that have another id than status remembers. `reset`: where lost
/// offsets shall start, if a person said so.
pub fn plan(
    sources: &[TopicName],
    observed: &ObservedOffsets,
    statuses: &[TopicStatus],
    recreated: &BTreeSet<String>,
    start: StartPosition,
    reset: Option<StartPosition>,
) -> OffsetPlan {
    let mut plan = OffsetPlan::default();
    for source in sources {
        let status = statuses.iter().find(|status| status.name == source.as_str());
        let started = status.and_then(|status| status.started_partitions).unwrap_or(0);
        let first_time = started == 0 && !recreated.contains(source.as_str());
        let partitions: Vec<_> = observed.bounds.iter().filter(|(p, _)| p.topic == source.as_str()).collect();
        let has_offsets = partitions.iter().any(|(partition, _)| observed.committed.contains_key(*partition));
        for (partition, bounds) in partitions {
            let committed = observed.committed.get(partition);
            let inside = committed.is_some_and(|offset| (bounds.earliest..=bounds.latest).contains(offset));
            let lost = recreated.contains(source.as_str())
                || (committed.is_some() && !inside)
                || (committed.is_none() && partition.partition < started);
            if lost {
                match reset {
                    Some(position) => drop(plan.commit.insert(partition.clone(), spec(position))),
                    None => drop(plan.lost.insert(partition.clone())),
                }
            } else if committed.is_none() {
                // A group that is taken over keeps what it has; what it never read starts at the beginning.
                let position = if first_time && !has_offsets { start } else { StartPosition::Earliest };
                plan.commit.insert(partition.clone(), spec(position));
            }
        }
    }
    plan
}

fn spec(position: StartPosition) -> OffsetSpec {
    match position {
        StartPosition::Earliest => OffsetSpec::Earliest,
        StartPosition::Latest => OffsetSpec::Latest,
    }
}

/// The annotation's value as a position.
pub fn reset_position(text: &str) -> Option<StartPosition> {
    match text {
        "Earliest" => Some(StartPosition::Earliest),
        "Latest" => Some(StartPosition::Latest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> TopicName {
        TopicName::parse("t").unwrap()
    }

    fn observed(committed: &[(i32, i64)], partitions: i32) -> ObservedOffsets {
        let at = |partition| TopicPartition::new("t", partition);
        ObservedOffsets {
            committed: committed.iter().map(|(partition, offset)| (at(*partition), *offset)).collect(),
            bounds: (0..partitions).map(|p| (at(p), Bounds { earliest: 10, latest: 20 })).collect(),
        }
    }

    fn status(started: Option<i32>) -> Vec<TopicStatus> {
        let ownership = sluice_crds::v1alpha1::Ownership::Foreign;
        let name = "t".to_owned();
        vec![TopicStatus { name, id: Some("x".into()), ownership, partitions: Some(2), started_partitions: started }]
    }

    fn planned(observed: &ObservedOffsets, started: Option<i32>, reset: Option<StartPosition>) -> OffsetPlan {
        plan(&[source()], observed, &status(started), &BTreeSet::new(), StartPosition::Latest, reset)
    }

    fn commits(plan: &OffsetPlan) -> Vec<(i32, OffsetSpec)> {
        plan.commit.iter().map(|(partition, spec)| (partition.partition, *spec)).collect()
    }

    #[test]
    fn a_new_group_starts_everywhere_where_the_spec_says() {
        let plan = planned(&observed(&[], 2), None, None);
        assert_eq!(commits(&plan), [(0, OffsetSpec::Latest), (1, OffsetSpec::Latest)]);
        assert!(plan.lost.is_empty());
    }

    #[test]
    fn a_group_that_is_taken_over_keeps_its_offsets() {
        let plan = planned(&observed(&[(0, 15)], 2), None, None);
        assert_eq!(commits(&plan), [(1, OffsetSpec::Earliest)]);
    }

    #[test]
    fn a_partition_that_came_later_starts_at_the_beginning() {
        let plan = planned(&observed(&[(0, 15)], 2), Some(1), None);
        assert_eq!(commits(&plan), [(1, OffsetSpec::Earliest)]);
        assert!(plan.lost.is_empty());
    }

    #[test]
    fn an_offset_that_is_gone_or_outside_waits_for_a_person() {
        for committed in [&[(0, 15)][..], &[(0, 15), (1, 9)], &[(0, 15), (1, 21)]] {
            let there = observed(committed, 2);
            let plan = planned(&there, Some(2), None);
            assert_eq!(plan.lost, [TopicPartition::new("t", 1)].into(), "{committed:?}");
            assert!(plan.commit.is_empty());
            let reset = planned(&there, Some(2), Some(StartPosition::Earliest));
            assert_eq!(commits(&reset), [(1, OffsetSpec::Earliest)]);
            assert!(reset.lost.is_empty());
        }
    }

    #[test]
    fn a_topic_made_anew_loses_all_offsets() {
        let recreated = BTreeSet::from(["t".to_owned()]);
        let there = observed(&[(0, 15), (1, 15)], 2);
        let plan = plan(&[source()], &there, &status(Some(2)), &recreated, StartPosition::Earliest, None);
        assert_eq!(plan.lost.len(), 2);
    }

    #[test]
    fn offsets_at_both_ends_are_inside() {
        let plan = planned(&observed(&[(0, 10), (1, 20)], 2), Some(2), None);
        assert_eq!(plan, OffsetPlan::default());
    }
}
