//! Consumers that are not ours, scaled by the cluster's own autoscaler by the lag that we tell it: the two
//! `HorizontalPodAutoscalers` of `examples/hpa`, as they are.

mod operator;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use operator::{Operator, PATIENCE};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use sluice_clients::kafka::admin::{Admin, CommittedOffset, NewTopic, TopicPartition};
use sluice_e2e::stack::{Group, netns, output, require_local, wait_for};

const REGISTRATION: &str = "v1beta1.external.metrics.k8s.io";
const API: &str = "/apis/external.metrics.k8s.io/v1beta1";

/// Somebody else who has the API: nobody answers there, which is no reason to take it.
const FOREIGN: &str = r"
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.external.metrics.k8s.io}
spec:
  group: external.metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  insecureSkipTLSVerify: true
  service: {name: somebody-elses, namespace: kube-system, port: 443}
";

/// The consumers: what they do does not matter, somebody commits for their groups.
const CONSUMERS: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: WHO}
spec:
  replicas: 1
  selector: {matchLabels: {app: WHO}}
  template:
    metadata: {labels: {app: WHO}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: consumer, image: "localhost/sluice-pause:1", imagePullPolicy: Never}]
"#;

/// A pipeline that the operator has scaled by an autoscaler of its own making. No worker works.
const PIPELINE: &str = r"
apiVersion: sluice.dev/v1alpha1
kind: EventPipeline
metadata: {name: orders}
spec:
  topics: [{name: NAME.out, partitions: 1}]
  source: {topics: [{name: NAME.created}]}
  routing: {routes: [{name: all, topic: NAME.out}]}
  autoscaling: {mode: Hpa, maxReplicas: 3, lagThreshold: 5000}
";

/// What the test does for consumers and producers.
struct Hands {
    runtime: tokio::runtime::Runtime,
    admin: Admin,
    producer: BaseProducer,
}

impl Hands {
    fn new(operator: &Operator<'_>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut config = operator.kafka.client_config();
        let admin = Admin::new(&config, Duration::from_secs(30)).expect("an admin client");
        let producer: BaseProducer = config.set("transactional.id", &operator.name).create().expect("a producer");
        producer.init_transactions(PATIENCE).expect("transactions");
        Self { runtime, admin, producer }
    }

    fn make_topics(&self, names: &[&str]) {
        let topic = |name: &&str| NewTopic {
            name: (*name).to_owned(),
            partitions: 1,
            replication_factor: None,
            config: BTreeMap::new(),
        };
        let topics: Vec<NewTopic> = names.iter().map(topic).collect();
        self.runtime.block_on(self.admin.create_topics(&topics, false)).expect("topics");
    }

    /// Begins a transaction with so many records.
    fn begin(&self, topic: &str, records: usize) {
        self.producer.begin_transaction().expect("begun");
        for number in 0..records {
            let record = BaseRecord::<str, [u8]>::to(topic).partition(0).payload(b"x");
            self.producer.send(record).unwrap_or_else(|(error, _)| panic!("{error}"));
            if number % 1_000 == 0 {
                self.producer.poll(Duration::ZERO);
            }
        }
        self.producer.flush(PATIENCE).expect("written");
    }

    fn commit_transaction(&self) {
        self.producer.commit_transaction(PATIENCE).expect("committed");
    }

    /// A consumer of the group has come so far.
    fn consume(&self, group: &str, topic: &str, offset: i64) {
        let offsets = [(TopicPartition::new(topic, 0), CommittedOffset { offset, metadata: String::new() })].into();
        let done = self.runtime.block_on(self.admin.alter_group_offsets(group, &offsets)).expect("committed");
        for outcome in done.into_values() {
            outcome.expect("committed");
        }
    }
}

/// The chart's Service, roles and bindings for an operator that is a process; they and the registration are gone when dropped.
struct Installation<'a> {
    operator: &'a Operator<'a>,
    /// Of Service, Secret and role.
    name: String,
    manifests: PathBuf,
    listen: SocketAddr,
}

