//! The chart on the real cluster, with the images as they ship: what `helm install --wait` says, and what becomes of resources
//! when the definitions or the operator go before them. An operator of the whole cluster: one test, so that it has no
//! neighbours.

mod operator;

use std::collections::BTreeMap;

use operator::PATIENCE;
use operator::servers::own;
use serde_json::{Value, json};
use sluice_e2e::chart;
use sluice_e2e::datapath::kafka::{existing, topic_ids};
use sluice_e2e::stack::{Group, StackError};
use sluice_e2e::stack::{Kafka, Kube, Redis, Stack, output, require_local, wait_for};

const RELEASE: &str = "sluice-truth";
const DEFINITIONS: [&str; 2] = ["crd/eventpipelines.sluice.dev", "crd/cachesyncs.sluice.dev"];

/// A release of the chart and a namespace that may use it; both are gone when dropped.
struct Release<'a> {
    kube: &'a Kube,
    kafka: &'a Kafka,
    /// Namespace of the operator.
    system: String,
    /// Namespace, installation id and prefix of every topic and key.
    name: String,
    folder: tempfile::TempDir,
}

impl<'a> Release<'a> {
    fn new(stack: &'a Stack, kafka: &'a Kafka, redis: &Redis) -> Self {
        let id = std::process::id() % 100_000;
        let (kube, folder) = (stack.kube().expect("required"), tempfile::tempdir().expect("a folder"));
        let release = Self { kube, kafka, system: format!("helm-system-{id}"), name: format!("helm-{id}"), folder };
        for namespace in [&release.system, &release.name] {
            release.kubectl(&["create", "namespace", namespace]);
        }
        for secret in chart::secrets(&release.system, kafka, redis).expect("secrets") {
            release.apply(&secret.to_string());
        }
        let name = &release.name;
        let (topics, keys) = (format!("{name}."), format!("{name}:"));
        let kafka_policy = json!({"name": name, "own": [topics], "maxPartitions": 8});
        let redis_policy = json!({"name": name, "write": [keys], "read": [keys]});
        let connections = chart::connections(kafka, redis, &kafka_policy, &redis_policy);
        let mut values = chart::values(stack, name, &connections);
        values["deletionDeadlineSeconds"] = json!(3_600);
        std::fs::write(release.path("values.json"), values.to_string()).expect("a file");
        release
    }

    fn path(&self, file: &str) -> String {
        self.folder.path().join(file).display().to_string()
    }

    fn helm(&self, arguments: &[&str]) -> Result<String, StackError> {
        output(self.kube.helm().args(["--namespace", &self.system]).args(arguments))
    }

