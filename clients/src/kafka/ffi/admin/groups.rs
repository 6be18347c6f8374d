//! Consumer groups and offsets.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode;
use rdkafka_sys as sys;

use super::AdminHandle;
use super::native::{
    Native, PartitionEntry, PartitionList, c_text, complete, entries, entry, object_failure, take_failure, text,
};
use super::topics::distinct;
use crate::kafka::admin::{AdminError, ByName, CommittedOffset, GroupDeletion, Isolation, OffsetSpec, TopicPartition};

use sys::rd_kafka_admin_op_t as op;

impl AdminHandle {
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
