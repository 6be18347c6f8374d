//! Offsets that a running pipeline has lost, seen in passing. Pure.
//!
//! What it means and what is done about it is the reconcile's decision (`controller/kafka/offsets.rs`); here is only found
//! out that it has something to decide. Of a partition that moves or is read to its end nothing can be lost unseen, so the
//! beginning is asked for only where a committed offset stands still with records after it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sluice_clients::kafka::admin::{CommittedOffset, TopicPartition};

use super::board::{GroupTarget, Target, Trigger};

/// Committed offsets, by group. A group that could not be read is absent.
pub type Committed = BTreeMap<String, BTreeMap<TopicPartition, CommittedOffset>>;
/// An offset of each partition that could be read.
pub type Bounds = BTreeMap<TopicPartition, i64>;

/// What is remembered between rounds.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Where each group stood in the last round.
    stood: HashMap<(String, TopicPartition), i64>,
    /// Partitions that a resource has lost: said once.
    told: HashMap<String, BTreeSet<TopicPartition>>,
}

impl Memory {
    /// Partitions whose beginning must be known, now that offsets and ends are.
    pub(super) fn suspects(
        &mut self,
        targets: &[Target],
        committed: &Committed,
        ends: &Bounds,
    ) -> BTreeSet<TopicPartition> {
        let (mut now, mut suspects) = (HashMap::new(), BTreeSet::new());
        for (group, partition) in consumed(targets) {
            let Some(offset) = offset(committed, group, &partition) else { continue };
            let at = (group.group.clone(), partition);
            if self.stood.get(&at) == Some(&offset) && ends.get(&at.1).is_some_and(|end| offset < *end) {
                suspects.insert(at.1.clone());
            }
            now.insert(at, offset);
        }
        self.stood = now;
        suspects
    }

    /// Partitions with an offset beyond the end for readers of committed records: somebody else has set it while a transaction
    /// was open, or the partition ends earlier than it did.
    pub(super) fn beyond(targets: &[Target], committed: &Committed, ends: &Bounds) -> BTreeSet<TopicPartition> {
        let beyond = |(group, partition): &(&GroupTarget, TopicPartition)| {
            offset(committed, group, partition).zip(ends.get(partition)).is_some_and(|(offset, end)| offset > *end)
        };
        consumed(targets).filter(beyond).map(|(_, partition)| partition).collect()
    }

    /// Resources that have lost other offsets than in the last round. `tops`: the very ends, where they matter.
    pub(super) fn lost(
        &mut self,
        targets: &[Target],
        committed: &Committed,
        beginnings: &Bounds,
        tops: &Bounds,
    ) -> BTreeSet<Trigger> {
        let (mut now, mut changed) = (HashMap::new(), BTreeSet::new());
        for target in targets {
            let is_lost = |(group, partition): &(&GroupTarget, TopicPartition)| {
                if !committed.contains_key(&group.group) {
                    return false;
                }
                // Nothing committed: it had an offset when it was reconciled.
                offset(committed, group, partition).is_none_or(|offset| {
                    beginnings.get(partition).is_some_and(|beginning| offset < *beginning)
                        || tops.get(partition).is_some_and(|top| offset > *top)
                })
            };
            let one = std::slice::from_ref(target);
            let lost: BTreeSet<TopicPartition> =
                consumed(one).filter(is_lost).map(|(_, partition)| partition).collect();
            if lost.is_empty() {
                continue;
            }
            if self.told.get(&target.claimant.uid) != Some(&lost) {
                changed.insert(Trigger::from(&target.claimant));
            }
            now.insert(target.claimant.uid.clone(), lost);
        }
        self.told = now;
        changed
    }
}

/// Source partitions of processors. What an applier commits is for lag only: its place is in its watermarks.
fn consumed(targets: &[Target]) -> impl Iterator<Item = (&GroupTarget, TopicPartition)> {
    targets.iter().filter_map(|target| target.processor.as_ref()).flat_map(|group| {
        let topics = group.topics.iter();
        topics.flat_map(move |(topic, count)| (0..*count).map(move |p| (group, TopicPartition::new(topic.as_str(), p))))
    })
}

