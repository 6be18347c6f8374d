//! Whether workers may go on with the configuration they have, when the spec of now is refused. Pure.
//!
//! A mistake in an edit must not stop production; a policy that was taken back must. Both look the same from the new spec:
//! what tells them apart is what the workers really do. This is no wall, since whoever may make a `ConfigMap` in the
//! namespace can make one that looks harmless: rights are Kafka's and Redis' business.

use sluice_crds::names::{ResourceId, TopicName};
use sluice_crds::worker_config::{Action, ApplierConfig, ProcessorConfig, WorkerConfig};

use super::kind::SluiceKind;
use crate::settings::{ConnectionName, KafkaPolicy, RedisPolicy, Settings};

/// True when the policies of now allow everything that workers with this configuration do. A connection that is not in the
/// settings, or not whole, says nothing: that is its administrator's mistake, not a policy.
pub fn may_go_on<K: SluiceKind>(settings: &Settings, id: &ResourceId, object: &K, config: &WorkerConfig) -> bool {
    let name = |reference: Option<&sluice_crds::v1alpha1::NameRef>| {
        ConnectionName::new(reference.map_or("default", |reference| reference.name.as_str()))
    };
    let kafka = settings.kafka.get(&name(object.kafka().connection_ref.as_ref()));
    let kafka = kafka.is_none_or(|connection| {
        connection.namespaces.get(&id.namespace).is_some_and(|policy| kafka_allows(policy, id, config))
    });
    let redis = object.redis();
    let place = settings.redis.get(&name(redis.connection_ref.as_ref())).filter(|_| redis.inline.is_none());
    let uses_redis = config.redis.is_some();
    kafka
        && place.filter(|_| uses_redis).is_none_or(|connection| {
            connection.namespaces.get(&id.namespace).is_some_and(|policy| redis_allows(policy, config))
        })
}

fn kafka_allows(policy: &KafkaPolicy, id: &ResourceId, config: &WorkerConfig) -> bool {
    let processor = config.processor.as_ref().is_none_or(|processor| processor_may(policy, id, processor));
    // A pipeline's applier reads what its processor produces; a cache's reads what others do.
    let reads = config.processor.is_none();
    processor && config.applier.as_ref().is_none_or(|applier| applier_may(policy, id, applier, reads))
}

fn processor_may(policy: &KafkaPolicy, id: &ResourceId, processor: &ProcessorConfig) -> bool {
    let outputs = processor.routing.routes.iter().map(|route| &route.topic).chain(&processor.dead_letter_topic);
    may_use(policy, id, &processor.group)
        && processor.topics.iter().all(|topic| policy.may_consume(&topic.name))
        && outputs.into_iter().all(|topic| policy.may_produce(topic) || is_internal(id, topic))
}

fn applier_may(policy: &KafkaPolicy, id: &ResourceId, applier: &ApplierConfig, reads: bool) -> bool {
    may_use(policy, id, &applier.group)
        && (!reads || applier.topics.iter().all(|viewed| policy.may_consume(&viewed.topic.name)))
}

fn may_use(policy: &KafkaPolicy, id: &ResourceId, group: &str) -> bool {
    [id.processor_group(), id.applier_group()].iter().any(|own| own.as_str() == group) || policy.may_use_group(group)
}

fn is_internal(id: &ResourceId, topic: &str) -> bool {
    TopicName::parse(topic).is_ok() && ResourceId::of_internal_topic(topic).is_some_and(|(owner, _)| owner == *id)
}

fn redis_allows(policy: &RedisPolicy, config: &WorkerConfig) -> bool {
    let mut steps = config.processor.iter().flat_map(|processor| &processor.steps);
    let mut views = config.applier.iter().flat_map(|applier| &applier.topics).flat_map(|topic| &topic.views);
    let may_read = steps.all(|step| match &step.action {
        Action::Lookup { key_prefix, .. } => policy.may_read(key_prefix),
        _ => true,
    });
    may_read && views.all(|view| policy.may_write(&view.key_prefix))
}

#[cfg(test)]
mod tests {
    use sluice_crds::v1alpha1::{CacheSync, EventPipeline};

    use super::*;
    use crate::controller::test_support::{CACHE, PIPELINE, SETTINGS, built, settings, settings_of};
    use crate::controller::validate::Rules;

    /// What workers of a valid resource run with, and whether they may with other settings.
    fn may<K: SluiceKind>(yaml: &str, policy: &str, changed: &str) -> bool {
        let object: K = serde_saphyr::from_str(yaml).unwrap();
        let resource = object.validate(Rules { settings: &settings() }).unwrap();
        assert!(SETTINGS.contains(policy), "{policy:?} should be in the settings");
        let after = settings_of(&SETTINGS.replacen(policy, changed, 1));
        may_go_on(&after, &resource.id, &object, &built(&resource).config)
    }

    #[test]
    fn what_a_policy_still_allows_goes_on_and_what_it_was_for_does_not() {
        let group = PIPELINE.replacen("{name: customer.changed}]", "{name: customer.changed}], groupId: legacy-x", 1);
        for (yaml, policy, changed, goes_on) in [
            (PIPELINE, "own: [order.]", "own: [order.]", true),
            (PIPELINE, "own: [order.]", "own: [other.]", false),
            (PIPELINE, "consume: [customer.]", "consume: []", false),
            (PIPELINE, "produce: [audit.]", "produce: []", true),
            (
                PIPELINE,
                "own: [order.], produce: [audit.], consume: [",
                "own: [], produce: [order.], consume: [order., ",
                true,
            ),
            (PIPELINE, "name: shop", "name: else", false),
            (PIPELINE, "groups: [legacy-]", "groups: []", true),
            (&group, "groups: [legacy-]", "groups: []", false),
            (PIPELINE, "write: [\"order:\"]", "write: [\"other:\"]", false),
            (PIPELINE, "read: [\"price:\", \"stock:\"]", "read: [\"price:\"]", true),
            (PIPELINE, "read: [\"price:\", \"stock:\"]", "read: []", false),
            (PIPELINE, "{name: shop, write:", "{name: else, write:", false),
            // Its administrator took the whole connection away: whatever that means, it is no policy.
            (PIPELINE, "- name: default\n    brokers", "- name: renamed\n    brokers", true),
            (PIPELINE, "- name: default\n    mode", "- name: renamed\n    mode", true),
        ] {
            assert_eq!(may::<EventPipeline>(yaml, policy, changed), goes_on, "{policy} → {changed}");
        }
        assert!(may::<CacheSync>(CACHE, "own: [order.]", "own: []"));
        assert!(!may::<CacheSync>(CACHE, "consume: [customer.]", "consume: []"));
    }
}
