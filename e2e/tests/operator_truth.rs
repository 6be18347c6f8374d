//! `kubectl wait --for=condition=Ready` tells the truth: whatever keeps a resource from what it asks for keeps it from being
//! ready and is named, and when it is mended the resource gets ready, with the operator that runs.

mod operator;

use std::collections::BTreeMap;

use operator::servers::{clean_up, own};
use operator::{EVERYTHING, Operator, PATIENCE};
use serde_json::Value;
use sluice_clients::kafka::admin::Admin;
use sluice_e2e::datapath::kafka::{TopicSpec, create_topics};
use sluice_e2e::stack::{require, require_local};

/// Long enough for `kubectl wait` to see what is there, and nobody waits for more.
const A_LOOK: u32 = 2;
/// Above the longest back-off that a failure of the tests can have reached.
const MENDED: u32 = 120;

/// Asserts that nobody who waits for these resources is told that they are ready.
fn assert_not_ready(operator: &Operator<'_>, resources: &[&str]) {
    let said = operator.wait_ready(resources, A_LOOK).expect_err("they are not ready").to_string();
    assert!(said.contains("timed out waiting") && !said.contains("condition met"), "{said}");
}

/// Waits until they are ready, as a user would.
fn assert_ready(operator: &Operator<'_>, resources: &[&str]) {
    operator.wait_ready(resources, MENDED).unwrap_or_else(|error| panic!("{error}\n{}", operator.log()));
}

/// Message of `Ready`.
fn message<'v>(object: &'v Value, condition: &str) -> &'v str {
    let conditions = object["status"]["conditions"].as_array().expect("conditions");
    let found = conditions.iter().find(|found| found["type"] == condition).expect("the condition");
    found["message"].as_str().expect("a message")
}

