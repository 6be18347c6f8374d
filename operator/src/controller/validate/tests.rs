use sluice_crds::conditions::Reason;
use sluice_crds::names::TopicName;

use super::Invalid;
use crate::controller::test_support::{CACHE, PIPELINE, cache, pipeline};
use crate::controller::validated::WorkerAccess;

/// What the pipeline is refused for after a change of its text.
fn refused(from: &str, to: &str) -> Invalid {
    assert!(PIPELINE.contains(from), "{from:?} should be in the pipeline");
    pipeline(&PIPELINE.replacen(from, to, 1)).expect_err("should be refused")
}

fn refused_cache(from: &str, to: &str) -> Invalid {
    assert!(CACHE.contains(from), "{from:?} should be in the cache");
    cache(&CACHE.replacen(from, to, 1)).expect_err("should be refused")
}

/// The pipeline's spec with something in front.
fn with_spec(lines: &str) -> Invalid {
    refused("spec:\n", &format!("spec:\n  {lines}\n"))
}

#[test]
fn a_pipeline_becomes_what_its_spec_means() {
    let resource = pipeline(PIPELINE).unwrap();
    assert_eq!(resource.kafka.access, WorkerAccess::Generated);
    assert_eq!((resource.replicas, resource.generation), (2, 3));
    let names = |topics: Vec<&TopicName>| topics.into_iter().map(ToString::to_string).collect::<Vec<_>>();
    let internal = "sluice.demo.shop.eventpipeline.enrich.model".to_owned();
    assert_eq!(names(resource.foreign_topics.iter().collect()), ["customer.changed"]);
    assert_eq!(names(resource.view_topics().into_iter().collect()), std::slice::from_ref(&internal));
    let owned: Vec<_> =
        resource.owned_topics.iter().map(|t| (t.name.to_string(), t.partitions, t.feeds_view)).collect();
    assert!(owned.contains(&("order.created".to_owned(), Some(4), false)));
    assert!(owned.contains(&(internal, None, true)), "an internal topic is as wide as the source and never grows");
    assert_eq!(resource.groups().len(), 2);
    let prefixes: Vec<String> = resource.written_prefixes().iter().map(ToString::to_string).collect();
    assert_eq!(prefixes, ["order:{"]);
    let prefixes: Vec<String> = resource.read_prefixes().iter().map(ToString::to_string).collect();
    assert_eq!(prefixes, ["price:"]);
    let processor = resource.processor.as_ref().unwrap();
    assert_eq!(
        (processor.lanes, processor.commit_interval_milliseconds, processor.max_batch_records),
        (2, 100, 10_000)
    );
}

#[test]
fn a_cache_owns_nothing_and_applies_its_source() {
    let resource = cache(CACHE).unwrap();
    assert!(resource.owned_topics.is_empty() && resource.processor.is_none());
    assert_eq!(resource.view_topics(), resource.source_topics());
    assert_eq!(resource.groups().len(), 1);
}

#[test]
fn a_redis_key_comes_from_one_partition() {
    let key = "key: \"'order:state:{' + key + '}'\"";
    let named = |expression: &str| refused_cache(key, &format!("key: \"{expression}\"")).to_string();
    assert!(named("'order:state'").contains("does not name `key`"));
    let two = CACHE.replacen("{name: customer.state}", "{name: customer.state}, {name: customer.old}", 1);
    let with = |expression: &str| cache(&two.replacen(key, &format!("key: \"{expression}\""), 1));
    for apart in ["'order:' + topic + ':' + key", "'order:{' + key + '}:' + topic"] {
        with(apart).unwrap();
    }
    for together in ["'order:' + key", "'order:' + topic + key.substring(1)", "'order:' + (topic + key).trim()"] {
        let error = with(together).expect_err(together).to_string();
        assert!(error.contains("customer.state and customer.old could both write"), "{error}");
    }
    assert!(
        cache(&CACHE.replacen(key, "key: \"'order:state:' + key.split('|')[0]\"", 1)).is_ok(),
        "only the data tell"
    );
}

