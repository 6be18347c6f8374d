//! Topics, offsets and full dumps by librdkafka.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Headers;
use rdkafka::{Message, Offset, TopicPartitionList};

use sluice_clients::kafka::admin::{AdminError, TopicDescription};

use super::error::During;
use super::{HarnessError, wait_for};
use crate::checker::{Record, TopicDump};
use crate::stack::Kafka;

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs one of the admin client's futures; its own thread drives it.
fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime without drivers needs nothing").block_on(future)
}

/// A topic to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicSpec<'a> {
    /// Name.
    pub name: &'a str,
    /// Partitions.
    pub partitions: i32,
    /// Settings.
    pub config: &'a [(&'a str, &'a str)],
}

/// Makes topics with the broker's default replication and waits until clients can use them.
pub fn create_topics(kafka: &Kafka, topics: &[TopicSpec<'_>]) -> Result<(), HarnessError> {
    let admin: AdminClient<DefaultClientContext> = kafka.client_config().create().during("making an admin client")?;
    let new: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|topic| {
            let new = NewTopic::new(topic.name, topic.partitions, TopicReplication::Fixed(-1));
            topic.config.iter().fold(new, |new, (name, value)| new.set(name, value))
        })
        .collect();
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
    let outcomes = block_on(admin.create_topics(&new, &options)).during("creating topics")?;
    for outcome in outcomes {
        outcome
            .map_err(|(_, code)| HarnessError::Kafka { what: "creating a topic", source: KafkaError::AdminOp(code) })?;
    }
    let consumer = reader(kafka, "uncommitted")?;
    for topic in topics {
        wait_for(&format!("topic {} in the metadata", topic.name), PATIENCE, || {
            Ok(partitions_now(&consumer, topic.name).ok().filter(|found| found.len() == topic.partitions as usize))
        })?;
    }
    Ok(())
}

/// Ids of these topics, as the configuration of a worker names them.
pub fn topic_ids(kafka: &Kafka, topics: &[String]) -> Result<BTreeMap<String, String>, HarnessError> {
    // Brokers learn of a new topic one after another.
    wait_for(&format!("ids of {}", topics.join(", ")), PATIENCE, || {
        Ok(known_ids(kafka, topics)?.into_iter().map(|(topic, id)| Some((topic, id?))).collect())
    })
}

/// Those of these topics that are there.
pub fn existing(kafka: &Kafka, topics: &[String]) -> Result<Vec<String>, HarnessError> {
    Ok(known_ids(kafka, topics)?.into_iter().filter_map(|(topic, id)| id.map(|_| topic)).collect())
}

/// Waits until none of these topics is there.
pub fn wait_gone(kafka: &Kafka, topics: &[String]) -> Result<(), HarnessError> {
    wait_for("deleted topics gone", PATIENCE, || {
        Ok(known_ids(kafka, topics)?.values().all(Option::is_none).then_some(()))
    })
}

fn undescribed(message: String) -> HarnessError {
    HarnessError::Process { name: "describing topics".into(), message }
}

