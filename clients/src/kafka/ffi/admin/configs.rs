//! Settings of topics and of brokers: read by one call, whatever they belong to.

use std::time::Duration;

use rdkafka_sys as sys;

use super::native::{Native, array, c_text, complete, raw, text};
use super::topics::distinct;
use super::{AdminHandle, Event, Pending};
use crate::kafka::admin::{AdminError, ByName, ConfigEntry, ConfigSource, TopicConfig, failure};

const CALL: &str = "DescribeConfigs";

type Resource = Native<sys::rd_kafka_ConfigResource_t>;
/// What was asked about, and what it is set to.
type Described = (String, Result<TopicConfig, AdminError>);

impl AdminHandle {
    pub async fn describe_topic_configs(
        &self,
        names: &[String],
        deadline: Duration,
    ) -> Result<ByName<TopicConfig>, AdminError> {
        if names.is_empty() {
            return Ok(ByName::new());
        }
        let pending = {
            let list = distinct(names).map(|name| topic_resource(name)).collect::<Result<Vec<_>, _>>()?;
            self.start_describe_configs(&list, deadline)?
        };
        let outcomes = described(&pending.finish().await?)?.into_iter().collect();
        Ok(complete(CALL, names.iter().cloned(), outcomes))
    }

    pub async fn describe_broker_config(&self, broker: i32, deadline: Duration) -> Result<TopicConfig, AdminError> {
        let pending = {
            // A call names at most one broker: it is sent to that one.
            let list =
                [resource(sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_BROKER, "broker", &broker.to_string())?];
            self.start_describe_configs(&list, deadline)?
        };
        let event = pending.finish().await?;
        let only: Result<[_; 1], _> = described(&event)?.try_into();
        let [(_, outcome)] = only.map_err(|_other_count| AdminError::Incomplete(CALL))?;
        outcome
    }

    fn start_describe_configs(&self, list: &[Resource], deadline: Duration) -> Result<Pending, AdminError> {
        let options = self.options(sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, deadline)?;
        let mut pointers = Native::pointers(list);
        self.start(CALL, &options, |client, options, queue| {
            // SAFETY: all are alive until the call returns, which copies what it needs.
            unsafe { sys::rd_kafka_DescribeConfigs(client, pointers.as_mut_ptr(), pointers.len(), options, queue) }
        })
    }
}

/// In the order of the answer.
fn described(event: &Event) -> Result<Vec<Described>, AdminError> {
    let items = event.items(
        CALL,
        sys::rd_kafka_event_DescribeConfigs_result,
        sys::rd_kafka_DescribeConfigs_result_resources,
    )?;
    let read = |item: &*const sys::rd_kafka_ConfigResource_t| {
        // SAFETY: the item lives as long as the event.
        let (name, outcome) = unsafe { resource_outcome(*item) };
        // SAFETY: as above.
        (name, outcome.map(|()| unsafe { config_entries(*item) }))
    };
    Ok(items.iter().map(read).collect())
}

fn resource(kind: sys::rd_kafka_ResourceType_t, what: &'static str, name: &str) -> Result<Resource, AdminError> {
    let text = c_text(what, name)?;
    // SAFETY: the name is alive until the call returns, which copies it.
    let ptr = unsafe { sys::rd_kafka_ConfigResource_new(kind, text.as_ptr()) };
    Native::new(ptr, sys::rd_kafka_ConfigResource_destroy, what, name)
}

pub(super) fn topic_resource(name: &str) -> Result<Resource, AdminError> {
    resource(sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC, "topic", name)
}

/// # Safety
/// `resource` points to a live resource.
pub(super) unsafe fn resource_outcome(
    resource: *const sys::rd_kafka_ConfigResource_t,
) -> (String, Result<(), AdminError>) {
    // SAFETY: alive by the caller's promise; texts are copied.
    unsafe {
        let message = text(sys::rd_kafka_ConfigResource_error_string(resource));
        let outcome = failure(raw::rd_kafka_ConfigResource_error(resource), &message);
        (text(sys::rd_kafka_ConfigResource_name(resource)), outcome)
    }
}

/// # Safety
/// `resource` points to a live resource.
unsafe fn config_entries(resource: *const sys::rd_kafka_ConfigResource_t) -> TopicConfig {
    let mut len = 0;
    // SAFETY: alive by the caller's promise, and the array lives as long.
    let entries = unsafe { array(sys::rd_kafka_ConfigResource_configs(resource, &raw mut len), len) };
    // SAFETY: each entry is alive; texts are copied.
    entries.iter().map(|entry| unsafe { config_entry(*entry) }).collect()
}

/// # Safety
/// `entry` points to a live entry.
unsafe fn config_entry(entry: *const sys::rd_kafka_ConfigEntry_t) -> (String, ConfigEntry) {
    // SAFETY: alive by the caller's promise; texts are copied.
    unsafe {
        let value = sys::rd_kafka_ConfigEntry_value(entry);
        let value = if value.is_null() { None } else { Some(text(value)) };
        let source = match raw::rd_kafka_ConfigEntry_source(entry) {
            1 => ConfigSource::Topic,
            2..=4 => ConfigSource::Broker,
            5 => ConfigSource::Default,
            _ => ConfigSource::Other,
        };
        let read_only = sys::rd_kafka_ConfigEntry_is_read_only(entry) == 1;
        (text(sys::rd_kafka_ConfigEntry_name(entry)), ConfigEntry { value, source, read_only })
    }
}

/// Keeps the compiler honest about the numbers above.
const _: () = {
    use sys::rd_kafka_ConfigSource_t as source;
    assert!(source::RD_KAFKA_CONFIG_SOURCE_DYNAMIC_TOPIC_CONFIG as i32 == 1);
    assert!(source::RD_KAFKA_CONFIG_SOURCE_DYNAMIC_BROKER_CONFIG as i32 == 2);
    assert!(source::RD_KAFKA_CONFIG_SOURCE_STATIC_BROKER_CONFIG as i32 == 4);
    assert!(source::RD_KAFKA_CONFIG_SOURCE_DEFAULT_CONFIG as i32 == 5);
};