    /// Installs or upgrades, and waits as helm does.
    fn install(&self) -> Result<String, StackError> {
        let chart = format!("{}/../charts/sluice", env!("CARGO_MANIFEST_DIR"));
        let values = self.path("values.json");
        // Other tests have installed the definitions before.
        let arguments = ["upgrade", "--install", RELEASE, &chart, "--take-ownership", "--wait", "--timeout", "120s"];
        self.helm(&[&arguments[..], &["--values", &values]].concat())
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        output(self.kube.kubectl().args(arguments)).unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    fn in_namespace(&self, arguments: &[&str]) -> String {
        self.kubectl(&[&["-n", &self.name], arguments].concat())
    }

    fn apply(&self, manifests: &str) {
        std::fs::write(self.path("manifests.yaml"), manifests).expect("a file");
        self.kubectl(&["apply", "-f", &self.path("manifests.yaml")]);
    }

    /// Applies a pipeline that owns a topic of its name.
    fn apply_pipeline(&self, name: &str, state: &str, policy: &str) {
        self.apply(&self.pipeline(name, state, policy));
    }

    fn pipeline(&self, name: &str, state: &str, policy: &str) -> String {
        let text = PIPELINE.replace("NAME", &self.name).replace("WHO", name);
        text.replace("STATE", state).replace("POLICY", policy)
    }

    fn log(&self) -> String {
        let log = ["-n", &self.system, "logs", "-l", "app.kubernetes.io/name=sluice-operator", "--tail=40"];
        output(self.kube.kubectl().args(log)).unwrap_or_else(|error| error.to_string())
    }

    /// Name, uid and restarts of the pods of a name in a namespace.
    fn pods(&self, namespace: &str, selector: &str) -> Vec<String> {
        let path = "jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}";
        let listed = self.kubectl(&["-n", namespace, "get", "pods", "-l", selector, "-o", path]);
        listed.lines().map(str::to_owned).collect()
    }

    fn operators(&self) -> Vec<String> {
        self.pods(&self.system, "app.kubernetes.io/name=sluice-operator")
    }

    fn workers(&self, name: &str) -> Vec<String> {
        self.pods(&self.name, &format!("app.kubernetes.io/instance=evp-{name}"))
    }

    /// Waits until a pipeline is ready, as a user would.
    fn wait_ready(&self, name: &str) {
        let arguments = ["wait", "--for=condition=Ready", "--timeout=180s", &format!("evp/{name}")];
        let waited = output(self.kube.kubectl().args(["-n", &self.name]).args(arguments));
        waited.unwrap_or_else(|error| panic!("{error}: {:#?}\n{}", self.get(name), self.log()));
    }

    fn get(&self, name: &str) -> Option<Value> {
        let get = ["-n", &self.name, "get", "evp", name, "-o", "json"];
        serde_json::from_str(&output(self.kube.kubectl().args(get)).ok()?).ok()
    }

    fn wait_reason(&self, name: &str, reason: &str) {
        let told = wait_for(PATIENCE, || {
            let object = self.get(name)?;
            let conditions = object["status"]["conditions"].as_array()?;
            let ready = conditions.iter().find(|condition| condition["type"] == "Ready")?;
            (ready["status"] == "False" && ready["reason"] == reason).then_some(())
        });
        assert!(told.is_some(), "should say {reason}: {:#?}\n{}", self.get(name), self.log());
    }

    fn wait_finalizer(&self, name: &str, wanted: bool) {
        let there = || Some(self.get(name)?["metadata"]["finalizers"].as_array().is_some());
        let done = wait_for(PATIENCE, || (there()? == wanted).then_some(()));
        assert!(done.is_some(), "finalizer {wanted}: {:#?}\n{}", self.get(name), self.log());
    }

    /// Ids of the topics of these pipelines that are there.
    fn topics(&self, names: &[&str]) -> BTreeMap<String, String> {
        let names: Vec<String> = names.iter().map(|name| format!("{}.{name}", self.name)).collect();
        topic_ids(self.kafka, &existing(self.kafka, &names).expect("topics")).expect("ids")
    }

    /// Asserts that no worker of a pipeline is left after a while.
    fn workers_go(&self, name: &str) {
        let gone = wait_for(PATIENCE, || self.workers(name).is_empty().then_some(()));
        assert!(gone.is_some(), "workers of {name} go with it: {:?}", self.workers(name));
    }
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.log());
        }
        let _ = self.helm(&["uninstall", RELEASE, "--ignore-not-found", "--wait", "--timeout", "60s"]);
        for namespace in [&self.system, &self.name] {
            let _ = self.kube.kubectl().args(["delete", "namespace", namespace, "--wait=false"]).output();
        }
    }
}

const PIPELINE: &str = r#"
apiVersion: sluice.dev/v1alpha1
kind: EventPipeline
metadata: {name: WHO, namespace: NAME}
spec:
  state: STATE
  deletionPolicy: {topics: POLICY}
  topics: [{name: NAME.WHO, partitions: 1}]
  source: {topics: [{name: NAME.WHO}]}
  routing: {routes: [{name: model, views: [{name: order, key: "'NAME:WHO:' + key", type: Json}]}]}
"#;

