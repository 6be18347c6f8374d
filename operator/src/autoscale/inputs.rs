//! What a round has read → the brain's inputs for each resource. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use sluice_autoscaler::{Group, Inputs, Measured, Missing, Phase, Replicas};
use sluice_clients::kafka::admin::{GroupState, TopicPartition};

use super::book::Subject;
use super::measure::{Look, Tracker};
use super::round::Swept;
use crate::sweep::{Bounds, GroupTarget, Target};

/// What a round has read beyond what the sweep has.
#[derive(Clone, Debug, Default)]
pub(super) struct Read {
    /// Beginnings, where records wait.
    pub starts: Bounds,
    /// State and number of members of each group; one that could not be read is absent.
    pub groups: BTreeMap<String, (GroupState, usize)>,
}

/// What is remembered of partitions, by group.
#[derive(Debug, Default)]
pub(super) struct Trackers(HashMap<(String, TopicPartition), Tracker>);

impl Trackers {
    /// Forgets partitions that are not looked at any more.
    pub fn retain(&mut self, groups: &[&GroupTarget]) {
        let known: BTreeSet<(&str, TopicPartition)> = groups
            .iter()
            .flat_map(|group| partitions(group).map(move |partition| (group.group.as_str(), partition)))
            .collect();
        self.0.retain(|(group, partition), _| known.contains(&(group.as_str(), partition.clone())));
    }

    /// The brain's inputs for one resource.
    pub fn inputs(
        &mut self,
        now: Timestamp,
        subject: &Subject,
        target: &Target,
        swept: Swept<'_>,
        read: &Read,
    ) -> Inputs {
        let Some(group) = group_of(target) else { return missing(now, subject, Missing::NoTopic) };
        let Some(offsets) = swept.committed.get(&group.group) else {
            return missing(now, subject, Missing::Unreachable);
        };
        let samples = partitions(group).map(|partition| {
            let look = Look {
                ends: swept.ends.get(&partition),
                start: read.starts.get(&partition).copied(),
                committed: offsets.get(&partition),
            };
            let tracker = self.0.entry((group.group.clone(), partition)).or_default();
            tracker.update(swept.at, look)
        });
        let samples: Vec<_> = samples.collect();
        let measured =
            if samples.is_empty() { Measured::Missing(Missing::NoTopic) } else { Measured::Partitions(samples) };
        Inputs { measured, group: members(read.groups.get(&group.group)), ..missing(now, subject, Missing::NoTopic) }
    }
}

/// Inputs of a round in which nothing could be read.
pub(super) fn missing(now: Timestamp, subject: &Subject, why: Missing) -> Inputs {
    Inputs {
        now,
        replicas: Replicas(subject.replicas),
        group: Group { members: 0, phase: Phase::Unknown },
        lanes: subject.plan.lanes,
        measured: Measured::Missing(why),
        rebalance: None,
        offsets_kept: None,
    }
}

fn members(found: Option<&(GroupState, usize)>) -> Group {
    let phase = match found.map(|(state, _)| state) {
        Some(GroupState::Stable | GroupState::Empty | GroupState::Dead) => Phase::Stable,
        Some(GroupState::Rebalancing) => Phase::Rebalancing,
        Some(GroupState::Unknown) | None => Phase::Unknown,
    };
    Group { members: found.map_or(0, |(_, count)| u32::try_from(*count).unwrap_or(u32::MAX)), phase }
}

/// The group whose load says how many workers are needed: the processor's, whose workers apply as well, else the applier's.
pub(super) fn group_of(target: &Target) -> Option<&GroupTarget> {
    target.processor.as_ref().or(target.applier.as_ref().map(|applier| &applier.group))
}

/// Partitions that a group consumes, always in the same order.
pub(super) fn partitions(group: &GroupTarget) -> impl Iterator<Item = TopicPartition> {
    group.topics.iter().flat_map(|(topic, count)| (0..*count).map(move |p| TopicPartition::new(topic.as_str(), p)))
}

