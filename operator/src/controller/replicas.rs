//! How many workers the Deployment shall have, and whether our apply says so. Pure.
//!
//! By hand the spec says it. While the operator scales by the load, the autoscaler's write of `/scale` says it, and our apply
//! leaves the field out; but only when somebody else owns the field: a field that its only owner leaves out is removed, and
//! the API server would put 1 in its place.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::Value;
use sluice_crds::names::FIELD_MANAGER;
use sluice_crds::v1alpha1::DesiredState;

use super::rollout;
use super::validated::ValidatedResource;

/// How many workers there shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// So many.
    pub count: i32,
    /// Our apply says it.
    pub applied: bool,
    /// It is part of what the desired hash is made of: not a number that changes by itself.
    pub hashed: bool,
}

/// How many workers the Deployment shall have. `remembered`: what the autoscaler wanted last, by status.
pub fn wanted(resource: &ValidatedResource, live: Option<&Deployment>, remembered: Option<i32>) -> Wanted {
    if resource.state == DesiredState::Stopped {
        return Wanted { count: 0, applied: true, hashed: true };
    }
    if !resource.is_scaled_by_load() {
        return Wanted { count: resource.replicas, applied: true, hashed: true };
    }
    // An autoscaler of Kubernetes does nothing where none is asked for: it is never left at that.
    let at_least = resource.hpa().map_or(0, |hpa| hpa.min_replicas);
    let count = match live {
        Some(live) if is_written_by_others(live) && rollout::wanted(live) >= at_least.min(1) => {
            return Wanted { count: rollout::wanted(live), applied: false, hashed: false };
        }
        // None is what stopping for an epoch or for offsets leaves, or a spec that wanted none before.
        Some(live) if rollout::wanted(live) > 0 => rollout::wanted(live),
        _ => remembered.filter(|count| *count >= at_least).unwrap_or(resource.replicas).max(at_least),
    };
    Wanted { count, applied: true, hashed: false }
}

/// True when somebody else has written the number of workers: the autoscaler, or a person with `kubectl scale`.
pub fn is_written_by_others(live: &Deployment) -> bool {
    let entries = live.metadata.managed_fields.as_deref().unwrap_or_default();
    let owners = || entries.iter().filter(|entry| owns(entry, &["spec", "replicas"]));
    let ours = |entry: &ManagedFieldsEntry| entry.manager.as_deref() == Some(FIELD_MANAGER);
    // Written through `/scale` a zero is nobody's field: that form of the object leaves it out.
    owners().any(|entry| !ours(entry)) || (rollout::wanted(live) == 0 && owners().next().is_none())
}

/// True when an entry of `managedFields` holds a field.
pub fn owns(entry: &ManagedFieldsEntry, path: &[&str]) -> bool {
    let root = entry.fields_v1.as_ref().map(|fields| &fields.0);
    let found = path.iter().try_fold(root, |fields, name| {
        let below = fields.and_then(|fields: &Value| fields.get(format!("f:{name}")));
        below.is_some().then_some(below)
    });
    found.is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::autoscale::SCALE_MANAGER;
    use crate::controller::test_support::{PIPELINE, pipeline};

    fn resource(spec: &str) -> ValidatedResource {
        pipeline(&PIPELINE.replacen("spec:\n", &format!("spec:\n  {spec}\n"), 1)).unwrap()
    }

    /// Manager of another field.
    const NOBODY: &str = "";

    fn live(replicas: i32, manager: &str, operation: &str) -> Deployment {
        let fields = if manager == NOBODY { json!({"f:spec": {}}) } else { json!({"f:spec": {"f:replicas": {}}}) };
        serde_json::from_value(json!({
            "metadata": {"managedFields": [
                {"manager": "kube-controller-manager", "operation": "Update", "subresource": "status",
                 "fieldsV1": {"f:status": {"f:replicas": {}}}},
                {"manager": manager, "operation": operation, "fieldsV1": fields},
            ]},
            "spec": {"replicas": replicas, "selector": {}, "template": {}},
        }))
        .unwrap()
    }

    #[test]
    fn by_hand_the_spec_says_it() {
        let by_hand = resource("autoscaling: {mode: Manual}");
        for live in [None, Some(live(7, SCALE_MANAGER, "Update"))] {
            let wanted = wanted(&by_hand, live.as_ref(), Some(7));
            assert_eq!(wanted, Wanted { count: 2, applied: true, hashed: true });
        }
        let shown = resource("autoscaling: {mode: Recommend, maxReplicas: 9}");
        assert_eq!(wanted(&shown, None, Some(7)).count, 2);
    }

    /// By hand, then by the load, then by hand: at no step does anything but a person or the load change the number.
    #[test]
    fn by_the_load_our_apply_says_it_until_another_owns_it() {
        let scaled = resource("autoscaling: {maxReplicas: 9}");
        for (there, remembered, count, applied) in [
            // New: as many as the spec says at first.
            (None, None, 2, true),
            (None, Some(6), 6, true),
            // Ours alone: left out it would become 1.
            (Some((5, FIELD_MANAGER, "Apply")), None, 5, true),
            (Some((5, FIELD_MANAGER, "Apply")), Some(3), 5, true),
            (Some((5, SCALE_MANAGER, "Update")), Some(3), 5, false),
            (Some((5, "kubectl", "Update")), Some(3), 5, false),
            // Asleep, when nobody owns the field; and asleep when somebody removed the Deployment.
            (Some((0, NOBODY, "Update")), Some(3), 0, false),
            (None, Some(0), 0, true),
            (Some((0, FIELD_MANAGER, "Apply")), Some(0), 0, true),
            // Stopped by us for an epoch: as before.
            (Some((0, FIELD_MANAGER, "Update")), Some(4), 4, true),
            (Some((0, FIELD_MANAGER, "Update")), None, 2, true),
        ] {
            let live = there.map(|(replicas, manager, operation)| live(replicas, manager, operation));
            let found = wanted(&scaled, live.as_ref(), remembered);
            assert_eq!(found, Wanted { count, applied, hashed: false }, "{there:?} {remembered:?}");
        }
    }

    #[test]
    fn an_autoscaler_of_kubernetes_is_never_left_with_none() {
        let scaled = resource("autoscaling: {mode: Hpa, minReplicas: 3, maxReplicas: 9, lagThreshold: 5}");
        for (there, remembered, count, applied) in [
            (None, None, 3, true),
            (Some((5, FIELD_MANAGER, "Apply")), None, 5, true),
            (Some((5, "kube-controller-manager", "Update")), Some(3), 5, false),
            (Some((2, "kube-controller-manager", "Update")), Some(3), 2, false),
            // Asleep before.
            (Some((0, NOBODY, "Update")), Some(0), 3, true),
            // Stopped by us for an epoch.
            (Some((0, FIELD_MANAGER, "Update")), Some(7), 7, true),
        ] {
            let live = there.map(|(replicas, manager, operation)| live(replicas, manager, operation));
            let found = wanted(&scaled, live.as_ref(), remembered);
            assert_eq!(found, Wanted { count, applied, hashed: false }, "{there:?} {remembered:?}");
        }
    }

    #[test]
    fn stopped_is_none_whoever_scales() {
        let stopped = resource("state: Stopped\n  autoscaling: {maxReplicas: 9}");
        let wanted = wanted(&stopped, Some(&live(5, SCALE_MANAGER, "Update")), Some(5));
        assert_eq!(wanted, Wanted { count: 0, applied: true, hashed: true });
    }
}