fn known_ids(kafka: &Kafka, topics: &[String]) -> Result<BTreeMap<String, Option<String>>, HarnessError> {
    let failed = |error: &dyn std::fmt::Display| undescribed(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let described = runtime.map_err(|error| failed(&error))?.block_on(async {
        sluice_clients::kafka::admin::Admin::new(&kafka.client_config(), PATIENCE)?.describe_topics(topics).await
    });
    let described = described.map_err(|error| failed(&error))?.into_iter();
    let id = |(topic, found): (String, Result<Option<TopicDescription>, AdminError>)| {
        let found = found.map_err(|error| failed(&error))?;
        Ok((topic, found.map(|found| found.id.as_str().to_owned())))
    };
    described.map(id).collect()
}

/// Deletes topics; what is not there is no error.
pub fn delete_topics(kafka: &Kafka, topics: &[&str]) -> Result<(), HarnessError> {
    let admin: AdminClient<DefaultClientContext> = kafka.client_config().create().during("making an admin client")?;
    block_on(admin.delete_topics(topics, &AdminOptions::new())).during("deleting topics").map(drop)
}

/// A consumer without a group of its own that reads what `isolation` (`committed`, `uncommitted`) shows.
pub(crate) fn reader(kafka: &Kafka, isolation: &str) -> Result<BaseConsumer, HarnessError> {
    grouped(kafka, "sluice-e2e-reader", isolation)
}

/// A consumer that has a group's name, for its offsets; it never joins.
pub(crate) fn grouped(kafka: &Kafka, group: &str, isolation: &str) -> Result<BaseConsumer, HarnessError> {
    let mut config = kafka.client_config();
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", format!("read_{isolation}"))
        .set("log_level", "0");
    config.create().during("making a consumer")
}

/// The partitions of a topic that is there: a broker that does not know it yet is asked again.
fn partitions(consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>, HarnessError> {
    wait_for(&format!("topic {topic} in the metadata"), PATIENCE, || {
        Ok(Some(partitions_now(consumer, topic)?).filter(|found| !found.is_empty()))
    })
}

fn partitions_now(consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>, HarnessError> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).during("reading metadata")?;
    let partitions = metadata.topics().iter().filter(|found| found.name() == topic).flat_map(|found| {
        found
            .partitions()
            .iter()
            .filter(|partition| partition.leader() >= 0)
            .map(rdkafka::metadata::MetadataPartition::id)
    });
    Ok(partitions.collect())
}

/// The offset after the last record or marker of each partition; with `committed`, of the last stable one.
pub fn ends(kafka: &Kafka, topic: &str, committed: bool) -> Result<BTreeMap<i32, i64>, HarnessError> {
    let consumer = reader(kafka, if committed { "committed" } else { "uncommitted" })?;
    ends_by(&consumer, topic)
}

/// As [`ends`], by a reader whose isolation decides.
pub(crate) fn ends_by(consumer: &BaseConsumer, topic: &str) -> Result<BTreeMap<i32, i64>, HarnessError> {
    let end = |partition| {
        let (_, high) = consumer.fetch_watermarks(topic, partition, PATIENCE).during("reading watermarks")?;
        Ok((partition, high))
    };
    partitions(consumer, topic)?.into_iter().map(end).collect()
}

/// The end of each partition for a `read_committed` reader, once no transaction is open.
pub fn dump_ends(kafka: &Kafka, topic: &str) -> Result<BTreeMap<i32, i64>, HarnessError> {
    stable_ends(&reader(kafka, "committed")?, &reader(kafka, "uncommitted")?, topic)
}

fn stable_ends(
    committed: &BaseConsumer,
    uncommitted: &BaseConsumer,
    topic: &str,
) -> Result<BTreeMap<i32, i64>, HarnessError> {
    wait_for("no open transaction", PATIENCE, || {
        let (stable, all) = (ends_by(committed, topic)?, ends_by(uncommitted, topic)?);
        Ok((stable == all).then_some(stable))
    })
}

/// Commits offset 0 of every partition for a group without members, as the operator does before the first worker starts.
pub fn commit_start(kafka: &Kafka, group: &str, topic: &str) -> Result<(), HarnessError> {
    let consumer = grouped(kafka, group, "committed")?;
    let mut list = TopicPartitionList::new();
    for partition in partitions(&consumer, topic)? {
        list.add_partition_offset(topic, partition, Offset::Offset(0)).during("naming an offset")?;
    }
    wait_for(&format!("start offsets of {group}"), PATIENCE, || {
        Ok(consumer.commit(&list, CommitMode::Sync).is_ok().then_some(()))
    })
}

/// A group's committed offsets; offsets of transactions in flight are waited for.
pub fn committed(kafka: &Kafka, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>, HarnessError> {
    committed_by(&grouped(kafka, group, "committed")?, topic)
}

/// As [`committed`], by a consumer that has the group's name.
pub(crate) fn committed_by(consumer: &BaseConsumer, topic: &str) -> Result<BTreeMap<i32, i64>, HarnessError> {
    let mut list = TopicPartitionList::new();
    for partition in partitions(consumer, topic)? {
        list.add_partition(topic, partition);
    }
    let found = consumer.committed_offsets(list, PATIENCE).during("reading committed offsets")?;
    let offsets = found.elements().into_iter().filter_map(|element| match element.offset() {
        Offset::Offset(offset) => Some((element.partition(), offset)),
        _ => None,
    });
    Ok(offsets.collect())
}

/// All committed records of a topic, once no transaction is open: the markers of the last one follow the offsets it committed
/// within a moment.
pub fn dump(kafka: &Kafka, topic: &str) -> Result<TopicDump, HarnessError> {
    let consumer = reader(kafka, "committed")?;
    let ends = stable_ends(&consumer, &reader(kafka, "uncommitted")?, topic)?;
    let mut list = TopicPartitionList::new();
    for &partition in ends.keys() {
        list.add_partition_offset(topic, partition, Offset::Beginning).during("naming an offset")?;
    }
    consumer.assign(&list).during("assigning")?;
    // An end is told again when the topic has grown meanwhile: it counts once.
    let (mut records, mut open) = (Vec::new(), ends.keys().copied().collect::<BTreeSet<i32>>());
    let mut idle = Instant::now();
    while !open.is_empty() {
        match consumer.poll(Duration::from_millis(500)) {
            Some(Ok(message)) => {
                records.push(record(&message));
                idle = Instant::now();
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
            Some(Err(source)) => return Err(HarnessError::Kafka { what: "dumping", source }),
            None if idle.elapsed() > PATIENCE => {
                return Err(HarnessError::Timeout { what: format!("the end of {topic}"), seconds: PATIENCE.as_secs() });
            }
            None => {}
        }
    }
    Ok(TopicDump::new(topic, records, ends))
}

/// A record as it came by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// When it arrived, in milliseconds since 1970.
    pub at_ms: i64,
    /// The record's timestamp.
    pub timestamp_ms: i64,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Key.
    pub key: Vec<u8>,
}

/// Follows a topic from its beginning, `read_committed`, and notes when each record arrives.
pub struct Follower {
    consumer: BaseConsumer,
}

impl Follower {
    /// Starts at the beginning.
    pub fn start(kafka: &Kafka, topic: &str) -> Result<Self, HarnessError> {
        let mut config = kafka.client_config();
        config
            .set("group.id", "sluice-e2e-follower")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("fetch.wait.max.ms", "5")
            .set("log_level", "0");
        let consumer: BaseConsumer = config.create().during("making a consumer")?;
        let mut list = TopicPartitionList::new();
        for partition in partitions(&consumer, topic)? {
            list.add_partition_offset(topic, partition, Offset::Beginning).during("naming an offset")?;
        }
        consumer.assign(&list).during("assigning")?;
        Ok(Self { consumer })
    }

    /// The next record, if one comes in time.
    pub fn next(&mut self, limit: Duration) -> Result<Option<Arrival>, HarnessError> {
        let Some(message) = self.consumer.poll(limit) else { return Ok(None) };
        let message = message.during("following")?;
        Ok(Some(Arrival {
            at_ms: super::now_ms(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().unwrap_or_default().to_vec(),
        }))
    }
}

fn record(message: &impl Message) -> Record {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec())).collect()
    });
    Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
    }
}