/// Partitions of a group with records that wait: it matters where those begin.
pub(super) fn waiting<'a>(group: &'a GroupTarget, swept: Swept<'a>) -> impl Iterator<Item = TopicPartition> {
    let offsets = swept.committed.get(&group.group);
    partitions(group).filter(move |partition| {
        let committed = offsets.and_then(|offsets| offsets.get(partition)).map(|committed| committed.offset);
        let end = swept.ends.get(partition).and_then(|ends| ends.end_at(swept.at));
        committed.zip(end).is_some_and(|(committed, end)| committed < end)
    })
}

#[cfg(test)]
mod tests {
    use sluice_clients::kafka::admin::CommittedOffset;

    use super::*;
    use crate::autoscale::book::tests::subject;
    use crate::sweep::tests_support::target;
    use crate::sweep::{Committed, Ends};

    /// Every partition at 5 of 7.
    fn swept(target: &Target) -> (Committed, Ends) {
        let group = group_of(target).unwrap();
        let offsets = partitions(group).map(|p| (p, CommittedOffset { offset: 5, metadata: String::new() }));
        let committed = Committed::from([(group.group.clone(), offsets.collect())]);
        let mut ends = Ends::new();
        partitions(group).for_each(|partition| ends.entry(partition).or_default().note(0, 7));
        (committed, ends)
    }

    fn read(target: &Target, state: GroupState, count: usize) -> Read {
        let group = group_of(target).unwrap();
        Read { starts: Bounds::new(), groups: [(group.group.clone(), (state, count))].into() }
    }

    #[test]
    fn every_partition_is_measured_in_the_same_order() {
        let (target, subject) = (target(), subject());
        let ((committed, ends), read) = (swept(&target), read(&target, GroupState::Stable, 2));
        let swept = Swept { at: 0, committed: &committed, ends: &ends };
        let inputs = Trackers::default().inputs(Timestamp::UNIX_EPOCH, &subject, &target, swept, &read);
        let Measured::Partitions(samples) = &inputs.measured else { panic!("{inputs:?}") };
        assert_eq!(samples.len(), 8, "two source topics of four partitions");
        assert!(samples.iter().all(|sample| sample.lag.is_some_and(|lag| lag.0 == 2)), "{samples:?}");
        assert_eq!(inputs.group, Group { members: 2, phase: Phase::Stable });
        assert_eq!(inputs.replicas, Replicas(subject.replicas));
    }

    #[test]
    fn what_cannot_be_read_is_missing_and_no_zero() {
        let (target, subject) = (target(), subject());
        let ((mut committed, ends), read) = (swept(&target), Read::default());
        let mut trackers = Trackers::default();
        // What was read is from before.
        let late = Swept { at: 5_000, committed: &committed, ends: &ends };
        let inputs = trackers.inputs(Timestamp::UNIX_EPOCH, &subject, &target, late, &read);
        let Measured::Partitions(samples) = &inputs.measured else { panic!("{inputs:?}") };
        assert!(samples.iter().all(|sample| sample.lag.is_none()), "{samples:?}");
        assert_eq!(inputs.group.phase, Phase::Unknown);
        committed.clear();
        let none = Swept { at: 0, committed: &committed, ends: &ends };
        let inputs = trackers.inputs(Timestamp::UNIX_EPOCH, &subject, &target, none, &read);
        assert!(matches!(inputs.measured, Measured::Missing(Missing::Unreachable)));
    }

    #[test]
    fn only_where_records_wait_the_beginning_is_asked_for() {
        let target = target();
        let group = group_of(&target).unwrap();
        let (mut committed, mut ends) = swept(&target);
        let one = partitions(group).next().unwrap();
        for (partition, ends) in &mut ends {
            ends.note(1, 5);
            ends.note(2, if *partition == one { 6 } else { 5 });
        }
        let found: Vec<_> = waiting(group, Swept { at: 2, committed: &committed, ends: &ends }).collect();
        assert_eq!(found, [one]);
        committed.clear();
        assert_eq!(waiting(group, Swept { at: 2, committed: &committed, ends: &ends }).count(), 0);
    }
}
