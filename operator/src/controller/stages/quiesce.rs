//! Workers gone and groups empty: needed before an epoch changes (an applier that still runs would go on under the old
//! one) and before offsets can be committed (Kafka refuses while a group has members).

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use sluice_crds::conditions::{ConditionType, Finding, Reason};
use sluice_crds::names::{FIELD_MANAGER, ResourceId};

use super::workers;
use crate::autoscale::Forbidden;
use crate::connections::KafkaClient;
use crate::controller::halt::Halt;
use crate::controller::kafka::{change, finding};
use crate::controller::kind::SluiceKind;
use crate::controller::rollout;
use crate::controller::round::Round;
use crate::kube_ext::{KubeError, timed};

/// How soon to look again while workers end.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Stops the workers when it is the resource's turn, and halts until they are gone and the groups are empty; then lets the
/// reconcile go on.
pub async fn run<K: SluiceKind>(round: &mut Round<'_, K>, kafka: &KafkaClient, why: &str) -> Result<(), Halt> {
    let running = round.live.as_ref().is_some_and(|live| rollout::wanted(live) != 0);
    if running && round.wanted().count > 0 {
        workers::take_turn(round).await?;
    }
    at_once(round, kafka, why).await
}

/// The same without waiting for a turn: for workers whose positions are of another topic, or of none.
pub async fn at_once<K: SluiceKind>(round: &mut Round<'_, K>, kafka: &KafkaClient, why: &str) -> Result<(), Halt> {
    let wait = |reason, message: String| {
        let finding = Finding::progressing(ConditionType::WorkersReady, reason, message);
        Err(Halt::waiting(finding, LOOK_AGAIN))
    };
    match round.ctx.scaling.forbid(round.resource.uid.as_str()) {
        Forbidden::UnderWay => {
            return wait(Reason::WorkersStopping, format!("{why}: the workers are just being scaled"));
        }
        // What was read may be older than what the autoscaler has written since.
        Forbidden::Now => {
            let name = round.resource.id.child_name();
            round.live = timed("get deployment", round.api::<Deployment>().get_opt(&name)).await?;
        }
        Forbidden::Already => {}
    }
    if round.live.as_ref().is_some_and(|live| rollout::wanted(live) != 0) {
        scale_to_zero(round).await?;
        return wait(Reason::WorkersStopping, format!("{why}: the workers stop first"));
    }
    if !pods_are_gone(round).await? || round.live.as_ref().is_some_and(|live| !rollout::has_stopped(live)) {
        return wait(Reason::WorkersStopping, format!("{why}: the workers are ending"));
    }
    let empty = change::groups_are_empty(kafka, &round.resource.groups())
        .await
        .map_err(|error| Halt::found(finding(ConditionType::AccessReady, "consumer groups", &error)))?;
    if !empty {
        let message =
            format!("{why}: the consumer group still has members; if they are not this resource's, stop them");
        return wait(Reason::GroupInUse, message);
    }
    Ok(())
}

/// Scales the workers down. The rest of the Deployment stays as it is: the next apply says everything again.
pub async fn scale_to_zero<K: SluiceKind>(round: &mut Round<'_, K>) -> Result<(), KubeError> {
    scale(round, 0).await
}

/// Sets the number of workers and nothing else.
pub async fn scale<K: SluiceKind>(round: &mut Round<'_, K>, replicas: i32) -> Result<(), KubeError> {
    round.live = Some(patch(&round.api(), &round.resource.id.child_name(), replicas).await?);
    Ok(())
}

/// Scales a Deployment down; it as it is then.
pub async fn stop(api: &Api<Deployment>, name: &str) -> Result<Deployment, KubeError> {
    patch(api, name, 0).await
}

async fn patch(api: &Api<Deployment>, name: &str, replicas: i32) -> Result<Deployment, KubeError> {
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    timed("scale workers", api.patch(name, &params, &patch)).await
}

/// True when there is no pod of the resource's any more that could still work, not even an ending one.
pub async fn pods_are_gone<K: SluiceKind>(round: &Round<'_, K>) -> Result<bool, KubeError> {
    Ok(pods(&round.api(), &round.resource.id).await? == 0)
}

/// Pods of a resource that could still work, ending ones included. Finished ones (evicted, failed, completed) stay as
/// objects until somebody removes them, and neither read nor write any more.
pub async fn pods(api: &Api<Pod>, id: &ResourceId) -> Result<usize, KubeError> {
    pods_labelled(api, &id.selector()).await
}

/// The same of a selector.
pub async fn pods_labelled(api: &Api<Pod>, selector: &str) -> Result<usize, KubeError> {
    let selector = ListParams::default().labels(selector).fields("status.phase!=Failed,status.phase!=Succeeded");
    Ok(timed("list pods", api.list_metadata(&selector)).await?.items.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::test_support::{PIPELINE, api_server, pipeline};

    #[tokio::test]
    async fn pods_that_have_ended_are_not_counted() {
        let none =
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "items": []});
        let (client, calls) = api_server(move |_| (200, none.clone()));
        let id = pipeline(PIPELINE).unwrap().id;
        assert_eq!(pods(&Api::namespaced(client, "shop"), &id).await.unwrap(), 0);
        let uri = calls.lock().unwrap()[0].uri.clone();
        assert!(uri.contains("fieldSelector=status.phase%21%3DFailed%2Cstatus.phase%21%3DSucceeded"), "{uri}");
    }
}
