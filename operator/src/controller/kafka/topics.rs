//! Topics: what to do about those a resource owns and what to say about those it uses. Pure.
//!
//! A topic becomes ours to delete only by this order: status says `Creating` → `CreateTopics` → status says `Created`
//! with the id. One that was there before is adopted if it matches in everything the spec says, and refused otherwise:
//! a setting that an apply would change (a shorter retention, say) could destroy somebody's records.

use std::collections::{BTreeMap, BTreeSet};

use sluice_clients::kafka::admin::{ConfigChange, NewTopic};
use sluice_crds::conditions::{ConditionType, Finding, Reason};
use sluice_crds::names::TopicName;
use sluice_crds::v1alpha1::{Ownership, TopicStatus};

use crate::controller::build::TopicFacts;
use crate::controller::validated::{ValidatedResource, WantedTopic};

/// A topic as Kafka has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Its incarnation.
    pub id: String,
    /// Partitions.
    pub partitions: i32,
    /// Replicas of the first partition.
    pub replication_factor: i32,
    /// Effective settings.
    pub config: BTreeMap<String, String>,
}

/// What there is, by name; absent = no such topic.
pub type ObservedTopics = BTreeMap<TopicName, Observed>;

/// What to do, and what to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicPlan {
    /// To create, after `statuses` were written.
    pub create: Vec<NewTopic>,
    /// To grow to these numbers of partitions.
    pub grow: BTreeMap<String, u32>,
    /// Settings to repair.
    pub alter: BTreeMap<String, BTreeMap<String, ConfigChange>>,
    /// What status says of each topic.
    pub statuses: Vec<TopicStatus>,
    /// Why the resource cannot go on; the first of them.
    pub problem: Option<Finding>,
}

impl TopicPlan {
    /// True when there is nothing to do.
    pub fn is_settled(&self) -> bool {
        self.create.is_empty() && self.grow.is_empty() && self.alter.is_empty()
    }

    fn report(&mut self, finding: Finding) {
        self.problem.get_or_insert(finding);
    }
}

/// Plans all topics of a resource. `before`: what status said.
pub fn plan(resource: &ValidatedResource, observed: &ObservedTopics, before: &[TopicStatus]) -> TopicPlan {
    let mut plan = TopicPlan::default();
    for wanted in &resource.owned_topics {
        let was = before.iter().find(|status| status.name == wanted.name.as_str());
        match observed.get(&wanted.name) {
            Some(there) => plan_present(&mut plan, wanted, there, was),
            None => plan_absent(&mut plan, resource, wanted, observed),
        }
    }
    for topic in &resource.foreign_topics {
        let was = before.iter().find(|status| status.name == topic.as_str());
        if let Some(there) = observed.get(topic) {
            plan_foreign(&mut plan, resource, topic, there, was);
        } else {
            let problem = format!("the topic {:?} does not exist yet; it is used and not owned", topic.as_str());
            plan.report(Finding::progressing(ConditionType::TopicsReady, Reason::TopicMissing, problem));
            plan.statuses.extend(was.cloned());
        }
    }
    for topic in resource.view_topics() {
        if let Some(there) = observed.get(topic)
            && let Some(problem) = retention_problem(resource, topic, there)
        {
            plan.report(Finding::stalled(ConditionType::TopicsReady, Reason::RetentionShorterThanView, problem));
        }
    }
    plan.statuses.sort_by(|a, b| a.name.cmp(&b.name));
    plan
}

/// What `build` needs of the topics; only those there are.
pub fn facts(observed: &ObservedTopics) -> BTreeMap<TopicName, TopicFacts> {
    let fact = |there: &Observed| TopicFacts {
        id: there.id.clone(),
        partitions: there.partitions,
        compacted: is_compacted(there),
        max_message_bytes: setting(there, "max.message.bytes").unwrap_or(1_048_588),
        tombstones_kept_ms: is_cleaned(there).then(|| setting(there, "delete.retention.ms").unwrap_or(86_400_000)),
    };
    observed.iter().map(|(name, there)| (name.clone(), fact(there))).collect()
}

