//! An `EventPipeline`'s spec → [`ValidatedResource`]. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use sluice_crds::names::{Kind, ResourceId, TopicName};
use sluice_crds::v1alpha1::{EventPipeline, EventPipelineSpec};
use sluice_crds::worker_config as wc;

use crate::controller::validate::topics::{Role, TopicRules};
use crate::controller::validate::{Invalid, Rules, access, autoscaling, bounded, expressions, identity, steps, views};
use crate::controller::validated::{Applier, Processor, ValidRoute, ValidViewTopic, ValidatedResource, WantedTopic};

pub(super) fn validate(object: &EventPipeline, rules: Rules<'_>) -> Result<ValidatedResource, Invalid> {
    let spec = &object.spec;
    let (id, uid) = identity::identity(&rules.settings.instance, Kind::EventPipeline, &object.metadata)?;
    let (kafka, policy) = access::kafka(rules, &id, &spec.kafka)?;
    let topics = TopicRules { connection: &kafka.connection, policy: &policy };

    let processor = processor(spec, &id, topics)?;
    let applier = applier(spec, &id, &processor.routes)?;
    expressions::compile(Some(&processor), applier.as_ref())?;
    let owned_topics = owned(topics.owned(&spec.topics)?, &processor, applier.as_ref());
    let lanes = NonZeroU32::new(processor.lanes).unwrap_or(NonZeroU32::MIN);
    let mut resource = ValidatedResource {
        id,
        uid,
        generation: object.metadata.generation.unwrap_or(0),
        state: spec.state,
        replicas: bounded("worker.replicas", spec.worker.replicas, 1, 0, 1000)?,
        autoscaling: autoscaling::plan(spec.autoscaling.as_ref(), lanes, applier.is_none(), &processor.group)?,
        resources: spec.worker.resources.clone(),
        deletion: spec.deletion_policy.clone(),
        kafka,
        redis: None,
        owned_topics,
        foreign_topics: BTreeSet::new(),
        start: spec.source.start.position,
        processor: Some(processor),
        applier,
    };
    resource.foreign_topics = foreign(&resource);
    let needs_redis =
        resource.applier.is_some() || !resource.read_prefixes().is_empty() || !spec.redis.settings.is_empty();
    if needs_redis {
        let redis = access::redis(rules, &resource.id, &spec.redis, resource.deletion.redis_keys)?;
        views::allowed(&resource.id, &redis, resource.written_prefixes(), resource.read_prefixes())?;
        resource.redis = Some(redis);
    }
    Ok(resource)
}

fn processor(spec: &EventPipelineSpec, id: &ResourceId, topics: TopicRules<'_>) -> Result<Processor, Invalid> {
    let sources = topics.sources(&spec.source.topics)?;
    let routes = steps::routes(topics, id, &spec.routing.routes)?;
    let dead_letter = match &spec.dead_letter {
        None => None,
        Some(dead) => Some(topics.topic("deadLetter.topic", &dead.topic, Role::Produce)?),
    };
    steps::no_loop(&sources, &routes, dead_letter.as_ref())?;
    let delivery = &spec.delivery;
    Ok(Processor {
        group: topics.group(spec.source.group_id.as_deref(), id.processor_group())?,
        sources,
        format: spec.source.format,
        steps: steps::steps(&spec.steps)?,
        match_: spec.routing.match_,
        on_no_match: spec.routing.on_no_match,
        routes,
        dead_letter,
        lanes: bounded("worker.lanes", spec.worker.lanes, 2, 1, 16)? as u32,
        commit_interval_milliseconds: bounded(
            "delivery.commitIntervalMilliseconds",
            delivery.commit_interval_milliseconds,
            100,
            1,
            5_000,
        )? as u32,
        max_batch_records: bounded("delivery.maxBatchRecords", delivery.max_batch_records, 10_000, 1, 100_000)? as u32,
    })
}

/// Views of all routes, by the topic they show.
fn applier(spec: &EventPipelineSpec, id: &ResourceId, routes: &[ValidRoute]) -> Result<Option<Applier>, Invalid> {
    let format = spec.source.format;
    let mut by_topic: BTreeMap<&TopicName, Vec<wc::View>> = BTreeMap::new();
    for (route, valid) in spec.routing.routes.iter().zip(routes) {
        if !route.views.is_empty() {
            let list = format!("routing.routes[{}].views", route.name);
            by_topic.entry(&valid.topic).or_default().extend(views::views(&list, &route.views, format)?);
        }
    }
    let topics: Vec<ValidViewTopic> =
        by_topic.into_iter().map(|(topic, views)| ValidViewTopic { topic: topic.clone(), format, views }).collect();
    views::together(&topics)?;
    Ok((!topics.is_empty()).then(|| Applier { group: id.applier_group(), topics }))
}

/// The spec's own topics and one compacted topic for each route that names none.
fn owned(mut owned: Vec<WantedTopic>, processor: &Processor, applier: Option<&Applier>) -> Vec<WantedTopic> {
    let internal = processor.routes.iter().map(|route| &route.topic).filter(|topic| topic.is_sluice_internal());
    for topic in internal {
        owned.push(WantedTopic {
            name: topic.clone(),
            partitions: None,
            replication_factor: None,
            config: BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]),
            feeds_view: true,
        });
    }
    for topic in &mut owned {
        topic.feeds_view = applier.is_some_and(|a| a.topics.iter().any(|viewed| viewed.topic == topic.name));
    }
    owned
}

fn foreign(resource: &ValidatedResource) -> BTreeSet<TopicName> {
    let used = resource.consumed_topics().into_iter().chain(resource.output_topics());
    let owned: BTreeSet<&TopicName> = resource.owned_topics.iter().map(|topic| &topic.name).collect();
    used.filter(|topic| !owned.contains(topic)).cloned().collect()
}
