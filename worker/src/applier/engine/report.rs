//! What others may know of the engine: group commits with their reports, lag, what stands and why.

use sluice_clients::redis::NodeId;
use sluice_crds::report::PartitionReport;

use super::Engine;
use super::held::Place;
use super::partition::{Context, Partition};
use super::types::{LineId, PartitionId, Stats, StopReason};
use crate::applier::mutation::Poison;

impl Engine {
    /// What was counted.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Why everything stopped, if it did.
    pub fn stopped(&self) -> Option<&StopReason> {
        self.stopped.as_ref()
    }

    /// What nothing at all can go on without, when it is not there.
    pub fn waits_for(&self) -> Option<&'static str> {
        if self.topology.is_none() {
            return Some("Topology");
        }
        self.partitions.values().any(|partition| !partition.verified).then_some("TopicIds")
    }

    /// Slots over all partitions that are not at the head.
    pub fn slots_behind(&self) -> u64 {
        self.partitions.values().map(|partition| partition.slots_behind(&self.shards)).sum()
    }

    /// Where each shard of the topology is, and why scripts cannot be sent, if so.
    pub fn shards(&self) -> impl Iterator<Item = (&NodeId, Option<&'static str>)> {
        self.shards.iter().map(|(node, shard)| (node, shard.cause()))
    }

    /// Partitions that cannot go on: the record they stand at, and why.
    pub fn stalled(&self) -> impl Iterator<Item = (PartitionId, i64, &Poison)> {
        self.partitions
            .values()
            .filter_map(|partition| partition.poison().map(|(offset, why)| (partition.id, offset, why)))
    }

    /// Partitions some of whose mutations Redis refuses, and what it says.
    pub fn refused(&self) -> impl Iterator<Item = (PartitionId, &str)> {
        let each = |partition: &'_ Partition| partition.id;
        self.partitions.values().flat_map(move |partition| {
            partition.held.values().filter_map(move |held| Some((each(partition), held.refusal.as_deref()?)))
        })
    }

    /// Partitions of which deletions may have been missed: a new epoch is needed.
    pub fn missed_deletions(&self) -> impl Iterator<Item = PartitionId> {
        self.partitions.values().filter(|partition| partition.has_missed_deletions()).map(|partition| partition.id)
    }

    /// Main-line positions, for lag.
    pub fn positions(&self) -> impl Iterator<Item = (PartitionId, i64)> {
        self.partitions.values().map(|partition| (partition.id, partition.main.position))
    }
}

/// The group commit of a partition, when one is due.
pub(super) fn commit(
    partition: &mut Partition,
    context: &Context<'_>,
    epoch: u64,
) -> Option<(PartitionId, i64, PartitionReport)> {
    // Zero is a position only where nothing is: the views of an empty topic are complete, and somebody waits to hear it.
    let end = partition.line(LineId::Main).end;
    let offset = partition
        .watermark(|place| place == Place::Line(LineId::Main))
        .filter(|offset| *offset > 0 || end == Some(*offset))?;
    let times = context.settings.times;
    let deletions_missed = partition.has_missed_deletions();
    let said = partition.committed == Some(offset) && partition.committed_missed == deletions_missed;
    let pause = if said { times.commit_idle } else { times.commit };
    if partition.committed.is_some() && context.now.saturating_sub(partition.committed_at) < pause {
        return None;
    }
    partition.committed = Some(offset);
    partition.committed_at = context.now;
    partition.committed_missed = deletions_missed;
    let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
    let report = PartitionReport {
        since: partition.assigned_wall_ms,
        at: context.wall_ms,
        records: partition.records,
        busy_micros: partition.busy_ms * 1_000,
        last_timestamp: partition.last_timestamp_ms.map(unsigned),
        dead_letters: 0,
        topic_id: context.settings.topics.get(usize::from(partition.id.topic)).copied(),
        stall: None,
        watermark: partition.watermark(|_| true).map(unsigned),
        epoch: Some(epoch),
        slots_behind: Some(partition.slots_behind(context.shards)),
        repair_offset: partition.repair.active.then(|| unsigned(partition.repair.position)),
        deletions_missed,
    };
    Some((partition.id, offset, report))
}
