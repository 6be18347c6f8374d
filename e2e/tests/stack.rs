//! The local stack itself: what tests, demo and benchmarks rely on. Nothing here disturbs the shared parts.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use secrecy::SecretString;
use sluice_e2e::stack::kafka::{Compiler, KafkaOptions, Security};
use sluice_e2e::stack::redis::RedisOptions;
use sluice_e2e::stack::{Group, Kube, Stack, StackError, output, require, require_local, wait_for};

const PATIENCE: Duration = Duration::from_secs(90);

/// A name that no other test, and no earlier run, uses.
fn unique(prefix: &str) -> String {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    format!("{prefix}-{}-{}", std::process::id(), time.subsec_nanos())
}

fn printed(command: &mut Command) -> String {
    output(command).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_user_made_by_kafkas_own_tool_can_log_in_and_do_nothing_else() {
    let Some(stack) = require_local(&[Group::Kafka]) else { return };
    let kafka = stack.kafka().expect("required");
    let (user, topic) = (unique("user"), unique("stack-topic"));
    let credential = "SCRAM-SHA-512=[password=right-password]";
    let entity = ["--entity-type", "users", "--entity-name", &user];
    let mut tool = kafka.tool("kafka-configs").expect("local");
    printed(tool.arg("--alter").args(entity).args(["--add-config", credential]));
    printed(kafka.tool("kafka-topics").expect("local").args(["--create", "--topic", &topic]));

    let known = |password: &str| -> Option<bool> {
        let config = kafka.client_config_as(&user, &SecretString::from(password));
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let metadata = consumer.fetch_metadata(Some(&topic), Duration::from_secs(5)).ok()?;
        Some(metadata.topics().iter().any(|found| found.name() == topic && found.error().is_none()))
    };
    // Brokers learn of a user a moment later.
    assert_eq!(wait_for(PATIENCE, || known("right-password")), Some(false), "may log in, must not see a topic");
    assert_eq!(known("wrong-password"), None);
}

#[test]
fn topics_are_replicated_and_never_made_by_accident() {
    let Some(stack) = require(&[Group::Kafka]) else { return };
    let kafka = stack.kafka().expect("required");
    let producer: BaseProducer = kafka.client_config().set("message.timeout.ms", "3000").create().expect("a producer");
    let metadata = producer.client().fetch_metadata(Some(&unique("absent")), PATIENCE).expect("metadata");
    assert!(metadata.topics().iter().all(|topic| topic.error().is_some()), "asking for a topic must not make it");
    // A broker that a busy machine kept from its heartbeats is left out until it is heard again.
    let brokers = || producer.client().fetch_metadata(None, PATIENCE).ok().map(|metadata| metadata.brokers().len());
    assert!(wait_for(PATIENCE, || brokers().filter(|count| *count == 3)).is_some(), "{:?} brokers", brokers());
}

#[test]
fn redis_speaks_tls_only_and_knows_no_default_user() {
    let Some(stack) = require_local(&[Group::Redis]) else { return };
    let redis = stack.redis().expect("required");
    let key = unique("stack");
    redis.cli(1, &["-c", "SET", &key, "value"]).expect("written");
    assert_eq!(redis.cli(2, &["-c", "GET", &key]).expect("read").trim(), "value");
    redis.cli(3, &["-c", "DEL", &key]).expect("deleted");

    let masters: Vec<usize> = [0, 8000, 16383].iter().map(|slot| redis.master_of(*slot, 1).expect("owned")).collect();
    assert_eq!(masters.iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "three masters: {masters:?}");
    for master in masters {
        assert_eq!(redis.replicas_of(master, 1).expect("a view").len(), 1);
    }

    let mut plain = TcpStream::connect(&redis.addresses()[0]).expect("the port is open");
    plain.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    plain.write_all(b"PING\r\n").expect("sent");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"+PONG") && !answer.starts_with(b"-NOAUTH"), "plaintext must not be understood");

    let (host, port) = redis.addresses()[0].rsplit_once(':').expect("host:port");
    let ca_file = redis.ca_file().expect("TLS").display().to_string();
    let refused =
        printed(Command::new("redis-cli").args(["-h", host, "-p", port, "--tls", "--cacert", &ca_file, "PING"]));
    assert!(refused.contains("NOAUTH"), "{refused}");
}

