//! IO: reads what Kafka has.

use std::collections::{BTreeMap, BTreeSet};

use sluice_clients::kafka::admin::{AdminError, Isolation, OffsetSpec, TopicPartition};
use sluice_crds::names::{GroupId, TopicName};

use super::offsets::{Bounds, ObservedOffsets};
use super::topics::{Observed, ObservedTopics};
use crate::connections::KafkaClient;

/// Topics with their settings; those that do not exist are absent.
pub async fn topics(kafka: &KafkaClient, names: &BTreeSet<&TopicName>) -> Result<ObservedTopics, AdminError> {
    if names.is_empty() {
        return Ok(ObservedTopics::new());
    }
    let asked: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut described = kafka.call(|admin| async move { admin.describe_topics(&asked).await }).await?;
    let mut there = ObservedTopics::new();
    for name in names {
        let Some(outcome) = described.remove(name.as_str()) else {
            return Err(AdminError::Incomplete("describe topics"));
        };
        let Some(topic) = outcome? else { continue };
        let observed = Observed {
            id: topic.id.to_string(),
            partitions: count(topic.partitions.len()),
            replication_factor: topic.partitions.first().map_or(0, |partition| count(partition.replicas.len())),
            config: BTreeMap::new(),
        };
        there.insert((*name).clone(), observed);
    }
    if there.is_empty() {
        return Ok(there);
    }
    let asked: Vec<String> = there.keys().map(ToString::to_string).collect();
    let mut configs = kafka.call(|admin| async move { admin.describe_topic_configs(&asked).await }).await?;
    let mut vanished = Vec::new();
    for (name, observed) in &mut there {
        match configs.remove(name.as_str()) {
            Some(Ok(config)) => {
                observed.config = config.into_iter().filter_map(|(key, entry)| Some((key, entry.value?))).collect();
            }
            Some(Err(AdminError::NotFound(_))) => vanished.push(name.clone()),
            Some(Err(error)) => return Err(error),
            None => return Err(AdminError::Incomplete("describe topic settings")),
        }
    }
    there.retain(|name, _| !vanished.contains(name));
    Ok(there)
}

/// Kafka counts in `i32`.
fn count(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

/// Committed offsets of a group and the bounds of its source partitions.
pub async fn offsets(
    kafka: &KafkaClient,
    group: &GroupId,
    sources: &BTreeMap<&TopicName, i32>,
) -> Result<ObservedOffsets, AdminError> {
    let partitions: BTreeSet<TopicPartition> = sources
        .iter()
        .flat_map(|(topic, count)| (0..*count).map(|partition| TopicPartition::new(topic.as_str(), partition)))
        .collect();
    let (name, asked) = (group.to_string(), partitions.clone());
    let found =
        kafka.call_group(|admin| async move { admin.list_group_offsets(&name, Some(&asked), false).await }).await?;
    if let Some((_, error)) = found.failed.into_iter().next() {
        return Err(error);
    }
    let committed = found.committed.into_iter().map(|(partition, committed)| (partition, committed.offset)).collect();
    let earliest = list(kafka, &partitions, OffsetSpec::Earliest).await?;
    let latest = list(kafka, &partitions, OffsetSpec::Latest).await?;
    let bounds = |partition: &TopicPartition| {
        Some(Bounds { earliest: *earliest.get(partition)?, latest: *latest.get(partition)? })
    };
    let bounds = partitions.iter().filter_map(|partition| Some((partition.clone(), bounds(partition)?))).collect();
    Ok(ObservedOffsets { committed, bounds })
}

async fn list(
    kafka: &KafkaClient,
    partitions: &BTreeSet<TopicPartition>,
    spec: OffsetSpec,
) -> Result<BTreeMap<TopicPartition, i64>, AdminError> {
    let asked = partitions.iter().map(|partition| (partition.clone(), spec)).collect();
    let found = kafka.call(|admin| async move { admin.list_offsets(&asked, Isolation::Uncommitted).await }).await?;
    found.into_iter().map(|(partition, offset)| Ok((partition, offset?))).collect()
}
