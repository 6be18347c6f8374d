//! An operator as a process of the test, for one namespace, against the real API server, Kafka and Redis. It logs in as a
//! service account with the chart's rules for that namespace and no others: a right that is missing fails a test.

#![allow(dead_code)] // Each test file uses its part.

pub mod release;
pub mod servers;
pub mod watch;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use sluice_clients::redis::Slot;
use sluice_e2e::stack::redis::Mode;
use sluice_e2e::stack::{Group, Kafka, Kube, Redis, Stack, StackError, output, wait_for};

/// What an operator that does its work needs of the stack.
pub const EVERYTHING: [Group; 3] = [Group::Kafka, Group::Redis, Group::Kube];

/// A cache over `NAME.state` without workers.
pub const CACHE: &str = r#"
apiVersion: sluice.dev/v1alpha1
kind: CacheSync
metadata: {name: cache}
spec:
  state: Stopped
  source: {topics: [{name: NAME.state}]}
  views: [{name: v, key: "'NAME:v:' + key", type: Json}]
"#;

/// How long anything may take that normally takes a few seconds.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What a worker pod runs where no worker is needed.
const PAUSE: &str = "localhost/sluice-pause:1";

/// Name of the operator's service account, role and binding.
const ACCOUNT: &str = "sluice-operator";

/// A namespace with its own operator; both are gone when dropped.
pub struct Operator<'a> {
    pub kube: &'a Kube,
    pub kafka: &'a Kafka,
    pub redis: &'a Redis,
    /// Namespace, installation id and prefix of every topic and key of the test.
    pub name: String,
    /// After so many seconds a deletion gives up; part of the next settings that are written.
    pub deletion_deadline: u32,
    /// More of the settings, at their top level; part of the next ones that are written.
    pub more_settings: String,
    /// Seconds between two rounds of the sweeps, for the next start; `None`: as the operator ships.
    pub sweep_seconds: Option<u16>,
    /// More of the environment; for the next start.
    pub environment: Vec<(&'static str, String)>,
    /// Where `/readyz` and `/metrics` are, since the last start.
    pub admin: Option<SocketAddr>,
    folder: tempfile::TempDir,
    worker_image: String,
    process: Option<Child>,
}

impl<'a> Operator<'a> {
    /// Installs the definitions, makes the namespace and starts the operator on it. No worker runs.
    pub fn start(stack: &'a Stack, test: &str) -> Self {
        Self::start_on(stack, stack.kafka().expect("required"), stack.redis().expect("required"), test)
    }

    /// The same on servers of the test's own: what freezes and kills them disturbs nobody else.
    pub fn start_on(stack: &'a Stack, kafka: &'a Kafka, redis: &'a Redis, test: &str) -> Self {
        Self::start_with_image(stack, (kafka, redis), test, PAUSE)
    }

    /// The same with the worker that the images phase has built, or `SLUICE_WORKER_IMAGE`.
    pub fn start_with_workers(stack: &'a Stack, test: &str) -> Self {
        let image = std::env::var("SLUICE_WORKER_IMAGE");
        let servers = (stack.kafka().expect("required"), stack.redis().expect("required"));
        Self::start_with_image(stack, servers, test, image.as_deref().unwrap_or("localhost/sluice-worker:dev"))
    }

    fn start_with_image(stack: &'a Stack, (kafka, redis): (&'a Kafka, &'a Redis), test: &str, image: &str) -> Self {
        let name = format!("op-{test}-{}", std::process::id() % 100_000);
        let mut operator = Self {
            kube: stack.kube().expect("required"),
            kafka,
            redis,
            name,
            deletion_deadline: 5,
            more_settings: String::new(),
            sweep_seconds: Some(2),
            environment: Vec::new(),
            admin: None,
            folder: tempfile::tempdir().expect("a folder"),
            worker_image: image.to_owned(),
            process: None,
        };
        install_definitions(operator.kube);
        operator.kubectl(&["create", "namespace", &operator.name]);
        operator.log_in();
        operator.write("install-key", &"k".repeat(40));
        operator.write_settings(
            &operator.kafka.bootstrap().replace(',', "\", \""),
            &operator.redis.addresses().join("\", \""),
        );
        operator.run();
        operator
    }

