//! The worker's file: what is written is read back, and whatever a worker would not understand is refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use proptest::prelude::*;
use serde_json::{Value, json};
use sluice_crds::v1alpha1::{Expression, LookupType, MaskMethod, OnMiss};
use sluice_crds::worker_config::{
    Action, FieldPath, MAX_WORKER_CONFIG_BYTES, SetField, Step, WorkerConfig, WorkerConfigError, parse,
};

const TOPIC_ID: &str = "AAAAAAAAAAAAAAAAAAAAAQ";

/// A configuration with everything in it.
fn full() -> Value {
    json!({
        "version": "v1",
        "identity": {"instance": "demo", "namespace": "shop", "kind": "eventpipeline", "name": "orders", "uid": "0f-1"},
        "kafka": {
            "brokers": ["kafka:9093"],
            "tls": {"caFile": "/ca.crt"},
            "sasl": {"mechanism": "SCRAM-SHA-512", "usernameFile": "/user", "passwordFile": "/password"}
        },
        "redis": {
            "mode": "Cluster",
            "addresses": ["redis:6379"],
            "tls": {},
            "user": {"usernameFile": "/user", "passwordFile": "/password"}
        },
        "processor": {
            "group": "sluice.demo.shop.eventpipeline.orders.processor",
            "transactionalIdPrefix": "sluice/demo/shop/eventpipeline/orders/",
            "topics": [{"name": "order.created", "id": TOPIC_ID}],
            "format": "Json",
            "steps": [
                {"name": "only", "action": {"filter": {"keepWhen": "true"}}},
                {"name": "price", "action": {"lookup": {
                    "key": "'price:' + value.sku", "keyPrefix": "price:", "lookupType": "Json", "onMiss": "DeadLetter"}}},
                {"name": "totals", "action": {"set": {"fields": [{"field": "a.total", "expression": "1"}]}}},
                {"name": "tidy", "action": {"remove": {"fields": ["internal"]}}},
                {"name": "pii", "action": {"mask": {"fields": ["customer.email"], "method": "Redact"}}}
            ],
            "routing": {"match": "First", "onNoMatch": "Discard", "routes": [
                {"name": "out", "topic": "order.enriched", "when": "true", "key": "key", "hasViews": true, "compacted": true}]},
            "deadLetterTopic": "order.rejected",
            "lanes": 2, "commitIntervalMilliseconds": 100, "maxBatchRecords": 10_000, "maxBatchBytes": 8_388_608,
            "maxRecordBytes": 1_048_576, "lookupCache": {"maxBytes": 8_388_608, "ttlMilliseconds": 1000}
        },
        "applier": {
            "group": "sluice.demo.shop.eventpipeline.orders.applier",
            "epoch": 1_763_700_000,
            "topics": [{
                "topic": {"name": "order.enriched", "id": TOPIC_ID},
                "format": "Json",
                "views": [{"name": "order", "key": "'order:{' + key + '}'", "keyPrefix": "order:{", "viewType": "Hash",
                    "when": "true", "ttlSeconds": 1800}]
            }],
            "maxBatchItems": 256, "maxBatchBytes": 1_048_576
        },
        "adminListen": "127.0.0.1:8080"
    })
}

fn read(config: &Value) -> Result<WorkerConfig, WorkerConfigError> {
    parse(config.to_string().as_bytes())
}

/// Every path of an object or list, as JSON pointers.
fn pointers(value: &Value, at: &str, wanted: fn(&Value) -> bool, found: &mut Vec<String>) {
    if wanted(value) {
        found.push(at.to_owned());
    }
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(key, member)| pointers(member, &format!("{at}/{key}"), wanted, found));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| pointers(item, &format!("{at}/{index}"), wanted, found));
        }
        _ => {}
    }
}

#[test]
fn what_is_written_is_read_back() {
    let config = read(&full()).unwrap();
    assert_eq!(serde_json::to_value(&config).unwrap(), full(), "no field is lost or renamed");
    let mut small = full();
    for pointer in ["redis", "applier", "adminListen"] {
        small.as_object_mut().unwrap().remove(pointer);
    }
    small["processor"]["steps"] = json!([]);
    small["processor"].as_object_mut().unwrap().remove("deadLetterTopic");
    let config = read(&small).unwrap();
    assert_eq!(config.admin_listen, "0.0.0.0:8080");
    assert_eq!(read(&serde_json::to_value(&config).unwrap()).unwrap(), config);
}

