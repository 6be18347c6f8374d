//! Topics and their settings.

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode;
use rdkafka_sys as sys;

use super::AdminHandle;
use super::configs::{resource_outcome, topic_resource};
use super::native::{ErrorText, Native, array, c_text, c_texts, complete, object_failure, raw, take_failure, text};
use crate::kafka::admin::{
    AdminError, ByName, ConfigChange, Deletion, NewTopic, PartitionDescription, TopicCreation, TopicDescription,
    TopicId, error_code, failure,
};

use sys::rd_kafka_admin_op_t as op;

impl AdminHandle {
    pub async fn create_topics(
        &self,
        topics: &[NewTopic],
        validate_only: bool,
        deadline: Duration,
    ) -> Result<ByName<TopicCreation>, AdminError> {
        if topics.is_empty() {
            return Ok(ByName::new());
        }
        let pending = {
            let options = self.options(op::RD_KAFKA_ADMIN_OP_CREATETOPICS, deadline)?;
            options.set_operation_timeout()?;
            options.set(|options, text, size| {
                // SAFETY: the options are alive; text and size describe a live buffer.
                unsafe { sys::rd_kafka_AdminOptions_set_validate_only(options, c_int::from(validate_only), text, size) }
            })?;
            let list = topics.iter().map(new_topic).collect::<Result<Vec<_>, _>>()?;
            let mut pointers = Native::pointers(&list);
            self.start("CreateTopics", &options, |client, options, queue| {
                // SAFETY: all are alive until the call returns, which copies what it needs.
                unsafe { sys::rd_kafka_CreateTopics(client, pointers.as_mut_ptr(), pointers.len(), options, queue) }
            })?
        };
        let event = pending.finish().await?;
        let items = event.items(
            "CreateTopics",
            sys::rd_kafka_event_CreateTopics_result,
            sys::rd_kafka_CreateTopics_result_topics,
        )?;
        let outcomes = topic_results(items, |code| match code {
            RDKafkaErrorCode::NoError => Some(TopicCreation::Created),
            RDKafkaErrorCode::TopicAlreadyExists => Some(TopicCreation::AlreadyExists),
            _ => None,
        });
        Ok(complete("CreateTopics", topics.iter().map(|topic| topic.name.clone()), outcomes))
    }

    pub async fn delete_topics(&self, names: &[String], deadline: Duration) -> Result<ByName<Deletion>, AdminError> {
        if names.is_empty() {
            return Ok(ByName::new());
        }
        let pending = {
            let options = self.options(op::RD_KAFKA_ADMIN_OP_DELETETOPICS, deadline)?;
            options.set_operation_timeout()?;
            let list = distinct(names).map(|name| delete_topic(name)).collect::<Result<Vec<_>, _>>()?;
            let mut pointers = Native::pointers(&list);
            self.start("DeleteTopics", &options, |client, options, queue| {
                // SAFETY: all are alive until the call returns, which copies what it needs.
                unsafe { sys::rd_kafka_DeleteTopics(client, pointers.as_mut_ptr(), pointers.len(), options, queue) }
            })?
        };
        let event = pending.finish().await?;
        let items = event.items(
            "DeleteTopics",
            sys::rd_kafka_event_DeleteTopics_result,
            sys::rd_kafka_DeleteTopics_result_topics,
        )?;
        let outcomes = topic_results(items, |code| match code {
            RDKafkaErrorCode::NoError => Some(Deletion::Deleted),
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => Some(Deletion::NotFound),
            _ => None,
        });
        Ok(complete("DeleteTopics", names.iter().cloned(), outcomes))
    }

