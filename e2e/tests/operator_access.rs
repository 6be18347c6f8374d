//! What a user that the operator makes can do, by the servers' own word: what its spec needs, and nothing else. Clients log in
//! with the generated Secret, as workers do, beside resources of the same namespace whose names begin alike.

mod operator;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use operator::servers::{clean_up, wait_topics};
use operator::{EVERYTHING, Operator, PATIENCE};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, ClientContext, Message, Offset, TopicPartitionList};
use secrecy::SecretString;
use sluice_clients::kafka::admin::{
    AclBinding, AclFilter, AclOperation, AclResource, Admin, AdminError, CommittedOffset, ConfigChange, NewTopic,
    PatternType, Principal, ScramChange, TopicPartition,
};
use sluice_e2e::datapath::kafka::{TopicSpec, committed, create_topics, delete_topics, ends};
use sluice_e2e::datapath::resp::{Access, Connection, Reply};
use sluice_e2e::stack::{require_local, wait_for};
use tokio::runtime::Runtime;

const RESOURCES: &str = r#"
apiVersion: sluice.dev/v1alpha1
kind: EventPipeline
metadata: {name: orders}
spec:
  state: Stopped
  topics: [{name: NAME.created, partitions: 1}, {name: NAME.enriched, partitions: 1}, {name: NAME.rejected, partitions: 1}]
  source: {topics: [{name: NAME.created}]}
  steps: [{name: price, lookup: {key: "'NAME:price:' + value.sku", type: Json}}]
  routing:
    match: All
    routes:
    - {name: enriched, topic: NAME.enriched}
    - {name: model, views: [{name: order, key: "'NAME:order:' + key", type: Json}]}
  deadLetter: {topic: NAME.rejected}
---
apiVersion: sluice.dev/v1alpha1
kind: EventPipeline
metadata: {name: orders-2}
spec:
  state: Stopped
  topics: [{name: NAME.created-2, partitions: 1}]
  source: {topics: [{name: NAME.created-2}]}
  steps: [{name: stock, lookup: {key: "'NAME:stock:' + value.sku", type: Json}}]
  routing: {routes: [{name: model, views: [{name: order, key: "'NAME:orders:' + key", type: Json}]}]}
---
apiVersion: sluice.dev/v1alpha1
kind: CacheSync
metadata: {name: cache}
spec:
  state: Stopped
  source: {topics: [{name: NAME.state}]}
  views: [{name: v, key: "'NAME:cache:' + key", type: Json}]
"#;

/// A resource's user, as its workers log in.
struct User<'a> {
    operator: &'a Operator<'a>,
    /// Kind and name as external names have them.
    resource: (&'static str, &'static str),
    kafka: (String, SecretString),
    redis: (String, SecretString),
    /// A connection to each Redis node that was asked: logging in takes longer than asking.
    nodes: RefCell<BTreeMap<String, Connection>>,
}

impl<'a> User<'a> {
    fn of(operator: &'a Operator<'a>, kind: &'static str, short: &str, name: &'static str) -> Self {
        let selector = format!("app.kubernetes.io/instance={short}-{name}");
        let field = |key: &str| {
            let text =
                format!("go-template={{{{range .items}}}}{{{{index .data \"{key}\" | base64decode}}}}{{{{end}}}}");
            operator.in_namespace(&["get", "secret", "-l", &selector, "-o", &text])
        };
        let user = |server: &str| (field(&format!("{server}-username")), field(&format!("{server}-password")).into());
        let nodes = RefCell::default();
        Self { operator, resource: (kind, name), kafka: user("kafka"), redis: user("redis"), nodes }
    }

    /// `sluice/<instance>/<namespace>/<kind>/<name>`.
    fn path(&self) -> String {
        format!("sluice/{0}/{0}/{1}/{2}", self.operator.name, self.resource.0, self.resource.1)
    }

    /// A name of the resource with dots: a group, an internal topic.
    fn dotted(&self, last: &str) -> String {
        format!("{}.{last}", self.path().replace('/', "."))
    }

    fn config(&self) -> ClientConfig {
        let mut config = self.operator.kafka.client_config_as(&self.kafka.0, &self.kafka.1);
        config.set("log_level", "0");
        config
    }

    fn admin(&self) -> Admin {
        Admin::new(&self.config(), PATIENCE).expect("a client")
    }

