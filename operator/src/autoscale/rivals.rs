//! Who else scales the same workers. Two scalers undo each other's work, and each change costs a rebalance: ours gives way.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ListParams;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sluice_crds::names::Kind;

use super::book::Subject;
use crate::controller::context::Context;
use crate::kube_ext::{KubeError, timed};

/// Objects of one page, and most pages that are read.
const PAGE: u32 = 250;
const MAX_PAGES: usize = 40;

/// Something that scales something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rival {
    namespace: String,
    kind: &'static str,
    name: String,
    target_kind: String,
    target_name: String,
    /// Uid of its controller.
    owner: Option<String>,
}

/// What scales these workers, or writes `/scale` of their resource.
pub(super) fn of<'a>(rivals: &'a [Rival], subject: &Subject) -> Option<&'a Rival> {
    rivals.iter().find(|rival| {
        rival.namespace == subject.claimant.namespace
            // The one that we have made for it.
            && rival.owner.as_ref() != Some(&subject.claimant.uid)
            && match rival.target_kind.as_str() {
                // The default of a ScaledObject.
                "" | "Deployment" => rival.target_name == subject.deployment.0,
                kind => {
                    Kind::ALL.into_iter().any(|ours| ours == subject.claimant.kind && ours.api_kind() == kind)
                        && rival.target_name == subject.claimant.name
                }
            }
    })
}

impl Rival {
    /// For people.
    pub fn describe(&self) -> String {
        format!("{} {:?}", self.kind, self.name)
    }
}

/// All HPAs and `ScaledObjects` of what is watched.
pub(super) async fn list(ctx: &Context) -> Result<Vec<Rival>, KubeError> {
    let hpas: Api<HorizontalPodAutoscaler> = ctx.watched_api();
    let mut found: Vec<Rival> = pages(&hpas, "list horizontal pod autoscalers")
        .await?
        .into_iter()
        .filter_map(|hpa| {
            let owner = controller(hpa.owner_references());
            let (namespace, name, target) = (hpa.namespace()?, hpa.name_any(), hpa.spec?.scale_target_ref);
            let (target_kind, target_name) = (target.kind, target.name);
            Some(Rival { namespace, kind: "HorizontalPodAutoscaler", name, target_kind, target_name, owner })
        })
        .collect();
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("keda.sh", "v1alpha1", "ScaledObject"));
    let scaled: Api<DynamicObject> = match &ctx.watched {
        Some(namespace) => Api::namespaced_with(ctx.client.clone(), namespace, &kind),
        None => Api::all_with(ctx.client.clone(), &kind),
    };
    match pages(&scaled, "list scaled objects").await {
        Ok(objects) => found.extend(objects.iter().filter_map(scaled_object)),
        // KEDA is not installed.
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    Ok(found)
}

fn controller(owners: &[OwnerReference]) -> Option<String> {
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone())
}

fn scaled_object(object: &DynamicObject) -> Option<Rival> {
    let target = &object.data["spec"]["scaleTargetRef"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Some(Rival {
        namespace: object.namespace()?,
        kind: "ScaledObject",
        name: object.name_any(),
        target_kind: text(&target["kind"]),
        target_name: text(&target["name"]),
        owner: None,
    })
}

async fn pages<K>(api: &Api<K>, call: &'static str) -> Result<Vec<K>, KubeError>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let (mut all, mut params) = (Vec::new(), ListParams::default().limit(PAGE));
    for _ in 0..MAX_PAGES {
        let page = timed(call, api.list(&params)).await?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|more| !more.is_empty()) {
            Some(more) => params.continue_token = Some(more),
            None => break,
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::book::tests::subject;
    use super::*;
    use crate::controller::test_support::{api_server, context};

    fn rival(namespace: &str, target_kind: &str, target_name: &str) -> Rival {
        Rival {
            namespace: namespace.to_owned(),
            kind: "HorizontalPodAutoscaler",
            name: "theirs".to_owned(),
            target_kind: target_kind.to_owned(),
            target_name: target_name.to_owned(),
            owner: None,
        }
    }

    #[test]
    fn who_scales_the_deployment_or_the_resource_is_a_rival() {
        for (namespace, kind, name, expected) in [
            ("shop", "Deployment", "evp-enrich", true),
            ("shop", "", "evp-enrich", true),
            ("shop", "EventPipeline", "enrich", true),
            ("shop", "CacheSync", "enrich", false),
            ("shop", "Deployment", "other", false),
            ("other", "Deployment", "evp-enrich", false),
            ("shop", "StatefulSet", "evp-enrich", false),
        ] {
            let found = of(&[rival(namespace, kind, name)], &subject()).is_some();
            assert_eq!(found, expected, "{namespace} {kind} {name}");
        }
    }

    #[test]
    fn the_one_that_we_have_made_is_no_rival() {
        let subject = subject();
        let made_for = |uid: &str| Rival { owner: Some(uid.to_owned()), ..rival("shop", "Deployment", "evp-enrich") };
        assert!(of(&[made_for(&subject.claimant.uid)], &subject).is_none());
        assert!(of(&[made_for("another")], &subject).is_some());
        let owner = |uid: &str, controller| OwnerReference {
            uid: uid.to_owned(),
            controller: Some(controller),
            ..OwnerReference::default()
        };
        assert_eq!(controller(&[owner("a", false), owner("b", true)]).as_deref(), Some("b"));
        assert_eq!(controller(&[owner("a", false)]), None);
    }

    #[tokio::test]
    async fn both_sorts_are_listed_page_by_page_and_a_cluster_without_keda_has_none_of_its() {
        let hpa = |name: &str| {
            json!({"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v2", "metadata": {"name": name, "namespace": "shop"},
                "spec": {"maxReplicas": 1, "scaleTargetRef": {"kind": "Deployment", "name": "evp-enrich"}}})
        };
        let (first, last) = (hpa("a"), hpa("b"));
        let (client, _) = api_server(move |asked| match asked.uri.as_str() {
            uri if uri.contains("scaledobjects") => (404, Value::String("404 page not found".to_owned())),
            uri if uri.contains("continue=more") => {
                (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": [last]}))
            }
            _ => (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {"continue": "more"}, "items": [first]})),
        });
        let found = list(&context(client).0).await.unwrap();
        let names: Vec<&str> = found.iter().map(|rival| rival.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let scaled = json!({"kind": "ScaledObject", "apiVersion": "keda.sh/v1alpha1", "metadata": {"name": "s", "namespace": "shop"}, "spec": {"scaleTargetRef": {"name": "evp-enrich"}}});
        let found = scaled_object(&serde_json::from_value(scaled).unwrap()).unwrap();
        assert!(of(&[found], &subject()).is_some());
    }
}
