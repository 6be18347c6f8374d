//! Settings of brokers.

use super::{Admin, AdminError, TopicConfig};

impl Admin {
    /// Reads all settings of one broker, from itself. Needs `DescribeConfigs` on the cluster.
    pub async fn describe_broker_config(&self, broker: i32) -> Result<TopicConfig, AdminError> {
        self.handle()?.describe_broker_config(broker, self.deadline).await
    }
}
