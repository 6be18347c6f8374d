//! `CacheSync`: keep Redis equal to a topic that somebody else writes.

use kube::CustomResource;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{Autoscaling, CacheDeletionPolicy, CacheSource, CacheWorker, DesiredState, Kafka, Redis, Status, View};

/// What a CacheSync does.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "CacheSync",
    plural = "cachesyncs",
    shortname = "csync",
    category = "sluice",
    namespaced,
    status = "Status",
    doc = "Keeps Redis keys equal to a committed Kafka topic.",
    validation = Rule::new("self.metadata.name.size() <= 40 && !self.metadata.name.contains('.')")
        .message("metadata.name must be at most 40 characters without dots: it is part of names in Kafka and Redis"),
    scale(
        spec_replicas_path = ".spec.worker.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    )
)]
#[x_kube(
    validation = Rule::new("self.source.format != 'Raw' || !self.views.exists(v, v.type == 'Hash')")
    .message("a view of type Hash needs source.format Json: a Raw value has no members"),
    validation = Rule::new(
        "!has(self.autoscaling) || !has(self.autoscaling.minReplicas) || self.autoscaling.minReplicas > 0"
    )
    .message("autoscaling.minReplicas must be at least 1: without a worker nobody repairs Redis"),
    validation = Rule::new("!has(self.redis.inline) || self.deletionPolicy.redisKeys != 'Delete'")
    .message("deletionPolicy.redisKeys Delete needs a connection: the operator never goes to inline addresses; delete the keys yourself")
)]
pub struct CacheSyncSpec {
    /// Whether workers run: `Running`, or `Stopped` (users and watermark records stay).
    #[serde(default)]
    pub state: DesiredState,
    /// What happens to data when the resource is deleted.
    #[serde(default)]
    pub deletion_policy: CacheDeletionPolicy,
    /// Which Kafka.
    #[serde(default)]
    pub kafka: Kafka,
    /// Which Redis.
    #[serde(default)]
    pub redis: Redis,
    /// The topics, each applied to every view.
    pub source: CacheSource,
    /// What the topics look like in Redis.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub views: Vec<View>,
    /// The workers.
    #[serde(default)]
    pub worker: CacheWorker,
    /// How many workers run, by the load. Absent: `worker.replicas` says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
}