    pub async fn create_partitions(
        &self,
        totals: &BTreeMap<String, u32>,
        deadline: Duration,
    ) -> Result<ByName<()>, AdminError> {
        if totals.is_empty() {
            return Ok(ByName::new());
        }
        let pending = {
            let options = self.options(op::RD_KAFKA_ADMIN_OP_CREATEPARTITIONS, deadline)?;
            options.set_operation_timeout()?;
            let list =
                totals.iter().map(|(name, total)| new_partitions(name, *total)).collect::<Result<Vec<_>, _>>()?;
            let mut pointers = Native::pointers(&list);
            self.start("CreatePartitions", &options, |client, options, queue| {
                // SAFETY: all are alive until the call returns, which copies what it needs.
                unsafe { sys::rd_kafka_CreatePartitions(client, pointers.as_mut_ptr(), pointers.len(), options, queue) }
            })?
        };
        let event = pending.finish().await?;
        let items = event.items(
            "CreatePartitions",
            sys::rd_kafka_event_CreatePartitions_result,
            sys::rd_kafka_CreatePartitions_result_topics,
        )?;
        let outcomes = topic_results(items, |code| (code == RDKafkaErrorCode::NoError).then_some(()));
        Ok(complete("CreatePartitions", totals.keys().cloned(), outcomes))
    }

    pub async fn describe_topics(
        &self,
        names: &[String],
        deadline: Duration,
    ) -> Result<ByName<Option<TopicDescription>>, AdminError> {
        if names.is_empty() {
            return Ok(ByName::new());
        }
        let pending = {
            let options = self.options(op::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, deadline)?;
            let (_texts, mut pointers) = c_texts("topic", distinct(names))?;
            // SAFETY: the texts are alive until the call returns, which copies them.
            let collection =
                unsafe { sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()) };
            let collection = Native::new(collection, sys::rd_kafka_TopicCollection_destroy, "topics", "")?;
            self.start("DescribeTopics", &options, |client, options, queue| {
                // SAFETY: all are alive until the call returns, which copies what it needs.
                unsafe { sys::rd_kafka_DescribeTopics(client, collection.ptr(), options, queue) }
            })?
        };
        let event = pending.finish().await?;
        let items = event.items(
            "DescribeTopics",
            sys::rd_kafka_event_DescribeTopics_result,
            sys::rd_kafka_DescribeTopics_result_topics,
        )?;
        // SAFETY: each item is a description that lives as long as the event.
        let outcomes = items.iter().map(|item| unsafe { topic_description(*item) }).collect();
        Ok(complete("DescribeTopics", names.iter().cloned(), outcomes))
    }

    pub async fn alter_topic_configs(
        &self,
        changes: &BTreeMap<String, BTreeMap<String, ConfigChange>>,
        deadline: Duration,
    ) -> Result<ByName<()>, AdminError> {
        let to_alter = || changes.iter().filter(|(_, changes)| !changes.is_empty());
        if to_alter().next().is_none() {
            return Ok(changes.keys().map(|name| (name.clone(), Ok(()))).collect());
        }
        let pending = {
            let options = self.options(op::RD_KAFKA_ADMIN_OP_INCREMENTALALTERCONFIGS, deadline)?;
            let list =
                to_alter().map(|(name, changes)| changed_resource(name, changes)).collect::<Result<Vec<_>, _>>()?;
            let mut pointers = Native::pointers(&list);
            self.start("IncrementalAlterConfigs", &options, |client, options, queue| {
                // SAFETY: all are alive until the call returns, which copies what it needs.
                unsafe {
                    sys::rd_kafka_IncrementalAlterConfigs(
                        client,
                        pointers.as_mut_ptr(),
                        pointers.len(),
                        options,
                        queue,
                    );
                }
            })?
        };
        let event = pending.finish().await?;
        let items = event.items(
            "IncrementalAlterConfigs",
            sys::rd_kafka_event_IncrementalAlterConfigs_result,
            sys::rd_kafka_IncrementalAlterConfigs_result_resources,
        )?;
        // SAFETY: each item lives as long as the event.
        let mut outcomes: ByName<()> = items.iter().map(|item| unsafe { resource_outcome(*item) }).collect();
        for (name, _) in changes.iter().filter(|(_, changes)| changes.is_empty()) {
            outcomes.insert(name.clone(), Ok(()));
        }
        Ok(complete("IncrementalAlterConfigs", changes.keys().cloned(), outcomes))
    }
}

