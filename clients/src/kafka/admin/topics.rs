//! Topics and their settings.

use std::collections::BTreeMap;

use super::{Admin, AdminError, ByName};

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Name.
    pub name: String,
    /// Number of partitions, at least 1.
    pub partitions: u32,
    /// Replicas of each partition. `None`: the brokers' default.
    pub replication_factor: Option<u16>,
    /// Settings that differ from the brokers' defaults.
    pub config: BTreeMap<String, String>,
}

/// What became of a topic to create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicCreation {
    /// This call created it (or would have, when only validated).
    Created,
    /// A topic of this name was there.
    AlreadyExists,
}

/// What became of an object to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// This call deleted it.
    Deleted,
    /// It was not there.
    NotFound,
}

/// Id of one incarnation of a topic: base64url without padding, as Kafka prints it. Deleting and creating a topic of
/// the same name gives another id (KIP-516).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(String);

impl TopicId {
    /// From its 16 bytes.
    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        use base64::Engine as _;
        Self(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for TopicId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A topic as the brokers know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its incarnation.
    pub id: TopicId,
    /// True for Kafka's own topics.
    pub internal: bool,
    /// Partitions by number, ascending.
    pub partitions: Vec<PartitionDescription>,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionDescription {
    /// Number, from 0.
    pub partition: i32,
    /// Broker that leads it. `None`: no leader now.
    pub leader: Option<i32>,
    /// Brokers that hold it.
    pub replicas: Vec<i32>,
    /// Those of them that are in sync.
    pub in_sync: Vec<i32>,
}

/// Every setting of a topic, by name.
pub type TopicConfig = BTreeMap<String, ConfigEntry>;

/// One effective setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Value. `None`: not set, or sensitive.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: ConfigSource,
    /// True when it cannot be changed.
    pub read_only: bool,
}

/// Where a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// Set on this topic.
    Topic,
    /// Set on the brokers, at run time or in their files.
    Broker,
    /// Kafka's own default.
    Default,
    /// Another source.
    Other,
}

/// A change of one setting of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// Set it on the topic.
    Set(String),
    /// Remove it from the topic, so that the brokers' value holds.
    Unset,
}

impl Admin {
    /// Creates topics. With `validate_only` the brokers check everything and create nothing.
    pub async fn create_topics(
        &self,
        topics: &[NewTopic],
        validate_only: bool,
    ) -> Result<ByName<TopicCreation>, AdminError> {
        self.handle()?.create_topics(topics, validate_only, self.deadline).await
    }

    /// Deletes topics, with all their records.
    pub async fn delete_topics(&self, names: &[String]) -> Result<ByName<Deletion>, AdminError> {
        self.handle()?.delete_topics(names, self.deadline).await
    }

    /// Grows topics to these total numbers of partitions. A number not above the present one is refused by the brokers.
    pub async fn create_partitions(&self, totals: &BTreeMap<String, u32>) -> Result<ByName<()>, AdminError> {
        self.handle()?.create_partitions(totals, self.deadline).await
    }

    /// Describes topics; `None` = there is no such topic.
    pub async fn describe_topics(&self, names: &[String]) -> Result<ByName<Option<TopicDescription>>, AdminError> {
        self.handle()?.describe_topics(names, self.deadline).await
    }

    /// Reads all settings of topics. A topic that does not exist is [`AdminError::NotFound`].
    pub async fn describe_topic_configs(&self, names: &[String]) -> Result<ByName<TopicConfig>, AdminError> {
        self.handle()?.describe_topic_configs(names, self.deadline).await
    }

    /// Changes the named settings of topics and leaves the others alone (`IncrementalAlterConfigs`, KIP-339). A topic's
    /// changes are made together or not at all.
    pub async fn alter_topic_configs(
        &self,
        changes: &BTreeMap<String, BTreeMap<String, ConfigChange>>,
    ) -> Result<ByName<()>, AdminError> {
        self.handle()?.alter_topic_configs(changes, self.deadline).await
    }
}
