//! Topics exist and match.

use std::collections::{BTreeMap, BTreeSet};

use sluice_crds::conditions::{ConditionType, Finding, Reason};
use sluice_crds::names::TopicName;

use super::quiesce;
use crate::connections::KafkaClient;
use crate::controller::halt::Halt;
use crate::controller::kafka::topics::{ObservedTopics, TopicPlan, first_drift, plan};
use crate::controller::kafka::{change, finding, observe};
use crate::controller::kind::SluiceKind;
use crate::controller::round::Round;

/// Looks at most so often at topics that it has just made or changed.
const PASSES: usize = 4;

/// What the topics stage gives to the next ones.
pub struct Topics {
    /// Every topic of the resource.
    pub observed: ObservedTopics,
    /// Source topics that are not those whose offsets were committed.
    pub recreated: BTreeSet<String>,
}

/// Makes topics as the spec says. The status that makes a topic ours is written before it is created.
pub async fn run<K: SluiceKind>(round: &mut Round<'_, K>, kafka: &KafkaClient) -> Result<Topics, Halt> {
    let failed = |error| Halt::found(finding(ConditionType::TopicsReady, "topics", &error));
    let (mut asked, mut drift) = (BTreeMap::new(), None);
    for _ in 0..PASSES {
        let observed = observe::topics(kafka, &round.resource.all_topics()).await.map_err(failed)?;
        let before = round.status.draft.topics.clone();
        let plan = plan(round.resource, &observed, &before);
        let recreated = recreated(round, &observed);
        note_statuses(round, &plan, &recreated);
        if let Some(problem) = plan.problem {
            return Err(Halt::found(problem));
        }
        if plan.is_settled() {
            round.note(Finding::well(ConditionType::TopicsReady, Reason::Reconciled, summary(&observed)));
            return Ok(Topics { observed, recreated });
        }
        if !plan.create.is_empty() {
            round.status.write().await?;
            change::create(kafka, &plan).await.map_err(failed)?;
        }
        // Asked once: what Kafka still tells otherwise is late, or in a form that we do not know to mean the same.
        if plan.alter != asked {
            change::alter(kafka, &plan).await.map_err(failed)?;
            asked.clone_from(&plan.alter);
        }
        drift = first_drift(round.resource, &observed);
        grow(round, kafka, &plan).await?;
    }
    let message = drift.unwrap_or_else(|| "topics are not yet as they were just made".to_owned());
    Err(Halt::found(Finding::progressing(ConditionType::TopicsReady, Reason::Progressing, message)))
}

/// Grows topics. Partitions of a source need start offsets, which can be committed only while no worker is in the
/// group: the workers stop first, so that none meets a partition without an offset.
async fn grow<K: SluiceKind>(round: &mut Round<'_, K>, kafka: &KafkaClient, plan: &TopicPlan) -> Result<(), Halt> {
    let sources: BTreeSet<&str> = round.resource.source_topics().into_iter().map(TopicName::as_str).collect();
    if plan.grow.keys().any(|topic| sources.contains(topic.as_str())) {
        quiesce::run(round, kafka, "a source topic grows").await?;
    }
    change::grow(kafka, &plan.grow)
        .await
        .map_err(|error| Halt::found(finding(ConditionType::TopicsReady, "growing topics", &error)))
}

/// Source topics whose id is not the one that offsets were committed for.
fn recreated<K: SluiceKind>(round: &Round<'_, K>, observed: &ObservedTopics) -> BTreeSet<String> {
    let sources = round.resource.processor.iter().flat_map(|processor| &processor.sources);
    let known = |name: &str| round.status.draft.topics.iter().find(|status| status.name == name);
    sources
        .filter(|topic| {
            let was = known(topic.as_str()).filter(|was| was.started_partitions.is_some());
            let was = was.and_then(|was| was.id.as_deref());
            was.is_some() && observed.get(*topic).is_some_and(|there| Some(there.id.as_str()) != was)
        })
        .map(ToString::to_string)
        .collect()
}

/// Status of a source topic that was made anew keeps the old id until its offsets have been settled.
fn note_statuses<K: SluiceKind>(round: &mut Round<'_, K>, plan: &TopicPlan, recreated: &BTreeSet<String>) {
    let old: BTreeMap<&str, _> =
        round.status.draft.topics.iter().map(|status| (status.name.as_str(), status.clone())).collect();
    let statuses = plan.statuses.iter().map(|status| {
        let kept = old.get(status.name.as_str()).filter(|_| recreated.contains(&status.name));
        kept.cloned().unwrap_or_else(|| status.clone())
    });
    let statuses = statuses.collect();
    round.status.draft.topics = statuses;
}

fn summary(observed: &ObservedTopics) -> String {
    format!("{} topics are as asked", observed.len())
}