#[test]
fn a_pipeline_that_needs_no_redis_uses_none() {
    let text = PIPELINE
        .replace("  - {name: price, lookup: {key: \"'price:' + value.sku\", type: Json}}\n", "")
        .replace("double(price.amount)", "1.0")
        .replace(
            "      views: [{name: order, key: \"'order:{' + key + '}'\", type: Json, ttlSeconds: 60}]\n",
            "      topic: order.enriched\n",
        );
    assert!(pipeline(&text).unwrap().redis.is_none());
}

#[test]
fn names() {
    assert!(matches!(refused("name: enrich,", "name: Enrich,"), Invalid::Name { .. }));
    assert!(matches!(refused("name: order.rejected, partitions", "name: order/x, partitions"), Invalid::Name { .. }));
    assert!(matches!(refused("uid: 0b5c2c4e-7a55-4a0e-9d6e-2f0d8e7a1c11,", ""), Invalid::Metadata("metadata.uid")));
    assert!(
        matches!(refused("'order:{'", "'order*'"), Invalid::Name { .. }),
        "a glob in a prefix would open other keys"
    );
}

#[test]
fn duplicates() {
    let duplicate = |from, to| assert!(matches!(refused(from, to), Invalid::Duplicate { .. }), "{to}");
    duplicate("{name: order.rejected, partitions: 2}", "{name: order.created, partitions: 2}");
    duplicate("{name: customer.changed}", "{name: order.created}");
    duplicate("name: tidy", "name: pii");
    duplicate("name: model", "name: enriched");
}

#[test]
fn empty_lists() {
    assert!(matches!(refused("{fields: [internal]}", "{fields: []}"), Invalid::Empty { .. }));
    assert!(matches!(refused("[{name: order.created}, {name: customer.changed}]", "[]"), Invalid::Empty { .. }));
    assert!(matches!(
        refused_cache("views: [{name: state, key: \"'order:state:{' + key + '}'\", type: Hash}]", "views: []"),
        Invalid::Empty { .. }
    ));
}

#[test]
fn unions() {
    let two = refused("remove: {fields: [internal]}", "remove: {fields: [a]}, filter: {keepWhen: 'true'}");
    assert!(matches!(two, Invalid::Union { found: 2, .. }));
    let none = refused("{name: tidy, remove: {fields: [internal]}}", "{name: tidy, novelty: {}}");
    assert!(matches!(none, Invalid::Union { found: 0, .. }), "a step of a newer API is a condition, not a crash");
    let both = with_spec("redis: {connectionRef: {name: default}, inline: {mode: Standalone, addresses: ['a:1']}}");
    assert!(matches!(both, Invalid::Union { .. }));
}

#[test]
fn bounds() {
    assert!(matches!(refused("replicas: 2", "replicas: 1001"), Invalid::Bounds { .. }));
    assert!(matches!(refused("ttlSeconds: 60", "ttlSeconds: 0"), Invalid::Bounds { .. }));
    assert!(matches!(with_spec("delivery: {maxBatchRecords: 0}"), Invalid::Bounds { .. }));
}