    /// Topics that the servers show it.
    fn visible(&self) -> KafkaResult<BTreeSet<String>> {
        let consumer: BaseConsumer = self.config().create()?;
        let metadata = consumer.fetch_metadata(None, Duration::from_secs(10))?;
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    fn consumer(&self, group: &str, topic: &str) -> BaseConsumer {
        let mut config = self.config();
        config.set("group.id", group).set("auto.offset.reset", "earliest").set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().expect("a consumer");
        consumer.subscribe(&[topic]).expect("subscribed");
        consumer
    }

    /// Why it may not read a topic in a group.
    fn reading_refused(&self, group: &str, topic: &str) -> RDKafkaErrorCode {
        first(&self.consumer(group, topic)).expect_err("nothing to read")
    }

    /// Why a record for a topic is not taken.
    fn writing_refused(&self, topic: &str) -> Option<RDKafkaErrorCode> {
        let producer: BaseProducer<Outcome> =
            self.config().create_with_context(Outcome::default()).expect("a producer");
        producer.send(BaseRecord::<(), str>::to(topic).payload("x")).expect("queued");
        producer.flush(PATIENCE).expect("answered");
        *producer.context().0.lock().expect("not poisoned")
    }

    fn transactional(&self, id: &str) -> Result<BaseProducer, RDKafkaErrorCode> {
        let code = |error: rdkafka::error::KafkaError| error.rdkafka_error_code().expect("a code");
        let producer: BaseProducer = self.config().set("transactional.id", id).create().map_err(code)?;
        producer.init_transactions(PATIENCE).map(|()| producer).map_err(code)
    }

    /// What one Redis node says to a command.
    fn asks(&self, address: &str, words: &[&str]) -> Answer {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let mut nodes = self.nodes.borrow_mut();
        let node = nodes.entry(address.to_owned()).or_insert_with(|| self.logged_in(address));
        let said = match node.command(&words) {
            Ok(reply) => return Answer::Done(reply),
            Err(error) => error.to_string(),
        };
        match said {
            // Of a command and of a script: rights are checked before the slot is.
            said if said.contains("NOPERM") || said.contains("user executing the script can't") => Answer::Refused,
            said if [": MOVED ", ": READONLY "].iter().any(|elsewhere| said.contains(elsewhere)) => Answer::Elsewhere,
            said => Answer::Other(said),
        }
    }

    fn logged_in(&self, address: &str) -> Connection {
        let access = Access::administrator(self.operator.redis).expect("access").as_user(&self.redis.0, &self.redis.1);
        Connection::open(address, &access).expect("the node takes the login")
    }

    /// What each Redis node says to it.
    fn asks_all(&self, words: &[&str]) -> Vec<Answer> {
        self.operator.redis.addresses().iter().map(|address| self.asks(address, words)).collect()
    }
}

/// What a Redis node says.
#[derive(Debug, PartialEq)]
enum Answer {
    Done(Reply),
    /// It may, on another node.
    Elsewhere,
    Refused,
    Other(String),
}

/// Why the last record was not taken.
#[derive(Default)]
struct Outcome(std::sync::Mutex<Option<RDKafkaErrorCode>>);

impl ClientContext for Outcome {}

impl ProducerContext for Outcome {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &rdkafka::message::DeliveryResult<'_>, (): ()) {
        let code = result.as_ref().err().and_then(|(error, _)| error.rdkafka_error_code());
        *self.0.lock().expect("not poisoned") = code;
    }
}

/// The first record or refusal a consumer gets.
fn first(consumer: &BaseConsumer) -> Result<Vec<u8>, RDKafkaErrorCode> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => return Ok(message.payload().unwrap_or_default().to_vec()),
            Some(Err(error)) => match error.rdkafka_error_code() {
                // A connection that ended: the client makes another one.
                Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown) => {}
                code => return Err(code.expect("a code")),
            },
            None => {}
        }
    }
    panic!("neither a record nor a refusal");
}

fn started(operator: &Operator<'_>) {
    let (state, foreign) = (format!("{}.state", operator.name), foreign(operator));
    let topic = |name, config| TopicSpec { name, partitions: 1, config };
    let compact: &[_] = &[("cleanup.policy", "compact")];
    create_topics(operator.kafka, &[topic(&state, compact), topic(&foreign, &[])]).expect("topics");
    operator.apply(RESOURCES);
    for (kind, name) in [("evp", "orders"), ("evp", "orders-2"), ("csync", "cache")] {
        operator.wait_condition(kind, name, "Ready", ("True", "Stopped"));
    }
}

/// A topic of somebody else.
fn foreign(operator: &Operator<'_>) -> String {
    format!("foreign.{}", operator.name)
}

