//! Consumer groups and offsets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode;
use rdkafka_sys as sys;

use super::AdminHandle;
use super::native::{
    Native, PartitionEntry, PartitionList, c_text, c_texts, complete, entries, entry, object_failure, raw,
    take_failure, text,
};
use super::topics::distinct;
use crate::kafka::admin::{
    AdminError, ByName, CommittedOffset, GroupDeletion, GroupDescription, GroupMember, GroupOffsets, GroupState,
    Isolation, OffsetSpec, TopicPartition,
};

use sys::rd_kafka_admin_op_t as op;
use sys::rd_kafka_consumer_group_state_t as state;

/// What Kafka says for "nothing committed".
const NO_OFFSET: i64 = -1;

impl AdminHandle {
    pub async fn list_group_offsets(
        &self,
        group: &str,
        partitions: Option<&BTreeSet<TopicPartition>>,
        require_stable: bool,
        deadline: Duration,
    ) -> Result<GroupOffsets, AdminError> {
        if partitions.is_some_and(BTreeSet::is_empty) {
            return Ok(GroupOffsets::default());
        }
        let pending = {
            let options = self.options(op::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS, deadline)?;
            // SAFETY: the options are alive; the returned error object is null or ours.
            unsafe {
                let stable = i32::from(require_stable);
                take_failure(sys::rd_kafka_AdminOptions_set_require_stable_offsets(options.native.ptr(), stable))?;
            }
            let list = match partitions {
                Some(partitions) => {
                    let entries = partitions.iter().map(|partition| (partition, NO_OFFSET, None));
                    Some(PartitionList::new(entries)?)
                }
                None => None,
            };
            let list = list.as_ref().map_or(std::ptr::null_mut(), PartitionList::ptr);
            let name = c_text("group", group)?;
            // SAFETY: name and list are alive until the call returns, which copies them; null means all partitions.
            let request = unsafe { sys::rd_kafka_ListConsumerGroupOffsets_new(name.as_ptr(), list) };
            let request = Native::new(request, sys::rd_kafka_ListConsumerGroupOffsets_destroy, "group", group)?;
            let mut pointer = request.ptr();
            self.start("ListConsumerGroupOffsets", &options, |client, options, queue| {
                // SAFETY: all are alive until the call returns, which copies what it needs.
                unsafe { sys::rd_kafka_ListConsumerGroupOffsets(client, &raw mut pointer, 1, options, queue) }
            })?
        };
        let event = pending.finish().await?;
        let items = event.items(
            "ListConsumerGroupOffsets",
            sys::rd_kafka_event_ListConsumerGroupOffsets_result,
            sys::rd_kafka_ListConsumerGroupOffsets_result_groups,
        )?;
        let mut offsets = GroupOffsets::default();
        for found in group_entries(items)? {
            match found.outcome {
                Err(error) => drop(offsets.failed.insert(found.partition, error)),
                Ok(()) if found.offset < 0 => {}
                Ok(()) => {
                    let commit = CommittedOffset { offset: found.offset, metadata: found.metadata };
                    offsets.committed.insert(found.partition, commit);
                }
            }
        }
        Ok(offsets)
    }

    pub async fn alter_group_offsets(
        &self,
        group: &str,
        offsets: &BTreeMap<TopicPartition, CommittedOffset>,
        deadline: Duration,
    ) -> Result<BTreeMap<TopicPartition, Result<(), AdminError>>, AdminError> {
        if offsets.is_empty() {
            return Ok(BTreeMap::new());
        }
        let pending = {
            let options = self.options(op::RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS, deadline)?;
            let entries =
                offsets.iter().map(|(partition, commit)| (partition, commit.offset, Some(commit.metadata.as_str())));
            let list = PartitionList::new(entries)?;
            let name = c_text("group", group)?;
            // SAFETY: name and list are alive until the call returns, which copies them.
            let request = unsafe { sys::rd_kafka_AlterConsumerGroupOffsets_new(name.as_ptr(), list.ptr()) };
            let request = Native::new(request, sys::rd_kafka_AlterConsumerGroupOffsets_destroy, "group", group)?;
            let mut pointer = request.ptr();
            self.start("AlterConsumerGroupOffsets", &options, |client, options, queue| {
                // SAFETY: all are alive until the call returns, which copies what it needs.
                unsafe { sys::rd_kafka_AlterConsumerGroupOffsets(client, &raw mut pointer, 1, options, queue) }
            })?
        };
        let event = pending.finish().await?;
        let items = event.items(
            "AlterConsumerGroupOffsets",
            sys::rd_kafka_event_AlterConsumerGroupOffsets_result,
            sys::rd_kafka_AlterConsumerGroupOffsets_result_groups,
        )?;
        let mut outcomes: BTreeMap<_, _> =
            group_entries(items)?.into_iter().map(|found| (found.partition, found.outcome)).collect();
        for partition in offsets.keys() {
            outcomes.entry(partition.clone()).or_insert(Err(AdminError::Incomplete("AlterConsumerGroupOffsets")));
        }
        Ok(outcomes)
    }

