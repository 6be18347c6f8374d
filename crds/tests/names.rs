//! Derived names: two identities never share one, every name fits where it goes, and wrong texts are refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use proptest::prelude::*;
use sluice_crds::names::{
    ContentHash, GroupId, InstanceId, KeyPrefix, Kind, Namespace, NodeId, PartName, PodName, Principal, ResourceId,
    ResourceName, ResourceUid, ScramUser, Slot, TopicName, TransactionalIdPrefix, WatermarkKeys,
};

fn label(max: usize) -> impl Strategy<Value = String> {
    // Short alphabets make near-collisions likely: parts that look like other parts joined.
    prop_oneof![
        proptest::string::string_regex(&format!("[ab]([ab-]{{0,{}}}[ab])?", max - 2)).expect("is a regex"),
        proptest::string::string_regex(&format!("[a-z0-9]([a-z0-9-]{{{0},{0}}}[a-z0-9])", max - 2))
            .expect("is a regex"),
        Just("eventpipeline".chars().take(max).collect::<String>()),
        Just("evp".to_owned()),
        Just("a-b".to_owned()),
    ]
}

fn identity() -> impl Strategy<Value = ResourceId> {
    (label(20), label(63), prop::sample::select(&Kind::ALL[..]), label(40)).prop_map(
        |(instance, namespace, kind, name)| ResourceId {
            instance: InstanceId::parse(instance).unwrap(),
            namespace: Namespace::parse(namespace).unwrap(),
            kind,
            name: ResourceName::parse(name).unwrap(),
        },
    )
}

fn is_label_value(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    text.len() <= 63
        && text.starts_with(edge)
        && text.ends_with(edge)
        && text.chars().all(|c| edge(c) || matches!(c, '-' | '_' | '.'))
}

