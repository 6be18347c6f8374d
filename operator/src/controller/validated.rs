//! What both kinds validate into. After `validate` nobody looks at a spec again: this holds checked names, resolved
//! connections and effective defaults, and cannot hold a contradiction that `validate` would have refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use sluice_crds::names::{GroupId, KeyPrefix, ResourceId, ResourceUid, TopicName};
use sluice_crds::v1alpha1::{
    AutoscalingMode, DeletionPolicy, DesiredState, Format, OnNoMatch, Redis, RedisMode, Resources, RouteMatch,
    StartPosition,
};
use sluice_crds::worker_config as wc;

use crate::autoscale::{Hpa, Plan};
use crate::settings::{KafkaConnection, RedisConnection, RedisPolicy};

/// A resource that can be carried out.
#[derive(Clone, Debug)]
pub struct ValidatedResource {
    /// Who it is.
    pub id: ResourceId,
    /// This incarnation of it.
    pub uid: ResourceUid,
    /// Spec generation this was made from.
    pub generation: i64,
    /// Whether workers run.
    pub state: DesiredState,
    /// Worker pods while it runs.
    pub replicas: i32,
    /// How they are scaled by the load; none = `replicas` says how many.
    pub autoscaling: Option<Arc<Plan>>,
    /// Requests and limits of a worker.
    pub resources: Resources,
    /// What goes when the resource goes.
    pub deletion: DeletionPolicy,
    /// Its Kafka.
    pub kafka: KafkaUse,
    /// Its Redis; none when no step looks up and nothing is a view.
    pub redis: Option<RedisUse>,
    /// Topics it owns.
    pub owned_topics: Vec<WantedTopic>,
    /// Topics it uses and does not own.
    pub foreign_topics: BTreeSet<TopicName>,
    /// Where the processor's group starts when it has no offsets.
    pub start: StartPosition,
    /// Kafka → Kafka.
    pub processor: Option<Processor>,
    /// Kafka → Redis.
    pub applier: Option<Applier>,
}

/// Kafka of a resource.
#[derive(Clone, Debug)]
pub struct KafkaUse {
    /// The named connection.
    pub connection: Arc<KafkaConnection>,
    /// Whose credentials workers use.
    pub access: WorkerAccess,
}

/// Whose credentials workers use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkerAccess {
    /// A user that we make.
    Generated,
    /// A Secret of the namespace with `username` and `password`.
    Provided {
        /// Its name.
        secret: String,
    },
    /// None: the servers take everybody.
    Open,
}

/// Redis of a resource.
#[derive(Clone, Debug)]
pub struct RedisUse {
    /// Where it is.
    pub place: RedisPlace,
    /// Whose credentials workers use.
    pub access: WorkerAccess,
    /// Server settings it asks for, by name.
    pub settings: BTreeMap<String, String>,
}

/// Where a Redis is.
#[derive(Clone, Debug)]
pub enum RedisPlace {
    /// A named connection, which the operator administers.
    Connection(Arc<RedisConnection>),
    /// Addresses of the spec: the operator never connects to them.
    Inline {
        /// How the servers form one database.
        mode: RedisMode,
        /// Addresses.
        addresses: Vec<String>,
        /// TLS; the Secret, if any, holds `ca.crt`.
        tls: Option<InlineTls>,
    },
}

/// TLS towards inline addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineTls {
    /// Secret of the namespace with `ca.crt`; none = the system's authorities.
    pub ca_secret: Option<String>,
}

/// A topic the resource owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedTopic {
    /// Name.
    pub name: TopicName,
    /// Partitions; none (internal topics) = as many as the widest source topic when it is created.
    pub partitions: Option<i32>,
    /// Replicas on creation; none = the brokers' default.
    pub replication_factor: Option<i32>,
    /// Settings it must have.
    pub config: BTreeMap<String, String>,
    /// True when a view shows it: it never grows.
    pub feeds_view: bool,
}

/// The transactional loop.
#[derive(Clone, Debug)]
pub struct Processor {
    /// Group.
    pub group: GroupId,
    /// Topics consumed.
    pub sources: Vec<TopicName>,
    /// How values are read.
    pub format: Format,
    /// Steps, in order.
    pub steps: Vec<wc::Step>,
    /// First or all.
    pub match_: RouteMatch,
    /// A record that no route takes.
    pub on_no_match: OnNoMatch,
    /// Routes, in order.
    pub routes: Vec<ValidRoute>,
    /// Dead letters.
    pub dead_letter: Option<TopicName>,
    /// Lanes of a worker.
    pub lanes: u32,
    /// Longest time a batch is open, in milliseconds.
    pub commit_interval_milliseconds: u32,
    /// Most records of a batch.
    pub max_batch_records: u32,
}

impl Processor {
    /// Routing as the worker takes it.
    pub fn routing(&self, compacted: impl Fn(&TopicName) -> bool) -> wc::Routing {
        let route = |route: &ValidRoute| wc::Route {
            name: route.name.clone(),
            topic: route.topic.to_string(),
            when: route.when.clone(),
            key: route.key.clone(),
            has_views: route.has_views,
            compacted: compacted(&route.topic),
        };
        wc::Routing {
            match_: self.match_,
            on_no_match: self.on_no_match,
            routes: self.routes.iter().map(route).collect(),
        }
    }
}

