//! IO: one round over the groups of one Kafka connection.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use sluice_clients::kafka::admin::{
    AdminError, ByName, CommittedOffset, GroupOffsets, Isolation, OffsetSpec, TopicPartition,
};
use sluice_crds::report::PartitionReport;

use super::board::{Board, GroupTarget, MissedDeletions, StalledPartition, Target, Trigger, ViewProgress, ViewTarget};
use super::lag::{EndHistory, PartitionLag, is_caught_up, step};
use super::offsets::{self, Bounds, Committed};
use crate::connections::KafkaClient;

/// Where partitions ended for readers of committed records, over time.
pub type Ends = HashMap<TopicPartition, EndHistory>;

/// What is remembered between rounds.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub ends: Ends,
    /// Topics of each resource that were found to be others than those it was reconciled with: said once.
    told: HashMap<String, Topics>,
    offsets: offsets::Memory,
}

/// Ids and numbers of partitions, by name.
pub(super) type Topics = BTreeMap<String, (String, i32)>;

/// Reads offsets of all groups and ends of all partitions, and puts what they say on the board. Gives the resources for
/// which something shown has changed, and what was committed.
pub(super) async fn round(
    board: &Board,
    kafka: &Arc<KafkaClient>,
    targets: &[Target],
    memory: &mut Memory,
    now: i64,
) -> Result<(BTreeSet<Trigger>, Committed), AdminError> {
    let groups: BTreeSet<&GroupTarget> = targets.iter().flat_map(groups_of).collect();
    // First what concerns all brokers: when they are away, no group is waited for.
    let mut changed = changed_topics(targets, &topics(kafka, targets).await?, &mut memory.told);
    let names = groups.iter().map(|target| target.group.clone()).collect();
    let committed = readable(read_all(kafka, names).await?)?;
    let wanted: BTreeSet<TopicPartition> = groups
        .iter()
        .flat_map(|target| &target.topics)
        .flat_map(|(topic, count)| (0..*count).map(|p| TopicPartition::new(topic.as_str(), p)))
        .collect();
    memory.ends.retain(|partition, _| wanted.contains(partition));
    // A record of an open transaction waits for its producer, not for a worker.
    let ends = bounds(kafka, wanted, OffsetSpec::Latest, Isolation::Committed).await?;
    for (partition, end) in &ends {
        memory.ends.entry(partition.clone()).or_default().note(now, *end);
    }
    let suspects = memory.offsets.suspects(targets, &committed, &ends);
    let beginnings = bounds(kafka, suspects, OffsetSpec::Earliest, Isolation::Uncommitted).await?;
    let beyond = offsets::Memory::beyond(targets, &committed, &ends);
    let tops = bounds(kafka, beyond, OffsetSpec::Latest, Isolation::Uncommitted).await?;
    changed.extend(memory.offsets.lost(targets, &committed, &beginnings, &tops));
    changed.extend(publish(board, targets, &committed, memory, now));
    Ok((changed, committed))
}

/// One bound of each partition. One that cannot be read now (no leader, topic gone) only lacks its sample.
pub async fn bounds(
    kafka: &KafkaClient,
    partitions: BTreeSet<TopicPartition>,
    which: OffsetSpec,
    isolation: Isolation,
) -> Result<Bounds, AdminError> {
    if partitions.is_empty() {
        return Ok(Bounds::new());
    }
    let wanted = partitions.into_iter().map(|partition| (partition, which)).collect();
    let found = kafka.call(|admin| async move { admin.list_offsets(&wanted, isolation).await }).await?;
    Ok(found.into_iter().filter_map(|(partition, offset)| Some((partition, offset.ok()?))).collect())
}

/// What groups have committed, and why it could not be read of the others.
pub(super) type Read = (Committed, BTreeMap<String, AdminError>);

/// Asks for all groups at once.
pub(super) async fn read_all(kafka: &KafkaClient, groups: BTreeSet<String>) -> Result<Read, AdminError> {
    if groups.is_empty() {
        return Ok(Read::default());
    }
    Ok(sorted(kafka.call(|admin| async move { admin.list_offsets_of_groups(groups).await }).await?))
}

fn sorted(found: ByName<GroupOffsets>) -> Read {
    let mut read = Read::default();
    for (group, offsets) in found {
        match offsets {
            Ok(offsets) => drop(read.0.insert(group, offsets.committed)),
            Err(error) => drop(read.1.insert(group, error)),
        }
    }
    read
}

