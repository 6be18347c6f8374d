//! Admin calls against real, secured brokers.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

mod groups;
#[path = "../stack/mod.rs"]
mod stack;
mod topics;
mod users;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sluice_clients::kafka::admin::{AclFilter, Admin, Isolation, NewTopic, TopicCreation, TopicDescription};

const DEADLINE: Duration = Duration::from_secs(60);

fn admin() -> Admin {
    Admin::new(&stack::kafka_as_admin(), DEADLINE).unwrap()
}

fn topic(name: &str, partitions: u32) -> NewTopic {
    NewTopic { name: name.to_owned(), partitions, replication_factor: None, config: BTreeMap::new() }
}

fn names<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).to_vec()
}

/// Creates a topic and waits until the broker that is asked knows it.
async fn created(admin: &Admin, topic: NewTopic) -> TopicDescription {
    let name = topic.name.clone();
    let outcomes = admin.create_topics(&[topic], false).await.unwrap();
    assert_eq!(outcomes[&name], Ok(TopicCreation::Created));
    described(admin, &name).await
}

async fn described(admin: &Admin, name: &str) -> TopicDescription {
    stack::until("the topic is known with leaders", || async {
        let mut outcomes = admin.describe_topics(&names([name])).await.unwrap();
        let found = outcomes.remove(name).unwrap().unwrap()?;
        found.partitions.iter().all(|partition| partition.leader.is_some()).then_some(found)
    })
    .await
}

#[tokio::test]
async fn refusals_are_told_apart() {
    if stack::missing("KAFKA_BROKERS") {
        return;
    }
    let admin = admin();
    let name = stack::unique("refusals");
    let too_many = NewTopic { replication_factor: Some(99), ..topic(&name, 1) };
    let mut bad_setting = topic(&stack::unique("setting"), 1);
    bad_setting.config.insert("retention.ms".into(), "soon".into());
    let outcomes = admin.create_topics(&[too_many, bad_setting.clone()], false).await.unwrap();
    for outcome in outcomes.values() {
        let error = outcome.as_ref().unwrap_err();
        assert_eq!((error.category(), error.retryable()), ("Rejected", false), "{error}");
    }
    assert!(outcomes[&bad_setting.name].as_ref().unwrap_err().to_string().contains("retention.ms"), "{outcomes:?}");
    let missing = admin.describe_topic_configs(&names([&name])).await.unwrap();
    assert_eq!(missing[&name].as_ref().unwrap_err().category(), "NotFound");
    let zero = admin.create_topics(&[topic("a\0b", 1)], false).await.unwrap_err();
    assert_eq!(zero.category(), "InvalidArgument");
    let empty = admin.create_topics(&[topic("", 1)], false).await;
    assert!(empty.is_err() || empty.unwrap().values().all(Result::is_err));
    assert!(admin.create_topics(&[], false).await.unwrap().is_empty());

    // The time is waited out: a login may be refused because its user is not known yet.
    let liar = Admin::new(&stack::kafka_as("admin", "wrong"), Duration::from_secs(10)).unwrap();
    let error = liar.describe_topics(&names([&name])).await.unwrap_err();
    assert_eq!((error.category(), error.retryable()), ("Authentication", false), "{error}");
    assert!(!error.to_string().contains("wrong"), "no secret in {error}");
}

/// Needs no broker: nothing listens on the port.
#[tokio::test]
async fn nobody_there_ends_by_the_deadline() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", format!("127.0.0.1:{port}"));
    let admin = Admin::new(&config, Duration::from_millis(700)).unwrap();
    let start = Instant::now();
    let calls = futures::future::join_all((0..20).map(|_| async {
        let name = names(["anything"]);
        admin.describe_topics(&name).await
    }));
    for outcome in calls.await {
        let error = outcome.unwrap_err();
        assert_eq!((error.category(), error.retryable()), ("TimedOut", true), "{error}");
    }
    // The client's own time-outs are a minute: ten seconds more are the machine's.
    assert!(start.elapsed() < Duration::from_secs(10), "took {:?}", start.elapsed());
    assert!(admin.last_trouble().unwrap().contains(&port.to_string()));

    // A caller that gives up early leaves nothing behind, and closing does not wait for a call under way, which has a minute.
    let admin = Admin::new(&config, DEADLINE).unwrap();
    let short = tokio::time::timeout(Duration::from_millis(20), admin.describe_topics(&names(["x"]))).await;
    assert!(short.is_err());
    let start = Instant::now();
    drop(admin);
    assert!(start.elapsed() < Duration::from_secs(10), "closing took {:?}", start.elapsed());
}

/// Tasks of a multi-threaded runtime must be able to hold these futures.
#[test]
fn calls_can_be_spawned() {
    fn sendable<T: Send>(_: T) {}
    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", "127.0.0.1:1");
    let admin = Admin::new(&config, DEADLINE).unwrap();
    sendable(admin.create_topics(&[], false));
    sendable(admin.alter_topic_configs(&BTreeMap::new()));
    sendable(admin.describe_acls(&AclFilter::default()));
    sendable(admin.alter_scram_users(&[]));
    sendable(admin.list_group_offsets("g", None, true));
    sendable(admin.list_offsets(&BTreeMap::new(), Isolation::Committed));
}
