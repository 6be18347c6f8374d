//! What is still missing when the brokers answer: the administrator's login, and coordinators for groups and transactions.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{ClientConfig, TopicPartitionList};
use secrecy::ExposeSecret;
use sluice_clients::kafka::admin::{Admin, AdminError, ScramChange};

use super::{KafkaCluster, Security};
use crate::stack::command::wait_for;
use crate::stack::error::StackError;
use crate::stack::files;

/// Longest wait for a login, and for all coordinators.
const LIMIT: Duration = Duration::from_secs(180);
/// Longest single question to a broker.
const QUESTION: Duration = Duration::from_secs(10);
/// Partitions of each internal topic, as `config.rs` sets them.
pub(super) const COORDINATORS: usize = 8;

/// Waits until the super user can log in at every broker, and every group and transaction has a coordinator that answers.
///
/// Kafka 4.1 can forget users: a broker that replays its whole metadata log at once drops every one of them if one was removed
/// while there was no other (`ScramDelta`). The administrator is then put back from the loopback listener; other users are
/// lost to that broker until they are written again, as they would be in production. Hands back the brokers that had lost it.
pub(crate) fn settle(cluster: &KafkaCluster) -> Result<Vec<SocketAddr>, StackError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| StackError::Spawn { program: "a runtime".into(), source })?;
    let had_lost = runtime.block_on(async {
        let mut had_lost = Vec::new();
        if cluster.security == Security::SaslSsl {
            for broker in &cluster.brokers {
                had_lost.extend(log_in(cluster, *broker).await?.then_some(*broker));
            }
        }
        Ok::<_, StackError>(had_lost)
    })?;
    coordinate(cluster).map(|()| had_lost)
}

/// Waits for the login; true if the administrator had to be written again for it.
async fn log_in(cluster: &KafkaCluster, broker: SocketAddr) -> Result<bool, StackError> {
    let password = files::read_secret(&cluster.password_file)?;
    let salt = files::random_hex(16)?.into_bytes();
    let user = cluster.username.clone();
    let upsert = [ScramChange::Upsert { user, password: password.clone(), iterations: 4096, salt }];
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", broker.to_string())
        .set("security.protocol", "SASL_SSL")
        .set("sasl.mechanism", "SCRAM-SHA-512")
        .set("sasl.username", &cluster.username)
        .set("sasl.password", password.expose_secret())
        .set("ssl.ca.location", cluster.ca_file.display().to_string());
    let written = Cell::new(false);
    until(&format!("the administrator cannot log in at {broker}"), async || {
        // A new client each time: one that was refused waits longer and longer.
        match Admin::new(&config, QUESTION)?.describe_topics(&["anything".to_owned()]).await {
            Err(AdminError::Authentication(_)) => {
                written.set(true);
                Admin::new(&internal(cluster), QUESTION)?.alter_scram_users(&upsert).await.map(|_| false)
            }
            other => other.map(|_| true),
        }
    })
    .await?;
    Ok(written.get())
}

/// Asking for a coordinator makes its internal topic. Kafka spreads names over the partitions by Java's hash code, in which names
/// that differ in the last character are neighbours: these meet every partition.
///
/// By ordinary clients, which ask again themselves while a coordinator loads. The admin calls about groups would be the shorter
/// way, but librdkafka aborts the process when one of them fails at a bad moment (its issue 4605).
fn coordinate(cluster: &KafkaCluster) -> Result<(), StackError> {
    std::thread::scope(|scope| {
        let names: [String; COORDINATORS] = std::array::from_fn(|index| format!("stack-ready-{index}"));
        let groups = names.clone().map(|name| scope.spawn(move || ask("groups", || group_answers(cluster, &name))));
        let transactions =
            names.map(|name| scope.spawn(move || ask("transactions", || transaction_answers(cluster, &name))));
        let mut asking = groups.into_iter().chain(transactions);
        asking.try_for_each(|thread| thread.join().expect("asking does not panic"))
    })
}

fn group_answers(cluster: &KafkaCluster, name: &str) -> KafkaResult<()> {
    let consumer: BaseConsumer = internal(cluster).set("group.id", name).create()?;
    let mut anything = TopicPartitionList::new();
    anything.add_partition("__consumer_offsets", 0);
    consumer.committed_offsets(anything, LIMIT).map(drop)
}

fn transaction_answers(cluster: &KafkaCluster, name: &str) -> KafkaResult<()> {
    let producer: BaseProducer = internal(cluster).set("transactional.id", name).create()?;
    producer.init_transactions(LIMIT)
}

fn ask(what: &str, question: impl Fn() -> KafkaResult<()>) -> Result<(), StackError> {
    let mut last = String::new();
    let answered = wait_for(LIMIT, || question().map_err(|error| last = error.to_string()).ok());
    answered.ok_or_else(|| timed_out(&format!("coordinators of {what} do not answer"), &last))
}

fn internal(cluster: &KafkaCluster) -> ClientConfig {
    let brokers: Vec<String> = cluster.internal.iter().map(ToString::to_string).collect();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers.join(",")).set("log_level", "0");
    config
}

/// Asks until it is so; an error is asked again as well.
async fn until(what: &str, ask: impl AsyncFn() -> Result<bool, AdminError>) -> Result<(), StackError> {
    let deadline = tokio::time::Instant::now() + LIMIT;
    let mut last = String::new();
    while tokio::time::Instant::now() < deadline {
        match ask().await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(timed_out(what, &last))
}

fn timed_out(what: &str, last: &str) -> StackError {
    StackError::Timeout { what: what.to_owned(), seconds: LIMIT.as_secs(), detail: format!(": {last}") }
}
