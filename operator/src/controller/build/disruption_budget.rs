//! One worker at a time: each that goes costs a rebalance.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::metadata::{metadata, sealed};
use crate::controller::validated::ValidatedResource;

pub(super) fn disruption_budget(resource: &ValidatedResource) -> PodDisruptionBudget {
    sealed(PodDisruptionBudget {
        metadata: metadata(resource, resource.id.child_name()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(resource.id.selector_labels()),
                ..LabelSelector::default()
            }),
            // A worker that is not ready has no partitions to lose: it must never keep a node from being drained.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    })
}