#[test]
fn a_generated_user_can_do_what_its_spec_needs_and_nothing_else() {
    let Some(stack) = require_local(&EVERYTHING) else { return };
    let operator = Operator::start(&stack, "access");
    started(&operator);
    let orders = User::of(&operator, "eventpipeline", "evp", "orders");
    let neighbour = User::of(&operator, "eventpipeline", "evp", "orders-2");
    let cache = User::of(&operator, "cachesync", "csync", "cache");

    sees_only_its_topics(&orders, &neighbour, &cache);
    works(&orders);
    kafka_refuses_what_is_foreign(&orders, &neighbour, &cache);
    kafka_refuses_administration(&orders, &neighbour);
    redis_takes_only_its_keys(&orders);
    redis_refuses_administration(&[&orders, &cache]);

    operator.in_namespace(&["delete", "evp,csync", "--all", "--timeout=60s"]);
    clean_up(&operator);
}

/// Brokers learn of users and rights a moment after they are made; then they show what is allowed, and nothing else.
fn sees_only_its_topics(orders: &User<'_>, neighbour: &User<'_>, cache: &User<'_>) {
    let name = |topic: &str| format!("{}.{topic}", orders.operator.name);
    for (user, own) in [
        (orders, vec![name("created"), name("enriched"), name("rejected"), orders.dotted("model")]),
        (neighbour, vec![name("created-2"), neighbour.dotted("model")]),
        (cache, vec![name("state")]),
    ] {
        let own: BTreeSet<String> = own.into_iter().collect();
        let mut seen = None;
        let found = wait_for(PATIENCE, || {
            seen = user.visible().ok();
            (seen.as_ref() == Some(&own)).then_some(())
        });
        assert!(found.is_some(), "{} should see {own:?}, but sees {seen:?}", user.path());
    }
}

/// One record by the way of the worker: read in the group, written in a transaction with its offset, read by the applier.
fn works(user: &User<'_>) {
    let (kafka, name) = (user.operator.kafka, |topic: &str| format!("{}.{topic}", user.operator.name));
    let source: BaseProducer = kafka.client_config().create().expect("a producer");
    source.send(BaseRecord::<(), str>::to(&name("created")).payload("{}")).expect("queued");
    source.flush(PATIENCE).expect("written");

    let group = user.dotted("processor");
    let consumer = user.consumer(&group, &name("created"));
    assert_eq!(first(&consumer), Ok(b"{}".to_vec()));
    let id = format!("{}/{}-0/0", user.path(), "evp-orders-5d4f");
    let producer = user.transactional(&id).expect("its own id");
    producer.begin_transaction().expect("begun");
    for topic in [name("enriched"), name("rejected"), user.dotted("model")] {
        producer.send(BaseRecord::to(&topic).key("k").payload("out")).expect("queued");
    }
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&name("created"), 0, Offset::Offset(1)).expect("an offset");
    let group_metadata = consumer.group_metadata().expect("a member");
    producer.send_offsets_to_transaction(&offsets, &group_metadata, PATIENCE).expect("its own group");
    producer.commit_transaction(PATIENCE).expect("committed");
    assert_eq!(committed(kafka, &group, &name("created")).expect("offsets"), [(0, 1)].into());
    for topic in [name("enriched"), name("rejected")] {
        assert_eq!(ends(kafka, &topic, true).expect("ends"), [(0, 2)].into(), "a record and a marker in {topic}");
    }
    let applier = user.consumer(&user.dotted("applier"), &user.dotted("model"));
    assert_eq!(first(&applier), Ok(b"out".to_vec()));
}

