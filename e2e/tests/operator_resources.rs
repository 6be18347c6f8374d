//! What the operator makes of a resource on the real servers, what it says of it, that it then keeps still, and what is
//! left when the resource goes. No worker runs: the resources are stopped, the rest is as it would be.

mod operator;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::time::{Duration, Instant};

use operator::servers::{acls, clean_up, redis_nodes_with_user, topics};
use operator::{CACHE, EVERYTHING, Operator, PATIENCE};
use serde_json::Value;
use sluice_e2e::datapath::kafka::{TopicSpec, create_topics};
use sluice_e2e::stack::{require, wait_for};

const PIPELINE: &str = r#"
apiVersion: sluice.dev/v1alpha1
kind: EventPipeline
metadata: {name: orders}
spec:
  state: Stopped
  topics:
  - {name: NAME.created, partitions: 2, config: {retention.ms: "604800000"}}
  - {name: NAME.rejected, partitions: 2}
  source: {topics: [{name: NAME.created}]}
  steps:
  - {name: price, lookup: {key: "'NAME:price:' + value.sku", type: Json}}
  routing:
    routes:
    - name: model
      key: "value.id"
      views: [{name: order, key: "'NAME:order:{' + key + '}'", type: Json}]
  deadLetter: {topic: NAME.rejected}
"#;

#[test]
fn a_pipeline_gets_what_it_needs_then_all_is_still_and_deletion_takes_what_it_is_told() {
    let Some(stack) = require(&EVERYTHING) else { return };
    let mut operator = Operator::start(&stack, "all");
    operator.apply(PIPELINE);
    operator.in_namespace(&["wait", "--for=condition=Ready", "--timeout=120s", "evp/orders"]);
    let orders = operator.wait_condition("evp", "orders", "Ready", ("True", "Stopped"));

    let internal = format!("sluice.{0}.{0}.eventpipeline.orders.model", operator.name);
    let wanted = [format!("{}.created", operator.name), format!("{}.rejected", operator.name), internal.clone()];
    // Brokers learn of topics and rights one after another, and the tools ask any of them.
    wait_equal(|| topics(&operator), &BTreeSet::from(wanted.clone()));
    for topic in orders["status"]["topics"].as_array().expect("topics") {
        assert_eq!(topic["ownership"], "Created", "{topic}");
    }
    // Source 2, dead letters 2, view topic read and write 3, two groups 4, transactional ids 2.
    wait_equal(|| acls(&operator, "eventpipeline", "orders").len(), &13);
    let nodes = operator.redis.addresses().len();
    assert_eq!(redis_nodes_with_user(&operator, "eventpipeline", "orders"), nodes);
    for (kind, name) in [("deployment", "evp-orders"), ("pdb", "evp-orders"), ("serviceaccount", "evp-orders")] {
        assert!(wait_for(PATIENCE, || operator.get(kind, name)).is_some(), "{kind}/{name} should be there");
    }

    wait_rest(&operator);
    is_still(&operator);
    // A new process knows nothing but what it reads: it must find nothing to do.
    operator.kill();
    operator.run();
    std::thread::sleep(Duration::from_secs(2));
    is_still(&operator);

    repairs(&operator);
    operator.redis.cli(1, &["-c", "SET", &format!("{}:order:{{1}}", operator.name), "x"]).expect("redis");
    operator.redis.cli(1, &["-c", "SET", &format!("{}:other", operator.name), "x"]).expect("redis");
    let all = r#"{"spec":{"deletionPolicy":{"topics":"Delete","redisKeys":"Delete","consumerGroup":"Delete"}}}"#;
    operator.in_namespace(&["patch", "evp", "orders", "--type=merge", "-p", all]);
    wait_for(PATIENCE, || operator.get("evp", "orders")?["metadata"]["finalizers"].as_array().map(drop))
        .expect("a finalizer while something is to be deleted");
    operator.in_namespace(&["delete", "evp", "orders", "--timeout=120s"]);
    wait_equal(|| topics(&operator), &BTreeSet::new());
    wait_equal(|| acls(&operator, "eventpipeline", "orders"), &Vec::new());
    assert_eq!(redis_nodes_with_user(&operator, "eventpipeline", "orders"), 0);
    let exists =
        |key: &str| operator.redis.cli(1, &["-c", "EXISTS", &format!("{}:{key}", operator.name)]).expect("redis");
    assert_eq!(exists("order:{1}").trim(), "0", "keys of the view go");
    assert_eq!(exists("other").trim(), "1", "other keys stay");
    operator.redis.cli(1, &["-c", "DEL", &format!("{}:other", operator.name)]).expect("redis");
}

/// Waits until something is so; fails with how it is instead.
fn wait_equal<T: PartialEq + std::fmt::Debug>(found: impl Fn() -> T, wanted: &T) {
    if wait_for(PATIENCE, || (found() == *wanted).then_some(())).is_none() {
        assert_eq!(found(), *wanted);
    }
}

/// Ready comes before the first measured lag, which is written once: waits until nothing was for three sweeps.
fn wait_rest(operator: &Operator<'_>) {
    let version = || operator.get("evp", "orders").map(|orders| orders["metadata"]["resourceVersion"].clone());
    let mut since = (None, Instant::now());
    wait_for(PATIENCE, || {
        let now = version();
        if now != since.0 {
            since = (now, Instant::now());
        }
        (since.1.elapsed() > Duration::from_secs(6)).then_some(())
    })
    .expect("a status that is written no more");
}

