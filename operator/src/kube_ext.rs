//! What we do to Kubernetes objects, each call with a time-out: server-side apply of our children, only when needed and
//! never over somebody else's object.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use kube::api::{Api, DeleteParams, PartialObjectMeta, Patch, PatchParams, Preconditions};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sluice_crds::names::{DESIRED_HASH_ANNOTATION, FIELD_MANAGER};

/// Longest wait for one answer of the API server.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a call to the API server did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// No answer in time. It may have been done.
    #[error("kubernetes did not answer {0} in time")]
    TimedOut(&'static str),
    /// The API server refused, or cannot be reached.
    #[error("kubernetes failed {call}: {}", words(.source))]
    Call {
        /// What was asked.
        call: &'static str,
        /// Its answer.
        source: Box<kube::Error>,
    },
    /// An object of a child's name belongs to somebody else.
    #[error("the {kind} {name:?} exists and is not this resource's: remove or rename it")]
    NotOurs {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// The child is being deleted: the next one can be made when it is gone.
    #[error("the {kind} {name:?} is being deleted")]
    Terminating {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
}

impl KubeError {
    /// Bounded label for metrics and events.
    pub fn category(&self) -> &'static str {
        match self {
            Self::TimedOut(_) => "kube_timeout",
            Self::Call { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if status.is_conflict() => "kube_conflict",
                kube::Error::Api(status) if status.is_forbidden() => "kube_forbidden",
                kube::Error::Api(_) => "kube_refused",
                _ => "kube_unreachable",
            },
            Self::NotOurs { .. } => "child_conflict",
            Self::Terminating { .. } => "child_terminating",
        }
    }

    /// True when the API server says that an object is not there.
    pub fn is_not_found(&self) -> bool {
        // For a kind that is not installed the server has only a code and a line of text.
        matches!(self, Self::Call { source, .. } if matches!(source.as_ref(), kube::Error::Api(s) if s.is_not_found() || s.code == 404))
    }

    /// True when the API server decided against the call: quota, admission, rights or the object itself. The same call
    /// fails again until a person changes something; other failures pass by themselves.
    pub fn is_refused(&self) -> bool {
        let Self::Call { source, .. } = self else { return false };
        // A webhook without a code of its own answers 400.
        matches!(source.as_ref(), kube::Error::Api(s) if matches!(s.code, 400 | 403 | 405 | 413 | 415 | 422))
    }

    /// True when somebody else wrote between our reading and writing: look again.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Call { source, .. } if matches!(source.as_ref(), kube::Error::Api(s) if s.is_conflict()))
    }
}

/// What the API server said, without the rest of its answer.
fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({}, {})", status.message, status.code, status.reason),
        other => other.to_string(),
    }
}

/// Bounds a call and says which it was.
pub async fn timed<T>(call: &'static str, work: impl Future<Output = Result<T, kube::Error>>) -> Result<T, KubeError> {
    match tokio::time::timeout(CALL_TIMEOUT, work).await {
        Ok(done) => done.map_err(|source| KubeError::Call { call, source: Box::new(source) }),
        Err(_) => Err(KubeError::TimedOut(call)),
    }
}

/// Whether an apply was needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The object was as desired; nothing was sent.
    Unchanged,
    /// It was not there.
    Created,
    /// It was there and differed.
    Changed,
}

/// Makes the object as desired, if it is not. Reads metadata only: bodies of Secrets never reach the operator.
///
/// An object that our controller reference does not point to is left alone: [`KubeError::NotOurs`].
pub async fn ensure<K>(api: &Api<K>, desired: &K) -> Result<Applied, KubeError>
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
    K::DynamicType: Default,
{
    let name = desired.name_any();
    let present = timed("get child", api.get_metadata_opt(&name)).await?;
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    ensure_known(api, &kind, desired, present.map(|object: PartialObjectMeta<K>| object.metadata)).await
}

/// [`ensure`] when the present object's metadata has been read already.
pub async fn ensure_known<K>(
    api: &Api<K>,
    kind: &str,
    desired: &K,
    present: Option<ObjectMeta>,
) -> Result<Applied, KubeError>
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
{
    let (kind, name) = (kind.to_owned(), desired.name_any());
    let params = PatchParams::apply(FIELD_MANAGER);
    let Some(present) = present else {
        // Not forced: if somebody makes an object of this name meanwhile, the server refuses.
        timed("create child", api.patch(&name, &params, &Patch::Apply(desired))).await?;
        return Ok(Applied::Created);
    };
    if !is_ours(&present, desired.meta()) {
        return Err(KubeError::NotOurs { kind, name });
    }
    if present.deletion_timestamp.is_some() {
        return Err(KubeError::Terminating { kind, name });
    }
    if is_as_desired(&present, desired) {
        return Ok(Applied::Unchanged);
    }
    timed("apply child", api.patch(&name, &params.force(), &Patch::Apply(desired))).await?;
    Ok(Applied::Changed)
}

/// True when both have the same controller.
fn is_ours(present: &ObjectMeta, desired: &ObjectMeta) -> bool {
    let controller = |meta: &ObjectMeta| {
        let owners = meta.owner_references.iter().flatten();
        owners.filter(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone()).next()
    };
    controller(desired).is_some() && controller(present) == controller(desired)
}