    /// A service account with the chart's rules in this namespace, and a kubeconfig with its token.
    fn log_in(&self) {
        let rules = include_str!("../../../charts/sluice/files/rules.yaml");
        let role = format!(
            "{rules}\napiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: {ACCOUNT}}}\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: {ACCOUNT}}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {ACCOUNT}}}\n\
             subjects: [{{kind: ServiceAccount, name: {ACCOUNT}, namespace: {namespace}}}]\n---\n\
             apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {ACCOUNT}}}\n",
            namespace = self.name
        );
        self.write("role.yaml", &role);
        self.in_namespace(&["apply", "-f", &self.path("role.yaml")]);
        let token = self.in_namespace(&["create", "token", ACCOUNT, "--duration=2h"]);
        let text = self.kubectl(&["config", "view", "--raw", "--minify", "-o", "json"]);
        let mut config: Value = serde_json::from_str(&text).expect("a kubeconfig");
        config["users"][0]["user"] = serde_json::json!({"token": token.trim()});
        self.write("kubeconfig", &config.to_string());
        self.wait_served();
    }

    /// Waits until the kinds are served and the account may list them. Established is not yet served, and the API server learns
    /// of roles a moment after it has stored them. Each time a client that remembers nothing, and the administrator in the
    /// account's place: what is refused now is no refusal of the operator.
    fn wait_served(&self) {
        let account = format!("--as=system:serviceaccount:{}:{ACCOUNT}", self.name);
        let served = wait_for(PATIENCE, || {
            let cache = tempfile::tempdir().expect("a folder");
            let mut kubectl = self.kube.kubectl();
            kubectl.args(["-n", &self.name, "get", "eventpipelines.sluice.dev,cachesyncs.sluice.dev", &account]);
            output(kubectl.arg("--cache-dir").arg(cache.path())).ok()
        });
        served.expect("the kinds should be served and the account may list them");
    }

    /// Starts the process.
    pub fn run(&mut self) {
        let listen = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("an address");
        self.admin = Some(listen);
        let log = std::fs::File::create(self.folder.path().join("operator.log")).expect("a log");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(binary())
            .args(["run", "--settings", &self.path("settings.yaml"), "--install-key", &self.path("install-key")])
            .args(["--admin-listen", &listen.to_string(), "--watch-namespace", &self.name])
            .env("KUBECONFIG", self.path("kubeconfig"))
            .envs(self.sweep_seconds.map(|seconds| ("SLUICE_SWEEP_SECONDS", seconds.to_string())))
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("the operator starts");
        self.process = Some(child);
    }

