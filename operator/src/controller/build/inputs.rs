//! What is known only after Kafka was asked.

use std::collections::BTreeMap;

use sluice_crds::names::TopicName;

use crate::controller::replicas::Wanted;
use crate::secrets::InstallKey;
use crate::settings::WorkerSettings;

/// What Kafka says of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFacts {
    /// Its incarnation.
    pub id: String,
    /// Partitions.
    pub partitions: i32,
    /// True when `cleanup.policy` holds `compact`.
    pub compacted: bool,
    /// `max.message.bytes`.
    pub max_message_bytes: u64,
    /// `delete.retention.ms`, if compaction removes tombstones from it at all.
    pub tombstones_kept_ms: Option<u64>,
}

/// Everything `build` needs besides the resource.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Every topic of the resource.
    pub topics: &'a BTreeMap<TopicName, TopicFacts>,
    /// Epoch of the views; 0 without views.
    pub epoch: u64,
    /// How many workers.
    pub replicas: Wanted,
    /// Where generated passwords come from.
    pub install_key: &'a InstallKey,
    /// What worker pods are made of.
    pub worker: &'a WorkerSettings,
}
