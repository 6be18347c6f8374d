//! A pipeline that is changed while orders flow through it, and what a changed definition leaves in Redis: nothing of the old
//! one. The judge reads Kafka and Redis with clients of its own.

mod operator;

use std::collections::BTreeMap;
use std::time::Instant;

use operator::{EVERYTHING, Operator, PATIENCE};
use serde_json::{Value, json};
use sluice_crds::names::{InstanceId, Kind, Namespace, ResourceId, ResourceName};
use sluice_e2e::checker::{
    Fate, PipelineHistory, Report, TopicDump, ViewKind, ViewSpec, check_lag, check_pipeline, check_view, fold,
};
use sluice_e2e::datapath::loader::{Loaded, Loader};
use sluice_e2e::datapath::redis::{RedisReader, load_reference};
use sluice_e2e::datapath::{HarnessError, kafka};
use sluice_e2e::generator::{Generator, Profile, RecordId, Route};
use sluice_e2e::stack::{Stack, require, wait_for};

/// The generator's pipeline, with a view of its main output.
const PIPELINE: &str = r#"
apiVersion: sluice.dev/v1alpha1
kind: EventPipeline
metadata: {name: orders}
spec:
  topics:
  - {name: NAME.created, partitions: 4}
  - {name: NAME.enriched, partitions: 4, config: {cleanup.policy: compact}}
  - {name: NAME.review, partitions: 4}
  - {name: NAME.rejected, partitions: 4}
  source: {topics: [{name: NAME.created}]}
  steps:
  - {name: onlyCreated, filter: {keepWhen: 'value.status == "CREATED"'}}
  - {name: price, lookup: {key: "'NAME:price:' + value.sku", type: Json, onMiss: DeadLetter}}
  - {name: stock, lookup: {key: "'NAME:stock:{' + value.sku + '}'", type: Hash, onMiss: Continue}}
  - name: totals
    set:
    - {field: total, expression: "double(value.quantity) * double(price.amount)"}
    - {field: inStock, expression: "stock != null && int(stock.onHand) >= int(value.quantity)"}
  - {name: pii, mask: {fields: [customer.email], method: Redact}}
  - {name: tidy, remove: {fields: [internal]}}
  routing:
    match: First
    onNoMatch: DeadLetter
    routes:
    - {name: review, topic: NAME.review, when: "value != null && value.total > 10000.0"}
    - name: enriched
      topic: NAME.enriched
      views: [{name: order, key: "'NAME:view:' + key", keyPrefix: "NAME:view:", type: Json}]
  deadLetter: {topic: NAME.rejected}
  worker: {replicas: 1, resources: {requests: {cpu: 50m, memory: 64Mi}, limits: {memory: 128Mi}}}
"#;

/// Orders a second: a trickle, so that a busy machine is not what is tested.
const RATE: u32 = 60;

#[test]
fn a_pipeline_that_is_changed_under_load_loses_doubles_and_leaves_nothing() {
    let Some(stack) = require(&EVERYTHING) else { return };
    let operator = Operator::start_with_workers(&stack, "flow");
    let reader = RedisReader::new(operator.redis).expect("a reader");
    let generator = Generator::new(Profile::mixed(11, 4));
    load_reference(&reader, &format!("{}:", operator.name), generator.known_skus()).expect("reference data");
    operator.apply(PIPELINE);
    let first = epoch(&settled(&operator, 1));
    let source = format!("{}.created", operator.name);
    let loader = Loader::start(operator.kafka, &source, generator, RATE).expect("orders");
    flowing(&operator, &loader);

    // The same result from another expression: pods are replaced, the views stay.
    let step = "double(price.amount) * double(value.quantity)";
    let steps = PIPELINE.replace("double(value.quantity) * double(price.amount)", step);
    operator.apply(&steps);
    assert_eq!(epoch(&settled(&operator, 1)), first, "a step is not a part of a view");
    flowing(&operator, &loader);

    // Other keys below the same prefix.
    let keys = steps.replace("\"'NAME:view:' + key\"", "\"'NAME:view:{' + key + '}'\"");
    assert_ne!(keys, steps);
    operator.apply(&keys);
    assert!(epoch(&settled(&operator, 1)) > first, "the definition of the view is another one");
    flowing(&operator, &loader);

    for replicas in [3, 1] {
        // By the operator, that brings the number into its bounds when all workers have joined.
        let bounds = json!({"spec": {"autoscaling": {"minReplicas": replicas, "maxReplicas": replicas}}});
        operator.in_namespace(&["patch", "evp", "orders", "--type=merge", "-p", &bounds.to_string()]);
        settled(&operator, replicas);
        flowing(&operator, &loader);
    }
    let orders = loader.stop().expect("every order is acknowledged");
    caught_up(&operator);
    let report = judge(&operator, &reader, &orders).expect("everything can be read");
    assert!(report.is_clean(), "{report}\n{}", operator.log());
    assert!(report.checked("inputs") >= 300 && report.checked("view keys") >= 50, "too little was looked at: {report}");
    println!("{report}");
    forget(&stack, &operator, &reader);
}