fn plan_absent(plan: &mut TopicPlan, resource: &ValidatedResource, wanted: &WantedTopic, observed: &ObservedTopics) {
    let status = |id| TopicStatus {
        name: wanted.name.to_string(),
        id,
        ownership: Ownership::Creating,
        partitions: None,
        started_partitions: None,
    };
    let partitions = wanted.partitions.or_else(|| {
        let sources = resource.source_topics();
        let there = sources.iter().map(|source| observed.get(*source).map(|there| there.partitions));
        // Owned sources are created first: their number is in the spec.
        let owned = resource.owned_topics.iter().filter(|topic| sources.contains(&topic.name));
        there.flatten().chain(owned.filter_map(|topic| topic.partitions)).max()
    });
    let Some(partitions) = partitions else {
        let problem =
            format!("the topic {:?} is made as wide as the source, which does not exist yet", wanted.name.as_str());
        plan.report(Finding::progressing(ConditionType::TopicsReady, Reason::TopicMissing, problem));
        return;
    };
    plan.statuses.push(status(None));
    plan.create.push(NewTopic {
        name: wanted.name.to_string(),
        partitions: partitions.unsigned_abs(),
        replication_factor: wanted.replication_factor.and_then(|factor| u16::try_from(factor).ok()),
        config: wanted.config.clone(),
    });
}

fn plan_present(plan: &mut TopicPlan, wanted: &WantedTopic, there: &Observed, was: Option<&TopicStatus>) {
    let same_id = |was: &&TopicStatus| was.id.as_deref() == Some(there.id.as_str());
    let known = was.filter(same_id).map(|was| was.ownership);
    // `Creating` without an id: our own CreateTopics, answered or not, if what is there is what we asked for.
    let creating = was.is_some_and(|was| was.ownership == Ownership::Creating);
    let ours = matches!(known, Some(Ownership::Created | Ownership::Adopted));
    let differences = differences(wanted, there, ours);
    if !differences.is_empty() {
        let problem = format!(
            "the topic {:?} exists and is not as the spec says: {}; change the spec, or the topic with Kafka's own tools",
            wanted.name.as_str(),
            differences.join(", ")
        );
        plan.report(Finding::stalled(ConditionType::TopicsReady, Reason::TopicMismatch, problem));
        plan.statuses.extend(was.cloned());
        return;
    }
    let ownership = match known {
        Some(Ownership::Created) => Ownership::Created,
        _ if creating => Ownership::Created,
        _ => Ownership::Adopted,
    };
    if ours {
        let drift: BTreeMap<String, ConfigChange> = config_differences(wanted, there)
            .map(|(key, value, _)| (key.clone(), ConfigChange::Set(value.clone())))
            .collect();
        if !drift.is_empty() {
            plan.alter.insert(wanted.name.to_string(), drift);
        }
        if let Some(partitions) = wanted.partitions.filter(|partitions| *partitions > there.partitions) {
            plan.grow.insert(wanted.name.to_string(), partitions.unsigned_abs());
        }
    }
    plan.statuses.push(TopicStatus {
        name: wanted.name.to_string(),
        id: Some(there.id.clone()),
        ownership,
        partitions: Some(there.partitions),
        started_partitions: was.filter(same_id).and_then(|was| was.started_partitions),
    });
}

/// What keeps a topic from being (or staying) this resource's. Of one that is already ours, settings and a smaller
/// number of partitions are repaired instead.
fn differences(wanted: &WantedTopic, there: &Observed, ours: bool) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(partitions) = wanted.partitions
        && partitions != there.partitions
    {
        if partitions < there.partitions {
            found.push(format!("it has {} partitions instead of {partitions} and cannot shrink", there.partitions));
        } else if wanted.feeds_view {
            found.push(format!(
                "it has {} partitions instead of {partitions} and, as a view shows it, may not grow: keys would change their partition",
                there.partitions
            ));
        } else if !ours {
            found.push(format!("it has {} partitions instead of {partitions}", there.partitions));
        }
    }
    if let Some(factor) = wanted.replication_factor
        && factor != there.replication_factor
    {
        found.push(format!("it has {} replicas instead of {factor}", there.replication_factor));
    }
    if !ours {
        found.extend(config_differences(wanted, there).map(|(key, value, is)| match is {
            Some(is) => format!("{key} is {is:?} instead of {value:?}"),
            None => format!("{key} is not set, instead of {value:?}"),
        }));
    }
    found
}

/// Settings that differ: key, wanted, present.
fn config_differences<'a>(
    wanted: &'a WantedTopic,
    there: &'a Observed,
) -> impl Iterator<Item = (&'a String, &'a String, Option<&'a String>)> {
    let present = |key: &String| there.config.get(key);
    let all = wanted.config.iter().map(move |(key, value)| (key, value, present(key)));
    all.filter(|(_, value, is)| is.is_none_or(|is| !is_same_value(value, is)))
}