#[test]
fn a_broker_of_ones_own_keeps_its_data_through_kill_9() {
    let Some(stack) = require_local(&[Group::Kafka]) else { return };
    let bench = KafkaOptions::bench(&unique("own-kafka"));
    let options = KafkaOptions { heap_mib: 256, compiler: Compiler::Quick, ..bench };
    let kafka = stack.start_kafka(&options).expect("started");
    printed(kafka.tool("kafka-topics").expect("local").args(["--create", "--topic", "kept"]));
    produce(&kafka.client_config(), "kept", "before", PATIENCE).expect("produced");

    let broker = kafka.broker(1).expect("the only one");
    broker.kill9().expect("killed");
    let lost = produce(&kafka.client_config(), "kept", "lost", Duration::from_secs(3));
    assert!(lost.is_err(), "a dead broker must not answer");
    broker.start_and_wait().expect("started again");
    produce(&kafka.client_config(), "kept", "after", PATIENCE).expect("produced");

    let mut consumer = kafka.tool("kafka-console-consumer").expect("local");
    let read =
        printed(consumer.args(["--topic", "kept", "--from-beginning", "--max-messages", "2", "--timeout-ms", "60000"]));
    assert_eq!(read.lines().collect::<Vec<_>>(), ["before", "after"]);
}

/// Kafka 4.1 loses them when it replays a log in which a user was made and removed (`e2e/src/stack/kafka/settle.rs`).
#[test]
fn a_broker_that_lost_its_users_lets_the_administrator_in_again() {
    let Some(stack) = require_local(&[Group::Kafka]) else { return };
    let bench = KafkaOptions::bench(&unique("own-users"));
    let options = KafkaOptions { heap_mib: 256, compiler: Compiler::Quick, security: Security::SaslSsl, ..bench };
    let kafka = stack.start_kafka(&options).expect("started");
    for change in [["--add-config", "SCRAM-SHA-512=[password=short-lived]"], ["--delete-config", "SCRAM-SHA-512"]] {
        let mut tool = kafka.tool("kafka-configs").expect("local");
        printed(tool.args(["--alter", "--entity-type", "users", "--entity-name", "guest"]).args(change));
    }
    let broker = kafka.broker(1).expect("the only one");
    broker.kill9().expect("killed");
    broker.start_and_wait().expect("started again");
    kafka.settle().expect("the administrator can log in");
    printed(kafka.tool("kafka-topics").expect("local").arg("--list"));
}

fn produce(config: &ClientConfig, topic: &str, value: &str, limit: Duration) -> rdkafka::error::KafkaResult<()> {
    let producer: BaseProducer = config.clone().set("message.timeout.ms", limit.as_millis().to_string()).create()?;
    producer.send(BaseRecord::<(), str>::to(topic).payload(value)).map_err(|(error, _)| error)?;
    // `flush` alone is content with a record that has timed out.
    producer.flush(limit * 2)?;
    let consumer: BaseConsumer = config.create()?;
    let (low, high) = consumer.fetch_watermarks(topic, 0, limit)?;
    assert!(high > low, "the record is in the log");
    Ok(())
}

#[test]
fn a_redis_of_ones_own_can_be_frozen_and_killed() {
    let Some(stack) = require_local(&[Group::Redis]) else { return };
    let options = RedisOptions { tls: true, persistent: true, ..RedisOptions::standalone(&unique("own-redis")) };
    let redis = stack.start_redis(&options).expect("started");
    redis.cli(1, &["SET", "a", "1"]).expect("written");
    let node = redis.node(1).expect("the only one");

    node.freeze().expect("frozen");
    assert!(!node.is_ready());
    node.thaw().expect("goes on");
    assert!(wait_for(PATIENCE, || node.is_ready().then_some(())).is_some());

    // The file is written before the answer, and synchronised each second: a killed process loses nothing.
    node.kill9().expect("killed");
    assert!(matches!(node.freeze(), Err(StackError::PartState { .. })));
    node.start_and_wait().expect("started again");
    assert_eq!(redis.cli(1, &["GET", "a"]).expect("read").trim(), "1");
}

/// Listens on port 8080 and answers, or connects to the address given and wants an answer or, from Kafka, a connection.
const PROBE: &str = r#"
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int count, char **arguments) {
  int s = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(8080)};
  if (count < 3) {
    if (bind(s, (struct sockaddr *)&a, sizeof a) || listen(s, 16)) return 1;
    for (;;) { int c = accept(s, 0, 0); if (write(c, "hello", 5) != 5) return 1; close(c); }
  }
  inet_pton(AF_INET, arguments[1], &a.sin_addr);
  a.sin_port = htons(atoi(arguments[2]));
  alarm(100);
  while (connect(s, (struct sockaddr *)&a, sizeof a)) { close(s); usleep(200000); s = socket(AF_INET, SOCK_STREAM, 0); }
  char buffer[8];
  return count > 3 || read(s, buffer, 5) == 5 ? 0 : 1;
}
"#;