fn epoch(object: &Value) -> u64 {
    object["status"]["epoch"].as_u64().unwrap_or(0)
}

/// Waits until the operator says that the spec as it is now is carried out.
fn settled(operator: &Operator<'_>, replicas: u64) -> Value {
    let begun = Instant::now();
    let mut last = Value::Null;
    let found = wait_for(PATIENCE, || {
        last = operator.get("evp", "orders")?;
        let (status, generation) = (&last["status"], &last["metadata"]["generation"]);
        let ready = |condition: &Value| condition["type"] != "Ready" || condition["status"] == "True";
        let well = status["conditions"].as_array()?.iter().all(ready) && status["replicas"] == replicas;
        (well && status["observedGeneration"] == *generation).then(|| last.clone())
    });
    println!("settled with {replicas} after {:.1} s", begun.elapsed().as_secs_f64());
    found.unwrap_or_else(|| panic!("not settled: {:#}\n{}", last["status"], operator.log()))
}

/// Waits until orders that are sent from now on have come out.
fn flowing(operator: &Operator<'_>, loader: &Loader) {
    let topic = format!("{}.enriched", operator.name);
    let end = |topic: &str| kafka::ends(operator.kafka, topic, true).map_or(0, |ends| ends.values().sum::<i64>());
    let (before, sent) = (end(&topic), loader.sent());
    let flows = wait_for(PATIENCE, || (end(&topic) > before + 20 && loader.sent() > sent).then_some(()));
    assert!(flows.is_some(), "nothing comes out: {:#?}\n{}", operator.get("evp", "orders"), operator.log());
}

/// Waits until both groups have read everything.
fn caught_up(operator: &Operator<'_>) {
    let id = ResourceId {
        instance: InstanceId::parse(operator.name.as_str()).expect("an instance"),
        namespace: Namespace::parse(operator.name.as_str()).expect("a namespace"),
        kind: Kind::EventPipeline,
        name: ResourceName::parse("orders").expect("a name"),
    };
    for (group, topic) in [(id.processor_group(), "created"), (id.applier_group(), "enriched")] {
        let (group, topic) = (group.to_string(), format!("{}.{topic}", operator.name));
        let at_end = || -> Result<bool, HarnessError> {
            let committed = kafka::committed(operator.kafka, &group, &topic)?;
            Ok(check_lag(&group, &committed, &kafka::ends(operator.kafka, &topic, false)?).is_clean())
        };
        let done = wait_for(PATIENCE, || at_end().is_ok_and(|at_end| at_end).then_some(()));
        assert!(done.is_some(), "group {group} is not at the end of {topic}\n{}", operator.log());
    }
}

fn judge(operator: &Operator<'_>, reader: &RedisReader, loaded: &Loaded) -> Result<Report, HarnessError> {
    let named = |topic: &str| format!("{}.{topic}", operator.name);
    let dump = |topic: &str| kafka::dump(operator.kafka, &named(topic));
    let (input, enriched, review, rejected) = (dump("created")?, dump("enriched")?, dump("review")?, dump("rejected")?);
    let topic = |route| named(if route == Route::Review { "review" } else { "enriched" });
    let fates: BTreeMap<RecordId, Fate> =
        loaded.expected.iter().map(|(id, (key, expected))| (*id, Fate::of(key, expected, topic))).collect();
    let group = format!("sluice.{0}.{0}.eventpipeline.orders.processor", operator.name);
    let committed = kafka::committed(operator.kafka, &group, &input.topic)?;
    let mut report = check_pipeline(&PipelineHistory {
        input: &input,
        fates: &fates,
        outputs: &[enriched.clone(), review],
        dead_letters: Some(&rejected),
        committed: &committed,
    });
    report.merge(view(operator, reader, &enriched)?);
    Ok(report)
}

/// Redis against the topic under the new definition; a key of the old one is not named by any record.
fn view(operator: &Operator<'_>, reader: &RedisReader, topic: &TopicDump) -> Result<Report, HarnessError> {
    let prefix = format!("{}:view:", operator.name);
    let view =
        ViewSpec { before: format!("{prefix}{{"), after: "}".into(), kind: ViewKind::Json, ttl_ms: None, when: None };
    let (folded, held) = (fold(topic, &[view]), reader.dump(&format!("{prefix}*"))?);
    let old: Vec<&String> = held.keys.keys().filter(|key| !folded.keys.contains_key(*key)).take(5).collect();
    assert!(old.is_empty(), "keys that no record of the view topic names now: {old:?}\n{}", operator.log());
    Ok(check_view(&folded, &held, 2_000))
}

/// Topics and keys that the test leaves.
fn forget(stack: &Stack, operator: &Operator<'_>, reader: &RedisReader) {
    let kafka = stack.kafka().expect("required");
    operator.in_namespace(&["delete", "evp,csync", "--all", "--timeout=60s"]);
    let names = ["created", "enriched", "review", "rejected", "state"].map(|name| format!("{}.{name}", operator.name));
    let _ = kafka::delete_topics(kafka, &names.each_ref().map(String::as_str));
    for master in reader.masters().expect("masters") {
        for pattern in [format!("{}:*", operator.name), format!("sluice/{}/*", operator.name)] {
            reader.delete(&master, &pattern).expect("deleted");
        }
    }
}

