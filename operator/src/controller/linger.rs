//! Workers that outlive their resource: one without a finalizer is gone at once, and Kubernetes ends its pods after it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use sluice_crds::names::{Namespace, ResourceId, ResourceName, UID_LABEL};

use super::context::Context;
use super::stages::quiesce;
use super::streams::notify;
use crate::claims::Claimant;
use crate::kube_ext::{KubeError, timed};
use crate::sweep::Trigger;

/// Between two looks.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Waits until the last worker of a resource that is gone has ended, looking `every` so often, and gives up its claims.
pub(super) async fn outlive(ctx: Arc<Context>, who: Claimant, every: Duration) {
    loop {
        match has_ended(&ctx, &who).await {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, name = who.name, "workers of a resource that is gone: asked again"),
        }
        tokio::time::sleep(every).await;
    }
    let affected = ctx.claims.lock().remove(&who);
    notify(&ctx, affected.iter().map(Trigger::from).collect());
}

async fn has_ended(ctx: &Context, who: &Claimant) -> Result<bool, KubeError> {
    let names = (Namespace::parse(who.namespace.clone()), ResourceName::parse(who.name.clone()));
    // A resource whose name was never valid has never had workers.
    let (Ok(namespace), Ok(name)) = names else { return Ok(true) };
    let instance = ctx.settings.current().instance.clone();
    let id = ResourceId { instance, namespace, kind: who.kind, name };
    // While it is there, pods may still be made of it. One of the next resource of this name is another one.
    let api: Api<Deployment> = Api::namespaced(ctx.client.clone(), &who.namespace);
    let live = timed("get deployment", api.get_metadata_opt(&id.child_name())).await?;
    if live.is_some_and(|live| live.owner_references().iter().any(|owner| owner.uid == who.uid)) {
        return Ok(false);
    }
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), &who.namespace);
    Ok(quiesce::pods_labelled(&pods, &format!("{UID_LABEL}={}", who.uid)).await? == 0)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::json;
    use sluice_crds::names::Kind;

    use super::*;
    use crate::claims::{Claims, Verdict};
    use crate::controller::test_support::{PIPELINE, api_server, context, pipeline, refusal};

    #[tokio::test]
    async fn nobody_gets_what_is_written_before_the_last_worker_has_ended() {
        // First the Deployment goes, then its pods.
        let left = Arc::new(Mutex::new(3));
        let seen = Arc::clone(&left);
        let (client, _) = api_server(move |asked| {
            let mut left = left.lock().unwrap();
            if asked.uri.contains("/deployments/") {
                *left -= 1;
                let owners = json!([{"apiVersion": "sluice.dev/v1alpha1", "kind": "EventPipeline", "name": "enrich", "uid": "gone"}]);
                let there = (200, json!({"metadata": {"name": "evp-enrich", "ownerReferences": owners}}));
                return if *left >= 2 { there } else { refusal(404, "NotFound", "no") };
            }
            assert!(asked.uri.contains("sluice.dev%2Fuid%3Dgone"), "{}", asked.uri);
            let pods = if *left >= 1 { json!([{"metadata": {"name": "pod"}}]) } else { json!([]) };
            (
                200,
                json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "items": pods}),
            )
        });
        let (ctx, mut triggers) = context(client);
        let ctx = Arc::new(ctx);
        let who = |uid: &str, name: &str| Claimant {
            created: 1,
            uid: uid.to_owned(),
            kind: Kind::EventPipeline,
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        };
        let (gone, next) = (who("gone", "enrich"), who("next", "next"));
        let claims = Claims::of(&pipeline(PIPELINE).unwrap());
        {
            let mut index = ctx.claims.lock();
            index.insert(&gone, claims.clone());
            assert_eq!(index.decide(&gone), Verdict::Granted);
            index.insert(&next, claims);
            assert!(index.end(&gone).0, "its workers may still be there");
            assert!(matches!(index.decide(&next), Verdict::Refused(conflict) if conflict.passes));
        }
        outlive(Arc::clone(&ctx), gone, Duration::from_millis(1)).await;
        assert_eq!(*seen.lock().unwrap(), 0);
        assert_eq!(triggers.recv().await, Some(Trigger::from(&next)));
        assert_eq!(ctx.claims.lock().decide(&next), Verdict::Granted);
    }
}
