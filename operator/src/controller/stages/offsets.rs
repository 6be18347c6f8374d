//! The processor's group has an offset for every partition, before any worker looks for one.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use sluice_crds::conditions::{ConditionType, Finding, Reason};
use sluice_crds::names::{RESET_OFFSETS_ANNOTATION, TopicName};

use super::quiesce;
use super::topics::Topics;
use crate::connections::KafkaClient;
use crate::controller::finalizer;
use crate::controller::halt::Halt;
use crate::controller::kafka::offsets::{OffsetPlan, plan, reset_position};
use crate::controller::kafka::{change, finding, observe};
use crate::controller::kind::SluiceKind;
use crate::controller::rollout;
use crate::controller::round::Round;
use crate::controller::validated::Processor;

/// Commits what is missing; stops when offsets are lost and nobody said where to go on.
pub async fn run<K: SluiceKind>(round: &mut Round<'_, K>, kafka: &KafkaClient, topics: &Topics) -> Result<(), Halt> {
    if let Some(processor) = &round.resource.processor {
        settle(round, kafka, topics, processor).await?;
    }
    let sources = round.resource.source_topics();
    let partitions = sources.iter().filter_map(|topic| topics.observed.get(*topic)).map(|there| there.partitions).sum();
    round.status.draft.partitions = Some(partitions);
    Ok(())
}

async fn settle<K: SluiceKind>(
    round: &mut Round<'_, K>,
    kafka: &KafkaClient,
    topics: &Topics,
    processor: &Processor,
) -> Result<(), Halt> {
    let failed = |error| Halt::found(finding(ConditionType::TopicsReady, "committed offsets", &error));
    let counts: BTreeMap<&TopicName, i32> =
        processor.sources.iter().filter_map(|topic| Some((topic, topics.observed.get(topic)?.partitions))).collect();
    let observed = observe::offsets(kafka, &processor.group, &counts).await.map_err(failed)?;
    let reset = round.object.annotations().get(RESET_OFFSETS_ANNOTATION).and_then(|text| reset_position(text));
    let statuses = &round.status.draft.topics;
    let plan = plan(&processor.sources, &observed, statuses, &topics.recreated, round.resource.start, reset);
    if let Some(finding) = lost(&plan) {
        return Err(stand_still(round, kafka, finding, &topics.recreated).await);
    }
    if !plan.commit.is_empty() {
        quiesce::at_once(round, kafka, "start offsets are committed").await?;
        change::commit(kafka, &processor.group, &plan.commit).await.map_err(failed)?;
    }
    for status in &mut round.status.draft.topics {
        let Some((topic, count)) = counts.iter().find(|(topic, _)| topic.as_str() == status.name) else { continue };
        status.id = topics.observed.get(*topic).map(|there| there.id.clone());
        status.partitions = Some(*count);
        status.started_partitions = Some(*count);
    }
    if reset.is_some() {
        forget_reset(round).await?;
    }
    Ok(())
}

/// Removes the annotation: it has been heard, and left there it would also decide about the next loss. Status comes first:
/// without it the next look would find the same loss and nobody's word on it.
async fn forget_reset<K: SluiceKind>(round: &mut Round<'_, K>) -> Result<(), Halt> {
    round.status.write().await?;
    let version = round.status.version();
    let written = finalizer::remove_annotation(&round.api(), round.object, version, RESET_OFFSETS_ANNOTATION).await?;
    round.status.follow(&written);
    Ok(())
}

/// Why the reconcile ends at lost offsets. Workers that read a topic which was made anew are stopped first: their position
/// is in the old one, and as soon as the new one has grown past it they would go on in the middle.
async fn stand_still<K: SluiceKind>(
    round: &mut Round<'_, K>,
    kafka: &KafkaClient,
    finding: Finding,
    recreated: &BTreeSet<String>,
) -> Halt {
    if let Some(topic) = recreated.first() {
        round.note(finding.clone());
        if let Err(halt) = quiesce::at_once(round, kafka, &format!("topic {topic} was made anew")).await {
            return halt;
        }
    }
    if round.live.as_ref().is_some_and(|live| rollout::wanted(live) == 0) {
        // Whoever sleeps is not woken up to find no place to begin at. A write under way is as good as one that ended before.
        round.ctx.scaling.forbid(round.resource.uid.as_str());
    }
    Halt::found(finding)
}