/// What is wrong with a resource: kind, name, reason, words of the message.
type Wrong = (&'static str, &'static str, &'static str, &'static [&'static str]);

const WRONG: &[Wrong] = &[
    ("evp", "mismatch", "TopicMismatch", &["NAME.odd", "2 partitions instead of 3"]),
    ("evp", "expression", "InvalidExpression", &["steps[0]", "keepWhen"]),
    ("evp", "secret", "SecretMissing", &["kafka.access.secretRef", "\"gone\"", "create it"]),
    ("evp", "setting", "SettingRefused", &["maxmemory"]),
    ("evp", "value", "SettingRefused", &["hash-max-listpack-entries"]),
    ("evp", "foreign", "NotAllowed", &["others.in"]),
    ("evp", "nopolicy", "NotAllowed", &["\"later\"", "NAME"]),
    ("csync", "closed", "NotAllowed", &["\"later\"", "NAME"]),
];

const RESOURCES: &str = r#"
apiVersion: sluice.dev/v1alpha1
kind: EventPipeline
metadata: {name: mismatch}
spec: {state: Stopped, topics: [{name: NAME.odd, partitions: 3}], source: {topics: [{name: NAME.in}]}, routing: {routes: [{name: r, topic: NAME.odd}]}}
---
apiVersion: sluice.dev/v1alpha1
kind: EventPipeline
metadata: {name: expression}
spec: {state: Stopped, source: {topics: [{name: NAME.in}]}, steps: [{name: f, filter: {keepWhen: "value.status ==="}}], routing: {routes: [{name: r, topic: NAME.out}]}}
---
apiVersion: sluice.dev/v1alpha1
kind: EventPipeline
metadata: {name: secret}
spec: {state: Stopped, kafka: {access: {mode: Provided, secretRef: {name: gone}}}, source: {topics: [{name: NAME.in}]}, routing: {routes: [{name: r, topic: NAME.out}]}}
---
apiVersion: sluice.dev/v1alpha1
kind: EventPipeline
metadata: {name: setting}
spec: {state: Stopped, redis: {settings: [{name: maxmemory, value: "1"}]}, source: {topics: [{name: NAME.in}]}, routing: {routes: [{name: r, topic: NAME.out, views: [{name: v, key: "'NAME:c:' + key", type: Json}]}]}}
---
apiVersion: sluice.dev/v1alpha1
kind: EventPipeline
metadata: {name: value}
spec: {state: Stopped, redis: {settings: [{name: hash-max-listpack-entries, value: many}]}, source: {topics: [{name: NAME.in}]}, routing: {routes: [{name: r, topic: NAME.out, views: [{name: v, key: "'NAME:d:' + key", type: Json}]}]}}
---
apiVersion: sluice.dev/v1alpha1
kind: EventPipeline
metadata: {name: foreign}
spec: {state: Stopped, source: {topics: [{name: others.in}]}, routing: {routes: [{name: r, topic: NAME.out}]}}
---
apiVersion: sluice.dev/v1alpha1
kind: EventPipeline
metadata: {name: nopolicy}
spec: {state: Stopped, kafka: {connectionRef: {name: later}}, source: {topics: [{name: NAME.in}]}, routing: {routes: [{name: r, topic: NAME.out}]}}
---
apiVersion: sluice.dev/v1alpha1
kind: CacheSync
metadata: {name: closed}
spec: {state: Stopped, redis: {connectionRef: {name: later}}, source: {topics: [{name: NAME.in}]}, views: [{name: v, key: "'NAME:a:' + key", type: Json}]}
---
apiVersion: sluice.dev/v1alpha1
kind: CacheSync
metadata: {name: waiting}
spec: {state: Stopped, source: {topics: [{name: NAME.later}]}, views: [{name: v, key: "'NAME:b:' + key", type: Json}]}
"#;

#[test]
fn what_is_wrong_is_named_until_it_is_mended() {
    let Some(stack) = require(&EVERYTHING) else { return };
    let mut operator = Operator::start(&stack, "truth");
    for (topic, partitions) in [("odd", 2), ("in", 1), ("out", 1)] {
        make_topic(&operator, topic, partitions);
    }
    write_later(&operator, "somebody-else");
    operator.apply(RESOURCES);
    for (kind, name, reason, words) in WRONG {
        operator.wait_condition(kind, name, "Stalled", ("True", reason));
        let object = operator.wait_condition(kind, name, "Ready", ("False", reason));
        assert_eq!(object["status"]["observedGeneration"], 1);
        assert_eq!(object["status"]["conditions"].as_array().map(Vec::len), Some(9), "all conditions are set");
        for word in *words {
            let word = word.replace("NAME", &operator.name);
            assert!(
                message(&object, "Ready").contains(&word),
                "{kind}/{name} should name {word:?}: {}",
                message(&object, "Ready")
            );
        }
    }
    let waiting = operator.wait_condition("csync", "waiting", "Reconciling", ("True", "TopicMissing"));
    assert!(message(&waiting, "Ready").contains(&format!("{}.later", operator.name)), "{}", message(&waiting, "Ready"));
    let names: Vec<String> = WRONG.iter().map(|(kind, name, ..)| format!("{kind}/{name}")).collect();
    let mut all: Vec<&str> = names.iter().map(String::as_str).collect();
    all.push("csync/waiting");
    assert_not_ready(&operator, &all);

    // An older resource keeps its keys; the younger one is told by name within the namespace.
    operator.apply(
        "{apiVersion: sluice.dev/v1alpha1, kind: CacheSync, metadata: {name: younger}, spec: {state: Stopped, source: {topics: \
         [{name: NAME.in}]}, views: [{name: v, key: \"'NAME:b:x' + key\", type: Json}]}}",
    );
    let younger = operator.wait_condition("csync", "younger", "Stalled", ("True", "KeyPrefixConflict"));
    assert!(message(&younger, "Ready").contains("waiting"), "{}", message(&younger, "Ready"));

    mend(&operator);
    assert_ready(&operator, &all);
    operator.in_namespace(&["delete", "csync", "waiting", "--timeout=60s"]);
    assert_ready(&operator, &["csync/younger"]);
    assert!(operator.is_running(), "the same operator");
    clean_up(&operator);
}

fn make_topic(operator: &Operator<'_>, topic: &str, partitions: i32) {
    let name = format!("{}.{topic}", operator.name);
    let compact = &[("cleanup.policy", "compact")];
    create_topics(operator.kafka, &[TopicSpec { name: &name, partitions, config: compact }]).expect("a topic");
}

/// The settings with connections `later` that only this namespace may use.
fn write_later(operator: &Operator<'_>, namespace: &str) {
    let only_for = |item: &str| {
        let (ours, theirs) = (format!("{{name: {}, ", operator.name), format!("{{name: {namespace}, "));
        assert!(item.contains(&ours), "a policy of this namespace: {item}");
        item.replace(&ours, &theirs)
    };
    let (brokers, addresses) =
        (operator.kafka.bootstrap().replace(',', "\", \""), operator.redis.addresses().join("\", \""));
    let kafka = only_for(&operator.kafka_item("later", &brokers, operator.kafka));
    let redis = only_for(&operator.redis_item("later", &addresses, operator.redis));
    operator.write_settings_with(&[kafka], &[redis]);
}

/// Removes every cause where it is: at the server, in the namespace, in the spec, in the operator's settings.
fn mend(operator: &Operator<'_>) {
    let grown = BTreeMap::from([(format!("{}.odd", operator.name), 3)]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let done = runtime.block_on(async {
        let admin = Admin::new(&operator.kafka.client_config(), PATIENCE)?;
        admin.create_partitions(&grown).await
    });
    assert!(done.as_ref().is_ok_and(|done| done.values().all(Result::is_ok)), "{done:?}");
    make_topic(operator, "later", 1);
    let literals = ["--from-literal=username=somebody", "--from-literal=password=secret"];
    operator.in_namespace(&["create", "secret", "generic", "gone", literals[0], literals[1]]);
    let topic = format!(r#"{{"spec":{{"source":{{"topics":[{{"name":"{}.in"}}]}}}}}}"#, operator.name);
    for (name, patch) in [
        ("expression", r#"{"spec":{"steps":null}}"#),
        ("setting", r#"{"spec":{"redis":null}}"#),
        ("value", r#"{"spec":{"redis":{"settings":[{"name":"hash-max-listpack-entries","value":"128"}]}}}"#),
        ("foreign", &topic),
    ] {
        operator.in_namespace(&["patch", "evp", name, "--type=merge", "-p", patch]);
    }
    write_later(operator, &operator.name);
}

const USES_BOTH: &str = r#"
apiVersion: sluice.dev/v1alpha1
kind: EventPipeline
metadata: {name: AGE}
spec:
  state: Stopped
  topics: [{name: NAME.AGE, partitions: 1}]
  source: {topics: [{name: NAME.AGE}]}
  steps: [{name: price, lookup: {key: "'NAME:price:' + value.sku", type: Json}}]
  routing: {routes: [{name: model, views: [{name: order, key: "'NAME:AGE:' + key", type: Json}]}]}
"#;

/// Servers that are away: not ready and not stalled, also what was ready before, and well again when they are back.
#[test]
fn servers_that_are_away_are_waited_for() {
    let Some(stack) = require_local(&EVERYTHING) else { return };
    let (kafka, redis) = own(&stack, "truth");
    let mut operator = Operator::start_on(&stack, &kafka, &redis, "away");
    let apply = |operator: &Operator<'_>, age: &str| operator.apply(&USES_BOTH.replace("AGE", age));
    apply(&operator, "early");
    assert_ready(&operator, &["evp/early"]);

    let broker = kafka.broker(1).expect("the only one");
    broker.freeze().expect("frozen");
    apply(&operator, "late");
    away(&operator, &["late", "early"], "KafkaUnreachable");
    broker.thaw().expect("goes on");
    assert_ready(&operator, &["evp/early", "evp/late"]);

    let server = redis.node(1).expect("the only one");
    server.kill9().expect("killed");
    apply(&operator, "later");
    away(&operator, &["later", "late", "early"], "RedisUnreachable");
    server.start_and_wait().expect("started again");
    assert_ready(&operator, &["evp/early", "evp/late", "evp/later"]);
    assert!(operator.is_running(), "the same operator");
}

/// Waits until these are told to be in progress, for this reason, and asserts that nobody is told that they are ready.
fn away(operator: &Operator<'_>, names: &[&str], reason: &str) {
    for name in names {
        operator.wait_condition("evp", name, "Reconciling", ("True", reason));
        let object = operator.wait_condition("evp", name, "Ready", ("False", reason));
        let said = message(&object, "Ready").to_lowercase();
        assert_eq!(message(&object, "Reconciling").to_lowercase(), said, "one word on it");
        assert!(
            said.contains(&reason.to_lowercase().replace("unreachable", "")),
            "{name} should say who is away: {said}"
        );
    }
    let resources: Vec<String> = names.iter().map(|name| format!("evp/{name}")).collect();
    assert_not_ready(operator, &resources.iter().map(String::as_str).collect::<Vec<_>>());
}