fn kafka_refuses_what_is_foreign(orders: &User<'_>, neighbour: &User<'_>, cache: &User<'_>) {
    use RDKafkaErrorCode::{GroupAuthorizationFailed, TopicAuthorizationFailed, TransactionalIdAuthorizationFailed};
    let (operator, name) = (orders.operator, |topic: &str| format!("{}.{topic}", orders.operator.name));
    let foreign = foreign(operator);
    // Its own too, the wrong way round: sources are read and outputs written.
    for topic in [&foreign, &name("created"), &name("created-2"), &neighbour.dotted("model")] {
        assert_eq!(orders.writing_refused(topic), Some(TopicAuthorizationFailed), "writing to {topic}");
    }
    let group = orders.dotted("processor");
    for topic in [&foreign, &name("created-2"), &name("enriched"), &name("rejected"), &name("state")] {
        assert_eq!(orders.reading_refused(&group, topic), TopicAuthorizationFailed, "reading {topic}");
    }
    for group in [neighbour.dotted("processor"), format!("{group}-2"), "somebody".to_owned()] {
        assert_eq!(orders.reading_refused(&group, &name("created")), GroupAuthorizationFailed, "in {group}");
    }
    let of = |user: &User<'_>| format!("{}/pod-0/0", user.path());
    for id in [of(neighbour), of(cache), orders.path(), "somebody".to_owned()] {
        assert_eq!(orders.transactional(&id).err(), Some(TransactionalIdAuthorizationFailed), "{id}");
    }
    // A resource without a processor reads, and writes nothing at all.
    assert_eq!(cache.transactional(&of(cache)).err(), Some(TransactionalIdAuthorizationFailed));
    for topic in [&name("state"), &foreign] {
        assert_eq!(cache.writing_refused(topic), Some(TopicAuthorizationFailed), "writing to {topic}");
    }
    for (topic, records) in [(&foreign, 0), (&name("created"), 1), (&name("created-2"), 0), (&name("state"), 0)] {
        assert_eq!(ends(operator.kafka, topic, false).expect("ends"), [(0, records)].into(), "{topic}");
    }
    delete_topics(operator.kafka, &[&foreign]).expect("deleted");
}

/// Asserts that the brokers do not authorise a call, as a whole or in its parts.
fn refused<T: std::fmt::Debug>(what: &str, parts: Result<impl IntoIterator<Item = Result<T, AdminError>>, AdminError>) {
    let outcomes: Vec<Result<T, AdminError>> = match parts {
        Ok(parts) => parts.into_iter().collect(),
        Err(error) => vec![Err(error)],
    };
    let all = outcomes.iter().all(|outcome| outcome.as_ref().is_err_and(|error| error.category() == "Authorization"));
    assert!(all && !outcomes.is_empty(), "{what} should not be authorised: {outcomes:?}");
}

fn kafka_refuses_administration(user: &User<'_>, neighbour: &User<'_>) {
    let (admin, operator) = (user.admin(), user.operator);
    let own = [format!("{}.created", operator.name)];
    let new = NewTopic {
        name: format!("{}.more", operator.name),
        partitions: 1,
        replication_factor: None,
        config: [].into(),
    };
    let principal = Principal::user(&user.kafka.0);
    let binding =
        [AclBinding::allow(&principal, AclOperation::Write, AclResource::Topic, PatternType::Literal, &own[0])];
    let upsert = ScramChange::Upsert {
        user: user.kafka.0.clone(),
        password: "another".into(),
        iterations: 4096,
        salt: vec![7; 16],
    };
    let setting = [(own[0].clone(), [("retention.ms".to_owned(), ConfigChange::Set("1".to_owned()))].into())].into();
    let before = wait_topics_of_orders(operator);
    Runtime::new().expect("a runtime").block_on(async {
        refused("create a topic", admin.create_topics(&[new], false).await.map(BTreeMap::into_values));
        refused("delete its topic", admin.delete_topics(&own).await.map(BTreeMap::into_values));
        let grown = [(own[0].clone(), 2)].into();
        refused("grow its topic", admin.create_partitions(&grown).await.map(BTreeMap::into_values));
        refused("set a topic", admin.alter_topic_configs(&setting).await.map(BTreeMap::into_values));
        refused("give itself rights", admin.create_acls(&binding).await);
        // librdkafka shows a refusal of this as an empty answer.
        assert_eq!(admin.describe_acls(&AclFilter::default()).await, Ok(Vec::new()), "it sees no rights");
        refused("take rights", admin.delete_acls(&binding).await);
        refused("change its password", admin.alter_scram_users(&[upsert]).await.map(BTreeMap::into_values));
        let groups = [user.dotted("processor")];
        refused("delete its group", admin.delete_groups(&groups).await.map(BTreeMap::into_values));
        let group = neighbour.dotted("processor");
        let one = std::slice::from_ref(&group);
        refused("look at a foreign group", admin.describe_groups(one).await.map(BTreeMap::into_values));
        let offsets = admin.list_group_offsets(&group, None, true).await;
        refused("read foreign offsets", offsets.map(|offsets| [Ok(offsets)]));
        let commit = CommittedOffset { offset: 0, metadata: String::new() };
        let commits = [(TopicPartition::new(&own[0], 0), commit)].into();
        let commits = admin.alter_group_offsets(&group, &commits).await;
        refused("commit in a foreign group", commits.map(BTreeMap::into_values));
    });
    assert_eq!(wait_topics_of_orders(operator), before, "nothing became of it");
}