/// librdkafka refuses a call that names an object twice.
pub(super) fn distinct(names: &[String]) -> impl Iterator<Item = &String> {
    names.iter().collect::<std::collections::BTreeSet<_>>().into_iter()
}

fn new_topic(topic: &NewTopic) -> Result<Native<sys::rd_kafka_NewTopic_t>, AdminError> {
    let name = c_text("topic", &topic.name)?;
    let partitions = c_int::try_from(topic.partitions).unwrap_or(c_int::MAX);
    let replicas = topic.replication_factor.map_or(-1, c_int::from);
    let mut error = ErrorText::default();
    // SAFETY: the name is alive until the call returns, which copies it; the text and its size describe a live buffer.
    let ptr = unsafe {
        sys::rd_kafka_NewTopic_new(name.as_ptr(), partitions, replicas, error.as_mut_ptr(), error.capacity())
    };
    if ptr.is_null() {
        return Err(error.invalid("new topic", &topic.name));
    }
    let native = Native::new(ptr, sys::rd_kafka_NewTopic_destroy, "new topic", &topic.name)?;
    for (key, value) in &topic.config {
        let (key_text, value_text) = (c_text("topic setting", key)?, c_text("topic setting", value)?);
        // SAFETY: all are alive until the call returns, which copies the texts.
        let code = unsafe { sys::rd_kafka_NewTopic_set_config(native.ptr(), key_text.as_ptr(), value_text.as_ptr()) };
        failure(code as i32, "")?;
    }
    Ok(native)
}

fn delete_topic(name: &str) -> Result<Native<sys::rd_kafka_DeleteTopic_t>, AdminError> {
    let text = c_text("topic", name)?;
    // SAFETY: the name is alive until the call returns, which copies it.
    let ptr = unsafe { sys::rd_kafka_DeleteTopic_new(text.as_ptr()) };
    Native::new(ptr, sys::rd_kafka_DeleteTopic_destroy, "topic", name)
}

fn new_partitions(name: &str, total: u32) -> Result<Native<sys::rd_kafka_NewPartitions_t>, AdminError> {
    let topic = c_text("topic", name)?;
    let total = usize::try_from(total).unwrap_or(usize::MAX);
    let mut error = ErrorText::default();
    // SAFETY: the name is alive until the call returns, which copies it; the text and its size describe a live buffer.
    let ptr = unsafe { sys::rd_kafka_NewPartitions_new(topic.as_ptr(), total, error.as_mut_ptr(), error.capacity()) };
    if ptr.is_null() {
        return Err(error.invalid("partitions of topic", name));
    }
    Native::new(ptr, sys::rd_kafka_NewPartitions_destroy, "partitions of topic", name)
}

fn changed_resource(
    name: &str,
    changes: &BTreeMap<String, ConfigChange>,
) -> Result<Native<sys::rd_kafka_ConfigResource_t>, AdminError> {
    let resource = topic_resource(name)?;
    for (key, change) in changes {
        let key_text = c_text("topic setting", key)?;
        let (kind, value) = match change {
            ConfigChange::Set(value) => (
                sys::rd_kafka_AlterConfigOpType_t::RD_KAFKA_ALTER_CONFIG_OP_TYPE_SET,
                Some(c_text("topic setting", value)?),
            ),
            ConfigChange::Unset => (sys::rd_kafka_AlterConfigOpType_t::RD_KAFKA_ALTER_CONFIG_OP_TYPE_DELETE, None),
        };
        let value = value.as_ref().map_or(std::ptr::null(), |value| value.as_ptr());
        // SAFETY: all are alive until the call returns, which copies the texts; null is no value. What it returns is
        // null or an error object that is ours.
        unsafe {
            let error =
                sys::rd_kafka_ConfigResource_add_incremental_config(resource.ptr(), key_text.as_ptr(), kind, value);
            take_failure(error)?;
        }
    }
    Ok(resource)
}

