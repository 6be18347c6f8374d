//! What the servers hold of a test, by their own tools and by clients that the operator does not use.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::consumer::{BaseConsumer, Consumer};
use sluice_e2e::datapath::kafka::{delete_topics, topic_ids};
use sluice_e2e::stack::kafka::{Compiler, KafkaOptions, Security};
use sluice_e2e::stack::redis::RedisOptions;
use sluice_e2e::stack::{Kafka, OwnedKafka, OwnedRedis, Stack, output, wait_for};

use super::{Operator, PATIENCE};

/// A Kafka and a Redis that no other test uses, with users and rights as the shared ones have.
pub fn own(stack: &Stack, test: &str) -> (OwnedKafka, OwnedRedis) {
    let name = |what: &str| format!("{test}-{what}-{}", std::process::id());
    let bench = KafkaOptions::bench(&name("kafka"));
    let options = KafkaOptions { heap_mib: 256, compiler: Compiler::Quick, security: Security::SaslSsl, ..bench };
    let kafka = stack.start_kafka(&options).expect("a Kafka");
    let options = RedisOptions { tls: true, persistent: true, ..RedisOptions::standalone(&name("redis")) };
    (kafka, stack.start_redis(&options).expect("a Redis"))
}

/// Topics of the test. Not by Kafka's own tool: each call would start a virtual machine, and tests ask until something is so.
pub fn topics(operator: &Operator<'_>) -> BTreeSet<String> {
    listed(operator.kafka).into_iter().filter(|topic| topic.contains(&operator.name)).collect()
}

/// Waits until Kafka has exactly these topics of the test (named without its prefix), and hands back their ids.
pub fn wait_topics(operator: &Operator<'_>, wanted: &[&str]) -> BTreeMap<String, String> {
    let wanted: BTreeSet<String> = wanted.iter().map(|topic| format!("{}.{topic}", operator.name)).collect();
    let mut last = BTreeSet::new();
    let there = wait_for(PATIENCE, || {
        last = listed(operator.kafka).into_iter().filter(|topic| topic.starts_with(&operator.name)).collect();
        (last == wanted).then_some(())
    });
    assert!(there.is_some(), "topics should be {wanted:?}, but are {last:?}\n{}", operator.log());
    ids(operator, &wanted)
}

/// Ids of topics that are there.
pub fn ids(operator: &Operator<'_>, topics: &BTreeSet<String>) -> BTreeMap<String, String> {
    let names: Vec<String> = topics.iter().cloned().collect();
    topic_ids(operator.kafka, &names).expect("ids")
}

fn listed(kafka: &Kafka) -> BTreeSet<String> {
    let consumer: BaseConsumer = kafka.client_config().set("log_level", "0").create().expect("a consumer");
    let metadata = consumer.fetch_metadata(None, PATIENCE).expect("metadata");
    metadata.topics().iter().map(|topic| topic.name().to_owned()).collect()
}

/// Bindings of a resource's user, as Kafka's own tool lists them.
pub fn acls(operator: &Operator<'_>, kind: &str, name: &str) -> Vec<String> {
    let principal = format!("principal=User:sluice/{0}/{0}/{kind}/{name}/a,", operator.name);
    let listed = output(operator.kafka.tool("kafka-acls").expect("a local Kafka").arg("--list")).expect("acls");
    listed.lines().filter(|line| line.contains(&principal)).map(str::to_owned).collect()
}

/// Nodes that know the Redis user of a resource.
pub fn redis_nodes_with_user(operator: &Operator<'_>, kind: &str, name: &str) -> usize {
    let user = format!("user sluice/{0}/{0}/{kind}/{name} ", operator.name);
    let nodes = 1..=operator.redis.addresses().len();
    nodes.filter(|node| operator.redis.cli(*node, &["ACL", "LIST"]).expect("redis").contains(&user)).count()
}

/// Topics that the tests leave: retained ones and their own.
pub fn clean_up(operator: &Operator<'_>) {
    let own = topics(operator);
    if !own.is_empty() {
        let names: Vec<&str> = own.iter().map(String::as_str).collect();
        let _ = delete_topics(operator.kafka, &names);
    }
}
