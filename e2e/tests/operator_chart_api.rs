//! `external.metrics.k8s.io` as it ships: the chart's pod behind its Service answers through the API server, and its certificates
//! change while nobody notices. An operator of the whole cluster: one test, so that it has no neighbours.

mod operator;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::core::Request;
use operator::release::{RELEASE, Release};
use operator::{EVERYTHING, PATIENCE};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use sluice_crds::names::FIELD_MANAGER;
use sluice_e2e::datapath::now_ms;
use sluice_e2e::stack::{Kafka, StackError, output, require_local, wait_for};

const REGISTRATION: &str = "v1beta1.external.metrics.k8s.io";
const API: &str = "/apis/external.metrics.k8s.io/v1beta1";
const DAY: i64 = 86_400;
const HOUR: i64 = 3_600;
/// Records that nobody has read.
const WAITING: usize = 7;
/// Between two requests of one who asks all the time.
const PACE: Duration = Duration::from_millis(50);

/// The administrator in this process: what is looked at all the time needs no process for each look.
struct Administrator {
    runtime: tokio::runtime::Runtime,
    client: Client,
    /// Namespace of the operator.
    system: String,
}

impl Administrator {
    fn new(release: &Release<'_>) -> Self {
        let runtime = runtime();
        let client = runtime.block_on(client(release.kube.kubeconfig()));
        Self { runtime, client, system: release.system.clone() }
    }

    fn registration(&self) -> Option<APIService> {
        let api: Api<APIService> = Api::all(self.client.clone());
        self.runtime.block_on(api.get_opt(REGISTRATION)).expect("an answer")
    }

    /// Authorities that the API server is told of, as PEM.
    fn bundle(&self) -> String {
        let spec = self.registration().and_then(|registration| registration.spec);
        spec.and_then(|spec| spec.ca_bundle).map(|bundle| text(&bundle)).unwrap_or_default()
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.system)
    }

    fn certificates(&self) -> Secret {
        self.runtime.block_on(self.secrets().get(&name())).expect("the operator's certificates")
    }

    /// A Secret as an operator of two months ago made it: it outlives the chart. Gives the authority, as PEM.
    fn leave_certificates(&self) -> String {
        let made = now_ms() / 1_000 - 60 * DAY - HOUR;
        let (authority, certificate, key) = certificates(&format!("{}.{}.svc", name(), self.system));
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {"name": name(), "labels": {"app.kubernetes.io/managed-by": FIELD_MANAGER}},
            "stringData": {
                format!("{made}.ca.crt"): authority, format!("{made}.tls.crt"): certificate, format!("{made}.tls.key"): key,
            },
        }))
        .expect("a Secret");
        self.runtime.block_on(self.secrets().create(&as_the_operator(), &secret)).expect("created");
        authority
    }

    /// Time passes for the certificates: what they are called is when they were made.
    fn age(&self, seconds: i64) {
        let mut secret = self.certificates();
        let data = secret.data.take().unwrap_or_default().into_iter();
        let older = data.map(|(key, value)| {
            let (made, file) = key.split_once('.').expect("a time and a file");
            (format!("{}.{file}", made.parse::<i64>().expect("a time") - seconds), value)
        });
        secret.data = Some(older.collect());
        self.runtime.block_on(self.secrets().replace(&name(), &as_the_operator(), &secret)).expect("replaced");
    }
}

/// Asks for the lag all the time, as autoscalers do, and never twice for one answer.
struct Asking {
    ended: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<String>>,
}

