//! The hands of the autoscaler on a real API server and a real consumer group. The members of the group are the test's own, so that it is
//! the test who says when a group is settled; what workers report is another test's matter.

mod operator;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use operator::servers::clean_up;
use operator::watch::Watch;
use operator::{Operator, PATIENCE};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use sluice_clients::kafka::admin::Admin;
use sluice_e2e::datapath::kafka;
use sluice_e2e::stack::{Group, require, wait_for};

const PIPELINE: &str = r"
apiVersion: sluice.dev/v1alpha1
kind: EventPipeline
metadata: {name: orders}
spec:
  topics: [{name: NAME.in, partitions: 6}, {name: NAME.out, partitions: 1}]
  source: {topics: [{name: NAME.in}]}
  routing: {routes: [{name: all, topic: NAME.out}]}
  worker: {replicas: 2}
";

/// Members of the pipeline's group that are no workers.
struct Members {
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Members {
    fn join(operator: &Operator<'_>, count: usize) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let group = format!("sluice.{0}.{0}.eventpipeline.orders.processor", operator.name);
        let topic = format!("{}.in", operator.name);
        let mut config = operator.kafka.client_config();
        config.set("group.id", &group).set("enable.auto.commit", "false").set("session.timeout.ms", "30000");
        let member = |_| {
            let consumer: BaseConsumer = config.create().expect("a consumer");
            consumer.subscribe(&[&topic]).expect("subscribed");
            let ended = Arc::clone(&ended);
            std::thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    drop(consumer.poll(Duration::from_millis(100)));
                }
            })
        };
        let threads = (0..count).map(member).collect();
        Self { ended, threads }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

fn patch(operator: &Operator<'_>, spec: &Value) {
    let patch = json!({"spec": spec}).to_string();
    operator.in_namespace(&["patch", "evp", "orders", "--type=merge", "-p", &patch]);
}

fn active(operator: &Operator<'_>, status: &str, reason: &str) -> Value {
    operator.wait_condition("evp", "orders", "AutoscalingActive", (status, reason))
}

#[test]
fn by_hand_by_load_by_hand_without_a_dip_and_others_are_left_alone() {
    let Some(stack) = require(&[Group::Kafka, Group::Redis, Group::Kube]) else { return };
    // A short name: an autoscaler selects by the group that is made of it.
    let operator = Operator::start(&stack, "by");
    operator.apply(PIPELINE);
    wait_for(PATIENCE, || operator.get("deployment", "evp-orders")).expect("a Deployment");
    active(&operator, "False", "Manual");
    let watch = Watch::start(&operator, "orders");
    watch.wait(&operator, "2");

    // Only shown: the Deployment stays. Two members are two workers, and nobody has anything to do.
    let members = Members::join(&operator, 2);
    patch(&operator, &json!({"autoscaling": {"mode": "Recommend", "minReplicas": 3, "maxReplicas": 4}}));
    active(&operator, "False", "RecommendOnly");
    let recommends = || {
        let scaling = operator.get("evp", "orders")?["status"]["autoscaling"].take();
        (scaling["recommendedReplicas"] == 3 && scaling["desiredReplicas"].is_null()).then_some(())
    };
    wait_for(PATIENCE, recommends).expect("a recommendation");
    patch(&operator, &json!({"autoscaling": {"mode": "Operator"}}));
    watch.wait(&operator, "3");
    let told = wait_for(PATIENCE, || {
        let orders = operator.get("evp", "orders")?;
        (orders["status"]["autoscaling"]["desiredReplicas"] == 3).then_some(orders["status"]["autoscaling"].clone())
    });
    let told = told.unwrap_or_else(|| panic!("{:#?}\n{}", operator.get("evp", "orders"), operator.log()));
    assert!(
        told["lastScale"].as_str().is_some_and(|why| why.starts_with("from 2 to 3 workers: Up, 3: OutOfBounds")),
        "{told}"
    );
    assert!(told["lastScaleTime"].is_string(), "{told}");
    active(&operator, "True", "ScaledByLoad");
    let events = operator.in_namespace(&["get", "events", "-o", "jsonpath={.items[*].reason}"]);
    assert!(events.contains("WorkersScaled"), "{events}");
    let owner = operator.in_namespace(&[
        "get",
        "deployment",
        "evp-orders",
        "--show-managed-fields",
        "-o",
        r#"jsonpath={range .metadata.managedFields[?(@.subresource=="scale")]}{.manager}{end}"#,
    ]);
    assert_eq!(owner, "sluice-autoscaler");

    // An apply of the rest leaves the number alone.
    let limits = json!({"limits": {"memory": "96Mi"}});
    patch(&operator, &json!({"worker": {"resources": limits}}));
    wait_for(PATIENCE, || {
        let deployment = operator.get("deployment", "evp-orders")?;
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        (container["resources"]["limits"]["memory"] == "96Mi").then_some(())
    })
    .expect("the limit is applied");

    others(&operator, &watch);
    by_an_autoscaler(&operator, &watch);
    // By hand again, with the number that there is.
    patch(&operator, &json!({"worker": {"replicas": 4}, "autoscaling": {"mode": "Manual"}}));
    active(&operator, "False", "Manual");
    patch(&operator, &json!({"worker": {"replicas": 1}}));
    watch.wait(&operator, "1");
    assert_eq!(watch.seen(), ["2", "3", "4", "1"], "no other number was ever asked for");
    drop(members);
    drop(watch);
    operator.in_namespace(&["delete", "evp/orders", "--timeout=60s"]);
    clean_up(&operator);
}