fn offset(committed: &Committed, group: &GroupTarget, partition: &TopicPartition) -> Option<i64> {
    Some(committed.get(&group.group)?.get(partition)?.offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::tests_support::target;

    /// Every source partition between 10 and 20.
    fn bounds(targets: &[Target]) -> (Bounds, Bounds) {
        let all = |at: i64| consumed(targets).map(|(_, partition)| (partition, at)).collect();
        (all(10), all(20))
    }

    /// Every source partition at 15, but for these.
    fn committed(targets: &[Target], but: &[(&TopicPartition, Option<i64>)]) -> Committed {
        let at = |partition: &TopicPartition| {
            but.iter().find(|(other, _)| *other == partition).map_or(Some(15), |(_, offset)| *offset)
        };
        let mut all = Committed::new();
        for (group, partition) in consumed(targets) {
            let offsets = all.entry(group.group.clone()).or_default();
            if let Some(offset) = at(&partition) {
                offsets.insert(partition, CommittedOffset { offset, metadata: String::new() });
            }
        }
        all
    }

    #[test]
    fn an_offset_that_is_gone_or_outside_is_told_once() {
        let targets = [target()];
        let (beginnings, ends) = bounds(&targets);
        let some = TopicPartition::new("order.created", 1);
        let trigger = BTreeSet::from([Trigger::from(&targets[0].claimant)]);
        for offset in [None, Some(9), Some(21)] {
            let mut memory = Memory::default();
            let mut round = |but: &[_]| memory.lost(&targets, &committed(&targets, but), &beginnings, &ends);
            assert!(round(&[]).is_empty());
            assert_eq!(round(&[(&some, offset)]), trigger, "{offset:?}");
            assert!(round(&[(&some, offset)]).is_empty(), "{offset:?}: until it changes");
            let other = TopicPartition::new("order.created", 0);
            assert_eq!(round(&[(&some, offset), (&other, Some(9))]), trigger, "{offset:?}: more of them");
            assert!(round(&[]).is_empty(), "{offset:?}: well again");
            assert_eq!(round(&[(&some, offset)]), trigger, "{offset:?}: and again not");
        }
    }

    #[test]
    fn both_ends_are_inside_and_what_cannot_be_read_now_is_not_lost() {
        let targets = [target()];
        let (beginnings, ends) = bounds(&targets);
        let some = TopicPartition::new("order.created", 1);
        let mut memory = Memory::default();
        for offset in [10, 20] {
            let offsets = committed(&targets, &[(&some, Some(offset))]);
            assert!(memory.lost(&targets, &offsets, &beginnings, &ends).is_empty(), "{offset}");
        }
        assert!(memory.lost(&targets, &Committed::new(), &beginnings, &ends).is_empty(), "the group was not read");
        let outside = committed(&targets, &[(&some, Some(9))]);
        assert!(memory.lost(&targets, &outside, &Bounds::new(), &Bounds::new()).is_empty(), "no bound was read");
    }

    #[test]
    fn an_offset_in_an_open_transaction_is_not_lost() {
        let targets = [target()];
        let (beginnings, ends) = bounds(&targets);
        let some = TopicPartition::new("order.created", 1);
        let offsets = committed(&targets, &[(&some, Some(22))]);
        assert_eq!(Memory::beyond(&targets, &offsets, &ends), [some.clone()].into());
        for (top, lost) in [(22, 0), (21, 1)] {
            let tops = Bounds::from([(some.clone(), top)]);
            assert_eq!(Memory::default().lost(&targets, &offsets, &beginnings, &tops).len(), lost, "{top}");
        }
        let inside = committed(&targets, &[(&some, Some(20))]);
        assert!(Memory::beyond(&targets, &inside, &ends).is_empty());
    }

    #[test]
    fn only_of_what_stands_still_before_its_end_the_beginning_is_asked_for() {
        let targets = [target()];
        let (_, ends) = bounds(&targets);
        let some = TopicPartition::new("order.created", 1);
        let mut memory = Memory::default();
        let mut round = |offset| {
            let mut offsets = committed(&targets, &[(&some, Some(offset))]);
            // The others have nothing left to read.
            for (partition, committed) in offsets.values_mut().flatten() {
                committed.offset = if *partition == some { offset } else { 20 };
            }
            memory.suspects(&targets, &offsets, &ends)
        };
        assert!(round(12).is_empty(), "seen for the first time");
        assert!(round(13).is_empty(), "it moves");
        assert_eq!(round(13), [some.clone()].into());
        assert!(round(20).is_empty() && round(20).is_empty(), "at its end");
    }
}