/// A group that cannot be read now is left out; an error only when none can.
fn readable((committed, failed): Read) -> Result<Committed, AdminError> {
    match failed.into_iter().next() {
        Some((_, error)) if committed.is_empty() => Err(error),
        Some((group, error)) => {
            tracing::warn!(group, %error, "offsets of a group could not be read; the others were");
            Ok(committed)
        }
        None => Ok(committed),
    }
}

/// Topics that the resources consume, as they are now; those that cannot be described now are left out.
async fn topics(kafka: &KafkaClient, targets: &[Target]) -> Result<Topics, AdminError> {
    let names: BTreeSet<&String> = targets.iter().flat_map(|target| target.topics.keys()).collect();
    described(kafka, names.into_iter().cloned().collect()).await
}

/// Those of these topics that can be described now.
pub(super) async fn described(kafka: &KafkaClient, names: Vec<String>) -> Result<Topics, AdminError> {
    if names.is_empty() {
        return Ok(Topics::new());
    }
    let described = kafka.call(|admin| async move { admin.describe_topics(&names).await }).await?;
    let there = described.into_iter().filter_map(|(name, described)| {
        let topic = described.ok()??;
        Some((name, (topic.id.to_string(), i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX))))
    });
    Ok(there.collect())
}

/// Resources with a topic that has another id or number of partitions than when it was reconciled: until it is reconciled
/// again nobody reads the new partitions. Each change is told once.
fn changed_topics(targets: &[Target], there: &Topics, told: &mut HashMap<String, Topics>) -> BTreeSet<Trigger> {
    let (mut now, mut changed) = (HashMap::new(), BTreeSet::new());
    for target in targets {
        let differs = |(name, now): &(&String, &(String, i32))| target.topics.get(*name).is_some_and(|was| was != *now);
        let other: Topics = there.iter().filter(differs).map(|(name, now)| (name.clone(), now.clone())).collect();
        if other.is_empty() {
            continue;
        }
        if told.get(&target.claimant.uid) != Some(&other) {
            changed.insert(Trigger::from(&target.claimant));
        }
        now.insert(target.claimant.uid.clone(), other);
    }
    *told = now;
    changed
}

pub(super) fn groups_of(target: &Target) -> impl Iterator<Item = &GroupTarget> {
    target.processor.iter().chain(target.applier.iter().map(|applier| &applier.group))
}

fn publish(board: &Board, targets: &[Target], committed: &Committed, memory: &Memory, now: i64) -> BTreeSet<Trigger> {
    let mut changed = BTreeSet::new();
    let mut state = board.lock();
    for target in targets {
        let mut worst: Option<i64> = None;
        // Without one of its groups nothing is known of the resource as a whole.
        let complete = groups_of(target).all(|group| committed.contains_key(&group.group));
        for group in groups_of(target) {
            if let Some(offsets) = committed.get(&group.group) {
                let found = |at: &TopicPartition, offset| memory.ends.get(at)?.lag(now, offset);
                let connection = &target.kafka.name;
                state.sums.note(connection, &group.group, &group.topics, offsets, found, now);
            }
            for (partition, lag) in lags(group, committed, memory, now) {
                worst = Some(worst.unwrap_or(0).max(lag.seconds));
                state.lags.insert((group.group.clone(), partition.topic, partition.partition), lag);
            }
        }
        // Gone meanwhile: nothing may be remembered of it.
        if !state.targets.contains_key(&target.claimant.uid) {
            continue;
        }
        let views = target.applier.as_ref().map(|applier| progress(applier, committed, memory, now));
        let seen = state.seen.entry(target.claimant.uid.clone()).or_default();
        let lag_changed = worst.filter(|_| complete).is_some_and(|seconds| seen.lag.note(now, step(seconds), false));
        let views_changed = match views.flatten() {
            None => false,
            // Good news is shown at once.
            Some(progress) => {
                let complete = progress.caught_up == progress.partitions;
                seen.views.note(now, progress, complete)
            }
        };
        let processor = target.processor.as_ref();
        let read = processor.and_then(|group| Some((group, committed.get(&group.group)?)));
        let stalled_changed = read.is_some_and(|(group, offsets)| {
            let stalled = stalled(group, offsets);
            let same = match (&seen.stalled, &stalled) {
                (Some(was), Some(now)) => was.is_same(now) && (seen.stall_shown || was.at == now.at),
                (was, now) => was.is_none() && now.is_none(),
            };
            seen.stalled = stalled;
            !same
        });
        let applier = target.applier.as_ref();
        let read = applier.and_then(|applier| Some((applier, committed.get(&applier.group.group)?)));
        let missed_changed = read.is_some_and(|(applier, offsets)| {
            let missed = missed(applier, offsets);
            let told = missed.is_none() || seen.missed == missed;
            seen.missed = missed;
            !told
        });
        if lag_changed || views_changed || stalled_changed || missed_changed {
            changed.insert(Trigger::from(&target.claimant));
        }
    }
    changed
}

