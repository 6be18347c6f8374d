//! The finalizer, and other small writes to a resource's own metadata.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{PartialObjectMeta, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use sluice_crds::names::{FIELD_MANAGER, FINALIZER, RELEASED_ANNOTATION};
use sluice_crds::v1alpha1::{DeletionAction, DeletionPolicy};

use super::kind::SluiceKind;
use crate::kube_ext::{KubeError, timed};

/// True when something outside the cluster goes with the resource. Users and ACLs do not count: the sweep removes those
/// of vanished resources, so that nothing is held up by a Kafka that is gone.
pub fn is_needed(policy: &DeletionPolicy) -> bool {
    [policy.topics, policy.redis_keys, policy.consumer_group].contains(&DeletionAction::Delete)
}

/// True when `release-finalizers` took it off while this operator was running: before an uninstall it must stay off,
/// though the operator still runs.
pub fn is_released(meta: &ObjectMeta, started: jiff::Timestamp) -> bool {
    let text = meta.annotations.as_ref().and_then(|annotations| annotations.get(RELEASED_ANNOTATION));
    text.and_then(|text| text.parse::<jiff::Timestamp>().ok()).is_some_and(|released| released >= started)
}

/// True when the resource has it.
pub fn is_set(meta: &ObjectMeta) -> bool {
    meta.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// Adds or removes it, refused if the object has changed since it was read; the object as it is then.
pub async fn set<K: SluiceKind>(api: &Api<K>, object: &K, wanted: bool) -> Result<K, KubeError> {
    let annotations = wanted.then(|| json!({RELEASED_ANNOTATION: null}));
    let patch = patch(object.meta(), wanted, annotations);
    timed("set finalizer", api.patch(&object.name_any(), &params(), &Patch::Merge(patch))).await
}

/// Removes it for good, as far as the operators that run now are concerned.
pub async fn release<K: SluiceKind>(
    api: &Api<K>,
    meta: &ObjectMeta,
    now: jiff::Timestamp,
) -> Result<PartialObjectMeta<K>, KubeError> {
    let patch = patch(meta, false, Some(json!({RELEASED_ANNOTATION: now.to_string()})));
    let name = meta.name.clone().unwrap_or_default();
    timed("release finalizer", api.patch_metadata(&name, &params(), &Patch::Merge(patch))).await
}

fn patch(meta: &ObjectMeta, wanted: bool, annotations: Option<Value>) -> Value {
    let mut finalizers: Vec<&str> = meta.finalizers.iter().flatten().map(String::as_str).collect();
    finalizers.retain(|finalizer| *finalizer != FINALIZER);
    if wanted {
        finalizers.push(FINALIZER);
    }
    let mut metadata = json!({"resourceVersion": meta.resource_version, "finalizers": finalizers});
    if let Some(annotations) = annotations {
        metadata["annotations"] = annotations;
    }
    json!({"metadata": metadata})
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// Removes an annotation that has been heard, refused if the object has changed since `version`; the object as it is then.
pub async fn remove_annotation<K: SluiceKind>(
    api: &Api<K>,
    object: &K,
    version: Option<&str>,
    name: &str,
) -> Result<K, KubeError> {
    let patch = json!({"metadata": {"resourceVersion": version, "annotations": {name: null}}});
    timed("remove annotation", api.patch(&object.name_any(), &params(), &Patch::Merge(patch))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_operators_that_ran_at_the_release_leave_it_off() {
        let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
        let meta = |text: &str| ObjectMeta {
            annotations: Some([(RELEASED_ANNOTATION.to_owned(), text.to_owned())].into()),
            ..ObjectMeta::default()
        };
        let released = meta("2026-01-01T12:00:00.5Z");
        assert!(is_released(&released, at("2026-01-01T11:00:00Z")));
        assert!(!is_released(&released, at("2026-01-01T12:00:01Z")), "a later one sets it again");
        assert!(!is_released(&meta("soon"), at("2026-01-01T11:00:00Z")));
        assert!(!is_released(&ObjectMeta::default(), at("2026-01-01T11:00:00Z")));
    }

    #[test]
    fn finalizers_of_others_stay() {
        let meta = ObjectMeta {
            finalizers: Some(vec!["theirs".to_owned(), FINALIZER.to_owned()]),
            resource_version: Some("7".to_owned()),
            ..ObjectMeta::default()
        };
        assert_eq!(patch(&meta, false, None), json!({"metadata": {"resourceVersion": "7", "finalizers": ["theirs"]}}));
        assert_eq!(patch(&meta, true, None)["metadata"]["finalizers"], json!(["theirs", FINALIZER]));
    }
}
