//! A deletion ends in bounded time, in whatever order things go and whatever is away, and takes what was asked for and was
//! made here, and nothing else. Workers are pods without a program: that they go is what counts.

mod operator;

use std::collections::BTreeMap;

use operator::servers::{acls, clean_up, ids, own, redis_nodes_with_user, wait_topics};
use operator::{EVERYTHING, Operator, PATIENCE};
use serde_json::Value;
use sluice_e2e::datapath::kafka::{TopicSpec, committed, create_topics};
use sluice_e2e::stack::{output, require, require_local, wait_for};

/// Owns a topic that it makes and one that is there, has keys in Redis and a worker. `POLICY` is its deletion policy.
const PIPELINE: &str = r#"
apiVersion: sluice.dev/v1alpha1
kind: EventPipeline
metadata: {name: WHO}
spec:
  deletionPolicy: {POLICY}
  topics: [{name: NAME.WHO, partitions: 1}, {name: NAME.WHO-old, partitions: 1}]
  source: {topics: [{name: NAME.WHO}]}
  routing:
    routes:
    - {name: old, topic: NAME.WHO-old, when: "value.old"}
    - {name: model, views: [{name: order, key: "'NAME:WHO:' + key", type: Json}]}
"#;

const EVERY: &str = "topics: Delete, redisKeys: Delete, consumerGroup: Delete";

/// A pipeline whose workers run, and something of each sort that could be destroyed.
struct Pipeline<'a> {
    operator: &'a Operator<'a>,
    who: &'static str,
    /// Ids of its topics: the one it made, the one that was there, the one of its view.
    topics: BTreeMap<String, String>,
}

impl<'a> Pipeline<'a> {
    /// One that keeps everything and one that takes everything, both with workers that run.
    fn pair(operator: &'a Operator<'a>, kept: &'static str, other: &'static str) -> (Self, Self) {
        let (kept, other) = (Self::apply(operator, kept, ""), Self::apply(operator, other, EVERY));
        (kept.running(), other.running())
    }

    fn apply(operator: &'a Operator<'a>, who: &'static str, policy: &str) -> Self {
        let pipeline = Self { operator, who, topics: BTreeMap::new() };
        let spec = TopicSpec { name: &pipeline.old(), partitions: 1, config: &[] };
        create_topics(operator.kafka, &[spec]).expect("a topic");
        operator.apply(&PIPELINE.replace("WHO", who).replace("POLICY", policy));
        pipeline
    }

    /// Waits for its worker, and gives it something that could be destroyed.
    fn running(self) -> Self {
        let (operator, who) = (self.operator, self.who);
        let running = wait_for(PATIENCE, || (self.pods() == 1).then_some(()));
        assert!(running.is_some(), "{who} has no worker: {:#?}\n{}", self.object(), operator.log());
        self.cli(&["SET", &self.key(), "kept"]);
        let names = [format!("{}.{who}", operator.name), self.old(), self.dotted("model")];
        let topics = ids(operator, &names.into());
        Self { topics, ..self }
    }

    /// The topic that is there before it.
    fn old(&self) -> String {
        format!("{}.{}-old", self.operator.name, self.who)
    }

    fn dotted(&self, last: &str) -> String {
        format!("sluice.{0}.{0}.eventpipeline.{1}.{last}", self.operator.name, self.who)
    }

    fn key(&self) -> String {
        format!("{}:{}:1", self.operator.name, self.who)
    }

    fn cli(&self, words: &[&str]) -> String {
        let words: Vec<&str> = std::iter::once("-c").chain(words.iter().copied()).collect();
        self.operator.redis.cli(1, &words).expect("redis")
    }

    /// Pods of its workers that are not ended.
    fn pods(&self) -> usize {
        let selector = format!("app.kubernetes.io/instance=evp-{}", self.who);
        let arguments = ["get", "pods", "-l", &selector, "--field-selector=status.phase=Running", "-o", "name"];
        self.operator.in_namespace(&arguments).lines().count()
    }

    /// Deletes it; an error when it is not gone after so many seconds.
    fn delete(&self, seconds: u32) {
        let (name, timeout) = (format!("evp/{}", self.who), format!("--timeout={seconds}s"));
        let deleted = output(self.operator.kube.kubectl().args(["-n", &self.operator.name, "delete", &name, &timeout]));
        deleted.unwrap_or_else(|error| panic!("{error}: {:#?}\n{}", self.object(), self.operator.log()));
    }

    fn object(&self) -> Option<Value> {
        self.operator.get("evp", self.who)
    }

    /// Asserts that its workers and their Deployment go.
    fn workers_are_gone(&self) {
        let child = format!("evp-{}", self.who);
        let gone = wait_for(PATIENCE, || {
            (self.pods() == 0 && self.operator.get("deployment", &child).is_none()).then_some(())
        });
        assert!(gone.is_some(), "workers of {} go with it", self.who);
    }

    /// Asserts that whoever waits for the deletion is told what it waits for and why, and that nothing has happened yet.
    fn waits(&self, what: &[&str]) {
        let mut last = None;
        let told = wait_for(PATIENCE, || {
            last = self.object();
            let conditions = last.as_ref()?["status"]["conditions"].as_array()?;
            let of = |type_: &str| conditions.iter().find(|condition| condition["type"] == type_);
            let (ready, workers) = (of("Ready")?, of("WorkersReady")?);
            let message = workers["message"].as_str()?;
            let told = ready["status"] == "False" && ready["reason"] == "Deleting" && workers["reason"] == "Deleting";
            (told && what.iter().all(|word| message.contains(word))).then_some(())
        });
        assert!(told.is_some(), "it should say {what:?}: {last:#?}\n{}", self.operator.log());
        let name = format!("evp/{}", self.who);
        let wait = ["-n", &self.operator.name, "wait", "--for=delete", "--timeout=1s", &name];
        assert!(output(self.operator.kube.kubectl().args(wait)).is_err(), "{name} should still be there");
    }

