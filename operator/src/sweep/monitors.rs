//! IO: one round over the groups of others on one Kafka connection, which the settings name as `lagMonitors`.
//!
//! Their lag is the distance to the last stable offset, which is where a `read_committed` reader ends: a topic that is read
//! to its end has lag 0 as soon as the group has committed past the last transaction's marker.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use sluice_clients::kafka::admin::{AdminError, Isolation, OffsetSpec, TopicPartition};

use super::board::Board;
use super::kafka::{Topics, bounds, described, read_all};
use super::lag::{EndHistory, PartitionLag};
use super::offsets::Committed;
use crate::connections::KafkaClient;
use crate::settings::{ConnectionName, LagMonitor, Settings};

/// Most partitions that are looked at on one connection: each has a history of its ends in memory, about 1 KiB.
const MAX_PARTITIONS: usize = 5_000;

/// What is remembered between rounds.
#[derive(Debug, Default)]
pub(super) struct Memory {
    ends: HashMap<TopicPartition, EndHistory>,
    /// What was wrong with which group and topic: said once.
    told: BTreeMap<(String, String), String>,
}

/// What the last round found on a connection.
#[derive(Debug, Default)]
pub(super) struct Foreign {
    /// When, Unix milliseconds.
    at: i64,
    /// Lag by group, topic, partition.
    pub(super) lags: BTreeMap<(String, String, i32), PartitionLag>,
}

/// Partitions of the monitored topics of each group, and why others are not looked at.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    topics: BTreeMap<String, BTreeMap<String, i32>>,
    problems: BTreeMap<(String, String), String>,
}

/// Reads the groups and puts what they say on the board.
pub(super) async fn round(
    board: &Board,
    kafka: &KafkaClient,
    connection: &ConnectionName,
    monitors: &[Arc<LagMonitor>],
    memory: &mut Memory,
    now: i64,
) -> Result<(), AdminError> {
    if monitors.is_empty() {
        *memory = Memory::default();
        return Ok(());
    }
    let names: BTreeSet<String> = monitors.iter().flat_map(|m| &m.topics).map(ToString::to_string).collect();
    let mut plan = plan(monitors, &described(kafka, names.into_iter().collect()).await?);
    let groups = plan.topics.keys().cloned().collect();
    let (committed, failed) = read_all(kafka, groups).await?;
    let partitions = plan.topics.values().flatten();
    let wanted: BTreeSet<TopicPartition> =
        partitions.flat_map(|(topic, count)| (0..*count).map(|p| TopicPartition::new(topic.as_str(), p))).collect();
    memory.ends.retain(|partition, _| wanted.contains(partition));
    for (partition, end) in bounds(kafka, wanted, OffsetSpec::Latest, Isolation::Committed).await? {
        memory.ends.entry(partition).or_default().note(now, end);
    }
    publish(board, connection, &plan, &committed, memory, now);
    for group in plan.topics.keys() {
        let problem = |topic: &str| match (failed.get(group), committed.get(group)) {
            (Some(error), _) => Some(error.to_string()),
            (None, Some(offsets)) if offsets.keys().any(|at| at.topic == topic) => None,
            (None, _) => Some("the group has committed nothing in this topic".to_owned()),
        };
        let topics = plan.topics[group].keys();
        let found = topics.filter_map(|topic| Some(((group.clone(), topic.clone()), problem(topic)?)));
        plan.problems.extend(found);
    }
    memory.tell(plan.problems);
    Ok(())
}

/// Which partitions to look at, of the topics that are there.
fn plan(monitors: &[Arc<LagMonitor>], there: &Topics) -> Plan {
    let (mut plan, mut counted) = (Plan::default(), BTreeMap::new());
    for monitor in monitors {
        let mut topics = BTreeMap::new();
        for topic in monitor.topics.iter().map(ToString::to_string) {
            let at = || (monitor.group.to_string(), topic.clone());
            let Some((_, count)) = there.get(&topic) else {
                plan.problems.insert(at(), "the topic is not there, or may not be described".to_owned());
                continue;
            };
            let others: usize = counted.iter().filter(|(name, _)| **name != topic).map(|(_, count)| *count).sum();
            let partitions = usize::try_from(*count).unwrap_or(0);
            if others + partitions > MAX_PARTITIONS {
                let problem = format!("more than {MAX_PARTITIONS} partitions are monitored on this connection");
                plan.problems.insert(at(), problem);
                continue;
            }
            counted.insert(topic.clone(), partitions);
            topics.insert(topic, *count);
        }
        plan.topics.insert(monitor.group.to_string(), topics);
    }
    plan
}

fn publish(board: &Board, connection: &ConnectionName, plan: &Plan, committed: &Committed, memory: &Memory, now: i64) {
    let found = |at: &TopicPartition, offset| memory.ends.get(at)?.lag(now, offset);
    let mut state = board.lock();
    let mut foreign = Foreign { at: now, ..Foreign::default() };
    for (group, topics) in &plan.topics {
        let Some(offsets) = committed.get(group) else { continue };
        state.sums.note(connection, group, topics, offsets, found, now);
        let looked_at = |at: &TopicPartition| topics.get(&at.topic).is_some_and(|count| at.partition < *count);
        let lags = offsets.iter().filter(|(at, _)| looked_at(at)).filter_map(|(at, committed)| {
            Some(((group.clone(), at.topic.clone(), at.partition), found(at, committed.offset)?))
        });
        foreign.lags.extend(lags);
    }
    state.foreign.insert(connection.clone(), foreign);
}