    pub async fn delete_groups(
        &self,
        groups: &[String],
        deadline: Duration,
    ) -> Result<ByName<GroupDeletion>, AdminError> {
        if groups.is_empty() {
            return Ok(ByName::new());
        }
        let pending = {
            let options = self.options(op::RD_KAFKA_ADMIN_OP_DELETEGROUPS, deadline)?;
            let list = distinct(groups).map(|name| delete_group(name)).collect::<Result<Vec<_>, _>>()?;
            let mut pointers = Native::pointers(&list);
            self.start("DeleteGroups", &options, |client, options, queue| {
                // SAFETY: all are alive until the call returns, which copies what it needs.
                unsafe { sys::rd_kafka_DeleteGroups(client, pointers.as_mut_ptr(), pointers.len(), options, queue) }
            })?
        };
        let event = pending.finish().await?;
        let items = event.items(
            "DeleteGroups",
            sys::rd_kafka_event_DeleteGroups_result,
            sys::rd_kafka_DeleteGroups_result_groups,
        )?;
        // SAFETY: each item lives as long as the event.
        let outcomes = items.iter().map(|item| unsafe { group_deletion(*item) }).collect();
        Ok(complete("DeleteGroups", groups.iter().cloned(), outcomes))
    }

    pub async fn describe_groups(
        &self,
        groups: &[String],
        deadline: Duration,
    ) -> Result<ByName<GroupDescription>, AdminError> {
        if groups.is_empty() {
            return Ok(ByName::new());
        }
        let pending = {
            let options = self.options(op::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS, deadline)?;
            let (_texts, mut pointers) = c_texts("group", distinct(groups))?;
            self.start("DescribeConsumerGroups", &options, |client, options, queue| {
                let (list, len) = (pointers.as_mut_ptr(), pointers.len());
                // SAFETY: all are alive until the call returns, which copies what it needs.
                unsafe { sys::rd_kafka_DescribeConsumerGroups(client, list, len, options, queue) }
            })?
        };
        let event = pending.finish().await?;
        let items = event.items(
            "DescribeConsumerGroups",
            sys::rd_kafka_event_DescribeConsumerGroups_result,
            sys::rd_kafka_DescribeConsumerGroups_result_groups,
        )?;
        // SAFETY: each item lives as long as the event.
        let outcomes = items.iter().map(|item| unsafe { group_description(*item) }).collect();
        Ok(complete("DescribeConsumerGroups", groups.iter().cloned(), outcomes))
    }

    pub async fn list_offsets(
        &self,
        partitions: &BTreeMap<TopicPartition, OffsetSpec>,
        isolation: Isolation,
        deadline: Duration,
    ) -> Result<BTreeMap<TopicPartition, Result<i64, AdminError>>, AdminError> {
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let pending = {
            let options = self.options(op::RD_KAFKA_ADMIN_OP_LISTOFFSETS, deadline)?;
            let level = match isolation {
                Isolation::Uncommitted => sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
                Isolation::Committed => sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED,
            };
            // SAFETY: the options are alive; the returned error object is null or ours.
            unsafe {
                take_failure(sys::rd_kafka_AdminOptions_set_isolation_level(options.native.ptr(), level))?;
            }
            let list = PartitionList::new(partitions.iter().map(|(partition, spec)| (partition, wanted(*spec), None)))?;
            self.start("ListOffsets", &options, |client, options, queue| {
                // SAFETY: all are alive until the call returns, which copies what it needs.
                unsafe { sys::rd_kafka_ListOffsets(client, list.ptr(), options, queue) }
            })?
        };
        let event = pending.finish().await?;
        let items = event.items(
            "ListOffsets",
            sys::rd_kafka_event_ListOffsets_result,
            sys::rd_kafka_ListOffsets_result_infos,
        )?;
        let mut outcomes = BTreeMap::new();
        for item in items {
            // SAFETY: the item and its element live as long as the event.
            let found = unsafe { entry(sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*item)) };
            let spec = partitions.get(&found.partition).copied();
            let offset = found.outcome.and_then(|()| known(spec, found.offset));
            outcomes.insert(found.partition, offset);
        }
        for partition in partitions.keys() {
            outcomes.entry(partition.clone()).or_insert(Err(AdminError::Incomplete("ListOffsets")));
        }
        Ok(outcomes)
    }
}

fn wanted(spec: OffsetSpec) -> i64 {
    match spec {
        OffsetSpec::Earliest => sys::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_EARLIEST as i64,
        OffsetSpec::Latest => sys::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST as i64,
        OffsetSpec::Timestamp(milliseconds) => i64::try_from(milliseconds).unwrap_or(i64::MAX),
    }
}

/// The offset of an answer. The ends of a partition that was just made, or whose leader changes, can be told as a negative
/// number without an error: they are not known yet. Only a timestamp may have no record.
fn known(spec: Option<OffsetSpec>, offset: i64) -> Result<i64, AdminError> {
    match spec {
        Some(OffsetSpec::Earliest | OffsetSpec::Latest) if offset < 0 => Err(AdminError::Incomplete("ListOffsets")),
        _ => Ok(offset),
    }
}