    /// Asserts that no worker runs while the rest waits.
    fn workers_stop(&self) {
        let stopped = wait_for(PATIENCE, || (self.pods() == 0).then_some(()));
        assert!(stopped.is_some(), "workers of {} stop first", self.who);
    }

    /// Asserts that it goes.
    fn is_gone(&self) {
        let gone = wait_for(PATIENCE, || self.object().is_none().then_some(()));
        assert!(gone.is_some(), "{:#?}\n{}", self.object(), self.operator.log());
    }

    /// Asserts that everything of it outside Kubernetes is as it was.
    fn kept(&self) {
        let names = self.topics.keys().cloned().collect();
        assert_eq!(ids(self.operator, &names), self.topics, "the same topics");
        assert_eq!(self.cli(&["GET", &self.key()]).trim(), "kept");
        let (group, source) = (self.dotted("processor"), format!("{}.{}", self.operator.name, self.who));
        assert_eq!(committed(self.operator.kafka, &group, &source).expect("offsets"), [(0, 0)].into());
    }

    /// Asserts that its users and their rights go.
    fn users_are_gone(&self) {
        let gone = wait_for(PATIENCE, || {
            let users = redis_nodes_with_user(self.operator, "eventpipeline", self.who);
            (users == 0 && acls(self.operator, "eventpipeline", self.who).is_empty()).then_some(())
        });
        assert!(gone.is_some(), "nobody may log in as {}: {}", self.who, self.operator.log());
    }

    /// Asserts that what was made for it is gone, and that what was there before is not.
    fn taken(&self) {
        let old = self.old();
        let left = wait_for(PATIENCE, || {
            let left = self.left();
            (left == [old.clone()]).then_some(())
        });
        assert!(left.is_some(), "topics left: {:?}\n{}", self.left(), self.operator.log());
        assert_eq!(ids(self.operator, &[old.clone()].into())[&old], self.topics[&old], "nobody made it here");
        assert_eq!(self.cli(&["EXISTS", &self.key()]).trim(), "0");
    }

    fn left(&self) -> Vec<String> {
        let names: Vec<String> = self.topics.keys().cloned().collect();
        sluice_e2e::datapath::kafka::existing(self.operator.kafka, &names).expect("topics")
    }
}

/// On servers of its own: up, then Kafka without a word, then Redis dead. Nobody gives up meanwhile.
#[test]
fn a_deletion_takes_what_it_is_told_and_waits_for_servers_that_are_away() {
    let Some(stack) = require_local(&EVERYTHING) else { return };
    let (kafka, redis) = own(&stack, "deletion");
    let mut operator = Operator::start_on(&stack, &kafka, &redis, "deletion");
    operator.deletion_deadline = 3_600;
    operator.write_settings(kafka.bootstrap(), &redis.addresses()[0]);
    let pair = |kept: &'static str, other: &'static str| Pipeline::pair(&operator, kept, other);
    let (kept, taken) = pair("kept", "taken");
    kept.delete(60);
    kept.workers_are_gone();
    taken.delete(90);
    taken.workers_are_gone();
    taken.taken();
    kept.kept();
    kept.users_are_gone();
    taken.users_are_gone();

    let (kept, waiting) = pair("kept2", "waiting");
    let (broker, server) = (kafka.broker(1).expect("the only one"), redis.node(1).expect("the only one"));
    broker.freeze().expect("frozen");
    operator.in_namespace(&["delete", "evp/waiting", "--wait=false"]);
    kept.delete(60);
    kept.workers_are_gone();
    waiting.workers_stop();
    waiting.waits(&["redis keys", "kafka"]);
    broker.thaw().expect("goes on");
    waiting.is_gone();
    waiting.taken();
    kept.kept();

    let (kept, released) = pair("kept3", "released");
    server.kill9().expect("killed");
    operator.in_namespace(&["delete", "evp/released", "--wait=false"]);
    kept.delete(60);
    kept.workers_are_gone();
    released.waits(&["redis keys"]);
    operator.command(&["release-finalizers", "--watch-namespace", &operator.name]);
    released.is_gone();
    released.workers_are_gone();
    server.start_and_wait().expect("started again");
    kept.kept();
    released.kept();
}

/// The operator is one of the whole cluster here: the rights of one for a namespace go with that.
#[test]
fn a_namespace_that_goes_takes_what_it_is_told() {
    let Some(stack) = require(&EVERYTHING) else { return };
    let mut operator = Operator::start(&stack, "namespace");
    operator.kill();
    operator.be_administrator();
    operator.deletion_deadline = 3_600;
    operator
        .write_settings(&operator.kafka.bootstrap().replace(',', "\", \""), &operator.redis.addresses().join("\", \""));
    operator.run();
    let (kept, taken) = Pipeline::pair(&operator, "kept", "taken");
    let finalizer = wait_for(PATIENCE, || taken.object()?["metadata"]["finalizers"].as_array().map(drop));
    assert!(finalizer.is_some(), "something is to be deleted");
    operator.kubectl(&["delete", "namespace", &operator.name, "--timeout=120s"]);
    taken.taken();
    kept.kept();
    wait_topics(&operator, &["kept", "kept-old", "taken-old"]);
    kept.cli(&["DEL", &kept.key()]);
    clean_up(&operator);
}