fn is_dns_label(text: &str) -> bool {
    is_label_value(text) && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

proptest! {
    /// What can be read back cannot be shared.
    #[test]
    fn external_names_can_be_read_back(id in identity(), route in label(40), lane in 0u32..64, pod in label(63)) {
        let route = PartName::parse(route).unwrap();
        let pod = PodName::parse(pod).unwrap();
        for slot in Slot::ALL {
            let user = id.scram_user(slot);
            prop_assert_eq!(ResourceId::of_scram_user(user.as_str()), Some((id.clone(), slot)));
            prop_assert_eq!(Principal::user_of(user.principal().as_str()), Some(user));
        }
        let group = id.processor_group();
        prop_assert_ne!(&group, &id.applier_group());
        prop_assert_eq!(ResourceId::of_redis_user(id.redis_user().as_str()), Some(id.clone()));
        prop_assert_eq!(ResourceId::of_group(group.as_str()), Some(id.clone()));
        prop_assert_eq!(ResourceId::of_group(id.applier_group().as_str()), Some(id.clone()));
        prop_assert_eq!(ResourceId::of_internal_topic(id.internal_topic(&route).as_str()), Some((id.clone(), route)));
        let transactional_id = id.transactional_id_prefix().id(&pod, lane);
        prop_assert_eq!(ResourceId::of_transactional_id(&transactional_id), Some(id));
    }

    /// A PREFIXED ACL on one resource's transactional ids opens no other's.
    #[test]
    fn transactional_id_prefixes_are_exact(one in identity(), other in identity(), pod in label(63)) {
        let id = other.transactional_id_prefix().id(&PodName::parse(pod).unwrap(), 3);
        prop_assert_eq!(id.starts_with(one.transactional_id_prefix().as_str()), one == other);
    }

    #[test]
    fn names_fit_where_they_go(id in identity(), route in label(40), bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let route = PartName::parse(route).unwrap();
        prop_assert_eq!(TopicName::parse(id.internal_topic(&route).as_str()).is_ok(), true);
        prop_assert_eq!(GroupId::parse(id.processor_group().as_str()).is_ok(), true);
        prop_assert_eq!(ScramUser::parse(id.scram_user(Slot::B).as_str()).is_ok(), true);
        prop_assert_eq!(TransactionalIdPrefix::parse(id.transactional_id_prefix().as_str()).is_ok(), true);
        let child = id.hashed_child_name(&ContentHash::of([bytes.as_slice()]));
        prop_assert!(is_dns_label(&child), "{child}");
        // Deployment → ReplicaSet hash (10) → pod suffix (5): still a host name.
        prop_assert!(id.child_name().len() + 17 <= 63);
        let labels = id.labels();
        for (key, value) in &labels {
            prop_assert!(is_label_value(value), "{key}={value}");
        }
        for (key, value) in id.selector_labels() {
            prop_assert_eq!(labels.get(&key), Some(&value));
        }
    }

    /// Within a namespace no two resources share a child.
    #[test]
    fn children_are_not_shared(one in identity(), name in label(40), kind in prop::sample::select(&Kind::ALL[..]),
                               mine in any::<u8>(), theirs in any::<u8>()) {
        let other = ResourceId { name: ResourceName::parse(name).unwrap(), kind, ..one.clone() };
        let (mine, theirs) = (ContentHash::of([[mine].as_slice()]), ContentHash::of([[theirs].as_slice()]));
        prop_assert_eq!(one.child_name() == other.child_name(), one == other);
        prop_assert_eq!(one.hashed_child_name(&mine) == other.hashed_child_name(&theirs), one == other && mine == theirs);
        prop_assert_eq!(one.selector() == other.selector(), one == other);
    }

    #[test]
    fn watermark_keys_are_not_shared(instance in label(20), uid in "[0-9a-f-]{1,40}", other_uid in "[0-9a-f-]{1,40}",
                                     node in "[0-9a-f]{1,40}", tag in "[a-z0-9]{1,5}") {
        let instance = InstanceId::parse(instance).unwrap();
        let keys = WatermarkKeys::new(&instance, &ResourceUid::parse(uid.clone()).unwrap());
        let others = WatermarkKeys::new(&instance, &ResourceUid::parse(other_uid.clone()).unwrap());
        let node = NodeId::parse(node).unwrap();
        let key = keys.key(&node, &tag);
        prop_assert_eq!(keys.node_of(&key), Some(node));
        prop_assert_eq!(key.starts_with(others.prefix()), uid == other_uid);
        // Redis hashes what stands between the first '{' and the next '}'.
        let hashed = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
        prop_assert_eq!(hashed, Some(tag.as_str()));
        // No view's prefix covers a record.
        for end in 1..=key.len() {
            prop_assert!(KeyPrefix::parse(&key[..end]).is_err());
        }
    }

    #[test]
    fn key_prefixes_overlap_exactly_when_a_key_begins_with_both(one in "[ab:]{1,4}", other in "[ab:]{1,4}") {
        let shared = one.starts_with(&other) || other.starts_with(&one);
        let (one, other) = (KeyPrefix::parse(one).unwrap(), KeyPrefix::parse(other).unwrap());
        prop_assert_eq!(one.overlaps(&other), shared);
        prop_assert_eq!(other.overlaps(&one), shared);
    }
}

#[test]
fn names_read_as_documented() {
    let id = ResourceId {
        instance: InstanceId::parse("demo").unwrap(),
        namespace: Namespace::parse("shop").unwrap(),
        kind: Kind::EventPipeline,
        name: ResourceName::parse("enrich-orders").unwrap(),
    };
    assert_eq!(id.transactional_id_prefix().as_str(), "sluice/demo/shop/eventpipeline/enrich-orders/");
    assert_eq!(
        id.transactional_id_prefix().id(&PodName::parse("evp-enrich-orders-7d-x").unwrap(), 1),
        "sluice/demo/shop/eventpipeline/enrich-orders/evp-enrich-orders-7d-x/1"
    );
    assert_eq!(id.scram_user(Slot::A).principal().as_str(), "User:sluice/demo/shop/eventpipeline/enrich-orders/a");
    assert_eq!(id.redis_user().as_str(), "sluice/demo/shop/eventpipeline/enrich-orders");
    assert_eq!(id.processor_group().as_str(), "sluice.demo.shop.eventpipeline.enrich-orders.processor");
    assert_eq!(
        id.internal_topic(&PartName::parse("read-model").unwrap()).as_str(),
        "sluice.demo.shop.eventpipeline.enrich-orders.read-model"
    );
    assert_eq!(id.child_name(), "evp-enrich-orders");
    assert_eq!(id.to_string(), "EventPipeline shop/enrich-orders");
    let keys = WatermarkKeys::new(&id.instance, &ResourceUid::parse("0f-1").unwrap());
    assert_eq!(keys.key(&NodeId::parse("ab12").unwrap(), "3Z"), "sluice/demo/0f-1/ab12/{3Z}");
    assert_eq!(keys.read_write_rule(), "%RW~sluice/demo/0f-1/*");
    assert_eq!(KeyPrefix::parse("order:{").unwrap().read_write_rule(), "%RW~order:{*");
    assert_eq!(KeyPrefix::parse("price:").unwrap().read_rule(), "%R~price:*");
}

#[test]
fn foreign_names_are_not_taken_for_ours() {
    for user in ["", "admin", "sluice", "sluice/demo/shop/eventpipeline/orders", "sluice/demo/shop/pipeline/orders/a"] {
        assert_eq!(ResourceId::of_scram_user(user), None, "{user}");
    }
    for user in ["sluice/demo/shop/eventpipeline/orders/a/b", "sluice/demo/shop/eventpipeline/Orders/a"] {
        assert_eq!(ResourceId::of_scram_user(user), None, "{user}");
    }
    assert_eq!(ResourceId::of_group("sluice.demo.shop.eventpipeline.orders.other"), None);
    assert_eq!(ResourceId::of_internal_topic("order.created"), None);
    assert_eq!(Principal::user_of("User:*"), None);
    assert_eq!(Principal::user_of("Group:admins"), None);
}

#[test]
fn wrong_texts_are_refused_with_what_to_do() {
    let refused = |result: Result<String, sluice_crds::names::NameError>, category: &str, part: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.category(), category, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    let topic = |text: &str| TopicName::parse(text).map(String::from);
    refused(topic(""), "NameEmpty", "topic name \"\" is empty");
    refused(topic("a b"), "NameCharacter", "topic name \"a b\" holds ' '");
    refused(topic(".."), "NameRefused", "is not a name Kafka takes");
    refused(topic(&"x".repeat(250)), "NameTooLong", "is 250 bytes long: at most 249");
    refused(topic("bestellung-ü"), "NameCharacter", "'ü'");
    let name = |text: &str| ResourceName::parse(text).map(String::from);
    refused(name("Orders"), "NameCharacter", "lower-case");
    refused(name("-orders"), "NameEdge", "start and end");
    refused(name("a.b"), "NameCharacter", "'.'");
    refused(name(&"x".repeat(41)), "NameTooLong", "at most 40");
    refused(GroupId::parse("*").map(String::from), "NameCharacter", "'*'");
    refused(TransactionalIdPrefix::parse("sluice/a").map(String::from), "NameEdge", "must end in '/'");
    refused(TransactionalIdPrefix::parse("/").map(String::from), "NameEdge", "empty part");
    for character in ['*', '?', '[', ']', '\\', '~', '%', '(', ')', '"', '\'', ' ', '\n', '\0', 'é'] {
        refused(KeyPrefix::parse(format!("order{character}")).map(String::from), "NameCharacter", "key prefix");
    }
    for prefix in ["s", "sluice", "sluice/", "sluice/demo/"] {
        refused(KeyPrefix::parse(prefix).map(String::from), "NameRefused", "watermark records");
    }
    assert!(KeyPrefix::parse("sluices:").is_ok());
    let long = TopicName::parse("é".repeat(5000)).unwrap_err();
    assert_eq!(long.value.chars().count(), 80);
}

#[test]
fn content_hashes_tell_parts_apart() {
    let one = ContentHash::of([b"ab".as_slice(), b"c"]);
    assert_ne!(one, ContentHash::of([b"a".as_slice(), b"bc"]));
    assert_eq!(one, ContentHash::of([b"ab".as_slice(), b"c"]));
    assert_eq!((one.short().len(), one.long().len()), (10, 26));
    assert!(one.long().starts_with(&one.short()));
    assert_eq!(ContentHash::of([]).short(), "4oymiquy7q", "SHA-256 of nothing, base32");
}

#[test]
fn reading_checks() {
    assert!(serde_json::from_str::<TopicName>("\"order.created\"").is_ok());
    assert!(serde_json::from_str::<TopicName>("\"order created\"").is_err());
    assert!(TopicName::parse("__consumer_offsets").unwrap().is_kafka_internal());
    assert!(TopicName::parse("sluice.demo.x").unwrap().is_sluice_internal());
}
