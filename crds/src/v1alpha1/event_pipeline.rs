//! `EventPipeline`: consume, look up, transform, route; in one Kafka transaction a batch.

use kube::CustomResource;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{
    Autoscaling, DeadLetter, DeletionPolicy, Delivery, DesiredState, Kafka, OwnedTopic, Redis, Routing, Source, Status,
    Step, Worker,
};

/// What an EventPipeline does.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "EventPipeline",
    plural = "eventpipelines",
    shortname = "evp",
    category = "sluice",
    namespaced,
    status = "Status",
    doc = "An exactly-once pipeline from Kafka topics through Redis lookups and steps to Kafka topics and Redis views.",
    validation = Rule::new("self.metadata.name.size() <= 40 && !self.metadata.name.contains('.')")
        .message("metadata.name must be at most 40 characters without dots: it is part of names in Kafka and Redis"),
    scale(
        spec_replicas_path = ".spec.worker.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    )
)]
#[x_kube(
    validation = Rule::new(
        "self.routing.routes.all(r, !has(r.topic) || !self.source.topics.exists(s, s.name == r.topic))"
    )
    .message("a route's topic is also a source topic: its records would go round for ever"),
    validation = Rule::new("!has(self.deadLetter) || !self.source.topics.exists(s, s.name == self.deadLetter.topic)")
        .message("the dead-letter topic is also a source topic: its records would go round for ever"),
    validation = Rule::new(
        "!has(self.deadLetter) \
         || !self.routing.routes.exists(r, has(r.topic) && r.topic == self.deadLetter.topic)"
    )
    .message("the dead-letter topic is also a route's topic: give dead letters a topic of their own"),
    validation = Rule::new(
        "self.routing.routes.all(r, !has(r.views) || r.views.all(v, self.routing.routes.all(o, \
         o.name == r.name || !has(o.views) || !o.views.exists(w, w.name == v.name))))"
    )
    .message("two routes have views of the same name: names of views are unique in a resource"),
    validation = Rule::new(
        "self.source.format != 'Raw' || !has(self.steps) \
         || !self.steps.exists(s, has(s.set) || has(s.remove) || has(s.mask))"
    )
    .message("set, remove and mask need source.format Json: a Raw value has no fields"),
    validation = Rule::new(
        "self.source.format != 'Raw' \
         || !self.routing.routes.exists(r, has(r.views) && r.views.exists(v, v.type == 'Hash'))"
    )
    .message("a view of type Hash needs source.format Json: a Raw value has no members"),
    validation = Rule::new(
        "!has(self.autoscaling) || !has(self.autoscaling.minReplicas) || self.autoscaling.minReplicas > 0 \
         || !self.routing.routes.exists(r, has(r.views) && r.views.size() > 0)"
    )
    .message("autoscaling.minReplicas 0 needs a pipeline without views: without a worker nobody repairs Redis"),
    validation = Rule::new("!has(self.redis.inline) || self.deletionPolicy.redisKeys != 'Delete'")
    .message("deletionPolicy.redisKeys Delete needs a connection: the operator never goes to inline addresses; delete the keys yourself"),
    validation = Rule::new(
        "!has(self.topics) || !has(oldSelf.topics) || self.topics.all(t, \
         !self.routing.routes.exists(r, has(r.topic) && r.topic == t.name && has(r.views) && r.views.size() > 0) \
         || oldSelf.topics.all(o, o.name != t.name || o.partitions == t.partitions))"
    )
    .message("a topic with views keeps its partitions: keys would move to others and old values win; make a new topic")
)]
pub struct EventPipelineSpec {
    /// Whether workers run: `Running`, or `Stopped` (topics, users and offsets stay).
    #[serde(default)]
    pub state: DesiredState,
    /// What happens to data when the resource is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// Which Kafka.
    #[serde(default)]
    pub kafka: Kafka,
    /// Which Redis; used only when a step looks up or a route has views.
    #[serde(default)]
    pub redis: Redis,
    /// Topics this pipeline owns. Others are only used, and must exist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub topics: Vec<OwnedTopic>,
    /// What is consumed.
    pub source: Source,
    /// What happens to each record, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub steps: Vec<Step>,
    /// Where records go.
    pub routing: Routing,
    /// Where records go that cannot be processed. Absent: such a record stalls its partition visibly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<DeadLetter>,
    /// How records are grouped into transactions.
    #[serde(default)]
    pub delivery: Delivery,
    /// The workers.
    #[serde(default)]
    pub worker: Worker,
    /// How many workers run, by the load. Absent: `worker.replicas` says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
}
