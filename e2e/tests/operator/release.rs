//! The chart, installed as an administrator would with the images as they ship, and a namespace that may use it. Its operator is
//! one of the whole cluster: a file that installs it has one test, so that it has no neighbours.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sluice_e2e::chart;
use sluice_e2e::datapath::kafka::{existing, topic_ids};
use sluice_e2e::stack::{Kafka, Kube, Redis, Stack, StackError, output, wait_for};

use super::PATIENCE;

/// Name of the release, and of what it makes.
pub const RELEASE: &str = "sluice-test";

/// A pipeline that owns a topic of its name and has one view.
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

/// A release of the chart and a namespace that may use it; both are gone when dropped.
pub struct Release<'a> {
    pub kube: &'a Kube,
    kafka: &'a Kafka,
    /// Namespace of the operator.
    pub system: String,
    /// Namespace, installation id and prefix of every topic and key.
    pub name: String,
    folder: tempfile::TempDir,
}

impl<'a> Release<'a> {
    /// Namespaces, Secrets and values for an installation that uses these servers; `more`: more of the values.
    pub fn new(stack: &'a Stack, (kafka, redis): (&'a Kafka, &Redis), test: &str, more: &Value) -> Self {
        let id = std::process::id() % 100_000;
        let (system, name) = (format!("{test}-system-{id}"), format!("{test}-{id}"));
        let (kube, folder) = (stack.kube().expect("required"), tempfile::tempdir().expect("a folder"));
        let release = Self { kube, kafka, system, name, folder };
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
        for (key, value) in more.as_object().into_iter().flatten() {
            values[key] = value.clone();
        }
        release.write("values.json", &values.to_string());
        release
    }

    /// A file of the test's folder.
    pub fn path(&self, file: &str) -> String {
        self.folder.path().join(file).display().to_string()
    }

    /// Writes a file of the test's folder; folders on the way to it are made.
    pub fn write(&self, file: &str, text: &str) {
        let path = self.folder.path().join(file);
        std::fs::create_dir_all(path.parent().expect("in the folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    /// `helm` in the operator's namespace.
    pub fn helm(&self, arguments: &[&str]) -> Result<String, StackError> {
        output(self.kube.helm().args(["--namespace", &self.system]).args(arguments))
    }

    /// Installs or upgrades, and waits as helm does.
    pub fn install(&self) -> Result<String, StackError> {
        let chart = format!("{}/../charts/sluice", env!("CARGO_MANIFEST_DIR"));
        let values = self.path("values.json");
        // Other tests have installed the definitions before.
        let arguments = ["upgrade", "--install", RELEASE, &chart, "--take-ownership", "--wait", "--timeout", "120s"];
        self.helm(&[&arguments[..], &["--values", &values]].concat())
    }

    /// `kubectl` that must succeed.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        output(self.kube.kubectl().args(arguments)).unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// `kubectl -n <namespace that may use it>` that must succeed.
    pub fn in_namespace(&self, arguments: &[&str]) -> String {
        self.kubectl(&[&["-n", &self.name], arguments].concat())
    }

    /// Applies manifests.
    pub fn apply(&self, manifests: &str) {
        self.write("manifests.yaml", manifests);
        self.kubectl(&["apply", "-f", &self.path("manifests.yaml")]);
    }

    /// Applies a pipeline that owns a topic of its name.
    pub fn apply_pipeline(&self, name: &str, state: &str, policy: &str) {
        self.apply(&self.pipeline(name, state, policy));
    }

    /// That pipeline.
    pub fn pipeline(&self, name: &str, state: &str, policy: &str) -> String {
        let text = PIPELINE.replace("NAME", &self.name).replace("WHO", name);
        text.replace("STATE", state).replace("POLICY", policy)
    }

    /// What the operator wrote last.
    pub fn log(&self) -> String {
        let log = ["-n", &self.system, "logs", "-l", "app.kubernetes.io/name=sluice-operator", "--tail=40"];
        output(self.kube.kubectl().args(log)).unwrap_or_else(|error| error.to_string())
    }

    /// Name, uid and restarts of the pods of a name in a namespace.
    fn pods(&self, namespace: &str, selector: &str) -> Vec<String> {
        let path = "jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}";
        let listed = self.kubectl(&["-n", namespace, "get", "pods", "-l", selector, "-o", path]);
        listed.lines().map(str::to_owned).collect()
    }

    /// Pods of the operator.
    pub fn operators(&self) -> Vec<String> {
        self.pods(&self.system, "app.kubernetes.io/name=sluice-operator")
    }

    /// Pods of a pipeline's workers.
    pub fn workers(&self, name: &str) -> Vec<String> {
        self.pods(&self.name, &format!("app.kubernetes.io/instance=evp-{name}"))
    }

    /// Waits until a pipeline is ready, as a user would.
    pub fn wait_ready(&self, name: &str) {
        let arguments = ["wait", "--for=condition=Ready", "--timeout=180s", &format!("evp/{name}")];
        let waited = output(self.kube.kubectl().args(["-n", &self.name]).args(arguments));
        waited.unwrap_or_else(|error| panic!("{error}: {:#?}\n{}", self.get(name), self.log()));
    }

    /// A pipeline; `None`: it is not there.
    pub fn get(&self, name: &str) -> Option<Value> {
        let get = ["-n", &self.name, "get", "evp", name, "-o", "json"];
        serde_json::from_str(&output(self.kube.kubectl().args(get)).ok()?).ok()
    }

    /// Waits until a pipeline says why it is not ready.
    pub fn wait_reason(&self, name: &str, reason: &str) {
        let told = wait_for(PATIENCE, || {
            let object = self.get(name)?;
            let conditions = object["status"]["conditions"].as_array()?;
            let ready = conditions.iter().find(|condition| condition["type"] == "Ready")?;
            (ready["status"] == "False" && ready["reason"] == reason).then_some(())
        });
        assert!(told.is_some(), "should say {reason}: {:#?}\n{}", self.get(name), self.log());
    }

    /// Waits until a pipeline has a finalizer, or none.
    pub fn wait_finalizer(&self, name: &str, wanted: bool) {
        let there = || Some(self.get(name)?["metadata"]["finalizers"].as_array().is_some());
        let done = wait_for(PATIENCE, || (there()? == wanted).then_some(()));
        assert!(done.is_some(), "finalizer {wanted}: {:#?}\n{}", self.get(name), self.log());
    }

    /// Ids of the topics of these pipelines that are there.
    pub fn topics(&self, names: &[&str]) -> BTreeMap<String, String> {
        let names: Vec<String> = names.iter().map(|name| format!("{}.{name}", self.name)).collect();
        topic_ids(self.kafka, &existing(self.kafka, &names).expect("topics")).expect("ids")
    }

    /// Asserts that no worker of a pipeline is left after a while.
    pub fn workers_go(&self, name: &str) {
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