/// True when the object carries the desired hash and every field we would apply is still ours.
///
/// The hash alone would miss a change by somebody else: the server then takes the field from our entry of
/// `managedFields`, and that is what is looked at. No cache of what we applied is needed, so it holds after a restart.
fn is_as_desired<K: Resource + Serialize>(present: &ObjectMeta, desired: &K) -> bool {
    let hash = |meta: &ObjectMeta| meta.annotations.as_ref()?.get(DESIRED_HASH_ANNOTATION).cloned();
    if hash(present).is_none() || hash(present) != hash(desired.meta()) {
        return false;
    }
    let ours = |entry: &&ManagedFieldsEntry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER)
            && entry.operation.as_deref() == Some("Apply")
            && entry.subresource.as_deref().unwrap_or_default().is_empty()
    };
    let entries = present.managed_fields.as_deref().unwrap_or_default();
    let Some(fields) = entries.iter().find(ours).and_then(|entry| entry.fields_v1.as_ref()) else { return false };
    let Ok(Value::Object(mut wanted)) = serde_json::to_value(desired) else { return false };
    // What identifies the object is not in anybody's set.
    wanted.remove("apiVersion");
    wanted.remove("kind");
    wanted.remove("status");
    if let Some(Value::Object(metadata)) = wanted.get_mut("metadata") {
        metadata.remove("name");
        metadata.remove("namespace");
        metadata.remove("resourceVersion");
    }
    owns_all(&fields.0, &Value::Object(wanted))
}

/// True when the field set (`fieldsV1`) holds every leaf of `wanted`.
fn owns_all(fields: &Value, wanted: &Value) -> bool {
    let Value::Object(fields) = fields else { return false };
    // An empty set stands for the whole value: a scalar or an atomic list or map.
    if fields.is_empty() {
        return true;
    }
    match wanted {
        Value::Object(members) => members
            .iter()
            .filter(|(_, value)| !value.is_null())
            .all(|(name, value)| fields.get(&format!("f:{name}")).is_some_and(|child| owns_all(child, value))),
        Value::Array(items) => items.iter().all(|item| owns_item(fields, item)),
        _ => true,
    }
}

/// List items are in the set by the keys that identify them (`k:{"name":"x"}`) or by value (`v:"x"`).
fn owns_item(fields: &Map<String, Value>, item: &Value) -> bool {
    fields.iter().any(|(key, child)| {
        if let Some(value) = key.strip_prefix("v:") {
            return serde_json::from_str::<Value>(value).is_ok_and(|value| value == *item);
        }
        let Some(Ok(Value::Object(keys))) = key.strip_prefix("k:").map(serde_json::from_str::<Value>) else {
            return false;
        };
        // A key that our item lacks was defaulted by the server.
        keys.iter().all(|(name, value)| item.get(name).is_none_or(|own| own == value)) && owns_all(child, item)
    })
}

/// Deletes an object if it is there and has this uid.
pub async fn delete_if_exists<K>(api: &Api<K>, name: &str, uid: Option<String>) -> Result<(), KubeError>
where
    K: Clone + DeserializeOwned + Debug,
{
    let preconditions = uid.map(|uid| Preconditions { uid: Some(uid), resource_version: None });
    let params = DeleteParams { preconditions, ..DeleteParams::background() };
    match timed("delete child", api.delete(name, &params)).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;

    fn desired() -> ConfigMap {
        serde_json::from_value(json!({
            "metadata": {
                "name": "a", "namespace": "shop",
                "annotations": {DESIRED_HASH_ANNOTATION: "h"},
                "ownerReferences": [{"apiVersion": "v", "kind": "K", "name": "n", "uid": "u", "controller": true}],
            },
            "data": {"x": "1"},
        }))
        .unwrap()
    }

    fn present(fields: &Value) -> ObjectMeta {
        let mut meta = desired().metadata;
        meta.managed_fields = serde_json::from_value(json!([
            {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:data": {"f:y": {}}}},
            {"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": fields},
        ]))
        .unwrap();
        meta
    }

    fn all_ours() -> Value {
        json!({
            "f:data": {"f:x": {}},
            "f:metadata": {
                "f:annotations": {format!("f:{DESIRED_HASH_ANNOTATION}"): {}},
                "f:ownerReferences": {"k:{\"uid\":\"u\"}": {}},
            },
        })
    }

    #[test]
    fn an_object_with_our_hash_and_all_our_fields_needs_nothing() {
        assert!(is_as_desired(&present(&all_ours()), &desired()));
    }

    #[test]
    fn a_field_that_somebody_took_or_removed_needs_an_apply() {
        let mut taken = all_ours();
        taken["f:data"] = json!({"f:z": {}});
        assert!(!is_as_desired(&present(&taken), &desired()));
        let mut other_hash = present(&all_ours());
        other_hash.annotations = Some([(DESIRED_HASH_ANNOTATION.to_owned(), "old".to_owned())].into());
        assert!(!is_as_desired(&other_hash, &desired()));
        assert!(!is_as_desired(&desired().metadata, &desired()), "without an entry of ours nothing is known");
    }

    #[test]
    fn list_items_are_found_by_their_keys_even_if_one_was_defaulted() {
        let wanted = json!({"ports": [{"containerPort": 8080, "name": "admin"}], "set": ["a"]});
        let fields = |port: u16, value: &str| {
            json!({
                "f:ports": {format!("k:{{\"containerPort\":{port},\"protocol\":\"TCP\"}}"):
                    {".": {}, "f:containerPort": {}, "f:name": {}}},
                "f:set": {format!("v:\"{value}\""): {}},
            })
        };
        assert!(owns_all(&fields(8080, "a"), &wanted));
        assert!(!owns_all(&fields(8081, "a"), &wanted));
        assert!(!owns_all(&fields(8080, "b"), &wanted));
    }

    #[test]
    fn an_object_without_our_controller_reference_is_not_ours() {
        let mut foreign = desired().metadata;
        assert!(is_ours(&foreign, &desired().metadata));
        foreign.owner_references.as_mut().unwrap()[0].controller = None;
        assert!(!is_ours(&foreign, &desired().metadata));
        foreign.owner_references = None;
        assert!(!is_ours(&foreign, &desired().metadata));
    }
}