/// Ids of the topics that begin with the test's name.
fn wait_topics_of_orders(operator: &Operator<'_>) -> BTreeMap<String, String> {
    wait_topics(operator, &["created", "enriched", "rejected", "created-2", "state"])
}

/// Every node is asked: each has users of its own.
fn redis_takes_only_its_keys(user: &User<'_>) {
    let operator = user.operator;
    let key = |key: &str| format!("{}:{key}", operator.name);
    let (price, order) = (key("price:{t}1"), key("order:{t}1"));
    let foreign = [key("stock:{t}1"), key("orders:{t}1"), key("cache:{t}1"), key("order"), "other:{t}1".to_owned()];
    let redis = |words: &[&str]| {
        let words: Vec<&str> = std::iter::once("-c").chain(words.iter().copied()).collect();
        operator.redis.cli(1, &words).expect("redis")
    };
    redis(&["SET", &price, "kept"]);
    for key in &foreign {
        redis(&["SET", key, "kept"]);
    }

    let set = "return redis.call('SET', KEYS[1], 'mine')";
    let own: &[&[&str]] = &[
        &["GET", &price],
        &["EXISTS", &price],
        &["SET", &order, "mine"],
        &["GET", &order],
        &["EVAL", set, "1", &order],
        &["DEL", &order],
    ];
    for words in own {
        let answers = user.asks_all(words);
        let done = answers.iter().filter(|answer| matches!(answer, Answer::Done(_))).count();
        let elsewhere = answers.iter().filter(|answer| **answer == Answer::Elsewhere).count();
        assert!(done > 0 && done + elsewhere == answers.len(), "{words:?}: {answers:?}");
    }

    let mut denied: Vec<Vec<&str>> = vec![vec!["SET", &price, "x"], vec!["DEL", &price], vec!["EXPIRE", &price, "1"]];
    denied.push(vec!["EVAL", set, "1", &price]);
    for key in &foreign {
        denied.extend([vec!["GET", key], vec!["SET", key, "x"], vec!["DEL", key], vec!["EVAL", set, "1", key]]);
        denied.extend([vec!["COPY", &order, key], vec!["RENAME", &order, key]]);
    }
    for words in denied {
        assert!(user.asks_all(&words).iter().all(|answer| *answer == Answer::Refused), "{words:?}");
    }
    // A script has its caller's rights also on keys that it does not name; on the node that has the slot it is run.
    let sneaky = "#!lua flags=allow-cross-slot-keys\nreturn redis.call('SET', ARGV[1], 'x')";
    for key in foreign.iter().chain([&price]).filter(|key| key.contains("{t}")) {
        let answers = user.asks_all(&["EVAL", sneaky, "1", &order, key]);
        let refused = answers.iter().filter(|answer| **answer == Answer::Refused).count();
        let elsewhere = answers.iter().filter(|answer| **answer == Answer::Elsewhere).count();
        assert!(refused > 0 && refused + elsewhere == answers.len(), "{key}: {answers:?}");
    }
    for key in foreign.iter().chain([&price]) {
        assert_eq!(redis(&["GET", key]).trim(), "kept", "{key}");
        redis(&["DEL", key]);
    }
}

fn redis_refuses_administration(users: &[&User<'_>]) {
    let denied = [
        "FLUSHALL",
        "FLUSHDB",
        "KEYS *",
        "SCAN 0",
        "RANDOMKEY",
        "CONFIG GET maxmemory",
        "CONFIG SET maxmemory 1",
        "ACL LIST",
        "ACL SETUSER somebody on",
        "ACL WHOAMI",
        "SCRIPT FLUSH",
        "FUNCTION FLUSH",
        "CLIENT LIST",
        "CLIENT KILL x",
        "CLUSTER NODES",
        "CLUSTER RESET",
        "CLUSTER FAILOVER",
        "MONITOR",
        "REPLICAOF NO ONE",
        "SHUTDOWN NOSAVE",
        "PUBLISH c x",
        "SUBSCRIBE c",
        "SAVE",
        "SWAPDB 0 1",
        "SLOWLOG GET",
        "MODULE LIST",
    ];
    for user in users {
        for words in denied {
            let words: Vec<&str> = words.split(' ').collect();
            let answers = user.asks_all(&words);
            assert!(answers.iter().all(|answer| *answer == Answer::Refused), "{}: {words:?}: {answers:?}", user.path());
        }
    }
}