impl Asking {
    fn start(release: &Release<'_>) -> Self {
        let (ended, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (until, count) = (Arc::clone(&ended), Arc::clone(&answered));
        let kubeconfig = release.kube.kubeconfig().to_owned();
        let metric = Request::new(path(&release.name));
        let selected = ListParams::default().labels(&format!("group={}", group(release)));
        let waiting = Value::from(WAITING.to_string());
        let ask = async move {
            let client = client(&kubeconfig).await;
            let mut failed = Vec::new();
            while !until.load(Ordering::Relaxed) {
                match client.request::<Value>(metric.list(&selected).expect("a request")).await {
                    Ok(list) if list["items"][0]["value"] == waiting => {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    other => failed.push(format!("{other:?}")),
                }
                tokio::time::sleep(PACE).await;
            }
            failed
        };
        Self { ended, answered, thread: std::thread::spawn(move || runtime().block_on(ask)) }
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// How many requests were answered, and what became of the others.
    fn end(self) -> (usize, Vec<String>) {
        self.ended.store(true, Ordering::Relaxed);
        let failed = self.thread.join().expect("asked to the end");
        (self.answered.load(Ordering::Relaxed), failed)
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A client that says what it is told: by itself it would ask again until it is answered.
async fn client(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let mut config = config.expect("a configuration");
    (config.default_retry, config.read_timeout) = (false, Some(PATIENCE));
    Client::try_from(config).expect("a client")
}

fn text(bytes: &ByteString) -> String {
    String::from_utf8_lossy(&bytes.0).into_owned()
}

/// Of the API's Service, Secret and role.
fn name() -> String {
    format!("{RELEASE}-metrics-api")
}

/// In the operator's name, so that the API server takes what is written for the operator's.
fn as_the_operator() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

/// An authority, a certificate for a name and its key, as PEM.
fn certificates(host: &str) -> (String, String, String) {
    let mut authority = CertificateParams::new(Vec::new()).expect("an authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.distinguished_name.push(DnType::CommonName, "two months ago");
    let (authority_key, key) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
    let authority_pem = authority.self_signed(&authority_key).expect("signed").pem();
    let serving = CertificateParams::new(vec![host.to_owned()]).expect("a name");
    let certificate = serving.signed_by(&key, &Issuer::new(authority, authority_key)).expect("signed").pem();
    (authority_pem, certificate, key.serialize_pem())
}

/// Authorities of a Secret by when they were made, as PEM.
fn authorities(secret: &Secret) -> BTreeMap<i64, String> {
    let data = secret.data.iter().flatten();
    data.filter_map(|(key, pem)| Some((key.strip_suffix(".ca.crt")?.parse().ok()?, text(pem)))).collect()
}

fn path(namespace: &str) -> String {
    format!("{API}/namespaces/{namespace}/kafka_consumer_lag")
}

fn group(release: &Release<'_>) -> String {
    format!("sluice.{0}.{0}.eventpipeline.orders.processor", release.name)
}

/// Topics and values, as `kubectl` shows them to the administrator or to somebody else (`--as`).
fn lag(release: &Release<'_>, namespace: &str, who: &[&str]) -> Result<Vec<(String, String)>, StackError> {
    let path = format!("{}?labelSelector=group%3D{}", path(namespace), group(release));
    let list = output(release.kube.kubectl().args(["get", "--raw", &path]).args(who))?;
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let items = list["items"].as_array().expect("items").iter();
    Ok(items.map(|item| (text(&item["metricLabels"]["topic"]), text(&item["value"]))).collect())
}

#[test]
fn the_charts_pod_answers_for_its_cluster_and_changes_its_certificates_unnoticed() {
    let Some(stack) = require_local(&EVERYTHING) else { return };
    let (kafka, redis) = (stack.kafka().expect("required"), stack.redis().expect("required"));
    let sweeps = json!([{"name": "SLUICE_SWEEP_SECONDS", "value": "2"}]);
    let values = json!({"externalMetrics": {"enabled": true}, "extraEnv": sweeps});
    let release = Release::new(&stack, (kafka, redis), "api", &values);
    let administrator = Administrator::new(&release);
    let old = administrator.leave_certificates();
    release.install().unwrap_or_else(|error| panic!("(`make images` first) {error}\n{}", release.log()));
    let operators = release.operators();

    it_is_registered(&release, &administrator, &old);
    the_lag_is_told(&release, kafka);
    let asking = Asking::start(&release);
    // Both have been trusted for a day and more, and the new one has served for one.
    administrator.age(2 * DAY + HOUR);
    others_are_told_nothing(&release);
    the_old_ones_are_forgotten(&release, &administrator, &asking);
    let (answered, failed) = asking.end();
    println!("{answered} requests were answered, {} were not", failed.len());
    assert!(failed.is_empty(), "{} of {} failed: {:#?}\n{}", failed.len(), answered, &failed[..1], release.log());
    assert_eq!(release.operators(), operators, "the same operator, never started again");
    it_goes_with_the_chart(&release, &administrator);
}

/// By the pod of the chart, with the old authority beside the one that is to come.
fn it_is_registered(release: &Release<'_>, administrator: &Administrator, old: &str) {
    let registration = format!("apiservice/{REGISTRATION}");
    release.kubectl(&["wait", "--for=create", &registration, "--timeout=120s"]);
    let available = ["wait", "--for=condition=Available", &registration, "--timeout=120s"];
    let served = output(release.kube.kubectl().args(available));
    assert!(served.is_ok(), "{served:?} {:#?}\n{}", administrator.registration(), release.log());

    let registration = administrator.registration().expect("it is there");
    let service = registration.spec.and_then(|spec| spec.service).expect("a service");
    assert_eq!((service.name, service.namespace), (Some(name()), Some(release.system.clone())));
    let authorities: Vec<String> = authorities(&administrator.certificates()).into_values().collect();
    assert_eq!((authorities.len(), authorities[0].as_str()), (2, old), "one is due");
    assert_eq!(administrator.bundle(), authorities.concat());

    let pods = ["-n", &release.system, "get", "pods", "-l", "app.kubernetes.io/name=sluice-operator", "-o", "json"];
    let pods: Value = serde_json::from_str(&release.kubectl(&pods)).expect("JSON");
    let (pod, container) = (&pods["items"][0]["spec"], &pods["items"][0]["spec"]["containers"][0]);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{pod:#}");
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{pod:#}");
    assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]), "{pod:#}");
}

/// Of a pipeline that stands still, and only there.
fn the_lag_is_told(release: &Release<'_>, kafka: &Kafka) {
    release.apply_pipeline("orders", "Stopped", "Delete");
    release.wait_ready("orders");
    let topic = format!("{}.orders", release.name);
    let producer: BaseProducer = kafka.client_config().create().expect("a producer");
    for _ in 0..WAITING {
        let record: BaseRecord<'_, str, str> = BaseRecord::to(&topic).partition(0).key("k").payload("{}");
        producer.send(record).map_err(|(error, _)| error).expect("queued");
    }
    producer.flush(PATIENCE).expect("written");

    let wanted = vec![(topic, WAITING.to_string())];
    let told = wait_for(PATIENCE, || lag(release, &release.name, &[]).ok().filter(|told| *told == wanted));
    assert!(told.is_some(), "{:?}\n{}", lag(release, &release.name, &[]), release.log());
    let elsewhere = lag(release, "default", &[]).expect("an answer");
    assert!(elsewhere.is_empty(), "another namespace has no such group: {elsewhere:?}");
}

/// Who may see a namespace may see its lag, by the chart's roles, and nobody else may.
fn others_are_told_nothing(release: &Release<'_>) {
    let reader = format!("--as=system:serviceaccount:{}:default", release.name);
    let asked = |namespace| lag(release, namespace, &[&reader]);
    let refused =
        |answer: &Result<_, StackError>| answer.as_ref().is_err_and(|error| error.to_string().contains("orbidden"));
    let answer = asked(&release.name);
    assert!(refused(&answer), "no right yet: {answer:?}");
    let account = format!("--serviceaccount={}:default", release.name);
    release.in_namespace(&["create", "rolebinding", "reader", "--clusterrole=view", &account]);
    let told = wait_for(PATIENCE, || asked(&release.name).ok());
    assert_eq!(told.map(|all| all.len()), Some(1), "{:?}\n{}", asked(&release.name), release.log());
    let answer = asked("default");
    assert!(refused(&answer), "a right in one namespace is none in another: {answer:?}");
}

/// At the operator's next look. A new bundle is a new connection of the API server, so requests after it are answered with
/// the new certificate.
fn the_old_ones_are_forgotten(release: &Release<'_>, administrator: &Administrator, asking: &Asking) {
    let new = authorities(&administrator.certificates()).into_values().next_back().expect("the newest");
    let told = wait_for(PATIENCE, || (administrator.bundle() == new).then_some(()));
    assert!(told.is_some(), "{}\nshould be\n{new}\n{}", administrator.bundle(), release.log());
    let before = asking.answered();
    let more = wait_for(PATIENCE, || (asking.answered() > before + 20).then_some(()));
    assert!(more.is_some(), "{before} answered, then {}\n{}", asking.answered(), release.log());
    let secret = administrator.certificates();
    let keys: Vec<&String> = secret.data.iter().flatten().map(|(key, _)| key).collect();
    assert_eq!(keys.len(), 3, "of the old ones nothing is kept: {keys:?}");
    let left: Vec<String> = authorities(&secret).into_values().collect();
    assert_eq!(left, [new]);
}

/// And no namespace waits for it with its deletion.
fn it_goes_with_the_chart(release: &Release<'_>, administrator: &Administrator) {
    release.in_namespace(&["delete", "evp/orders", "--timeout=60s"]);
    release.helm(&["uninstall", RELEASE, "--wait", "--timeout", "60s"]).expect("uninstalled");
    let gone = wait_for(PATIENCE, || administrator.registration().is_none().then_some(()));
    assert!(gone.is_some(), "{:#?}", administrator.registration());
    release.kubectl(&["delete", "namespace", &release.name, &release.system, "--timeout=60s"]);
}
