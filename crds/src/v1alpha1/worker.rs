//! The workers of a resource, their batches, and what deletion removes.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::patterns::QUANTITY;

/// The worker Deployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Worker {
    /// Number of worker pods; `kubectl scale` writes it. While `autoscaling` scales them: how many there are at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000), extend("default" = 1))]
    pub replicas: Option<i32>,
    /// Lanes (thread + transactional producer) in each worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16), extend("default" = 2))]
    pub lanes: Option<i32>,
    /// Requests and limits of the worker container.
    #[serde(default)]
    pub resources: Resources,
}

/// The worker Deployment of a cache: its workers have no lanes, which are the transactional producers of a pipeline's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheWorker {
    /// Number of worker pods; `kubectl scale` writes it. While `autoscaling` scales them: how many there are at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000), extend("default" = 1))]
    pub replicas: Option<i32>,
    /// Requests and limits of the worker container.
    #[serde(default)]
    pub resources: Resources,
}

/// Requests and limits of the worker container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "!has(self.requests) || !has(self.limits) || !has(self.requests.cpu) || !has(self.limits.cpu) \
         || quantity(string(self.requests.cpu)).compareTo(quantity(string(self.limits.cpu))) <= 0"
    )
    .message("requests.cpu must not be larger than limits.cpu"),
    validation = Rule::new(
        "!has(self.requests) || !has(self.limits) || !has(self.requests.memory) || !has(self.limits.memory) \
         || quantity(string(self.requests.memory)).compareTo(quantity(string(self.limits.memory))) <= 0"
    )
    .message("requests.memory must not be larger than limits.memory")
)]
pub struct Resources {
    /// What the scheduler reserves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<ComputeResources>,
    /// What the kernel enforces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ComputeResources>,
}

/// CPU and memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComputeResources {
    /// CPU, e.g. `100m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = QUANTITY, "maxLength" = 32, "minimum" = 0))]
    pub cpu: Option<Quantity>,
    /// Memory, e.g. `64Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = QUANTITY, "maxLength" = 32, "minimum" = 0))]
    pub memory: Option<Quantity>,
}

/// How records are grouped into transactions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// Longest time a record waits for its batch to close.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 5000), extend("default" = 100))]
    pub commit_interval_milliseconds: Option<i32>,
    /// Most source records in one transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000), extend("default" = 10_000))]
    pub max_batch_records: Option<i32>,
}

/// Whether workers run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DesiredState {
    /// Workers run.
    #[default]
    Running,
    /// No workers; topics, users and offsets stay.
    Stopped,
}

/// What happens to data when the resource is deleted. Users and ACLs of the resource always go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeletionPolicy {
    /// Topics that this resource created: `Retain` or `Delete`.
    #[serde(default)]
    pub topics: DeletionAction,
    /// Redis keys of its views: `Retain` or `Delete`.
    #[serde(default)]
    pub redis_keys: DeletionAction,
    /// Its consumer groups and their offsets: `Retain` or `Delete`.
    #[serde(default)]
    pub consumer_group: DeletionAction,
}

/// What happens to data when a cache is deleted; it owns no topics. Users and ACLs of the resource always go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheDeletionPolicy {
    /// Redis keys of its views: `Retain` or `Delete`.
    #[serde(default)]
    pub redis_keys: DeletionAction,
    /// Its consumer group and its offsets: `Retain` or `Delete`.
    #[serde(default)]
    pub consumer_group: DeletionAction,
}

impl From<CacheDeletionPolicy> for DeletionPolicy {
    fn from(policy: CacheDeletionPolicy) -> Self {
        let CacheDeletionPolicy { redis_keys, consumer_group } = policy;
        Self { topics: DeletionAction::Retain, redis_keys, consumer_group }
    }
}

/// What happens to one sort of data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionAction {
    /// It stays.
    #[default]
    Retain,
    /// It is deleted.
    Delete,
}
