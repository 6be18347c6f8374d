//! The `HorizontalPodAutoscaler` of mode `Hpa`: there in this mode, gone in every other.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::ResourceExt;
use kube::api::PartialObjectMeta;

use super::workers::conflict;
use crate::controller::build;
use crate::controller::halt::Halt;
use crate::controller::kind::SluiceKind;
use crate::controller::round::Round;
use crate::kube_ext::{delete_if_exists, ensure, timed};

/// Makes it as it should be. Called when the workers are: it scales what is there.
pub async fn apply<K: SluiceKind>(round: &Round<'_, K>) -> Result<(), Halt> {
    let Some(hpa) = build::hpa(round.resource) else { return Ok(()) };
    ensure(&round.api(), &hpa).await.map(drop).map_err(conflict)
}

/// Removes ours where the resource is not scaled by one. Called before anybody else writes the number of workers.
pub async fn remove<K: SluiceKind>(round: &Round<'_, K>) -> Result<(), Halt> {
    if round.resource.hpa().is_some() {
        return Ok(());
    }
    let (api, name) = (round.api::<HorizontalPodAutoscaler>(), round.resource.id.child_name());
    let present: Option<PartialObjectMeta<HorizontalPodAutoscaler>> =
        timed("get child", api.get_metadata_opt(&name)).await?;
    let ours = present.filter(|present| {
        let mut owners = present.owner_references().iter();
        owners.any(|owner| owner.controller == Some(true) && owner.uid == round.resource.uid.as_str())
    });
    match ours {
        Some(ours) => Ok(delete_if_exists(&api, &name, ours.uid()).await?),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use sluice_crds::v1alpha1::EventPipeline;

    use super::*;
    use crate::controller::test_support::{PIPELINE, api_server, in_round, refusal, settings};

    /// What is asked of the API server for a resource without mode `Hpa`, when this autoscaler is there.
    async fn removing(present: Option<Value>) -> Vec<String> {
        let object: EventPipeline = serde_saphyr::from_str(PIPELINE).unwrap();
        let (client, calls) = api_server(move |asked| match (&present, asked.method.as_str()) {
            (Some(present), "GET") => (200, present.clone()),
            (None, "GET") => refusal(404, "NotFound", "no"),
            _ => (200, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})),
        });
        in_round(&object, client, settings(), None, async |round| remove(round).await.unwrap()).await;
        let calls = calls.lock().unwrap();
        calls.iter().map(|call| call.method.clone()).collect()
    }

    #[tokio::test]
    async fn only_ours_is_removed() {
        let hpa = |owner: &str| {
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {
                "name": "evp-enrich", "namespace": "shop", "uid": "h",
                "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "n", "uid": owner, "controller": true}],
            }})
        };
        assert_eq!(removing(None).await, ["GET"]);
        assert_eq!(removing(Some(hpa("somebody-else"))).await, ["GET"]);
        assert_eq!(removing(Some(hpa("0b5c2c4e-7a55-4a0e-9d6e-2f0d8e7a1c11"))).await, ["GET", "DELETE"]);
    }
}