/// The first of a group's partitions that stand still, by what their workers say.
fn stalled(group: &GroupTarget, offsets: &BTreeMap<TopicPartition, CommittedOffset>) -> Option<StalledPartition> {
    let mut consumed = offsets.iter().filter(|(partition, _)| group.topics.contains_key(&partition.topic));
    consumed.find_map(|(partition, committed)| {
        // Anybody who may commit to the group could have written it: it only makes the resource look worse.
        let report = PartitionReport::parse(&committed.metadata).ok()?;
        report.stall?;
        Some(StalledPartition { partition: partition.clone(), offset: committed.offset, at: report.at })
    })
}

/// The first of the views' partitions whose deletions may have been missed, by what their workers say under this epoch. Who may
/// commit to the group can say so, too: what comes of it is one rebuild, and then the epoch is another one.
fn missed(target: &ViewTarget, offsets: &BTreeMap<TopicPartition, CommittedOffset>) -> Option<MissedDeletions> {
    let mut consumed = offsets.iter().filter(|(partition, _)| target.group.topics.contains_key(&partition.topic));
    let found = consumed.find(|(_, committed)| {
        let report = PartitionReport::parse(&committed.metadata);
        report.is_ok_and(|report| report.deletions_missed && report.epoch == Some(target.epoch))
    });
    found.map(|(partition, _)| MissedDeletions { partition: partition.clone(), epoch: target.epoch })
}

/// Lag of every partition of a group that has both a committed offset and a known end.
fn lags(
    target: &GroupTarget,
    committed: &Committed,
    memory: &Memory,
    now: i64,
) -> BTreeMap<TopicPartition, PartitionLag> {
    let offsets = committed.get(&target.group);
    let partitions =
        target.topics.iter().flat_map(|(topic, count)| (0..*count).map(|p| TopicPartition::new(topic.as_str(), p)));
    partitions
        .filter_map(|partition| {
            let offset = offsets?.get(&partition)?.offset;
            let lag = memory.ends.get(&partition)?.lag(now, offset)?;
            Some((partition, lag))
        })
        .collect()
}

