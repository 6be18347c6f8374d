//! What tests share: settings, resources from YAML, facts; an API server that answers as a test says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Client;
use kube::client::Body;
use kube::runtime::events::{Recorder, Reporter};
use secrecy::SecretString;
use serde_json::{Value, json};
use sluice_crds::names::TopicName;
use sluice_crds::v1alpha1::{CacheSync, EventPipeline};

use super::backoff::Backoff;
use super::build::{self, Children, Inputs, Prepared, TopicFacts};
use super::context::{ClaimBook, Context, EpochMemo, RedisUserMemo};
use super::kind::SluiceKind;
use super::reconcile::claimant;
use super::redis_keys::KeySweeps;
use super::replicas::wanted;
use super::round::Round;
use super::status::StatusWriter;
use super::turns::Turns;
use super::validate::{Invalid, Rules};
use super::validated::ValidatedResource;
use crate::autoscale::ScalingBook;
use crate::connections::Connections;
use crate::metrics::Metrics;
use crate::secrets::InstallKey;
use crate::settings::{Settings, SettingsFile, SettingsHandle};
use crate::sweep::{Board, Trigger, Triggers};

/// An installation with one Kafka and one Redis, whose namespace `shop` may do a few things; `plain` takes no users that
/// we make.
pub const SETTINGS: &str = r#"
instanceId: demo
worker: {image: "localhost/sluice-worker:1", imagePullPolicy: Never}
connections:
  kafka:
  - name: default
    brokers: ["10.0.0.1:9092"]
    tls: {caFile: /ca}
    admin: {usernameFile: /user, passwordFile: /password}
    namespaces:
    - {name: shop, own: [order.], produce: [audit.], consume: [customer.], groups: [legacy-], maxPartitions: 12}
  - name: plain
    brokers: ["10.0.0.1:9093"]
    tls: {}
    admin: {mechanism: PLAIN, usernameFile: /user, passwordFile: /password}
    namespaces: [{name: shop, own: [order.]}]
  - name: unarmed
    brokers: ["10.0.0.1:9094"]
    admin: {usernameFile: /user, passwordFile: /absent}
    namespaces: [{name: shop, own: [order.]}]
  redis:
  - name: default
    mode: Cluster
    addresses: ["10.0.0.1:7001"]
    tls: {caFile: /ca}
    admin: {usernameFile: /user, passwordFile: /password}
    allowedSettings: [notify-keyspace-events]
    namespaces:
    - {name: shop, write: ["order:"], read: ["price:", "stock:"], settings: [notify-keyspace-events]}
  - {name: closed, mode: Standalone, addresses: ["10.0.0.1:7009"]}
"#;

/// A resource that uses most of the API.
pub const PIPELINE: &str = r#"
apiVersion: sluice.dev/v1alpha1
kind: EventPipeline
metadata: {name: enrich, namespace: shop, uid: 0b5c2c4e-7a55-4a0e-9d6e-2f0d8e7a1c11, generation: 3}
spec:
  topics:
  - {name: order.created, partitions: 4, config: {retention.ms: "604800000"}}
  - {name: order.enriched, partitions: 4}
  - {name: order.rejected, partitions: 2}
  source: {topics: [{name: order.created}, {name: customer.changed}]}
  steps:
  - {name: keep, filter: {keepWhen: 'value.status == "CREATED"'}}
  - {name: price, lookup: {key: "'price:' + value.sku", type: Json}}
  - {name: totals, set: [{field: total, expression: "double(value.quantity) * double(price.amount)"}]}
  - {name: pii, mask: {fields: [customer.email], method: Redact}}
  - {name: tidy, remove: {fields: [internal]}}
  routing:
    routes:
    - {name: enriched, topic: order.enriched, when: "value.total > 1.0"}
    - name: model
      key: "value.id"
      views: [{name: order, key: "'order:{' + key + '}'", type: Json, ttlSeconds: 60}]
  deadLetter: {topic: order.rejected}
  worker: {replicas: 2, resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {memory: 128Mi}}}
"#;

/// A cache over somebody else's topic.
pub const CACHE: &str = r#"
apiVersion: sluice.dev/v1alpha1
kind: CacheSync
metadata: {name: cache, namespace: shop, uid: 0b5c2c4e-7a55-4a0e-9d6e-2f0d8e7a1c22, generation: 1}
spec:
  source: {topics: [{name: customer.state}]}
  views: [{name: state, key: "'order:state:{' + key + '}'", type: Hash}]
"#;

/// The settings of [`SETTINGS`].
pub fn settings() -> Settings {
    settings_of(SETTINGS)
}

/// Settings from YAML.
pub fn settings_of(yaml: &str) -> Settings {
    let file: SettingsFile = serde_saphyr::from_str(yaml).unwrap();
    let contents = [("/ca", "PEM"), ("/user", "admin"), ("/password", "secret")];
    let contents = contents.map(|(path, text)| (path.to_owned(), SecretString::from(text)));
    file.check(&contents.into()).unwrap()
}