fn lost(plan: &OffsetPlan) -> Option<Finding> {
    let first = plan.lost.first()?;
    let message = format!(
        "committed offsets of {} partitions are gone or outside of their topic, {} partition {} first: annotate this \
         resource with {RESET_OFFSETS_ANNOTATION}=Earliest (some records again) or =Latest (skip what is there)",
        plan.lost.len(),
        first.topic,
        first.partition
    );
    Some(Finding::stalled(ConditionType::TopicsReady, Reason::OffsetsLost, message))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sluice_crds::v1alpha1::EventPipeline;

    use super::*;
    use crate::autoscale::Forbidden;
    use crate::claims::Claimant;
    use crate::controller::test_support::{PIPELINE, api_server, in_round, refusal, settings};

    /// As an API server does: every write makes a new version, and one that names an older version is refused.
    fn versioned(object: &EventPipeline) -> (kube::Client, crate::controller::test_support::Calls) {
        let (mut object, mut version) = (serde_json::to_value(object).unwrap(), 1);
        api_server(move |asked| {
            let named = &asked.body["metadata"]["resourceVersion"];
            if named.as_str().is_some_and(|named| named != version.to_string()) {
                return refusal(409, "Conflict", "the object has been modified");
            }
            version += 1;
            if asked.uri.contains("/status") {
                object["status"] = asked.body["status"].clone();
            }
            object["metadata"]["resourceVersion"] = version.to_string().into();
            (200, object.clone())
        })
    }

    #[tokio::test]
    async fn workers_of_a_topic_that_was_made_anew_are_stopped_before_anybody_is_asked() {
        let object: EventPipeline = serde_saphyr::from_str(PIPELINE).unwrap();
        let stopping = json!({"metadata": {}, "spec": {"replicas": 0, "selector": {}, "template": {}}});
        for (recreated, patches) in [(BTreeSet::new(), 0), (BTreeSet::from(["order.created".to_owned()]), 1)] {
            let answer = stopping.clone();
            let (client, calls) = api_server(move |_| (200, answer.clone()));
            let live =
                serde_json::from_value(json!({"spec": {"replicas": 2, "selector": {}, "template": {}}})).unwrap();
            in_round(&object, client, settings(), Some(live), async |round| {
                let plain = &round.settings.kafka[&crate::settings::ConnectionName::new("plain")];
                let kafka = round.ctx.connections.kafka(plain).unwrap();
                // Others roll out, as many as may: this does not wait for them.
                let connection = &round.resource.kafka.connection;
                for other in 0..connection.max_roll_outs {
                    let other = Claimant { uid: format!("other-{other}"), ..round.claimant.clone() };
                    round.ctx.turns.hold(&connection.name, &other);
                }
                let finding = Finding::stalled(ConditionType::TopicsReady, Reason::OffsetsLost, "lost");
                let halt = stand_still(round, &kafka, finding, &recreated).await;
                let said = if recreated.is_empty() { Reason::OffsetsLost } else { Reason::WorkersStopping };
                assert_eq!(halt.category(), said.as_str());
                assert_eq!(round.is_well(ConditionType::TopicsReady), recreated.is_empty(), "both are told");
            })
            .await;
            let calls = calls.lock().unwrap();
            assert_eq!(calls.iter().filter(|call| call.body["spec"]["replicas"] == 0).count(), patches, "{calls:?}");
        }
    }

    #[tokio::test]
    async fn whoever_sleeps_without_offsets_is_not_woken_up() {
        let object: EventPipeline = serde_saphyr::from_str(PIPELINE).unwrap();
        for (replicas, before) in [(0, Forbidden::Already), (2, Forbidden::Now)] {
            let (client, _calls) = api_server(|_| (200, json!({})));
            let live = json!({"spec": {"replicas": replicas, "selector": {}, "template": {}}});
            in_round(&object, client, settings(), Some(serde_json::from_value(live).unwrap()), async |round| {
                let plain = &round.settings.kafka[&crate::settings::ConnectionName::new("plain")];
                let kafka = round.ctx.connections.kafka(plain).unwrap();
                let claimant = Claimant { uid: round.resource.uid.to_string(), ..round.claimant.clone() };
                round.ctx.scaling.allow(crate::autoscale::Subject { claimant, ..crate::autoscale::tests::subject() });
                let finding = Finding::stalled(ConditionType::TopicsReady, Reason::OffsetsLost, "lost");
                let halt = stand_still(round, &kafka, finding, &BTreeSet::new()).await;
                assert_eq!(halt.category(), Reason::OffsetsLost.as_str());
                assert_eq!(round.ctx.scaling.forbid(round.resource.uid.as_str()), before, "{replicas} workers");
            })
            .await;
        }
    }

    #[tokio::test]
    async fn a_reset_is_recorded_before_it_is_forgotten_and_status_can_still_be_written_after_it() {
        let mut object: EventPipeline = serde_saphyr::from_str(PIPELINE).unwrap();
        object.metadata.resource_version = Some("1".to_owned());
        let (client, calls) = versioned(&object);
        in_round(&object, client, settings(), None, async |round| {
            round.status.draft.topics = serde_json::from_value(json!([
                {"name": "order.created", "id": "new", "ownership": "Created", "partitions": 4, "startedPartitions": 4}
            ]))
            .unwrap();
            forget_reset(round).await.unwrap();
            round.status.draft.partitions = Some(4);
            assert!(round.status.write().await.unwrap());
        })
        .await;
        let calls = calls.lock().unwrap();
        assert_eq!(calls.len(), 3);
        assert_eq!(calls[0].body["status"]["topics"][0]["id"], "new", "the new topic first");
        assert_eq!(calls[1].body["metadata"]["annotations"], json!({RESET_OFFSETS_ANNOTATION: null}));
    }
}