#[test]
fn restricted_pods_from_a_built_image_reach_services_and_kafka() {
    let Some(stack) = require_local(&[Group::Kafka, Group::Kube]) else { return };
    let tag = format!("localhost/{}:1", unique("probe"));
    build_probe(&stack, &tag);
    let kube = stack.kube().expect("required");
    let namespace = unique("stack");
    let label = "pod-security.kubernetes.io/enforce=restricted";
    printed(kube.kubectl().args(["create", "namespace", &namespace]));
    printed(kube.kubectl().args(["label", "namespace", &namespace, label]));
    // The controller makes it a moment later, and admission waits for it no longer than a second or two.
    printed(kube.kubectl().args([
        "-n",
        &namespace,
        "wait",
        "--for=create",
        "serviceaccount/default",
        "--timeout=120s",
    ]));

    apply(kube, &namespace, &pod("server", &tag, "[]"));
    apply(kube, &namespace, SERVICE);
    printed(kube.kubectl().args(["-n", &namespace, "wait", "--for=condition=Ready", "pod/server", "--timeout=120s"]));
    let jsonpath = "jsonpath={.spec.clusterIP}";
    let address = printed(kube.kubectl().args(["-n", &namespace, "get", "service", "probe", "-o", jsonpath]));
    apply(kube, &namespace, &pod("to-service", &tag, &format!(r#"["{address}", "80"]"#)));
    apply(kube, &namespace, &pod("to-kafka", &tag, r#"["10.44.0.1", "9092", "connected"]"#));
    for name in ["pod/to-service", "pod/to-kafka"] {
        let succeeded = "--for=jsonpath={.status.phase}=Succeeded";
        printed(kube.kubectl().args(["-n", &namespace, "wait", succeeded, name, "--timeout=120s"]));
    }
    let root = pod("root", &tag, "[]").replace("runAsUser: 65532", "runAsUser: 0");
    let refused = try_apply(kube, &namespace, &root).expect_err("a root pod must be refused");
    assert!(refused.to_string().contains("violates PodSecurity"), "{refused}");

    let audit = std::fs::read_to_string(kube.audit_log().expect("local")).expect("an audit log");
    assert!(audit.contains(&format!("/api/v1/namespaces/{namespace}/pods")), "every request is in the audit log");
    printed(kube.kubectl().args(["delete", "namespace", &namespace, "--wait=false"]));
}

fn build_probe(stack: &Stack, tag: &str) {
    let context = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(context.path().join(name), text).expect("written");
    write("probe.c", PROBE);
    write("Dockerfile", "FROM scratch AS probe\nCOPY probe /probe\nUSER 65532\nENTRYPOINT [\"/probe\"]\n");
    printed(Command::new("gcc").args(["-static", "-o", "probe", "probe.c"]).current_dir(context.path()));
    let dockerfile = context.path().join("Dockerfile");
    let archive = stack.build_image(context.path(), &dockerfile, Some("probe"), &[], tag).expect("built and loaded");
    assert!(Path::new(&archive).is_file());
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: probe}
spec: {selector: {app: server}, ports: [{port: 80, targetPort: 8080}]}
";

fn pod(name: &str, image: &str, arguments: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  automountServiceAccountToken: false
  securityContext: {{runAsNonRoot: true, runAsUser: 65532, seccompProfile: {{type: RuntimeDefault}}}}
  containers:
  - name: probe
    image: {image}
    imagePullPolicy: Never
    args: {arguments}
    resources: {{limits: {{memory: 16Mi}}}}
    securityContext: {{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {{drop: [ALL]}}}}
"
    )
}

fn apply(kube: &Kube, namespace: &str, manifest: &str) {
    try_apply(kube, namespace, manifest).unwrap_or_else(|error| panic!("{error}"));
}

fn try_apply(kube: &Kube, namespace: &str, manifest: &str) -> Result<(), StackError> {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(manifest.as_bytes()).expect("written");
    output(kube.kubectl().args(["-n", namespace, "apply", "-f"]).arg(file.path())).map(drop)
}

#[test]
fn helm_takes_the_cluster_for_1_34() {
    let Some(stack) = require_local(&[Group::Kube]) else { return };
    let kube = stack.kube().expect("required");
    let chart = tempfile::tempdir().expect("a folder");
    let metadata = "apiVersion: v2\nname: probe\nversion: 1.0.0\nkubeVersion: '>= 1.34.0 < 1.35.0'\n";
    std::fs::write(chart.path().join("Chart.yaml"), metadata).expect("written");
    printed(kube.helm().args(["install", &unique("probe"), "--dry-run=server"]).arg(chart.path()));
}