    /// Whether the process that was started still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.try_wait().is_ok_and(|ended| ended.is_none()))
    }

    /// The process, since the last start.
    pub fn pid(&self) -> Option<i32> {
        self.process.as_ref().and_then(|process| i32::try_from(process.id()).ok())
    }

    /// Kills the process.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Writes the settings with these addresses; a running operator reads them again.
    pub fn write_settings(&self, brokers: &str, redis: &str) {
        let kafka = self.kafka_item("default", brokers, self.kafka);
        let redis = self.redis_item("default", redis, self.redis);
        self.write_connections(&[kafka], &[redis]);
    }

    /// Writes the settings with the stack's servers as `default`, and these.
    pub fn write_settings_with(&self, kafka: &[String], redis: &[String]) {
        let (mut all_kafka, mut all_redis) = (kafka.to_vec(), redis.to_vec());
        all_kafka.push(self.kafka_item("default", &self.kafka.bootstrap().replace(',', "\", \""), self.kafka));
        all_redis.push(self.redis_item("default", &self.redis.addresses().join("\", \""), self.redis));
        self.write_connections(&all_kafka, &all_redis);
    }

    /// Writes the settings with these connections only.
    pub fn write_connections(&self, kafka: &[String], redis: &[String]) {
        let settings = format!(
            "instanceId: {}\ndeletionDeadlineSeconds: {}\n{}\n\
             worker: {{image: \"{}\", imagePullPolicy: {}}}\nconnections:\n  kafka:\n{}  redis:\n{}  \
             - {{name: closed, mode: Standalone, addresses: [\"10.0.0.1:1\"]}}\n",
            self.name,
            self.deletion_deadline,
            self.more_settings,
            self.worker_image,
            if self.worker_image.starts_with("localhost/") { "Never" } else { "IfNotPresent" },
            kafka.concat(),
            redis.concat()
        );
        self.write("settings.yaml", &settings);
    }

    /// A Kafka connection for the settings, with its administrator's credentials.
    pub fn kafka_item(&self, connection: &str, brokers: &str, kafka: &Kafka) -> String {
        let (user, password) = self.credentials(&format!("kafka-{connection}"), kafka.username(), kafka.password());
        let (name, tls) = (&self.name, tls(kafka.ca_file()));
        format!(
            "  - name: {connection}\n    brokers: [\"{brokers}\"]\n    {tls}\n    \
             admin: {{usernameFile: {user}, passwordFile: {password}}}\n    \
             namespaces: [{{name: {name}, own: [{name}.], maxPartitions: 8}}]\n"
        )
    }

    /// A Redis connection for the settings, with its administrator's credentials.
    pub fn redis_item(&self, connection: &str, addresses: &str, redis: &Redis) -> String {
        let (user, password) = self.credentials(&format!("redis-{connection}"), redis.username(), redis.password());
        let (name, tls) = (&self.name, tls(redis.ca_file()));
        let mode = if redis.mode() == Mode::Cluster { "Cluster" } else { "Standalone" };
        format!(
            "  - name: {connection}\n    mode: {mode}\n    addresses: [\"{addresses}\"]\n    {tls}\n    \
             admin: {{usernameFile: {user}, passwordFile: {password}}}\n    \
             allowedSettings: [hash-max-listpack-entries]\n    namespaces:\n    - {{name: {name}, write: [\"{name}:\"], \
             read: [\"{name}:\"], settings: [hash-max-listpack-entries]}}\n"
        )
    }

    fn credentials(&self, what: &str, username: &str, password: &secrecy::SecretString) -> (String, String) {
        let (user, file) = (format!("{what}-user"), format!("{what}-password"));
        self.write(&user, username);
        self.write_secret(&file, password);
        (self.path(&user), self.path(&file))
    }

    /// A file of the settings' folder is lost, as when a Secret is.
    pub fn lose(&self, file: &str) {
        std::fs::remove_file(self.folder.path().join(file)).expect("a file");
    }

    /// Runs another command of the operator's binary, with the operator's rights.
    pub fn command(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(binary());
        command.args(arguments).env("KUBECONFIG", self.path("kubeconfig"));
        output(&mut command).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    /// Makes the operator do as the administrator of the cluster from its next start: a role of the namespace goes with it.
    pub fn be_administrator(&self) {
        std::fs::copy(self.kube.kubeconfig(), self.folder.path().join("kubeconfig")).expect("a copy");
    }

    fn path(&self, file: &str) -> String {
        self.folder.path().join(file).display().to_string()
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.folder.path().join(file), text).expect("a file");
    }

    fn write_secret(&self, file: &str, text: &secrecy::SecretString) {
        use secrecy::ExposeSecret;
        self.write(file, text.expose_secret());
    }

    /// What one of its admin endpoints (`/readyz`, `/metrics`) answers, headers included.
    pub fn admin_page(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.admin?).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// What the operator wrote to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("operator.log")).unwrap_or_default()
    }

    /// Its pods as Kubernetes sees them, what their probes answer, and the ends of their logs: for a test that fails.
    fn pods(&self) -> String {
        let ask = |arguments: &[&str]| match output(self.kube.kubectl().args(["-n", &self.name]).args(arguments)) {
            Ok(text) => text,
            Err(error) => error.to_string(),
        };
        let names = ask(&["get", "pods", "-o", "jsonpath={.items[*].metadata.name}"]);
        let probes = names.split_whitespace().map(|pod| {
            let path = format!("/api/v1/namespaces/{}/pods/{pod}:8080/proxy/readyz", self.name);
            format!("{pod}: {}\n", ask(&["get", "--raw", &path]))
        });
        let logs = ["logs", "--prefix", "--tail=60", "-l", "app.kubernetes.io/name=sluice-worker"];
        format!("{}\n{}\n{}", ask(&["describe", "pods"]), probes.collect::<String>(), ask(&logs))
    }

    /// `kubectl` that must succeed.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        output(self.kube.kubectl().args(arguments)).expect("kubectl")
    }

    /// `kubectl -n <namespace>` that must succeed.
    pub fn in_namespace(&self, arguments: &[&str]) -> String {
        output(self.kube.kubectl().args(["-n", &self.name]).args(arguments)).expect("kubectl")
    }

    /// Applies manifests, in which `NAME` stands for the test's name.
    pub fn apply(&self, manifests: &str) {
        self.write("manifests.yaml", &manifests.replace("NAME", &self.name));
        self.in_namespace(&["apply", "-f", &self.path("manifests.yaml")]);
    }

    /// An object as JSON; `None`: it is not there.
    pub fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let text = output(self.kube.kubectl().args(["-n", &self.name, "get", kind, name, "-o", "json"])).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// What `kubectl wait --for=condition=Ready` says of resources (`evp/orders`) within so many seconds; an error when it
    /// does not succeed.
    pub fn wait_ready(&self, resources: &[&str], seconds: u32) -> Result<String, StackError> {
        let timeout = format!("--timeout={seconds}s");
        let mut kubectl = self.kube.kubectl();
        output(kubectl.args(["-n", &self.name, "wait", "--for=condition=Ready", &timeout]).args(resources))
    }

    /// A watermark record of a cache over `NAME.state` as a worker of another time would have left it in a slot; its key.
    pub fn leave_record(&self, cache: &Value, slot: u16, epoch: u64) -> String {
        let nodes = self.redis.cli(1, &["CLUSTER", "NODES"]).expect("redis");
        let node = nodes.split_whitespace().next().expect("a node");
        let (uid, tag) = (cache["metadata"]["uid"].as_str().expect("a uid"), Slot::new(slot).expect("a slot").tag());
        let key = format!("sluice/{}/{uid}/{node}/{{{tag}}}", self.name);
        let (field, text) = (format!("{}.state:0", self.name), format!("1 AAAAAAAAAAAAAAAAAAAAAA {epoch} 1 1 -"));
        self.redis.cli(1, &["-c", "HSET", &key, "@", "1 1 abc", &field, &text]).expect("redis");
        key
    }

    /// Waits until a resource's condition has this status and reason.
    pub fn wait_condition(&self, kind: &str, name: &str, condition: &str, wanted: (&str, &str)) -> Value {
        let mut last = Value::Null;
        let found = wait_for(PATIENCE, || {
            last = self.get(kind, name)?;
            let conditions = last["status"]["conditions"].as_array()?;
            let condition = conditions.iter().find(|found| found["type"] == condition)?;
            (condition["status"] == wanted.0 && condition["reason"] == wanted.1).then(|| last.clone())
        });
        found.unwrap_or_else(|| {
            panic!("{kind}/{name} should have {condition}={wanted:?}, but is {:#}\n{}", last["status"], self.log())
        })
    }
}

