//! A `CacheSync`'s spec → [`ValidatedResource`]: an applier over somebody else's topics. Pure.

use std::num::NonZeroU32;

use sluice_crds::names::Kind;
use sluice_crds::v1alpha1::{CacheSync, DeletionPolicy, StartPosition};

use crate::controller::validate::topics::TopicRules;
use crate::controller::validate::{Invalid, Rules, access, autoscaling, bounded, expressions, identity, views};
use crate::controller::validated::{Applier, ValidViewTopic, ValidatedResource};

pub(super) fn validate(object: &CacheSync, rules: Rules<'_>) -> Result<ValidatedResource, Invalid> {
    let spec = &object.spec;
    let (id, uid) = identity::identity(&rules.settings.instance, Kind::CacheSync, &object.metadata)?;
    let (kafka, policy) = access::kafka(rules, &id, &spec.kafka)?;
    let topics = TopicRules { connection: &kafka.connection, policy: &policy };
    let sources = topics.sources(&spec.source.topics)?;
    if spec.views.is_empty() {
        return Err(Invalid::Empty { field: "views".to_owned() });
    }
    let format = spec.source.format;
    let valid = views::views("views", &spec.views, format)?;
    let group = topics.group(spec.source.group_id.as_deref(), id.applier_group())?;
    let topic = |topic| ValidViewTopic { topic, format, views: valid.clone() };
    let applier = Applier { group, topics: sources.iter().cloned().map(topic).collect() };
    views::together(&applier.topics)?;
    expressions::compile(None, Some(&applier))?;

    let deletion: DeletionPolicy = spec.deletion_policy.clone().into();
    let redis = access::redis(rules, &id, &spec.redis, deletion.redis_keys)?;
    let resource = ValidatedResource {
        id,
        uid,
        generation: object.metadata.generation.unwrap_or(0),
        state: spec.state,
        replicas: bounded("worker.replicas", spec.worker.replicas, 1, 0, 1000)?,
        autoscaling: autoscaling::plan(spec.autoscaling.as_ref(), NonZeroU32::MIN, false, &applier.group)?,
        resources: spec.worker.resources.clone(),
        deletion,
        kafka,
        redis: Some(redis.clone()),
        owned_topics: Vec::new(),
        foreign_topics: sources.into_iter().collect(),
        start: StartPosition::Earliest,
        processor: None,
        applier: Some(applier),
    };
    views::allowed(&resource.id, &redis, resource.written_prefixes(), [])?;
    Ok(resource)
}