impl<'a> Installation<'a> {
    fn new(operator: &'a Operator<'a>, folder: &std::path::Path, listen: SocketAddr) -> Self {
        let release = format!("sluice-{}", operator.name);
        let chart = format!("{}/../charts/sluice", env!("CARGO_MANIFEST_DIR"));
        let mut helm = operator.kube.helm();
        helm.args(["template", &release, &chart, "--kube-version", "1.33.0", "--namespace", &operator.name]);
        helm.args(["--set", "instanceId=x,externalMetrics.enabled=true,serviceAccount.name=sluice-operator"]);
        let rendered = output(helm.args(["--show-only", "templates/external-metrics.yaml"])).expect("rendered");
        // No pod, but a process on the node: the Service selects nothing, and leads to its address.
        let (before, rest) = rendered.split_once("  selector:\n").expect("a selector");
        let (_, after) = rest.split_once("  ports:\n").expect("ports");
        let (name, port) = (format!("{release}-metrics-api"), listen.port());
        let slice = format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, namespace: {0}, \
             labels: {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nports: [{{name: https, port: {port}}}]\n\
             endpoints: [{{addresses: [\"{1}\"], conditions: {{ready: true}}}}]\n",
            operator.name,
            listen.ip()
        );
        let manifests = folder.join("installation.yaml");
        std::fs::write(&manifests, format!("{before}  ports:\n{after}\n{slice}")).expect("a file");
        let installation = Self { operator, name, manifests, listen };
        operator.kubectl(&["apply", "-f", &installation.file()]);
        installation
    }

    fn file(&self) -> String {
        self.manifests.display().to_string()
    }

    /// Asks the operator itself, with what is told of its authorities, as the API server does or as somebody else.
    fn ask(&self, identity: Option<&str>, user: &str, path: &str) -> (u16, String) {
        let bundle = ["get", "apiservice", REGISTRATION, "-o", "go-template={{.spec.caBundle | base64decode}}"];
        let bundle = self.operator.kubectl(&bundle);
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            roots.add(authority.expect("a certificate")).expect("an authority");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_root_certificates(roots);
        let config = match identity {
            None => config.with_no_client_auth(),
            Some(name) => {
                let folder = self.operator.kube.audit_log().expect("local").with_file_name("pki");
                let chain = CertificateDer::from_pem_file(folder.join(format!("{name}.crt"))).expect("a certificate");
                let key = PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key"))).expect("a key");
                config.with_client_auth_cert(vec![chain], key).expect("an identity")
            }
        };
        let host = format!("{}.{}.svc", self.name, self.operator.name);
        let name = ServerName::try_from(host.clone()).expect("a name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
        let socket = TcpStream::connect(self.listen).expect("connected");
        socket.set_read_timeout(Some(PATIENCE)).expect("bounded");
        let mut stream = StreamOwned::new(connection, socket);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nX-Remote-User: {user}\r\nX-Remote-Group: system:authenticated\r\n\
             Connection: close\r\n\r\n"
        );
        if stream.write_all(request.as_bytes()).is_err() {
            return (0, String::new());
        }
        let mut answer = Vec::new();
        // A refused certificate ends the connection in the middle.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        (code, answer)
    }
}

impl Drop for Installation<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "-f", &self.file(), "--ignore-not-found", "--wait=false"];
        let _ = self.operator.kube.kubectl().args(delete).output();
        let _ =
            self.operator.kube.kubectl().args(["delete", "apiservice", REGISTRATION, "--ignore-not-found"]).output();
    }
}

/// Values as the API server hands them out: metric labels and value.
fn values(operator: &Operator<'_>, namespace: &str, metric: &str, selector: &str) -> Option<Vec<(String, String)>> {
    let path = format!("{API}/namespaces/{namespace}/{metric}?labelSelector={selector}");
    let list: Value =
        serde_json::from_str(&output(operator.kube.kubectl().args(["get", "--raw", &path])).ok()?).ok()?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let items = list["items"].as_array()?.iter();
    Some(items.map(|item| (text(&item["metricLabels"]["topic"]), text(&item["value"]))).collect())
}

fn registration(operator: &Operator<'_>) -> Option<Value> {
    let get = ["get", "apiservice", REGISTRATION, "-o", "json", "--ignore-not-found"];
    serde_json::from_str(&output(operator.kube.kubectl().args(get)).ok()?).ok()
}

/// The operator again, with monitors for both groups of the example and with its API on.
fn serve(operator: &mut Operator<'_>, listen: SocketAddr) {
    operator.kill();
    let name = operator.name.clone();
    operator.more_settings = format!(
        "lagMonitors:\n- {{connection: default, group: {name}-service, topics: [{name}.created], namespaces: [{name}]}}\n\
         - {{connection: default, group: {name}-cache, topics: [{name}.enriched], namespaces: [{name}]}}\n\
         - {{connection: default, group: {name}-secret, topics: [{name}.created], namespaces: [elsewhere]}}"
    );
    operator
        .write_settings(&operator.kafka.bootstrap().replace(',', "\", \""), &operator.redis.addresses().join("\", \""));
    operator.environment = vec![
        ("SLUICE_EXTERNAL_METRICS_LISTEN", listen.to_string()),
        ("SLUICE_EXTERNAL_METRICS_NAME", format!("sluice-{name}-metrics-api")),
        ("POD_NAMESPACE", name),
    ];
    operator.run();
}

#[test]
fn other_peoples_consumers_are_scaled_by_the_lag_we_tell_the_clusters_autoscaler() {
    let Some(stack) = require_local(&[Group::Kafka, Group::Redis, Group::Kube]) else { return };
    let mut operator = Operator::start(&stack, "hpa");
    let folder = tempfile::tempdir().expect("a folder");
    let listen = TcpListener::bind((netns::NODE, 0)).and_then(|listener| listener.local_addr()).expect("an address");
    let topic = |name: &str| format!("{}.{name}", operator.name);
    let (created, enriched) = (topic("created"), topic("enriched"));
    let hands = Hands::new(&operator);
    hands.make_topics(&[&created, &enriched]);
    for (topic, group, records) in [(&created, "service", 12_000), (&enriched, "cache", 1_200)] {
        hands.begin(topic, records);
        hands.commit_transaction();
        hands.consume(&format!("{}-{group}", operator.name), topic, 1);
    }
    hands.consume(&format!("{}-secret", operator.name), &created, 0);
    std::fs::write(folder.path().join("foreign.yaml"), FOREIGN).expect("a file");
    operator.kubectl(&["apply", "-f", &folder.path().join("foreign.yaml").display().to_string()]);
    serve(&mut operator, listen);
    let operator = &operator;
    let installation = Installation::new(operator, folder.path(), listen);

    somebody_elses_registration_is_left_alone(operator);
    autoscalers_scale(operator);
    only_what_is_granted_is_told(operator, &installation);
    markers_are_no_lag(operator, &hands);

    // Without the chart's role the registration goes.
    operator.kubectl(&["delete", "clusterrole", &installation.name]);
    let gone = wait_for(PATIENCE, || registration(operator).is_none().then_some(()));
    assert!(gone.is_some(), "{:#?}", registration(operator));
    assert!(!operator.log().contains("PRIVATE KEY"));
}

fn somebody_elses_registration_is_left_alone(operator: &Operator<'_>) {
    let told = wait_for(PATIENCE, || {
        operator
            .admin_page("/readyz")?
            .contains("belongs to service somebody-elses in namespace kube-system")
            .then_some(())
    });
    assert!(told.is_some(), "{:?}\n{}", operator.admin_page("/readyz"), operator.log());
    assert!(operator.admin_page("/metrics").is_some_and(|page| page.contains("external_metrics_registered 0")));
    let theirs = registration(operator).expect("theirs");
    assert_eq!(theirs["spec"]["service"]["name"], "somebody-elses");
    assert!(theirs["metadata"]["ownerReferences"].is_null(), "{theirs:#}");
    operator.kubectl(&["delete", "apiservice", REGISTRATION]);
    // Absent, it is made by us.
    operator.kubectl(&["wait", "--for=create", &format!("apiservice/{REGISTRATION}"), "--timeout=120s"]);
    let available = ["wait", "--for=condition=Available", &format!("apiservice/{REGISTRATION}"), "--timeout=120s"];
    let served = output(operator.kube.kubectl().args(available));
    assert!(served.is_ok(), "{served:?} {:#?}\n{}", registration(operator), operator.log());
}

fn autoscalers_scale(operator: &Operator<'_>) {
    let example = include_str!("../../examples/hpa/hpa.yaml").replace("namespace: shop", "namespace: NAME");
    let example = example.replace("topic: order.created", "topic: NAME.created");
    let example = example
        .replace("group: order-service", "group: NAME-service")
        .replace("group: order-cache", "group: NAME-cache");
    let consumers = ["order-service", "order-cache"].map(|who| CONSUMERS.replace("WHO", who));
    operator.apply(&[consumers[0].as_str(), consumers[1].as_str(), example.as_str(), PIPELINE].join("\n---\n"));
    for name in ["order-service", "order-cache", "evp-orders"] {
        let scaled = wait_for(PATIENCE, || {
            let deployment = operator.get("deployment", name)?;
            (deployment["spec"]["replicas"] == 3).then_some(())
        });
        assert!(scaled.is_some(), "{:#}\n{}", operator.get("hpa", name).unwrap_or_default()["status"], operator.log());
        let autoscaler = operator.get("hpa", name).expect("it is there");
        let conditions = autoscaler["status"]["conditions"].as_array().expect("conditions");
        let active = conditions.iter().find(|condition| condition["type"] == "ScalingActive").expect("it says so");
        assert_eq!((&active["status"], &active["reason"]), (&"True".into(), &"ValidMetricFound".into()), "{active:#}");
    }
    operator.wait_condition("evp", "orders", "AutoscalingActive", ("True", "ScaledByHpa"));
    // As people see it.
    println!("{}", operator.in_namespace(&["get", "hpa"]));
}

fn only_what_is_granted_is_told(operator: &Operator<'_>, installation: &Installation<'_>) {
    let name = &operator.name;
    let lag = |metric, selector: &str| values(operator, name, metric, selector);
    let created = vec![(format!("{name}.created"), "12000".to_owned())];
    assert_eq!(lag("kafka_consumer_lag", &format!("group={name}-service")), Some(created));
    assert_eq!(lag("consumer_lag", "group").map(|all| all.len()), Some(3), "those of this namespace");
    assert_eq!(lag("kafka_consumer_lag", &format!("group={name}-secret")), Some(vec![]), "another namespace's");
    assert_eq!(values(operator, "default", "consumer_lag", ""), Some(vec![]));

    let path = format!("{API}/namespaces/{name}/consumer_lag");
    let everybody = "system:serviceaccount:default:default";
    let autoscaler = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";
    let (code, answer) = installation.ask(Some("front-proxy"), autoscaler, &path);
    assert_eq!(code, 200, "{answer}");
    let (code, answer) = installation.ask(Some("front-proxy"), everybody, &path);
    assert_eq!(code, 403, "the operator asks, even if the API server did not: {answer}");
    // Whatever they say of themselves.
    for path in [path.as_str(), API] {
        let (code, answer) = installation.ask(None, autoscaler, path);
        assert_eq!(code, 401, "{answer}");
        // A certificate of the cluster, of its administrator even, is none of the front proxy's.
        let (code, answer) = installation.ask(Some("admin"), autoscaler, path);
        assert_eq!(code, 0, "{answer}");
    }
    assert_eq!(installation.ask(Some("front-proxy"), autoscaler, "/openapi/v3").0, 404);
    let resources = operator.kubectl(&["get", "--raw", API]);
    assert!(resources.contains("kafka_consumer_lag") && resources.contains("\"consumer_lag\""), "{resources}");
}

/// A group that has read all of a transactional topic, and committed past the last marker, has no lag: nor while somebody
/// writes what nobody may read yet.
fn markers_are_no_lag(operator: &Operator<'_>, hands: &Hands) {
    let (topic, group) = (format!("{}.created", operator.name), format!("{}-service", operator.name));
    let shown = |lag: &str| {
        let wanted = Some(vec![(topic.clone(), lag.to_owned())]);
        let selector = format!("group={group}");
        let found = wait_for(PATIENCE, || {
            (values(operator, &operator.name, "kafka_consumer_lag", &selector) == wanted).then_some(())
        });
        assert!(
            found.is_some(),
            "should be {lag}: {:?}",
            values(operator, &operator.name, "kafka_consumer_lag", &selector)
        );
    };
    hands.consume(&group, &topic, 12_000);
    shown("1");
    hands.begin(&topic, 5);
    hands.consume(&group, &topic, 12_001);
    shown("0");
    let sample = format!("kafka_consumer_lag{{topic=\"{topic}\",group=\"{group}\",partition=\"0\"}} 0");
    assert!(operator.admin_page("/metrics").is_some_and(|page| page.contains(&sample)), "{}", operator.log());
    hands.commit_transaction();
    shown("6");
}
