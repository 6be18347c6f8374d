//! Settings of brokers.

use std::time::Duration;

use rdkafka_sys as sys;

use super::AdminHandle;
use super::native::{Native, c_text};
use super::topics::{config_entries, resource_outcome};
use crate::kafka::admin::{AdminError, TopicConfig};

impl AdminHandle {
    pub async fn describe_broker_config(&self, broker: i32, deadline: Duration) -> Result<TopicConfig, AdminError> {
        let pending = {
            let options = self.options(sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, deadline)?;
            // A call names at most one broker: it is sent to that one.
            let list = [broker_resource(broker)?];
            let mut pointers = Native::pointers(&list);
            self.start("DescribeConfigs", &options, |client, options, queue| {
                // SAFETY: all are alive until the call returns, which copies what it needs.
                unsafe { sys::rd_kafka_DescribeConfigs(client, pointers.as_mut_ptr(), pointers.len(), options, queue) }
            })?
        };
        let event = pending.finish().await?;
        let items = event.items(
            "DescribeConfigs",
            sys::rd_kafka_event_DescribeConfigs_result,
            sys::rd_kafka_DescribeConfigs_result_resources,
        )?;
        let [item] = items else { return Err(AdminError::Incomplete("DescribeConfigs")) };
        // SAFETY: the item lives as long as the event.
        let (_, outcome) = unsafe { resource_outcome(*item) };
        // SAFETY: as above.
        outcome.map(|()| unsafe { config_entries(*item) })
    }
}

fn broker_resource(broker: i32) -> Result<Native<sys::rd_kafka_ConfigResource_t>, AdminError> {
    let name = broker.to_string();
    let text = c_text("broker", &name)?;
    let kind = sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_BROKER;
    // SAFETY: the name is alive until the call returns, which copies it.
    let ptr = unsafe { sys::rd_kafka_ConfigResource_new(kind, text.as_ptr()) };
    Native::new(ptr, sys::rd_kafka_ConfigResource_destroy, "broker", &name)
}
