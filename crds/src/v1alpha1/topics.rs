//! Topics a resource owns, the topics it reads, and where it starts.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::patterns::{GROUP, TOPIC};

/// A topic that this resource owns: the operator creates it, keeps its settings and grows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "has(self.replicationFactor) == has(oldSelf.replicationFactor) \
     && (!has(self.replicationFactor) || self.replicationFactor == oldSelf.replicationFactor)"
)
.message("replicationFactor is only used on creation and cannot be changed"))]
pub struct OwnedTopic {
    /// Name in Kafka.
    #[schemars(length(min = 1, max = 249), regex(pattern = TOPIC))]
    #[x_kube(validation = Rule::new("!(self in ['.', '..'])").message("not a topic name Kafka takes"))]
    #[x_kube(validation = Rule::new("!self.startsWith('__')")
        .message("topics that begin with __ are Kafka's own: no resource can own them"))]
    #[x_kube(validation = Rule::new("!self.startsWith('sluice.')")
        .message("topics that begin with sluice. are made for routes without a topic: choose another name"))]
    pub name: String,
    /// Number of partitions. Never shrinks; a topic that feeds a view never grows.
    #[schemars(range(min = 1, max = 10000))]
    #[x_kube(validation = Rule::new("self >= oldSelf").message("partitions never decrease: Kafka cannot remove one"))]
    pub partitions: i32,
    /// Replicas of each partition, on creation; unchangeable. Absent: the broker's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub replication_factor: Option<i32>,
    /// Topic settings, e.g. `retention.ms: "604800000"`. Settings not named here are left alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 1024}))]
    pub config: BTreeMap<String, String>,
}

/// What a resource consumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "has(self.groupId) == has(oldSelf.groupId) && (!has(self.groupId) || self.groupId == oldSelf.groupId)"
)
.message("groupId cannot be changed: another group has other offsets; make a new resource"))]
pub struct Source {
    /// Topics to consume.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub topics: Vec<SourceTopic>,
    /// Consumer group; unchangeable. Absent: a name of our own. May name an existing, empty group to take over its offsets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249), regex(pattern = GROUP))]
    #[x_kube(validation = Rule::new("!self.startsWith('sluice.')")
        .message("groups that begin with sluice. belong to resources that name none: choose another"))]
    pub group_id: Option<String>,
    /// Where a group without offsets starts.
    #[serde(default)]
    pub start: Start,
    /// How values are read: `Json` (fields are reachable in expressions and steps) or `Raw` (opaque bytes).
    #[serde(default)]
    pub format: Format,
}

/// What a cache consumes: whole topics, from their first record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "has(self.groupId) == has(oldSelf.groupId) && (!has(self.groupId) || self.groupId == oldSelf.groupId)"
)
.message("groupId cannot be changed: make a new resource"))]
pub struct CacheSource {
    /// Topics to consume.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub topics: Vec<SourceTopic>,
    /// Consumer group, which says how far the workers are; unchangeable. Absent: a name of our own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249), regex(pattern = GROUP))]
    #[x_kube(validation = Rule::new("!self.startsWith('sluice.')")
        .message("groups that begin with sluice. belong to resources that name none: choose another"))]
    pub group_id: Option<String>,
    /// How values are read: `Json` (fields are reachable in expressions) or `Raw` (opaque bytes).
    #[serde(default)]
    pub format: Format,
}

/// One topic to consume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceTopic {
    /// Name in Kafka.
    #[schemars(length(min = 1, max = 249), regex(pattern = TOPIC))]
    #[x_kube(validation = Rule::new("!(self in ['.', '..'])").message("not a topic name Kafka takes"))]
    pub name: String,
}

/// Where a group without offsets starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Start {
    /// `Earliest` (the first record the topic still holds) or `Latest` (only what arrives after the operator's first visit).
    #[serde(default)]
    pub position: StartPosition,
}

/// A start position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StartPosition {
    /// The first record the topic still holds.
    #[default]
    Earliest,
    /// The end of the topic at the operator's first visit.
    Latest,
}

/// How record values are read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Format {
    /// JSON text; fields are reachable in expressions and steps.
    #[default]
    Json,
    /// Opaque bytes; expressions see `value` as bytes.
    Raw,
}