/// A write through the resource's `/scale` is said and not obeyed; an HPA is left alone.
fn others(operator: &Operator<'_>, watch: &Watch) {
    // With it the group is as large as the Deployment: a wish would be carried out.
    let _third = Members::join(operator, 1);
    operator.in_namespace(&["scale", "evp/orders", "--replicas=5"]);
    active(operator, "True", "ScaleIgnored");
    patch(operator, &json!({"worker": {"replicas": 3}}));
    active(operator, "True", "ScaledByLoad");
    operator.in_namespace(&["autoscale", "deployment", "evp-orders", "--min=1", "--max=5"]);
    active(operator, "False", "ConflictingScaler");
    patch(operator, &json!({"autoscaling": {"minReplicas": 4}}));
    // Nothing tells a write that does not come. Some rounds of the sweep; that it is wished for is seen afterwards.
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(watch.seen(), ["2", "3"]);
    operator.in_namespace(&["delete", "hpa", "evp-orders"]);
    watch.wait(operator, "4");
    active(operator, "True", "ScaledByLoad");
}

/// A pipeline of real workers over a topic that is there already.
const SLEEPER: &str = r"
apiVersion: sluice.dev/v1alpha1
kind: EventPipeline
metadata: {name: orders}
spec:
  topics: [{name: NAME.in, partitions: 2}, {name: NAME.out, partitions: 1}]
  source: {topics: [{name: NAME.in}], format: Raw}
  routing: {routes: [{name: all, topic: NAME.out}]}
  worker: {replicas: 1, resources: {requests: {cpu: 50m, memory: 64Mi}, limits: {memory: 128Mi}}}
  autoscaling: {minReplicas: 0, maxReplicas: 2, sleepAfterSeconds: 10}
";

/// One transaction with a record for each of two partitions.
fn transact(operator: &Operator<'_>) {
    let mut config = operator.kafka.client_config();
    let producer: BaseProducer = config.set("transactional.id", &operator.name).create().expect("a producer");
    producer.init_transactions(PATIENCE).expect("transactions");
    producer.begin_transaction().expect("begun");
    let topic = format!("{}.in", operator.name);
    for partition in 0..2 {
        let record = BaseRecord::<str, [u8]>::to(&topic).partition(partition).payload(b"x");
        producer.send(record).unwrap_or_else(|(error, _)| panic!("{error}"));
    }
    producer.commit_transaction(PATIENCE).expect("committed");
}