#[test]
fn contradictions() {
    let contradiction = |invalid: Invalid| assert!(matches!(invalid, Invalid::Contradiction { .. }), "{invalid}");
    contradiction(with_spec("kafka: {access: {mode: Provided}}"));
    contradiction(with_spec("kafka: {access: {mode: Generated, secretRef: {name: s}}}"));
    contradiction(with_spec("kafka: {connectionRef: {name: plain}}"));
    contradiction(with_spec("redis: {inline: {mode: Standalone, addresses: ['a:1']}}"));
    contradiction(refused("topic: order.enriched,", "topic: order.created,"));
    contradiction(refused("deadLetter: {topic: order.rejected}", "deadLetter: {topic: order.created}"));
    contradiction(refused("name: price,", "name: value,"));
    contradiction(refused("name: price,", "name: pri-ce,"));
    contradiction(refused("name: order.rejected, partitions", "name: __x, partitions"));
    contradiction(refused("name: order.rejected, partitions", "name: sluice.x, partitions"));
    contradiction(refused(
        "      views: [{name: order, key: \"'order:{' + key + '}'\", type: Json, ttlSeconds: 60}]\n",
        "",
    ));
    let inline = "inline: {mode: Standalone, addresses: ['a:1']}, access: {mode: Provided, secretRef: {name: s}}";
    let lines = |keys| format!("redis: {{{inline}}}\n  deletionPolicy: {{redisKeys: {keys}}}");
    contradiction(with_spec(&lines("Delete")));
    contradiction(refused_cache("spec:\n", &format!("spec:\n  {}\n", lines("Delete"))));
    assert!(cache(&CACHE.replacen("spec:\n", &format!("spec:\n  {}\n", lines("Retain")), 1)).is_ok());
    contradiction(refused_cache("{name: customer.state}]", "{name: customer.state}], format: Raw"));
    contradiction(refused_cache("type: Hash}", "type: Hash}, {name: b, key: \"'order:state' + key\", type: Json}"));
    contradiction(refused_cache("type: Hash}", "type: Hash, keyPrefix: 'order:other'}"));
}

#[test]
fn expressions_say_where_they_are_wrong() {
    let syntax = refused("value.status == ", "value.status === ");
    assert_eq!(syntax.reason(), Reason::InvalidExpression);
    assert!(syntax.to_string().contains("\"keep\"") && syntax.to_string().contains("column"), "{syntax}");
    let later = refused("key: \"'price:' + value.sku\"", "keyPrefix: 'price:', key: \"'price:' + pii.sku\"");
    assert!(matches!(later, Invalid::Expression(_)), "{later}");
    assert!(matches!(refused("'price:' + value.sku", "value.sku"), Invalid::NoKeyPrefix { .. }));
}

#[test]
fn policies_fail_closed() {
    assert!(matches!(with_spec("kafka: {connectionRef: {name: other}}"), Invalid::ConnectionUnknown { .. }));
    let unarmed = with_spec("kafka: {connectionRef: {name: unarmed}}");
    assert_eq!(unarmed.reason(), Reason::ConnectionUnusable);
    assert!(unarmed.to_string().contains("/absent"), "{unarmed}");
    assert!(matches!(refused("namespace: shop", "namespace: else"), Invalid::NamespaceNotAllowed { .. }));
    assert!(matches!(with_spec("redis: {connectionRef: {name: closed}}"), Invalid::NamespaceNotAllowed { .. }));
    let not_allowed = |from, to| assert!(matches!(refused(from, to), Invalid::NotAllowed { .. }), "{to}");
    not_allowed("name: order.rejected, partitions", "name: customer.rejected, partitions");
    not_allowed("{name: customer.changed}", "{name: audit.log}");
    not_allowed("topic: order.enriched,", "topic: customer.enriched,");
    not_allowed("deadLetter: {topic: order.rejected}", "deadLetter: {topic: other.rejected}");
    not_allowed("'price:' +", "'secret:' +");
    not_allowed("'order:{'", "'price:{'");
    not_allowed("{name: customer.changed}]", "{name: customer.changed}], groupId: other");
    assert!(
        pipeline(&PIPELINE.replace("{name: customer.changed}]", "{name: customer.changed}], groupId: legacy-x"))
            .is_ok()
    );
    assert!(matches!(refused("partitions: 2}", "partitions: 13}"), Invalid::TooManyPartitions { .. }));
    let setting = with_spec("redis: {settings: [{name: maxmemory, value: '1'}]}");
    assert!(matches!(setting, Invalid::SettingNotAllowed { .. }));
    assert_eq!(setting.reason(), Reason::SettingRefused);
    assert!(
        pipeline(&PIPELINE.replacen(
            "spec:\n",
            "spec:\n  redis: {settings: [{name: notify-keyspace-events, value: KEA}]}\n",
            1
        ))
        .is_ok()
    );
}
