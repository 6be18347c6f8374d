//! Epochs of views: when a view's definition or its topic changes, the keys in Redis are of another time. Pure.

use std::collections::BTreeMap;

use sluice_clients::kafka::admin::TopicPartition;
use sluice_crds::names::ContentHash;
use sluice_crds::v1alpha1::{Status, ViewStatus};

use super::build::TopicFacts;
use super::validated::ValidatedResource;
use sluice_crds::names::TopicName;

/// What the views are, with a hash of everything that decides what Redis shows.
///
/// # Panics
/// Never: views are plain data, which always serialises.
pub fn view_statuses(resource: &ValidatedResource, topics: &BTreeMap<TopicName, TopicFacts>) -> Vec<ViewStatus> {
    let mut parts: BTreeMap<&str, (Vec<String>, Vec<u8>, String)> = BTreeMap::new();
    for viewed in resource.applier.iter().flat_map(|applier| &applier.topics) {
        let id = topics.get(&viewed.topic).map(|facts| facts.id.as_str()).unwrap_or_default();
        for view in &viewed.views {
            let definition =
                serde_json::to_vec(&(view, viewed.format, viewed.topic.as_str(), id)).expect("a view should serialise");
            let entry = parts.entry(&view.name).or_insert_with(|| (Vec::new(), Vec::new(), view.key_prefix.clone()));
            entry.0.push(viewed.topic.to_string());
            entry.1.extend(definition);
        }
    }
    parts
        .into_iter()
        .map(|(name, (topics, definition, key_prefix))| ViewStatus {
            name: name.to_owned(),
            key_prefix,
            topic: topics.join(","),
            definition: Some(ContentHash::of([definition.as_slice()]).long()),
        })
        .collect()
}

/// What becomes of the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochPlan {
    /// There are no views.
    None,
    /// The views are as they were, as far as status knows.
    Keep(u64),
    /// They are not: once the workers have stopped, there must be a [`next`] one.
    New,
}

/// Decides by status alone.
pub fn decide(before: &Status, wanted: &[ViewStatus]) -> EpochPlan {
    match before.epoch {
        _ if wanted.is_empty() => EpochPlan::None,
        Some(epoch) if before.views == wanted => EpochPlan::Keep(epoch.unsigned_abs()),
        _ => EpochPlan::New,
    }
}

/// Why views have to be rebuilt although they are what they were: nobody read this partition for so long that tombstones may
/// have gone from it unread. None of a topic that loses none: then somebody else has written the report.
pub fn after_absence(missed: &TopicPartition, topics: &BTreeMap<TopicName, TopicFacts>) -> Option<String> {
    let facts = topics.iter().find(|(name, _)| name.as_str() == missed.topic).map(|(_, facts)| facts)?;
    let kept = facts.tombstones_kept_ms?;
    Some(format!(
        "the views are rebuilt, because {} partition {} was not read for longer than half of its delete.retention.ms ({kept}), and \
         deletions may have been missed",
        missed.topic, missed.partition
    ))
}

/// The epoch after all that were: above the one in status, which may be lost or restored from an old copy, above every
/// one in Redis' records, and not below the seconds since 1970 (`now`), for a Redis whose records cannot be read.
pub fn next(before: &Status, recorded: Option<u64>, now: i64) -> u64 {
    let after_status = before.epoch.map_or(1, |epoch| epoch.unsigned_abs().saturating_add(1));
    let after_records = recorded.map_or(1, |epoch| epoch.saturating_add(1));
    after_status.max(after_records).max(u64::try_from(now).unwrap_or(1))
}

/// Status holds it as a number of this width; an epoch above it was not made by any operator.
pub const HIGHEST: u64 = i64::MAX.unsigned_abs();

#[cfg(test)]
mod tests {
    use super::*;

    fn view(definition: &str) -> ViewStatus {
        let definition = Some(definition.to_owned());
        ViewStatus { name: "v".into(), key_prefix: "p:".into(), topic: "t".into(), definition }
    }

    fn status(epoch: Option<i64>, views: Vec<ViewStatus>) -> Status {
        Status { epoch, views, ..Status::default() }
    }

    #[test]
    fn an_epoch_is_kept_while_the_views_are_the_same() {
        let before = status(Some(100), vec![view("a")]);
        assert_eq!(decide(&before, &[view("a")]), EpochPlan::Keep(100));
        assert_eq!(decide(&before, &[view("b")]), EpochPlan::New);
        assert_eq!(decide(&before, &[]), EpochPlan::None);
        assert_eq!(decide(&status(None, vec![]), &[view("a")]), EpochPlan::New);
    }

    #[test]
    fn only_a_topic_that_loses_tombstones_can_have_lost_some() {
        let topic = |kept| TopicFacts {
            id: String::new(),
            partitions: 4,
            compacted: true,
            max_message_bytes: 1,
            tombstones_kept_ms: kept,
        };
        let name = |name: &str| TopicName::parse(name).unwrap();
        let topics = [(name("compacted"), topic(Some(86_400_000))), (name("kept"), topic(None))].into();
        let why = |topic: &str| after_absence(&TopicPartition::new(topic, 3), &topics);
        let said = why("compacted").unwrap();
        assert!(said.contains("compacted partition 3") && said.contains("86400000"), "{said}");
        assert_eq!((why("kept"), why("another")), (None, None));
    }

    #[test]
    fn the_next_epoch_is_above_everything_that_was() {
        for (stored, recorded, now, expected) in [
            (Some(100), None, 500, 500),
            (Some(100), Some(100), 50, 101),
            (None, Some(900), 500, 901),
            (Some(100), Some(900), 500, 901),
            (Some(900), Some(100), 500, 901),
            (None, None, 500, 500),
            (None, None, -5, 1),
        ] {
            let before = status(stored, vec![]);
            assert_eq!(next(&before, recorded, now), expected, "{stored:?} {recorded:?} {now}");
        }
    }
}