#[test]
fn none_runs_while_only_markers_are_left_and_one_starts_at_the_next_record() {
    let Some(stack) = require(&[Group::Kafka, Group::Redis, Group::Kube]) else { return };
    let operator = Operator::start_with_workers(&stack, "sleep");
    let topic = format!("{}.in", operator.name);
    kafka::create_topics(operator.kafka, &[kafka::TopicSpec { name: &topic, partitions: 2, config: &[] }])
        .expect("a topic");
    transact(&operator);
    operator.apply(SLEEPER);
    wait_for(PATIENCE, || operator.get("deployment", "evp-orders")).expect("a Deployment");
    let watch = Watch::start(&operator, "orders");
    watch.wait(&operator, "0");

    let asleep = operator.wait_condition("evp", "orders", "Ready", ("True", "Sleeping"));
    operator.wait_ready(&["evp/orders"], 10).expect("asleep is ready");
    active(&operator, "True", "Sleeping");
    let ends = kafka::ends(operator.kafka, &topic, false).expect("ends");
    assert_eq!(ends, BTreeMap::from([(0, 2), (1, 2)]), "a record and a marker each");
    let group = format!("sluice.{0}.{0}.eventpipeline.orders.processor", operator.name);
    assert_eq!(kafka::committed(operator.kafka, &group, &topic).expect("offsets"), ends, "no tool sees a lag");
    for partition in 0..2 {
        let sample = format!("kafka_consumer_lag{{topic=\"{topic}\",group=\"{group}\",partition=\"{partition}\"}} 0\n");
        let page = operator.admin_page("/metrics").expect("metrics");
        assert!(page.contains(&sample), "{sample} is not in\n{page}");
    }
    // The brokers keep offsets for a week, and the operator may read that.
    let woken = wait_for(PATIENCE, || {
        let scaling = operator.get("evp", "orders")?["status"]["autoscaling"].take();
        let at = |field: &str| scaling[field].as_str()?.parse::<Timestamp>().ok();
        let slept = at("wakeTime")?.duration_since(at("lastScaleTime")?);
        (slept.as_hours() == 84 && scaling["desiredReplicas"] == 0).then_some(())
    });
    assert!(woken.is_some(), "{:#}\n{}", asleep["status"], operator.log());

    lost_offsets(&operator, &group, &watch);
    transact(&operator);
    watch.wait(&operator, "1");
    let out = format!("{}.out", operator.name);
    let came = wait_for(PATIENCE, || kafka::dump(operator.kafka, &out).ok().filter(|out| out.records.len() >= 4));
    let records = came.unwrap_or_else(|| panic!("nothing came out\n{}", operator.log())).records.len();
    assert_eq!((records, watch.seen()), (4, ["1", "0", "1"].map(str::to_owned).to_vec()));
    drop(watch);
    operator.in_namespace(&["delete", "evp/orders", "--timeout=60s"]);
    clean_up(&operator);
}

/// A group that loses its offsets while it sleeps waits for a person, and nobody is woken up.
fn lost_offsets(operator: &Operator<'_>, group: &str, watch: &Watch) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let deleted = runtime.block_on(async {
        let admin = Admin::new(&operator.kafka.client_config(), PATIENCE)?;
        admin.delete_groups(&[group.to_owned()]).await
    });
    assert!(deleted.as_ref().is_ok_and(|all| all.values().all(Result::is_ok)), "{deleted:?}");
    operator.wait_condition("evp", "orders", "Ready", ("False", "OffsetsLost"));
    operator.in_namespace(&["annotate", "evp/orders", "sluice.dev/reset-offsets=Latest"]);
    operator.wait_condition("evp", "orders", "Ready", ("True", "Sleeping"));
    assert_eq!(watch.seen(), ["1", "0"], "nobody was woken up");
}

/// An autoscaler of ours on the workers: made, no rival of ours, and without our metrics API without effect.
fn by_an_autoscaler(operator: &Operator<'_>, watch: &Watch) {
    let lag = json!({"mode": "Hpa", "minReplicas": 1, "lagThreshold": 100});
    patch(operator, &json!({"autoscaling": lag}));
    active(operator, "False", "MetricsApiUnavailable");
    let hpa = operator.get("hpa", "evp-orders").expect("made before it is told");
    assert_eq!(hpa["spec"]["scaleTargetRef"]["name"], "evp-orders");
    let selector = &hpa["spec"]["metrics"][0]["external"]["metric"]["selector"]["matchLabels"]["group"];
    assert_eq!(*selector, format!("sluice.{0}.{0}.eventpipeline.orders.processor", operator.name));
    assert_eq!(watch.seen(), ["2", "3", "4"], "the number is handed over as it is");
    patch(operator, &json!({"worker": {"replicas": 4}, "autoscaling": {"mode": "Manual"}}));
    let gone = wait_for(PATIENCE, || operator.get("hpa", "evp-orders").is_none().then_some(()));
    assert!(gone.is_some(), "{}", operator.log());
}