/// True when two texts mean the same setting. Kafka parses what it is given and tells it in its own form: `0.50` as `0.5`,
/// `compact, delete` as `compact,delete`, `TRUE` as `true`. Text that is neither a list, a number nor a truth value must be
/// equal.
fn is_same_value(wanted: &str, is: &str) -> bool {
    let (wanted, is) = (wanted.trim(), is.trim());
    if wanted == is {
        return true;
    }
    if let (Ok(wanted), Ok(is)) = (wanted.parse::<i128>(), is.parse::<i128>()) {
        return wanted == is;
    }
    if let (Ok(wanted), Ok(is)) = (wanted.parse::<f64>(), is.parse::<f64>()) {
        // Written by the same rules on both sides: what differs after parsing was meant to.
        return wanted.total_cmp(&is).is_eq();
    }
    if wanted.contains(',') && is.contains(',') {
        let items = |text: &str| text.split(',').map(|item| item.trim().to_owned()).collect::<BTreeSet<_>>();
        return items(wanted) == items(is);
    }
    let truth = |text: &str| ["true", "false"].into_iter().find(|truth| truth.eq_ignore_ascii_case(text));
    truth(wanted).is_some() && truth(wanted) == truth(is)
}

/// Settings of an owned topic that are not yet as they were asked for, in words: the first of them.
pub fn first_drift(resource: &ValidatedResource, observed: &ObservedTopics) -> Option<String> {
    resource.owned_topics.iter().find_map(|wanted| {
        let (key, value, is) = config_differences(wanted, observed.get(&wanted.name)?).next()?;
        let is = is.map_or_else(|| "is not set".to_owned(), |is| format!("is {is:?}"));
        Some(format!("of the topic {:?}, {key} {is} after it was set to {value:?}", wanted.name.as_str()))
    })
}

fn plan_foreign(
    plan: &mut TopicPlan,
    resource: &ValidatedResource,
    topic: &TopicName,
    there: &Observed,
    was: Option<&TopicStatus>,
) {
    let was = was.filter(|was| was.id.as_deref() == Some(there.id.as_str()));
    let recorded = was.and_then(|was| was.partitions);
    let viewed = resource.view_topics().contains(topic);
    if viewed && let Some(recorded) = recorded.filter(|recorded| *recorded != there.partitions) {
        let problem = format!(
            "the topic {:?} had {recorded} partitions and has {} now: its keys changed their partition, and old values \
             could win; write the records to a new topic and name that one",
            topic.as_str(),
            there.partitions
        );
        plan.report(Finding::stalled(ConditionType::TopicsReady, Reason::RepartitionedViewTopic, problem));
    }
    plan.statuses.push(TopicStatus {
        name: topic.to_string(),
        id: Some(there.id.clone()),
        ownership: Ownership::Foreign,
        partitions: Some(if viewed { recorded.unwrap_or(there.partitions) } else { there.partitions }),
        started_partitions: was.and_then(|was| was.started_partitions),
    });
}

/// What a view shows must stay in its topic: compacted, or kept longer than any key lives.
fn retention_problem(resource: &ValidatedResource, topic: &TopicName, there: &Observed) -> Option<String> {
    if is_compacted(there) {
        return None;
    }
    let views = resource.applier.iter().flat_map(|applier| &applier.topics).filter(|viewed| viewed.topic == *topic);
    // None lives for ever.
    let longest = views.flat_map(|viewed| &viewed.views).map(|view| view.ttl_seconds.unwrap_or(u64::MAX)).max()?;
    let retention: i64 = setting(there, "retention.ms").unwrap_or(604_800_000);
    let by_size = setting::<i64>(there, "retention.bytes").is_some_and(|bytes| bytes >= 0);
    let segment: i64 = setting(there, "segment.ms").unwrap_or(604_800_000);
    if retention < 0 && !by_size {
        return None;
    }
    let kept = (retention - segment).max(0).unsigned_abs();
    if !by_size && longest.checked_mul(1_000).is_some_and(|longest| longest <= kept) {
        return None;
    }
    Some(format!(
        "the topic {:?} forgets records that its views must still show: set cleanup.policy to compact, or ttlSeconds of \
         every view to at most (retention.ms - segment.ms) / 1000 = {} and retention.bytes to -1",
        topic.as_str(),
        if retention < 0 { "any".to_owned() } else { (kept / 1_000).to_string() }
    ))
}

/// With `compact,delete` the last record of a key goes by age too, so only `compact` alone holds every key.
fn is_compacted(there: &Observed) -> bool {
    there.config.get("cleanup.policy").is_some_and(|policy| policy.split(',').all(|one| one.trim() == "compact"))
}

/// True when compaction goes through it, whatever else removes records: then tombstones go, too.
fn is_cleaned(there: &Observed) -> bool {
    there.config.get("cleanup.policy").is_some_and(|policy| policy.split(',').any(|one| one.trim() == "compact"))
}

fn setting<T: std::str::FromStr>(there: &Observed, key: &str) -> Option<T> {
    there.config.get(key)?.parse().ok()
}

#[cfg(test)]
#[path = "topics_tests.rs"]
mod tests;
