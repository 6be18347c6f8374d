//! Consumer groups and offsets.

use std::collections::{BTreeMap, BTreeSet};

use super::{Admin, AdminError, ByName};
use crate::kafka::coordinators::{Description, Offsets};

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// Topic.
    pub topic: String,
    /// Partition, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// A partition of a topic.
    pub fn new(topic: impl Into<String>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

/// What a group has committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Offset of the next record to read.
    pub offset: i64,
    /// The text committed with it; at most `offset.metadata.max.bytes` (4096) bytes.
    pub metadata: String,
}

/// What a group has committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupOffsets {
    /// By partition; partitions without a commit are absent.
    pub committed: BTreeMap<TopicPartition, CommittedOffset>,
    /// Partitions that could not be read.
    pub failed: BTreeMap<TopicPartition, AdminError>,
}

/// What became of a group to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupDeletion {
    /// This call deleted it with its offsets.
    Deleted,
    /// It was not there.
    NotFound,
    /// It has members.
    NotEmpty,
}

/// State of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// Offsets, no members.
    Empty,
    /// Members, all assigned.
    Stable,
    /// A rebalance is going on (any of its phases).
    Rebalancing,
    /// There is no such group, or it is being removed.
    Dead,
    /// The client does not know the state the broker reported.
    Unknown,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its state.
    pub state: GroupState,
    /// Assignor in use; empty without members.
    pub assignor: String,
    /// Its members.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// Id the coordinator gave it.
    pub member_id: String,
    /// Its `client.id`.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
    /// What it consumes now.
    pub assignment: BTreeSet<TopicPartition>,
}

/// Which offset of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first one still there.
    Earliest,
    /// One past the last (with [`Isolation::Committed`]: the last stable one).
    Latest,
    /// That of the first record with at least this timestamp, in milliseconds since 1970; none = the end.
    Timestamp(u64),
}

/// Which end of a partition a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// `read_uncommitted`: the high watermark.
    Uncommitted,
    /// `read_committed`: the last stable offset.
    Committed,
}

impl Admin {
    /// Reads what a group has committed, for these partitions or (`None`) for all it has committed. `require_stable`:
    /// partitions with an open transaction on their offsets fail as transient instead of showing the older offset (KIP-447).
    pub async fn list_group_offsets(
        &self,
        group: &str,
        partitions: Option<&BTreeSet<TopicPartition>>,
        require_stable: bool,
    ) -> Result<GroupOffsets, AdminError> {
        if partitions.is_some_and(BTreeSet::is_empty) {
            return Ok(GroupOffsets::default());
        }
        let (question, groups) = (Offsets { partitions, require_stable }, [group.to_owned()].into());
        let mut found = self.clients.coordinators.ask(&question, groups, self.deadline).await?;
        found.remove(group).unwrap_or(Err(AdminError::Incomplete("OffsetFetch")))
    }

    /// Reads all that each of these groups has committed: one request for all groups of a coordinator. An open transaction
    /// shows the older offset.
    pub async fn list_offsets_of_groups(&self, groups: BTreeSet<String>) -> Result<ByName<GroupOffsets>, AdminError> {
        let question = Offsets { partitions: None, require_stable: false };
        self.clients.coordinators.ask(&question, groups, self.deadline).await
    }

    /// Commits offsets for a group that has no members; refused ([`AdminError::Rejected`]) while it has. Makes the
    /// group if there is none.
    pub async fn alter_group_offsets(
        &self,
        group: &str,
        offsets: &BTreeMap<TopicPartition, CommittedOffset>,
    ) -> Result<BTreeMap<TopicPartition, Result<(), AdminError>>, AdminError> {
        self.handle()?.alter_group_offsets(group, offsets, self.deadline).await
    }

    /// Deletes groups with their offsets.
    pub async fn delete_groups(&self, groups: &[String]) -> Result<ByName<GroupDeletion>, AdminError> {
        self.handle()?.delete_groups(groups, self.deadline).await
    }

    /// Describes groups of the classic protocol: one request for all groups of a coordinator. One that does not exist, or is
    /// of another protocol, is [`GroupState::Dead`].
    pub async fn describe_groups(&self, groups: &[String]) -> Result<ByName<GroupDescription>, AdminError> {
        self.clients.coordinators.ask(&Description, groups.iter().cloned().collect(), self.deadline).await
    }

    /// Looks up offsets of partitions.
    pub async fn list_offsets(
        &self,
        partitions: &BTreeMap<TopicPartition, OffsetSpec>,
        isolation: Isolation,
    ) -> Result<BTreeMap<TopicPartition, Result<i64, AdminError>>, AdminError> {
        self.handle()?.list_offsets(partitions, isolation, self.deadline).await
    }
}