/// A route; whether its topic is compacted is known only when the topic is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidRoute {
    /// Name.
    pub name: String,
    /// Topic, internal ones by their real name.
    pub topic: TopicName,
    /// Condition.
    pub when: Option<sluice_crds::v1alpha1::Expression>,
    /// Key of the output.
    pub key: Option<sluice_crds::v1alpha1::Expression>,
    /// True when the topic has a view.
    pub has_views: bool,
}

/// The applier.
#[derive(Clone, Debug)]
pub struct Applier {
    /// Group, for lag and reports.
    pub group: GroupId,
    /// Topics with their views.
    pub topics: Vec<ValidViewTopic>,
}

/// A topic with its views.
#[derive(Clone, Debug)]
pub struct ValidViewTopic {
    /// Topic.
    pub topic: TopicName,
    /// How values are read.
    pub format: Format,
    /// Views.
    pub views: Vec<wc::View>,
}

impl ValidatedResource {
    /// The owner reference of every child: they go when the resource goes, and nobody else may own them.
    pub fn owner_reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: format!("{}/{}", sluice_crds::v1alpha1::GROUP, sluice_crds::v1alpha1::VERSION),
            kind: self.id.kind.api_kind().to_owned(),
            name: self.id.name.to_string(),
            uid: self.uid.to_string(),
            controller: Some(true),
            // It would only matter for foreground deletion, and asks for a right on finalizers where a cluster enforces that.
            block_owner_deletion: None,
        }
    }

    /// True when something writes the number of workers by the load: the operator, or an autoscaler that it makes.
    pub fn is_scaled_by_load(&self) -> bool {
        self.autoscaling
            .as_ref()
            .is_some_and(|plan| matches!(plan.mode, AutoscalingMode::Operator | AutoscalingMode::Hpa))
    }

    /// The autoscaler of Kubernetes that is to be made for it.
    pub fn hpa(&self) -> Option<&Hpa> {
        self.autoscaling.as_ref().filter(|_| self.state == DesiredState::Running)?.hpa.as_ref()
    }

    /// Every topic it names, owned or not.
    pub fn all_topics(&self) -> BTreeSet<&TopicName> {
        self.owned_topics.iter().map(|topic| &topic.name).chain(&self.foreign_topics).collect()
    }

    /// Topics that records are produced to.
    pub fn output_topics(&self) -> BTreeSet<&TopicName> {
        let processor = self.processor.iter();
        processor.flat_map(|p| p.routes.iter().map(|route| &route.topic).chain(&p.dead_letter)).collect()
    }

    /// Topics that views show.
    pub fn view_topics(&self) -> BTreeSet<&TopicName> {
        self.applier.iter().flat_map(|applier| applier.topics.iter().map(|topic| &topic.topic)).collect()
    }

    /// Topics that workers consume, for whichever engine.
    pub fn consumed_topics(&self) -> BTreeSet<&TopicName> {
        let sources = self.processor.iter().flat_map(|processor| &processor.sources);
        sources.chain(self.view_topics()).collect()
    }

    /// Topics whose partitions status counts as the source's.
    pub fn source_topics(&self) -> BTreeSet<&TopicName> {
        match &self.processor {
            Some(processor) => processor.sources.iter().collect(),
            None => self.view_topics(),
        }
    }

    /// Groups that its workers join.
    pub fn groups(&self) -> BTreeSet<&GroupId> {
        let processor = self.processor.iter().map(|processor| &processor.group);
        processor.chain(self.applier.iter().map(|applier| &applier.group)).collect()
    }

    /// Prefixes of keys that its views write.
    pub fn written_prefixes(&self) -> BTreeSet<KeyPrefix> {
        let views = self.applier.iter().flat_map(|applier| &applier.topics).flat_map(|topic| &topic.views);
        views.filter_map(|view| KeyPrefix::parse(view.key_prefix.clone()).ok()).collect()
    }

    /// Prefixes of keys that its lookups read.
    pub fn read_prefixes(&self) -> BTreeSet<KeyPrefix> {
        let steps = self.processor.iter().flat_map(|processor| &processor.steps);
        let prefix = |step: &wc::Step| match &step.action {
            wc::Action::Lookup { key_prefix, .. } => KeyPrefix::parse(key_prefix.clone()).ok(),
            _ => None,
        };
        steps.filter_map(prefix).collect()
    }
}

impl RedisUse {
    /// The connection that the operator administers, if any.
    pub fn connection(&self) -> Option<&Arc<RedisConnection>> {
        match &self.place {
            RedisPlace::Connection(connection) => Some(connection),
            RedisPlace::Inline { .. } => None,
        }
    }

    /// What two resources must share to be on the same Redis, as far as names tell.
    pub fn scope(&self) -> String {
        match &self.place {
            RedisPlace::Connection(connection) => connection.name.to_string(),
            RedisPlace::Inline { addresses, .. } => inline_scope(addresses),
        }
    }

    /// What the connection's policy allows a namespace.
    pub fn policy<'a>(&'a self, id: &ResourceId) -> Option<&'a RedisPolicy> {
        self.connection()?.namespaces.get(&id.namespace)
    }
}

/// [`RedisUse::scope`] of a spec, also of one that is not valid.
pub fn redis_scope(spec: &Redis) -> String {
    match (&spec.inline, &spec.connection_ref) {
        (Some(inline), _) => inline_scope(&inline.addresses),
        (None, Some(reference)) => reference.name.clone(),
        (None, None) => "default".to_owned(),
    }
}

fn inline_scope(addresses: &[String]) -> String {
    let mut sorted: Vec<&str> = addresses.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    format!("inline:{}", sorted.join(","))
}