#[test]
fn helm_tells_the_truth_and_what_goes_too_early_destroys_nothing() {
    let Some(stack) = require_local(&[Group::Kafka, Group::Redis, Group::Kube]) else { return };
    let (kafka, redis) = own(&stack, "helm");
    let release = Release::new(&stack, &kafka, &redis);

    // The operator is well without Kafka; its resources are not.
    let broker = kafka.broker(1).expect("the only one");
    broker.freeze().expect("frozen");
    let said = release.install().unwrap_or_else(|error| panic!("(`make images` first) {error}\n{}", release.log()));
    let operators = release.operators();
    assert_eq!(operators.len(), 1, "{operators:?}");
    release.apply_pipeline("orders", "Running", "Retain");
    release.wait_reason("orders", "KafkaUnreachable");
    helm_says_nothing_of_resources(&release);
    broker.thaw().expect("goes on");
    release.wait_ready("orders");
    assert_eq!(release.workers("orders").len(), 1);
    let topics = release.topics(&["orders"]);
    assert_eq!(topics.len(), 1);

    definitions_go_first(&release, &topics);
    assert_eq!(release.operators(), operators, "the same operator, never started again");
    operator_goes_first(&release, &said, &topics);
}

/// Helm 3 takes every custom resource for ready, as the chart's notes say; `kubectl wait` does not.
fn helm_says_nothing_of_resources(release: &Release<'_>) {
    let chart = release.folder.path().join("bundle");
    std::fs::create_dir_all(chart.join("templates")).expect("a folder");
    std::fs::write(chart.join("Chart.yaml"), "apiVersion: v2\nname: bundle\nversion: 1.0.0\n").expect("a file");
    std::fs::write(chart.join("templates/pipeline.yaml"), release.pipeline("bundled", "Stopped", "Retain"))
        .expect("a file");
    release.helm(&["install", "bundle", &release.path("bundle"), "--wait", "--timeout", "60s"]).expect("installed");
    release.wait_reason("bundled", "KafkaUnreachable");
    let wait = ["-n", &release.name, "wait", "--for=condition=Ready", "--timeout=1s", "evp/bundled"];
    assert!(output(release.kube.kubectl().args(wait)).is_err());
    release.helm(&["uninstall", "bundle", "--wait", "--timeout", "60s"]).expect("uninstalled");
    assert!(release.get("bundled").is_none(), "nothing of it is to be deleted, so nothing waits for Kafka");
}

/// With the definitions every resource goes, as if it were deleted; they come back by an upgrade.
fn definitions_go_first(release: &Release<'_>, topics: &BTreeMap<String, String>) {
    release.apply_pipeline("scratch", "Stopped", "Delete");
    release.wait_ready("scratch");
    release.wait_finalizer("scratch", true);
    release.kubectl(&[&["delete"], &DEFINITIONS[..], &["--timeout=120s"]].concat());
    assert_eq!(&release.topics(&["orders", "scratch"]), topics, "what was to be deleted, and no more");
    release.workers_go("orders");

    release.install().unwrap_or_else(|error| panic!("{error}\n{}", release.log()));
    release.apply_pipeline("orders", "Running", "Retain");
    release.wait_ready("orders");
    assert_eq!(&release.topics(&["orders"]), topics);
}

/// As the chart's notes say it: resources are let go, the chart is uninstalled, workers work on, and a deletion ends.
fn operator_goes_first(release: &Release<'_>, said: &str, topics: &BTreeMap<String, String>) {
    release.in_namespace(&[
        "patch",
        "evp",
        "orders",
        "--type=merge",
        "-p",
        r#"{"spec":{"deletionPolicy":{"topics":"Delete"}}}"#,
    ]);
    release.wait_finalizer("orders", true);
    let workers = release.workers("orders");
    let notes = said.lines().find_map(|line| line.split_once("let go of them: kubectl ")).expect("the command").1;
    release.kubectl(&notes.split_whitespace().collect::<Vec<_>>());
    release.wait_finalizer("orders", false);
    release.helm(&["uninstall", RELEASE, "--wait", "--timeout", "60s"]).expect("uninstalled");
    assert!(
        release.operators().is_empty() || wait_for(PATIENCE, || release.operators().is_empty().then_some(())).is_some()
    );
    release.kubectl(&[&["get"], &DEFINITIONS[..]].concat());
    release.kubectl(&["-n", &release.system, "get", "secret", &format!("{RELEASE}-install-key")]);
    assert_eq!(release.workers("orders"), workers, "they work on");

    release.in_namespace(&["delete", "evp/orders", "--timeout=60s"]);
    release.workers_go("orders");
    assert_eq!(&release.topics(&["orders"]), topics);
}