/// Unknown fields are refused in every object, the variants of a step's action included.
#[test]
fn unknown_fields_are_refused_everywhere() {
    let mut objects = Vec::new();
    pointers(&full(), "", Value::is_object, &mut objects);
    assert!(objects.len() > 25, "{objects:?}");
    for pointer in objects {
        let mut config = full();
        config.pointer_mut(&pointer).unwrap()["surprise"] = json!(1);
        let error = read(&config).expect_err(&pointer);
        assert_eq!(error.category(), "Field", "{pointer}: {error}");
        // An action is a choice of one: there serde names what it expected instead.
        let named = error.to_string().contains("surprise") || pointer.ends_with("/action");
        assert!(named, "{pointer}: {error}");
    }
}

/// Missing fields are refused or have a documented meaning; none changes what another one means.
#[test]
fn missing_fields_are_refused_unless_optional() {
    const OPTIONAL: [&str; 14] = [
        "/adminListen",
        "/processor",
        "/applier",
        "/kafka/tls",
        "/kafka/sasl",
        "/kafka/tls/caFile",
        "/redis/tls",
        "/redis/user",
        "/processor/deadLetterTopic",
        "/processor/routing/routes/0/when",
        "/processor/routing/routes/0/key",
        "/applier/topics/0/views/0/when",
        "/applier/topics/0/views/0/ttlSeconds",
        "/redis",
    ];
    let mut all = Vec::new();
    pointers(&full(), "", |_| true, &mut all);
    for pointer in all.iter().filter(|pointer| !pointer.is_empty()) {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let mut config = full();
        let Some(parent) = config.pointer_mut(parent).and_then(Value::as_object_mut) else { continue };
        parent.remove(key);
        match read(&config) {
            Ok(_) => assert!(OPTIONAL.contains(&pointer.as_str()), "{pointer} may be missing"),
            Err(error) => assert!(!OPTIONAL.contains(&pointer.as_str()) || pointer == "/redis", "{pointer}: {error}"),
        }
    }
}

#[test]
fn the_version_is_judged_before_the_fields() {
    let version = |version: Value| {
        let error = read(&json!({"version": version, "somethingElse": {}})).unwrap_err();
        assert_eq!(error.category(), "Version", "{error}");
        error.to_string()
    };
    assert!(version(json!("v2")).contains("has version \"v2\", this worker reads \"v1\""));
    assert!(version(json!(1)).contains("version 1,"));
    assert!(version(Value::Null).contains("version null"));
    assert_eq!(read(&json!({})).unwrap_err().category(), "Version");
    for text in ["", "17", "\"v1\"", "{", "{\"version\": \"v1\"} trailing"] {
        assert_eq!(parse(text.as_bytes()).unwrap_err().category(), "Json", "{text}");
    }
    assert_eq!(parse(b"\xff\xfe").unwrap_err().category(), "Json");
    assert_eq!(parse(&vec![b' '; MAX_WORKER_CONFIG_BYTES + 1]).unwrap_err().category(), "TooLarge");
}