/// How far an applier is; none while no partition has a report under the current epoch.
fn progress(target: &ViewTarget, committed: &Committed, memory: &Memory, now: i64) -> Option<ViewProgress> {
    let lags = lags(&target.group, committed, memory, now);
    let partitions = target.group.topics.values().map(|count| usize::try_from(*count).unwrap_or(0)).sum();
    let mut progress = ViewProgress { partitions, ..ViewProgress::default() };
    let mut reported = false;
    for (partition, lag) in lags {
        let text = committed.get(&target.group.group).and_then(|offsets| offsets.get(&partition));
        // Anybody who may commit to the group could have written it: it is parsed as hostile and only counted.
        let Some(report) = text.and_then(|text| PartitionReport::parse(&text.metadata).ok()) else { continue };
        if report.epoch != Some(target.epoch) {
            continue;
        }
        reported = true;
        progress.caught_up += usize::from(is_caught_up(&report, target.epoch, lag));
        progress.rebuilding += usize::from(report.slots_behind.unwrap_or(0) > 0 || report.repair_offset.is_some());
    }
    reported.then_some(progress)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::Triggers;
    use crate::sweep::tests_support::target;

    #[test]
    fn a_group_that_cannot_be_read_leaves_the_others() {
        let offset = CommittedOffset { offset: 1, metadata: String::new() };
        let offsets = GroupOffsets { committed: [(TopicPartition::new("t", 0), offset)].into(), ..Default::default() };
        let answer = |name: &str| {
            if name.starts_with("away") { Err(AdminError::Incomplete("coordinator")) } else { Ok(offsets.clone()) }
        };
        let read = |all: &[&str]| readable(sorted(all.iter().map(|name| ((*name).to_owned(), answer(name))).collect()));
        assert_eq!(read(&["away-1", "well", "away-2"]).unwrap().keys().collect::<Vec<_>>(), ["well"]);
        assert!(read(&["away-1", "away-2"]).is_err());
        assert!(read(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_topic_that_grew_or_was_made_anew_is_told_once() {
        let target = target();
        let trigger = BTreeSet::from([Trigger::from(&target.claimant)]);
        let mut there = target.topics.clone();
        assert!(there.contains_key("customer.changed") && there.contains_key("order.created"), "{there:?}");
        let mut told = HashMap::new();
        let mut round = |there: &Topics| changed_topics(std::slice::from_ref(&target), there, &mut told);
        assert!(round(&there).is_empty());
        there.get_mut("customer.changed").unwrap().1 += 1;
        assert_eq!(round(&there), trigger);
        assert!(round(&there).is_empty(), "until it changes again");
        there.get_mut("customer.changed").unwrap().0 = "anew".to_owned();
        assert_eq!(round(&there), trigger);
        // A topic that is gone, or has no answer now, is nothing new: workers that miss it say so.
        assert!(round(&Topics::new()).is_empty());
    }

    #[test]
    fn a_partition_that_stands_still_is_told_and_told_again_when_it_moves() {
        let target = target();
        let board = Board::new(Triggers::new().0);
        board.born(Trigger::from(&target.claimant), "u".to_owned());
        board.register(target.clone());
        let group = target.processor.clone().unwrap().group;
        let round = |offset, at, stall| {
            let report = PartitionReport { at, stall, ..PartitionReport::default() };
            let said = CommittedOffset { offset, metadata: report.encode() };
            let committed: Committed =
                [(group.clone(), [(TopicPartition::new("order.created", 1), said)].into())].into();
            !publish(&board, std::slice::from_ref(&target), &committed, &Memory::default(), 0).is_empty()
        };
        let stall = Some(sluice_crds::report::Stall::PoisonedRecord);
        assert!(!round(7, 1, None) && round(7, 2, stall));
        board.note_stall_shown("u", false);
        assert!(!round(7, 2, stall) && round(7, 3, stall), "said again, and not shown yet");
        board.note_stall_shown("u", true);
        assert!(!round(7, 4, stall), "the same record");
        assert_eq!(board.stalled("u").unwrap().at, 4);
        assert!(round(9, 5, stall) && round(10, 6, None));
        assert_eq!(board.stalled("u"), None);
    }

    #[test]
    fn deletions_that_may_have_been_missed_are_told_once_and_only_of_the_epoch_at_work() {
        let target = target();
        let board = Board::new(Triggers::new().0);
        board.born(Trigger::from(&target.claimant), "u".to_owned());
        board.register(target.clone());
        let ViewTarget { group, epoch } = target.applier.clone().unwrap();
        let at = TopicPartition::new(group.topics.keys().next().unwrap().as_str(), 2);
        let round = |epoch, deletions_missed| {
            // Nothing else is to change between two rounds.
            let report = PartitionReport { epoch: Some(epoch), deletions_missed, ..PartitionReport::default() };
            let said = CommittedOffset { offset: 7, metadata: report.encode() };
            let committed: Committed = [(group.group.clone(), [(at.clone(), said)].into())].into();
            !publish(&board, std::slice::from_ref(&target), &committed, &Memory::default(), 0).is_empty()
        };
        assert!(!round(epoch, false) && !round(epoch - 1, true), "what was said of another epoch is over");
        assert_eq!(board.missed_deletions("u", epoch), None);
        assert!(round(epoch, true) && !round(epoch, true));
        assert_eq!(board.missed_deletions("u", epoch), Some(at.clone()));
        assert_eq!(board.missed_deletions("u", epoch + 1), None, "rebuilt, and the next round has not been");
        assert!(!round(epoch, false));
        assert_eq!(board.missed_deletions("u", epoch), None);
    }

    #[test]
    fn the_lag_of_a_resource_is_not_shown_while_one_of_its_groups_is_unknown() {
        let target = target();
        let board = Board::new(Triggers::new().0);
        board.born(Trigger::from(&target.claimant), "u".to_owned());
        board.register(target.clone());
        let groups: Vec<GroupTarget> = groups_of(&target).cloned().collect();
        assert_eq!(groups.len(), 2);
        let mut memory = Memory::default();
        let offsets = |group: &GroupTarget| {
            let partition = TopicPartition::new(group.topics.keys().next().unwrap().as_str(), 0);
            (group.group.clone(), BTreeMap::from([(partition, CommittedOffset { offset: 5, metadata: String::new() })]))
        };
        for group in &groups {
            let partition = TopicPartition::new(group.topics.keys().next().unwrap().as_str(), 0);
            memory.ends.entry(partition).or_default().note(0, 5);
        }
        let one: Committed = [offsets(&groups[0])].into();
        assert!(publish(&board, std::slice::from_ref(&target), &one, &memory, 0).is_empty());
        assert!(board.lag("u").is_none());
        let both: Committed = groups.iter().map(offsets).collect();
        assert_eq!(publish(&board, std::slice::from_ref(&target), &both, &memory, 0).len(), 1);
        assert!(board.lag("u").is_some());
    }
}
