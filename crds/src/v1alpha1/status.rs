//! Status of both kinds: what was observed, never what was wished.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AutoscalingStatus;

/// Observed state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Generation of the spec this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Reconciling`, `Stalled` and what they are made of.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Topics of the spec and who made them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub topics: Vec<TopicStatus>,
    /// Whether topics, groups and key prefixes named here are this resource's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<ClaimState>,
    /// Redis views: their key prefixes, versions and epochs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub views: Vec<ViewStatus>,
    /// Source partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<i32>,
    /// Worker pods that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Label selector of the worker pods, for `/scale`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// How far behind, in coarse steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<LagStatus>,
    /// What the autoscaler last made of the load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingStatus>,
    /// Epoch of the views (seconds, only grows): a new one rebuilds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
}

/// Whether a resource has what its status names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClaimState {
    /// It has, and nobody else gets it before its workers have stopped.
    Held,
    /// It has lost the right to it, and its last worker has ended: others may have it.
    Released,
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopicStatus {
    /// Name in Kafka.
    pub name: String,
    /// Kafka's topic id; a re-created topic has another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Who made it.
    pub ownership: Ownership,
    /// Number of partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<i32>,
    /// Consumed topics: partitions whose start offset was committed, so that a missing offset means a lost one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_partitions: Option<i32>,
}

/// Who made a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Ownership {
    /// We are about to create it (written before the call, so that a crash in between is understood).
    Creating,
    /// We created it: `deletionPolicy.topics` applies.
    Created,
    /// It was there and matches the spec; kept in step, never deleted.
    Adopted,
    /// It is used, not owned.
    Foreign,
}

/// One view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ViewStatus {
    /// Name of the view.
    pub name: String,
    /// Key prefix it owns.
    pub key_prefix: String,
    /// Topic it shows.
    pub topic: String,
    /// Hash of its definition and of the topic's id: another one makes a new epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
}

/// How far behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LagStatus {
    /// Upper end of the bucket the lag was in for 30 s: 0, 1, 2, 5, 10, 30, 60, 300, …
    pub seconds: i64,
}
