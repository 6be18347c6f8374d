//! Groups of other people's consumers whose lag is measured. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_crds::names::{GroupId, Namespace, TopicName};

use super::file::{KafkaFile, LagMonitorFile};
use super::model::{ConnectionName, InvalidSettings, insert, name_error, not_empty};

/// Most groups that are looked at; the chart's schema has the same.
pub(super) const MAX_MONITORS: usize = 200;
/// Most topics of one of them; the chart's schema has the same.
pub(super) const MAX_TOPICS: usize = 64;
/// Most namespaces that may scale by one of them; the chart's schema has the same.
pub(super) const MAX_NAMESPACES: usize = 100;

/// A consumer group that is not ours and whose lag is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LagMonitor {
    /// The Kafka connection it is on.
    pub connection: ConnectionName,
    /// The group.
    pub group: GroupId,
    /// Topics of it that are looked at.
    pub topics: BTreeSet<TopicName>,
    /// Namespaces that may scale by its lag.
    pub namespaces: BTreeSet<Namespace>,
}

/// Checks them all. A group is in it once: the metric has no label that would tell two of one name apart.
pub(super) fn check(
    files: &[LagMonitorFile],
    connections: &[KafkaFile],
) -> Result<BTreeMap<GroupId, Arc<LagMonitor>>, InvalidSettings> {
    at_most("lagMonitors", files.len(), MAX_MONITORS, "at most 200 are allowed")?;
    let mut monitors = BTreeMap::new();
    for file in files {
        let monitor = check_one(file, connections)?;
        insert("lagMonitors", &mut monitors, monitor.group.clone(), Arc::new(monitor))?;
    }
    Ok(monitors)
}

fn check_one(file: &LagMonitorFile, connections: &[KafkaFile]) -> Result<LagMonitor, InvalidSettings> {
    let field = format!("lagMonitors[{}]", file.group);
    let at = |part: &str| format!("{field}.{part}");
    let group = GroupId::parse(file.group.clone()).map_err(|error| name_error("lagMonitors[].group", error))?;
    if !connections.iter().any(|connection| connection.name == file.connection) {
        return Err(InvalidSettings::UnknownConnection { field: at("connection"), name: file.connection.clone() });
    }
    if file.topics.is_empty() {
        not_empty(&at("topics"), "")?;
    }
    at_most(&at("topics"), file.topics.len(), MAX_TOPICS, "at most 64 are allowed")?;
    at_most(&at("namespaces"), file.namespaces.len(), MAX_NAMESPACES, "at most 100 are allowed")?;
    let topic = |name: &String| TopicName::parse(name.clone()).map_err(|error| name_error(&at("topics"), error));
    let namespace =
        |name: &String| Namespace::parse(name.clone()).map_err(|error| name_error(&at("namespaces"), error));
    Ok(LagMonitor {
        connection: ConnectionName::new(&file.connection),
        group,
        topics: file.topics.iter().map(topic).collect::<Result<_, _>>()?,
        namespaces: file.namespaces.iter().map(namespace).collect::<Result<_, _>>()?,
    })
}

fn at_most(field: &str, count: usize, most: usize, allowed: &'static str) -> Result<(), InvalidSettings> {
    if count <= most {
        return Ok(());
    }
    Err(InvalidSettings::Bounds { field: field.to_owned(), value: i64::try_from(count).unwrap_or(i64::MAX), allowed })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections() -> Vec<KafkaFile> {
        vec![serde_saphyr::from_str("{name: main, brokers: ['k:9092']}").unwrap()]
    }

    fn parsed(text: &str) -> Vec<LagMonitorFile> {
        serde_saphyr::from_str(text).expect("should parse")
    }

    #[test]
    fn a_group_has_its_topics_and_namespaces() {
        let files = parsed("[{connection: main, group: billing/v2, topics: [a, b, a], namespaces: [shop]}]");
        let monitors = check(&files, &connections()).unwrap();
        let billing = &monitors[&GroupId::parse("billing/v2").unwrap()];
        assert_eq!((billing.connection.as_str(), billing.topics.len(), billing.namespaces.len()), ("main", 2, 1));
        assert!(
            serde_saphyr::from_str::<LagMonitorFile>("{connection: m, group: g, topics: [t], surplus: 1}").is_err()
        );
    }

    #[test]
    fn each_mistake_is_told_in_words() {
        let said = |text: &str| check(&parsed(text), &connections()).expect_err("should be refused").to_string();
        for (text, expected) in [
            ("[{connection: other, group: g, topics: [t]}]", "lagMonitors[g].connection is \"other\""),
            ("[{connection: main, group: '', topics: [t]}]", "lagMonitors[].group"),
            ("[{connection: main, group: g, topics: []}]", "lagMonitors[g].topics must not be empty"),
            ("[{connection: main, group: g, topics: [a b]}]", "lagMonitors[g].topics: "),
            ("[{connection: main, group: g, topics: [t], namespaces: [A]}]", "lagMonitors[g].namespaces: "),
            ("[{connection: main, group: g, topics: [t]}, {connection: main, group: g, topics: [u]}]", "named \"g\""),
        ] {
            assert!(said(text).contains(expected), "{text}: {}", said(text));
        }
        let many = |count: usize, item: &dyn Fn(usize) -> String| (0..count).map(item).collect::<Vec<_>>().join(", ");
        let topics = many(MAX_TOPICS + 1, &|n| format!("t{n}"));
        assert!(said(&format!("[{{connection: main, group: g, topics: [{topics}]}}]")).contains("65: at most 64"));
        let monitors = many(MAX_MONITORS + 1, &|n| format!("{{connection: main, group: g{n}, topics: [t]}}"));
        assert!(said(&format!("[{monitors}]")).contains("201: at most 200"));
    }
}