/// Forgets what was found before `oldest`, and groups that the settings do not name any more.
pub(super) fn forget(board: &Board, settings: &Settings, oldest: i64) {
    let mut state = board.lock();
    state.sums.forget(oldest);
    state.foreign.retain(|connection, foreign| {
        let named = |group: &str, topic: &str| {
            let of_it = settings.lag_monitors.values().filter(|monitor| monitor.connection == *connection);
            let mut group = of_it.filter(|monitor| monitor.group.as_str() == group);
            group.any(|monitor| monitor.topics.iter().any(|name| name.as_str() == topic))
        };
        foreign.lags.retain(|(group, topic, _), _| named(group, topic));
        foreign.at >= oldest && !foreign.lags.is_empty()
    });
}

impl Memory {
    /// Says what has become wrong, and what has become well.
    fn tell(&mut self, problems: BTreeMap<(String, String), String>) {
        for ((group, topic), problem) in problems.iter().filter(|(at, problem)| self.told.get(*at) != Some(*problem)) {
            tracing::warn!(group, topic, problem, "lag of a monitored group is not known");
        }
        for (group, topic) in self.told.keys().filter(|at| !problems.contains_key(*at)) {
            tracing::info!(group, topic, "lag of a monitored group is known, or it is not monitored any more");
        }
        self.told = problems;
    }
}

#[cfg(test)]
mod tests {
    use sluice_clients::kafka::admin::CommittedOffset;
    use sluice_crds::names::{GroupId, Namespace, TopicName};

    use super::*;
    use crate::sweep::{Granted, Triggers};

    fn monitor(group: &str, topics: &[&str], namespaces: &[&str]) -> Arc<LagMonitor> {
        Arc::new(LagMonitor {
            connection: ConnectionName::new("main"),
            group: GroupId::parse(group).unwrap(),
            topics: topics.iter().map(|topic| TopicName::parse(*topic).unwrap()).collect(),
            namespaces: namespaces.iter().map(|name| Namespace::parse(*name).unwrap()).collect(),
        })
    }

    fn there(topics: &[(&str, i32)]) -> Topics {
        topics.iter().map(|(name, count)| ((*name).to_owned(), ("id".to_owned(), *count))).collect()
    }

    #[test]
    fn topics_that_are_not_there_and_too_many_partitions_are_told() {
        let most = i32::try_from(MAX_PARTITIONS).unwrap();
        let monitors = [monitor("a", &["gone", "large"], &[]), monitor("b", &["large", "more"], &[])];
        let plan = plan(&monitors, &there(&[("large", most), ("more", 1)]));
        let large = BTreeMap::from([("large".to_owned(), most)]);
        assert_eq!(plan.topics, BTreeMap::from([("a".to_owned(), large.clone()), ("b".to_owned(), large)]));
        let told: Vec<_> = plan.problems.keys().map(|(group, topic)| (group.as_str(), topic.as_str())).collect();
        assert_eq!(told, [("a", "gone"), ("b", "more")], "what two groups read is counted once");
    }

    #[test]
    fn what_was_found_is_shown_until_it_is_old_and_only_to_namespaces_that_are_named() {
        let board = Board::new(Triggers::new().0);
        let main = ConnectionName::new("main");
        let monitors = [monitor("billing", &["t"], &["shop"])];
        let mut memory = Memory::default();
        memory.ends.entry(TopicPartition::new("t", 0)).or_default().note(0, 100);
        let offsets = |partition, offset| {
            (TopicPartition::new("t", partition), CommittedOffset { offset, metadata: String::new() })
        };
        // Partition 7 was there when the topic was another one.
        let committed: Committed = [("billing".to_owned(), [offsets(0, 60), offsets(7, 1)].into())].into();
        publish(&board, &main, &plan(&monitors, &there(&[("t", 1)])), &committed, &memory, 0);
        let shown = |board: &Board| {
            let mut text = String::new();
            board.encode_lag(&mut text);
            text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
        };
        let labels = r#"{topic="t",group="billing",partition="0"}"#;
        assert_eq!(
            shown(&board),
            [format!("kafka_consumer_lag{labels} 40"), format!("kafka_consumer_lag_seconds{labels} 0")]
        );

        let granted = |namespace| board.granted(namespace, monitors.iter());
        assert_eq!(granted("shop"), [Granted::new(&main, "billing", "t")].into());
        assert!(granted("other").is_empty());
        assert_eq!(board.topic_lags(granted("shop"), 0)[0].records, Some((40, 0)));

        let mut settings = crate::controller::test_support::settings();
        settings.lag_monitors.insert(monitors[0].group.clone(), Arc::clone(&monitors[0]));
        forget(&board, &settings, 0);
        assert_eq!(shown(&board).len(), 2);
        forget(&board, &settings, 1);
        assert!(shown(&board).is_empty());
        publish(&board, &main, &plan(&monitors, &there(&[("t", 1)])), &committed, &memory, 0);
        settings.lag_monitors.clear();
        forget(&board, &settings, 0);
        assert!(shown(&board).is_empty(), "nobody asks for it any more");
    }
}