/// A pipeline from YAML, validated.
pub fn pipeline(yaml: &str) -> Result<ValidatedResource, Invalid> {
    let object: EventPipeline = serde_saphyr::from_str(yaml).unwrap();
    object.validate(Rules { settings: &settings() })
}

/// A cache from YAML, validated.
pub fn cache(yaml: &str) -> Result<ValidatedResource, Invalid> {
    let object: CacheSync = serde_saphyr::from_str(yaml).unwrap();
    object.validate(Rules { settings: &settings() })
}

/// Facts for every topic of a resource.
pub fn facts(resource: &ValidatedResource) -> BTreeMap<TopicName, TopicFacts> {
    let names = resource.all_topics().into_iter().cloned().enumerate();
    names
        .map(|(at, name)| {
            let compacted = name.is_sluice_internal();
            let tombstones_kept_ms = compacted.then_some(86_400_000);
            let id = format!("{at:0>22}");
            (name, TopicFacts { id, partitions: 4, compacted, max_message_bytes: 1_048_588, tombstones_kept_ms })
        })
        .collect()
}

/// What was asked of the API server.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub uri: String,
    pub body: Value,
}

impl Asked {
    /// True for this method and a path that ends so.
    pub fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.uri.split('?').next().is_some_and(|uri| uri.ends_with(path))
    }
}

/// Everything that was asked, in order.
pub type Calls = Arc<Mutex<Vec<Asked>>>;

/// An API server that answers with a status and a body.
pub fn api_server(mut answer: impl FnMut(&Asked) -> (u16, Value) + Send + 'static) -> (Client, Calls) {
    let (service, mut server) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let calls = Calls::default();
    let seen = Arc::clone(&calls);
    tokio::spawn(async move {
        while let Some((request, respond)) = server.next_request().await {
            let (method, uri) = (request.method().to_string(), request.uri().to_string());
            let body = request.into_body().collect_bytes().await.unwrap();
            let asked = Asked { method, uri, body: serde_json::from_slice(&body).unwrap_or(Value::Null) };
            let (status, body) = answer(&asked);
            seen.lock().unwrap().push(asked);
            let body = Body::from(serde_json::to_vec(&body).unwrap());
            respond.send_response(Response::builder().status(status).body(body).unwrap());
        }
    });
    (Client::new(service, "shop"), calls)
}

/// A refusal as an API server words it.
pub fn refusal(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message,
    });
    (code, status)
}

/// What is built of a resource with [`SETTINGS`], at epoch 7.
pub fn built(resource: &ValidatedResource) -> Children<Prepared> {
    let (topics, install_key) = (facts(resource), InstallKey::new(&[b'k'; 32]).unwrap());
    let (replicas, worker) = (wanted(resource, None, None), settings().worker);
    let inputs = Inputs { topics: &topics, epoch: 7, replicas, install_key: &install_key, worker: &worker };
    build::build(resource, &inputs)
}

/// What reconciles share, with both kinds listed; and where triggers for pipelines come out.
pub fn context(client: Client) -> (Context, tokio::sync::mpsc::Receiver<Trigger>) {
    let (triggers, pipelines, _) = Triggers::new();
    let ctx = Context {
        recorder: Recorder::new(client.clone(), Reporter { controller: "test".to_owned(), instance: None }),
        client,
        settings: SettingsHandle::fixed(settings()),
        install_key: InstallKey::new(&[7; 64]).unwrap(),
        connections: Connections::default(),
        claims: ClaimBook::default(),
        metrics: Metrics::default(),
        backoff: Backoff::default(),
        board: Board::new(triggers),
        redis_users: RedisUserMemo::default(),
        epochs: EpochMemo::default(),
        key_sweeps: KeySweeps::default(),
        scaling: ScalingBook::default(),
        turns: Turns::default(),
        external_metrics: crate::metrics_api::Standing::default(),
        pod_monitors: tokio::sync::watch::channel(false).1,
        started: jiff::Timestamp::UNIX_EPOCH,
        sweep_every: std::time::Duration::from_secs(5),
        watched: None,
    };
    for kind in sluice_crds::names::Kind::ALL {
        ctx.claims.listed(kind);
    }
    (ctx, pipelines)
}

/// Runs `test` in a round of [`PIPELINE`] with these settings.
pub async fn in_round(
    object: &EventPipeline,
    client: Client,
    settings: Settings,
    live: Option<Deployment>,
    test: impl AsyncFnOnce(&mut Round<'_, EventPipeline>),
) {
    let (ctx, _triggers) = context(client);
    let resource = pipeline(PIPELINE).unwrap();
    let who = claimant(sluice_crds::names::Kind::EventPipeline, object);
    let mut status = StatusWriter::new(kube::Api::namespaced(ctx.client.clone(), "shop"), object);
    let mut round = Round {
        ctx: &ctx,
        settings: Arc::new(settings),
        object,
        claimant: &who,
        resource: &resource,
        status: &mut status,
        live,
        findings: Vec::new(),
        now: 0,
    };
    test(&mut round).await;
}