/// Pointer, what to put there, category, part of the message.
const MISTAKES: &[(&str, &str, &str, &str)] = &[
    ("/identity/instance", r#""a/b""#, "Name", "`identity.instance`: instance id \"a/b\" holds '/'"),
    ("/identity/namespace", r#""""#, "Name", "is empty"),
    ("/identity/kind", r#""pod""#, "Name", "eventpipeline"),
    ("/identity/name", r#""a.b""#, "Name", "'.'"),
    ("/identity/uid", r#""a b""#, "Name", "' '"),
    ("/kafka/brokers", "[]", "Empty", "`kafka.brokers` is empty"),
    ("/redis/addresses", "[]", "Empty", "redis.addresses"),
    ("/processor/group", r#""*""#, "Name", "'*'"),
    ("/processor/transactionalIdPrefix", r#""sluice/demo""#, "Name", "must end in '/'"),
    ("/processor/topics", "[]", "Empty", "processor.topics"),
    ("/processor/topics/0/name", r#""..""#, "Name", "topic name"),
    ("/processor/topics/0/id", r#""""#, "TopicId", "of topic \"order.created\" is \"\""),
    ("/processor/topics/0/id", r#""AAAAAAAAAAAAAAAAAAAAA=""#, "TopicId", "22 characters"),
    ("/processor/steps/0/name", r#""price""#, "Twice", "`processor.steps` has \"price\" twice"),
    ("/processor/steps/1/action/lookup/keyPrefix", r#""a*""#, "Name", "key prefix"),
    ("/processor/steps/1/action/lookup/keyPrefix", r#""sluice/""#, "Name", "watermark"),
    ("/processor/steps/2/action/set/fields/0/field", r#""a..b""#, "Field", "empty member"),
    ("/processor/steps/3/action", r#"{"explode": {}}"#, "Field", "explode"),
    ("/processor/routing/routes", "[]", "Empty", "processor.routing.routes"),
    ("/processor/routing/routes/0/topic", r#""order.created""#, "Loop", "go round for ever"),
    ("/processor/deadLetterTopic", r#""order.created""#, "Loop", "go round for ever"),
    ("/processor/deadLetterTopic", r#""a b""#, "Name", "' '"),
    ("/processor/lanes", "0", "Range", "`processor.lanes` is 0: it must be 1 to 64"),
    ("/processor/lanes", "-1", "Field", "invalid value"),
    ("/processor/commitIntervalMilliseconds", "60000", "Range", "1 to 5000"),
    ("/processor/maxBatchRecords", "0", "Range", "maxBatchRecords"),
    ("/processor/maxBatchBytes", "1", "Range", "maxBatchBytes"),
    ("/processor/maxRecordBytes", "0", "Range", "maxRecordBytes"),
    ("/applier/group", r#""a b""#, "Name", "group id"),
    ("/applier/topics", "[]", "Empty", "applier.topics"),
    ("/applier/topics/0/views", "[]", "Empty", "applier.topics.views"),
    ("/applier/topics/0/views/0/keyPrefix", r#""""#, "Name", "is empty"),
    ("/applier/topics/0/views/0/viewType", r#""List""#, "Field", "List"),
    ("/applier/topics/0/views/0/ttlSeconds", "0", "Range", "ttlSeconds"),
    ("/applier/maxBatchItems", "0", "Range", "maxBatchItems"),
    ("/applier/maxBatchBytes", "99999999999", "Range", "maxBatchBytes"),
];

#[test]
fn each_mistake_is_named() {
    for (pointer, with, category, part) in MISTAKES {
        let mut config = full();
        *config.pointer_mut(pointer).unwrap() = serde_json::from_str(with).unwrap();
        let error = read(&config).expect_err(pointer);
        assert_eq!(error.category(), *category, "{pointer}: {error}");
        assert!(error.to_string().contains(part), "{pointer}: {error}");
    }
}

#[test]
fn parts_that_need_each_other_are_there() {
    let without = |fields: &[&str]| {
        let mut config = full();
        for field in fields {
            config.as_object_mut().unwrap().remove(*field);
        }
        read(&config).map_err(|error| error.to_string())
    };
    assert!(without(&["processor", "applier"]).unwrap_err().contains("nothing to run"));
    assert!(without(&["redis"]).unwrap_err().contains("a lookup step needs `redis`"));
    assert!(without(&["redis", "processor"]).unwrap_err().contains("`applier` needs `redis`"));
    assert!(without(&["processor"]).is_ok());
    let mut config = full();
    config["kafka"]["sasl"]["mechanism"] = json!("PLAIN");
    assert!(read(&config).is_ok());
    config["kafka"].as_object_mut().unwrap().remove("tls");
    assert_eq!(read(&config).unwrap_err().category(), "PlainWithoutTls");
}

fn action() -> impl Strategy<Value = Action> {
    let path = || "[a-zäß_-]{1,5}(\\.[a-z 0-9]{1,5}){0,3}".prop_map(|path| FieldPath::try_from(path).unwrap());
    let expression = || ".{1,40}".prop_map(Expression);
    prop_oneof![
        expression().prop_map(|keep_when| Action::Filter { keep_when }),
        expression().prop_map(|key| Action::Lookup {
            key,
            key_prefix: "a:".to_owned(),
            lookup_type: LookupType::Hash,
            on_miss: OnMiss::Discard
        }),
        prop::collection::vec((path(), expression()), 1..4).prop_map(|fields| Action::Set {
            fields: fields.into_iter().map(|(field, expression)| SetField { field, expression }).collect()
        }),
        prop::collection::vec(path(), 1..4).prop_map(|fields| Action::Remove { fields }),
        prop::collection::vec(path(), 1..4).prop_map(|fields| Action::Mask { fields, method: MaskMethod::Redact }),
    ]
}

proptest! {
    #[test]
    fn any_steps_are_read_back_as_written(actions in prop::collection::vec(action(), 0..6)) {
        let mut config = read(&full()).unwrap();
        config.processor.as_mut().unwrap().steps = actions
            .into_iter()
            .enumerate()
            .map(|(index, action)| Step { name: format!("step{index}"), action })
            .collect();
        let bytes = serde_json::to_vec(&config).unwrap();
        prop_assert_eq!(parse(&bytes).unwrap(), config);
    }

    /// A damaged file is refused, or is another valid one: never a panic, never something that cannot be written again.
    #[test]
    fn damaged_files_are_refused_or_valid(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = full().to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(config) = parse(&bytes) {
            prop_assert_eq!(parse(&serde_json::to_vec(&config).unwrap()).unwrap(), config);
        }
    }
}