/// Six rounds of the sweeps, one of them with a look for orphans, without a single request that is not a read.
fn is_still(operator: &Operator<'_>) {
    let mut log = BufReader::new(std::fs::File::open(operator.kube.audit_log().expect("local")).expect("audit log"));
    log.seek(SeekFrom::End(0)).expect("its end");
    std::thread::sleep(Duration::from_secs(13));
    let path = format!("/namespaces/{}/", operator.name);
    let writes: Vec<String> = log
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
        .filter(|entry| entry["requestURI"].as_str().is_some_and(|uri| uri.contains(&path)))
        .filter(|entry| !matches!(entry["verb"].as_str(), Some("get" | "list" | "watch")))
        .filter(|entry| !entry["userAgent"].as_str().is_some_and(|agent| agent.starts_with("kube-")))
        .map(|entry| format!("{} {} {}", entry["userAgent"], entry["verb"], entry["requestURI"]))
        .collect();
    assert_eq!(writes, Vec::<String>::new());
}

/// What somebody takes away or changes comes back.
fn repairs(operator: &Operator<'_>) {
    operator.in_namespace(&["delete", "pdb", "evp-orders"]);
    wait_for(PATIENCE, || operator.get("pdb", "evp-orders")).expect("the budget should be made again");
    operator.in_namespace(&["scale", "deployment", "evp-orders", "--replicas=1"]);
    wait_for(PATIENCE, || (operator.get("deployment", "evp-orders")?["spec"]["replicas"] == 0).then_some(()))
        .expect("the replicas should be those of the resource");
}

#[test]
fn a_deletion_ends_with_kafka_gone_and_destroys_nothing_that_was_not_asked_for() {
    let Some(stack) = require(&EVERYTHING) else { return };
    let operator = Operator::start(&stack, "gone");
    operator.apply(PIPELINE);
    operator.wait_condition("evp", "orders", "Ready", ("True", "Stopped"));
    // Retained by default: no finalizer, and the topics stay.
    operator.in_namespace(&["delete", "evp", "orders", "--timeout=20s"]);
    assert_eq!(topics(&operator).len(), 3);

    let delete = PIPELINE.replace("state: Stopped", "state: Stopped\n  deletionPolicy: {topics: Delete}");
    operator.apply(&delete);
    operator.wait_condition("evp", "orders", "Ready", ("True", "Stopped"));
    operator.write_settings("10.44.0.1:9", &operator.redis.addresses().join("\", \""));
    operator.wait_condition("evp", "orders", "Reconciling", ("True", "KafkaUnreachable"));
    let begun = Instant::now();
    operator.in_namespace(&["delete", "evp", "orders", "--timeout=60s"]);
    assert!(begun.elapsed() < Duration::from_secs(45), "{:?}", begun.elapsed());
    assert_eq!(topics(&operator).len(), 3, "they had been adopted, not created: nobody may delete them");
    clean_up(&operator);
}

/// Workers stop under an epoch that Redis is ahead of, so none may be given out: status can be lost, or be an old copy.
#[test]
fn an_epoch_is_above_every_one_that_redis_knows_of() {
    let Some(stack) = require(&EVERYTHING) else { return };
    let mut operator = Operator::start(&stack, "epochs");
    let topic = format!("{}.state", operator.name);
    let spec = TopicSpec { name: &topic, partitions: 1, config: &[("cleanup.policy", "compact")] };
    create_topics(operator.kafka, &[spec]).expect("a topic");
    operator.apply(CACHE);
    let cache = operator.wait_condition("csync", "cache", "Ready", ("True", "Stopped"));
    let first = epoch(&cache);

    // What a failover or an older slot map left somewhere, and a status that is lost.
    let elsewhere = operator.leave_record(&cache, 5_000, first + 1_000_000);
    let lost = r#"{"status":{"epoch":null,"views":[]}}"#;
    operator.in_namespace(&["patch", "csync", "cache", "--subresource=status", "--type=merge", "-p", lost]);
    operator.in_namespace(&["annotate", "csync", "cache", "example.com/look=again"]);
    let second = wait_epoch(&operator, first + 1_000_000);

    // Where a worker puts it, and a status that is older: seen at the next start.
    let place = operator.leave_record(&cache, 0, second + 1_000_000);
    operator.kill();
    operator.run();
    wait_epoch(&operator, second + 1_000_000);
    for key in [elsewhere, place] {
        operator.redis.cli(1, &["-c", "DEL", &key]).expect("redis");
    }
    clean_up(&operator);
}

fn epoch(object: &Value) -> u64 {
    object["status"]["epoch"].as_u64().unwrap_or(0)
}

fn wait_epoch(operator: &Operator<'_>, above: u64) -> u64 {
    let found = wait_for(PATIENCE, || Some(epoch(&operator.get("csync", "cache")?)).filter(|epoch| *epoch > above));
    found.unwrap_or_else(|| panic!("no epoch above {above}: {:?}\n{}", operator.get("csync", "cache"), operator.log()))
}