fn delete_group(name: &str) -> Result<Native<sys::rd_kafka_DeleteGroup_t>, AdminError> {
    let text = c_text("group", name)?;
    // SAFETY: the name is alive until the call returns, which copies it.
    let ptr = unsafe { sys::rd_kafka_DeleteGroup_new(text.as_ptr()) };
    Native::new(ptr, sys::rd_kafka_DeleteGroup_destroy, "group", name)
}

/// The partitions of a result about one group.
fn group_entries(items: &[*const sys::rd_kafka_group_result_t]) -> Result<Vec<PartitionEntry>, AdminError> {
    let mut all = Vec::new();
    for item in items {
        // SAFETY: the item, its error and its list live as long as its event, which the caller holds.
        unsafe {
            object_failure(sys::rd_kafka_group_result_error(*item))?;
            all.extend(entries(sys::rd_kafka_group_result_partitions(*item)));
        }
    }
    Ok(all)
}

/// # Safety
/// `group` points to a live result.
unsafe fn group_deletion(group: *const sys::rd_kafka_group_result_t) -> (String, Result<GroupDeletion, AdminError>) {
    // SAFETY: alive by the caller's promise, with its error; texts are copied.
    let (name, outcome) = unsafe {
        (text(sys::rd_kafka_group_result_name(group)), object_failure(sys::rd_kafka_group_result_error(group)))
    };
    let outcome = match outcome {
        Ok(()) => Ok(GroupDeletion::Deleted),
        Err(AdminError::NotFound(_)) => Ok(GroupDeletion::NotFound),
        Err(AdminError::Rejected { code: RDKafkaErrorCode::NonEmptyGroup, .. }) => Ok(GroupDeletion::NotEmpty),
        Err(error) => Err(error),
    };
    (name, outcome)
}

/// # Safety
/// `group` points to a live description.
unsafe fn group_description(
    group: *const sys::rd_kafka_ConsumerGroupDescription_t,
) -> (String, Result<GroupDescription, AdminError>) {
    // SAFETY: alive by the caller's promise, with its error and its members; texts are copied.
    unsafe {
        let name = text(sys::rd_kafka_ConsumerGroupDescription_group_id(group));
        match object_failure(sys::rd_kafka_ConsumerGroupDescription_error(group)) {
            // Newer brokers say so in words, older ones by the state.
            Err(AdminError::NotFound(_)) => {
                let dead = GroupDescription { state: GroupState::Dead, assignor: String::new(), members: Vec::new() };
                return (name, Ok(dead));
            }
            Err(error) => return (name, Err(error)),
            Ok(()) => {}
        }
        let count = sys::rd_kafka_ConsumerGroupDescription_member_count(group);
        let members =
            (0..count).map(|index| member(sys::rd_kafka_ConsumerGroupDescription_member(group, index))).collect();
        let description = GroupDescription {
            state: group_state(raw::rd_kafka_ConsumerGroupDescription_state(group)),
            assignor: text(sys::rd_kafka_ConsumerGroupDescription_partition_assignor(group)),
            members,
        };
        (name, Ok(description))
    }
}

fn group_state(number: i32) -> GroupState {
    match number {
        n if n == state::RD_KAFKA_CONSUMER_GROUP_STATE_STABLE as i32 => GroupState::Stable,
        n if n == state::RD_KAFKA_CONSUMER_GROUP_STATE_EMPTY as i32 => GroupState::Empty,
        n if n == state::RD_KAFKA_CONSUMER_GROUP_STATE_DEAD as i32 => GroupState::Dead,
        n if n == state::RD_KAFKA_CONSUMER_GROUP_STATE_PREPARING_REBALANCE as i32
            || n == state::RD_KAFKA_CONSUMER_GROUP_STATE_COMPLETING_REBALANCE as i32 =>
        {
            GroupState::Rebalancing
        }
        _ => GroupState::Unknown,
    }
}

/// # Safety
/// `member` points to a live description.
unsafe fn member(member: *const sys::rd_kafka_MemberDescription_t) -> GroupMember {
    // SAFETY: alive by the caller's promise, with its assignment (or null); texts are copied.
    unsafe {
        let assignment = sys::rd_kafka_MemberDescription_assignment(member);
        let partitions = if assignment.is_null() {
            Vec::new()
        } else {
            entries(sys::rd_kafka_MemberAssignment_partitions(assignment))
        };
        GroupMember {
            member_id: text(sys::rd_kafka_MemberDescription_consumer_id(member)),
            client_id: text(sys::rd_kafka_MemberDescription_client_id(member)),
            host: text(sys::rd_kafka_MemberDescription_host(member)),
            assignment: partitions.into_iter().map(|found| found.partition).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_is_not_known_yet_is_no_offset() {
        for spec in [OffsetSpec::Earliest, OffsetSpec::Latest] {
            assert_eq!(known(Some(spec), 0), Ok(0));
            for unknown in [-1, -2, -1001] {
                let error = known(Some(spec), unknown).expect_err("no offset");
                assert!(error.retryable(), "{error}");
            }
        }
        assert_eq!(known(Some(OffsetSpec::Timestamp(7)), -1), Ok(-1), "no record is as young");
    }
}
