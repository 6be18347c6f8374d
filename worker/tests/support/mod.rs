//! A worker process against the real Kafka and Redis that the environment names.
#![allow(dead_code, reason = "each test binary uses what it needs")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use sluice_clients::kafka::admin::{Admin, CommittedOffset, NewTopic, TopicPartition};

/// How long anything may take that normally takes some seconds, a dead worker's session included.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The environment's stack.
pub struct Stack {
    pub kafka: ClientConfig,
    pub admin: Admin,
    runtime: tokio::runtime::Runtime,
    prefix: String,
    dir: PathBuf,
}

static COUNT: AtomicU64 = AtomicU64::new(0);

/// The stack, or none with the reason printed. With `SLUICE_REQUIRE_STACK=1` none is a failure.
pub fn stack(test: &str) -> Option<Stack> {
    let Some(kafka) = kafka_config() else {
        assert!(std::env::var("SLUICE_REQUIRE_STACK").as_deref() != Ok("1"), "KAFKA_BROKERS is not set");
        println!("skipped: KAFKA_BROKERS is not set");
        return None;
    };
    let unique = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let dir = std::env::temp_dir().join(format!("sluice-{test}-{unique}"));
    std::fs::create_dir_all(&dir).expect("a folder");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    let admin = Admin::new(&kafka, Duration::from_secs(60)).expect("admin client");
    Some(Stack { kafka, admin, runtime, prefix: format!("t-{test}-{unique}"), dir })
}

fn kafka_config() -> Option<ClientConfig> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", std::env::var("KAFKA_BROKERS").ok()?);
    if let Ok(protocol) = std::env::var("KAFKA_SECURITY_PROTOCOL") {
        config.set("security.protocol", protocol);
    }
    if let Ok(ca) = std::env::var("KAFKA_CA_FILE") {
        config.set("ssl.ca.location", ca);
    }
    if let Ok(user) = std::env::var("KAFKA_SASL_USERNAME") {
        config.set("sasl.mechanism", std::env::var("KAFKA_SASL_MECHANISM").unwrap_or("SCRAM-SHA-512".to_owned()));
        config.set("sasl.username", user);
        config.set("sasl.password", secret("KAFKA_SASL_PASSWORD_FILE"));
    }
    Some(config)
}

fn secret(variable: &str) -> String {
    let file = std::env::var(variable).expect("a password file");
    std::fs::read_to_string(file).expect("readable").trim_end().to_owned()
}

/// A record read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub partition: i32,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub timestamp: Option<i64>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Got {
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.value.as_deref().expect("a value")).expect("text")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(known, _)| known == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }
}

/// A record to send.
#[derive(Clone, Debug)]
pub struct Send<'a> {
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    pub timestamp: i64,
}

impl Stack {
    /// A name of this test's own.
    pub fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    pub fn topic(&self, name: &str, partitions: u32, config: &[(&str, &str)]) -> String {
        let topic = NewTopic {
            name: self.name(name),
            partitions,
            replication_factor: None,
            config: config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        };
        let made = self.runtime.block_on(self.admin.create_topics(&[topic], false)).expect("created");
        made.values().next().expect("one").as_ref().expect("created");
        let name = self.name(name);
        eventually("the topic's leaders", || {
            let found = self.runtime.block_on(self.admin.describe_topics(std::slice::from_ref(&name))).ok()?;
            let description = found.get(&name)?.as_ref().ok()?.as_ref()?.clone();
            (description.partitions.len() == partitions as usize).then_some(())
        });
        name
    }

    /// Deletes a topic; it is gone when this returns.
    pub fn delete_topic(&self, topic: &str) {
        let names = [topic.to_owned()];
        let done = self.runtime.block_on(self.admin.delete_topics(&names)).expect("deleted");
        done.values().next().expect("one").as_ref().expect("deleted");
        eventually("the topic's end", || {
            let found = self.runtime.block_on(self.admin.describe_topics(&names)).ok()?;
            matches!(found.get(topic)?, Ok(None)).then_some(())
        });
    }

    /// Deletes every record but the last `kept` offsets of each partition, as retention does.
    pub fn expire(&self, topic: &str, partitions: i32, kept: i64) {
        let client: rdkafka::admin::AdminClient<_> = self.kafka.create().expect("admin");
        let consumer: BaseConsumer = self.kafka.create().expect("consumer");
        let mut before = TopicPartitionList::new();
        for partition in 0..partitions {
            let (_, end) = consumer.fetch_watermarks(topic, partition, PATIENCE).expect("watermarks");
            before.add_partition_offset(topic, partition, Offset::Offset(end - kept)).expect("added");
        }
        let done = client.delete_records(&before, &rdkafka::admin::AdminOptions::new());
        let done = self.runtime.block_on(done).expect("deleted");
        assert!(done.elements().iter().all(|one| one.error().is_ok()), "{done:?}");
    }