const CACHE: &str = r#"
apiVersion: sluice.dev/v1alpha1
kind: CacheSync
metadata: {name: cache}
spec:
  state: Stopped
  source: {topics: [{name: NAME.state}]}
  views:
  - {name: one, key: "'NAME:one:' + key", type: Json}
  - {name: two, key: "'NAME:two:' + key", type: Json}
"#;

/// No worker runs: the keys and the records are those that one would have left.
#[test]
fn a_changed_view_is_cleared_its_neighbours_are_not_and_an_operator_that_dies_goes_on() {
    let Some(stack) = require(&EVERYTHING) else { return };
    let mut operator = Operator::start(&stack, "clear");
    let reader = RedisReader::new(operator.redis).expect("a reader");
    let topic = format!("{}.state", operator.name);
    let spec = kafka::TopicSpec { name: &topic, partitions: 1, config: &[("cleanup.policy", "compact")] };
    kafka::create_topics(operator.kafka, &[spec]).expect("a topic");
    operator.apply(CACHE);
    let cache = operator.wait_condition("csync", "cache", "Ready", ("True", "Stopped"));
    let first = epoch(&cache);
    let keys = ["one:1", "one:2", "one:{3}", "two:1", "onestep"];
    fill(&operator, &keys);

    // Never materialised, as no record says so: whose keys these are is not known.
    operator.apply(&CACHE.replace("'NAME:one:' + key", "'NAME:one:' + key + '!'"));
    let second = epoch_above(&operator, first);
    assert_eq!(held(&operator, &reader), keys_of(&operator, &keys));

    // Materialised; and Redis is away when the definition changes: nothing is said to be done, nothing goes.
    operator.leave_record(&cache, 700, second);
    operator.write_settings(&operator.kafka.bootstrap().replace(',', "\", \""), "10.44.0.1:9");
    operator.wait_condition("csync", "cache", "Reconciling", ("True", "RedisUnreachable"));
    operator.apply(&CACHE.replace("'NAME:one:' + key", "'NAME:one:{' + key + '}'"));
    let looked_at = || {
        let cache = operator.get("csync", "cache")?;
        (cache["status"]["observedGeneration"] == cache["metadata"]["generation"]).then_some(())
    };
    assert!(wait_for(PATIENCE, looked_at).is_some(), "the new definition should be looked at\n{}", operator.log());
    operator.wait_condition("csync", "cache", "Reconciling", ("True", "RedisUnreachable"));
    assert_eq!(epoch(&operator.get("csync", "cache").expect("there")), second);
    operator
        .write_settings(&operator.kafka.bootstrap().replace(',', "\", \""), &operator.redis.addresses().join("\", \""));
    let third = epoch_above(&operator, second);
    assert_eq!(held(&operator, &reader), keys_of(&operator, &["two:1", "onestep"]));
    assert_eq!(records(&operator, &reader), 0, "nothing may say that the keys are there");

    // An operator that died on its way, and a spec that is what it was before: its keys are half gone.
    operator.kill();
    fill(&operator, &keys);
    let half = json!({"status": {"views": [
        {"name": "one", "keyPrefix": format!("{}:one:", operator.name), "topic": topic},
        {"name": "two", "keyPrefix": format!("{}:two:", operator.name), "topic": topic, "definition": "x"},
    ]}});
    operator.in_namespace(&[
        "patch",
        "csync",
        "cache",
        "--subresource=status",
        "--type=merge",
        "-p",
        &half.to_string(),
    ]);
    operator.run();
    epoch_above(&operator, third);
    assert_eq!(held(&operator, &reader), keys_of(&operator, &["onestep"]));
    operator.wait_condition("csync", "cache", "Ready", ("True", "Stopped"));
    forget(&stack, &operator, &reader);
}

fn epoch_above(operator: &Operator<'_>, above: u64) -> u64 {
    let found = wait_for(PATIENCE, || Some(epoch(&operator.get("csync", "cache")?)).filter(|epoch| *epoch > above));
    found.unwrap_or_else(|| panic!("no epoch above {above}: {:?}\n{}", operator.get("csync", "cache"), operator.log()))
}

fn fill(operator: &Operator<'_>, keys: &[&str]) {
    for key in keys {
        set(operator, key);
    }
}

fn set(operator: &Operator<'_>, key: &str) {
    operator.redis.cli(1, &["-c", "SET", &format!("{}:{key}", operator.name), "x"]).expect("redis");
}

fn keys_of(operator: &Operator<'_>, keys: &[&str]) -> Vec<String> {
    let mut all: Vec<String> = keys.iter().map(|key| format!("{}:{key}", operator.name)).collect();
    all.sort();
    all
}

fn held(operator: &Operator<'_>, reader: &RedisReader) -> Vec<String> {
    reader.dump(&format!("{}:*", operator.name)).expect("a dump").keys.into_keys().collect()
}

fn records(operator: &Operator<'_>, reader: &RedisReader) -> usize {
    reader.dump(&format!("sluice/{}/*", operator.name)).expect("a dump").keys.len()
}