fn topic_results<T>(
    items: &[*const sys::rd_kafka_topic_result_t],
    expected: impl Fn(RDKafkaErrorCode) -> Option<T>,
) -> ByName<T> {
    let mut outcomes = ByName::new();
    for item in items {
        // SAFETY: the item lives as long as its event; texts are copied.
        let (name, code, message) = unsafe {
            let code = error_code(raw::rd_kafka_topic_result_error(*item));
            (text(sys::rd_kafka_topic_result_name(*item)), code, text(sys::rd_kafka_topic_result_error_string(*item)))
        };
        outcomes.insert(name, expected(code).ok_or_else(|| AdminError::from_code(code, &message)));
    }
    outcomes
}

/// # Safety
/// `topic` points to a live description.
unsafe fn topic_description(
    topic: *const sys::rd_kafka_TopicDescription_t,
) -> (String, Result<Option<TopicDescription>, AdminError>) {
    // SAFETY: alive by the caller's promise; what the getters give lives as long and is copied.
    unsafe {
        let name = text(sys::rd_kafka_TopicDescription_name(topic));
        match object_failure(sys::rd_kafka_TopicDescription_error(topic)) {
            Err(AdminError::NotFound(_)) => return (name, Ok(None)),
            Err(error) => return (name, Err(error)),
            Ok(()) => {}
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        if id.is_null() {
            return (name, Err(AdminError::Incomplete("DescribeTopics")));
        }
        let high = sys::rd_kafka_Uuid_most_significant_bits(id) as u64;
        let low = sys::rd_kafka_Uuid_least_significant_bits(id) as u64;
        let bytes = ((u128::from(high) << 64) | u128::from(low)).to_be_bytes();
        let mut len = 0;
        let partitions = array(sys::rd_kafka_TopicDescription_partitions(topic, &raw mut len), len);
        let mut partitions: Vec<_> = partitions.iter().map(|partition| partition_description(*partition)).collect();
        partitions.sort_by_key(|partition| partition.partition);
        let internal = sys::rd_kafka_TopicDescription_is_internal(topic) != 0;
        (name, Ok(Some(TopicDescription { id: TopicId::from_bytes(bytes), internal, partitions })))
    }
}

/// # Safety
/// `partition` points to a live description.
unsafe fn partition_description(partition: *const sys::rd_kafka_TopicPartitionInfo_t) -> PartitionDescription {
    // SAFETY: alive by the caller's promise; nodes are null or live as long.
    unsafe {
        let leader = sys::rd_kafka_TopicPartitionInfo_leader(partition);
        let leader = if leader.is_null() { None } else { Some(sys::rd_kafka_Node_id(leader)) };
        let (mut replicas, mut in_sync) = (0, 0);
        let replica_nodes = array(sys::rd_kafka_TopicPartitionInfo_replicas(partition, &raw mut replicas), replicas);
        let in_sync_nodes = array(sys::rd_kafka_TopicPartitionInfo_isr(partition, &raw mut in_sync), in_sync);
        PartitionDescription {
            partition: sys::rd_kafka_TopicPartitionInfo_partition(partition),
            leader: leader.filter(|id| *id >= 0),
            replicas: node_ids(replica_nodes),
            in_sync: node_ids(in_sync_nodes),
        }
    }
}

/// # Safety
/// Each node is null or alive.
unsafe fn node_ids(nodes: &[*const sys::rd_kafka_Node_t]) -> Vec<i32> {
    // SAFETY: not null and alive by the caller's promise.
    nodes.iter().filter(|node| !node.is_null()).map(|node| unsafe { sys::rd_kafka_Node_id(*node) }).collect()
}