    pub fn topic_id(&self, topic: &str) -> String {
        // Brokers learn of a new topic one after another.
        eventually("the topic's id", || {
            let found = self.runtime.block_on(self.admin.describe_topics(&[topic.to_owned()])).ok()?;
            Some(found.get(topic)?.as_ref().ok()?.as_ref()?.id.as_str().to_owned())
        })
    }

    /// Commits the start of all partitions, as the operator does.
    pub fn commit_start(&self, group: &str, topic: &str, partitions: i32) {
        let zero = CommittedOffset { offset: 0, metadata: String::new() };
        let offsets: BTreeMap<_, _> =
            (0..partitions).map(|partition| (TopicPartition::new(topic, partition), zero.clone())).collect();
        // Coordinators move when brokers come and go.
        eventually("the start offsets", || {
            let done = self.runtime.block_on(self.admin.alter_group_offsets(group, &offsets)).ok()?;
            done.values().all(Result::is_ok).then_some(())
        });
    }

    pub fn committed(&self, group: &str) -> BTreeMap<TopicPartition, CommittedOffset> {
        eventually("the committed offsets", || {
            self.runtime.block_on(self.admin.list_group_offsets(group, None, true)).ok().map(|found| found.committed)
        })
    }

    /// Sends records by key, as a Java client would; waits for all.
    pub fn send<'a>(&self, topic: &str, records: impl IntoIterator<Item = Send<'a>>) {
        let mut config = self.kafka.clone();
        config.set("partitioner", "murmur2_random").set("linger.ms", "5");
        let producer: BaseProducer = config.create().expect("producer");
        for record in records {
            let mut headers = OwnedHeaders::new();
            for (name, value) in record.headers {
                headers = headers.insert(Header { key: name, value: *value });
            }
            let mut one: BaseRecord<'_, [u8], [u8]> =
                BaseRecord::to(topic).timestamp(record.timestamp).headers(headers);
            one.key = record.key;
            one.payload = record.value;
            producer.send(one).map_err(|(error, _)| error).expect("queued");
            producer.poll(Duration::ZERO);
        }
        producer.flush(PATIENCE).expect("sent");
    }

    fn reader(&self, isolation: &str) -> BaseConsumer {
        let mut config = self.kafka.clone();
        config
            .set("group.id", self.name("reader"))
            .set("enable.auto.commit", "false")
            .set("isolation.level", isolation)
            .set("enable.partition.eof", "true");
        config.create().expect("consumer")
    }

    /// The end of each partition, once every broker knows the topic and no transaction is open: the markers of the last one
    /// follow the offsets it committed within a moment.
    fn ends(&self, topic: &str, committed: &BaseConsumer) -> BTreeMap<i32, i64> {
        let all = self.reader("read_uncommitted");
        let ask = |consumer: &BaseConsumer| -> Option<BTreeMap<i32, i64>> {
            let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).ok()?;
            let partitions = metadata.topics().first()?.partitions();
            let end = |partition: i32| Some((partition, consumer.fetch_watermarks(topic, partition, PATIENCE).ok()?.1));
            partitions.iter().map(|partition| end(partition.id())).collect()
        };
        eventually("the topic's stable end", || {
            let stable = ask(committed).filter(|ends| !ends.is_empty())?;
            (ask(&all)? == stable).then_some(stable)
        })
    }

    /// Everything committed in a topic now, up to the end, by partition and order.
    pub fn read(&self, topic: &str) -> Vec<Got> {
        let consumer = self.reader("read_committed");
        let mut unread: BTreeSet<i32> = self.ends(topic, &consumer).into_keys().collect();
        let mut list = TopicPartitionList::new();
        for partition in &unread {
            list.add_partition_offset(topic, *partition, Offset::Beginning).expect("added");
        }
        consumer.assign(&list).expect("assigned");
        let (mut all, mut trouble) = (Vec::new(), None);
        let deadline = Instant::now() + PATIENCE;
        while !unread.is_empty() {
            assert!(Instant::now() < deadline, "cannot read {topic} to its end: {trouble:?}");
            match consumer.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => all.push(Got {
                    partition: message.partition(),
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    timestamp: message.timestamp().to_millis(),
                    headers: message.headers().map_or_else(Vec::new, |headers| {
                        headers.iter().map(|one| (one.key.to_owned(), one.value.map(<[u8]>::to_vec))).collect()
                    }),
                }),
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(partition))) => drop(unread.remove(&partition)),
                // The client tries again by itself.
                Some(Err(error)) => trouble = Some(error),
                None => {}
            }
        }
        all
    }

    /// A configuration with this environment's endpoints and a processor. `processor` gives what differs.
    pub fn config(&self, source: &str, group: &str, processor: &Value) -> Value {
        let mut config = self.endpoints();
        config["processor"] = json!({
            "group": group, "transactionalIdPrefix": format!("sluice/t/t/eventpipeline/{}/", self.prefix),
            "topics": [{"name": source, "id": self.topic_id(source)}],
            "format": "Json", "steps": [], "lanes": 2, "commitIntervalMilliseconds": 50,
            "maxBatchRecords": 500, "maxBatchBytes": 1_048_576, "maxRecordBytes": 1_000_000,
            "lookupCache": {"maxBytes": 1_048_576, "ttlMilliseconds": 1000},
        });
        for (key, value) in processor.as_object().expect("object") {
            config["processor"][key] = value.clone();
        }
        config
    }

    /// A configuration with an applier of these views, over one topic, into a standalone Redis without users.
    pub fn applier_config(&self, topic: &str, group: &str, redis: &str, views: &Value) -> Value {
        let mut config = self.endpoints();
        config["redis"] = json!({"mode": "Standalone", "addresses": [redis]});
        config["applier"] = json!({
            "group": group, "epoch": 1, "maxBatchItems": 50, "maxBatchBytes": 65_536,
            "topics": [{"topic": {"name": topic, "id": self.topic_id(topic)}, "format": "Json", "views": views}],
        });
        config
    }

    fn endpoints(&self) -> Value {
        let mut kafka =
            json!({"brokers": self.kafka.get("bootstrap.servers").expect("set").split(',').collect::<Vec<_>>()});
        if let Some(ca) = self.kafka.get("ssl.ca.location") {
            kafka["tls"] = json!({"caFile": ca});
        }
        if let Some(user) = self.kafka.get("sasl.username") {
            let file = self.dir.join("username");
            std::fs::write(&file, user).expect("written");
            kafka["sasl"] = json!({
                "mechanism": "SCRAM-SHA-512", "usernameFile": file,
                "passwordFile": std::env::var("KAFKA_SASL_PASSWORD_FILE").expect("set"),
            });
        }
        let identity = json!({
            "instance": "t", "namespace": "t", "kind": "eventpipeline", "name": "t", "uid": self.prefix});
        let mut config = json!({"version": "v1", "identity": identity, "kafka": kafka, "adminListen": "127.0.0.1:0"});
        if let Ok(addresses) = std::env::var("REDIS_ADDRESSES") {
            let user = self.dir.join("redis-username");
            std::fs::write(&user, std::env::var("REDIS_USERNAME").unwrap_or("default".to_owned())).expect("written");
            config["redis"] = json!({
                "mode": "Cluster", "addresses": addresses.split(',').collect::<Vec<_>>(),
                "tls": {"caFile": std::env::var("REDIS_CA_FILE").expect("set")},
                "user": {"usernameFile": user, "passwordFile": std::env::var("REDIS_PASSWORD_FILE").expect("set")},
            });
        }
        config
    }

    /// Starts a worker.
    pub fn worker(&self, pod: &str, config: &Value, failpoint: Option<&str>) -> Worker {
        let admin = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
        let mut config = config.clone();
        config["adminListen"] = json!(format!("127.0.0.1:{admin}"));
        let file = self.dir.join(format!("{pod}-{admin}.json"));
        std::fs::write(&file, config.to_string()).expect("written");
        let log = self.dir.join(format!("{pod}-{admin}.log"));
        // CI names the binary that ships.
        let built = env!("CARGO_BIN_EXE_sluice-worker").into();
        let mut command = Command::new(std::env::var_os("SLUICE_WORKER_BIN").unwrap_or(built));
        command.arg("--config").arg(file).args(["--pod", pod]);
        command.env_remove("SLUICE_FAILPOINT").stdin(Stdio::null());
        if let Some(failpoint) = failpoint {
            command.env("SLUICE_FAILPOINT", failpoint);
        }
        let output = std::fs::File::create(&log).expect("a log");
        command.stdout(output.try_clone().expect("cloned")).stderr(output);
        Worker { child: command.spawn().expect("started"), admin, log }
    }
}

/// A worker process; killed when dropped.
pub struct Worker {
    child: Child,
    admin: u16,
    pub log: PathBuf,
}

impl Worker {
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and the exit status.
    pub fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.exit()
    }

    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status();
        assert!(done.expect("kill runs").success());
    }

    pub fn exit(&mut self) -> ExitStatus {
        eventually("the worker's exit", || self.child.try_wait().expect("waited"))
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("waited").is_none()
    }

    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let status = text.split(' ').nth(1)?.parse().ok()?;
        Some((status, text.split_once("\r\n\r\n")?.1.to_owned()))
    }

    /// A metric's value, all label sets summed.
    pub fn metric(&self, name: &str) -> u64 {
        let Some((_, text)) = self.get("/metrics") else { return 0 };
        text.lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(name))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    pub fn logs(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let logs = self.logs();
            let tail: Vec<&str> = logs.lines().rev().take(40).collect();
            eprintln!("--- {} (last lines, newest first)\n{}", self.log.display(), tail.join("\n"));
        }
    }
}

/// Polls until there is something, or fails after [`PATIENCE`].
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn now_millis() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis()).expect("fits")
}