impl Drop for Operator<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}\n{}", self.log(), self.pods());
        }
        // While the operator runs, deletions are its business.
        let all = ["-n", &self.name, "delete", "evp,csync", "--all", "--timeout=30s"];
        let _ = self.kube.kubectl().args(all).output();
        self.kill();
        let _ = self.kube.kubectl().args(["delete", "namespace", &self.name, "--wait=false"]).output();
    }
}

/// Installs both definitions and waits until they are served.
pub fn install_definitions(kube: &Kube) {
    let definitions = format!("{}/../config/crds", env!("CARGO_MANIFEST_DIR"));
    output(kube.kubectl().args(["apply", "--server-side", "--force-conflicts", "-f", &definitions])).expect("applied");
    let both = ["crd/eventpipelines.sluice.dev", "crd/cachesyncs.sluice.dev"];
    // `kubectl wait` gives up on a definition that is so new that it has no condition yet.
    let established = wait_for(PATIENCE, || {
        output(kube.kubectl().args(["wait", "--for=condition=Established", "--timeout=60s"]).args(both)).ok()
    });
    established.expect("both definitions should be served");
}

fn tls(file: Option<&Path>) -> String {
    file.map_or_else(String::new, |file| format!("tls: {{caFile: {}}}", file.display()))
}

fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("SLUICE_OPERATOR_BIN") {
        return path.into();
    }
    let own = std::env::current_exe().expect("this test's file");
    let beside =
        own.ancestors().skip(1).take(2).map(|folder| folder.join("sluice-operator")).find(|path| path.is_file());
    beside.expect("sluice-operator should be built, or SLUICE_OPERATOR_BIN set")
}
