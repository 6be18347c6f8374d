//! Scraping, for clusters that have the Prometheus operator's definitions.

use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::json;

use super::metadata::{metadata, sealed_dynamic};
use crate::controller::validated::ValidatedResource;

/// The kind.
pub fn api_resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("monitoring.coreos.com", "v1", "PodMonitor"),
        "podmonitors",
    )
}

pub(super) fn pod_monitor(resource: &ValidatedResource) -> DynamicObject {
    let mut object = DynamicObject::new(&resource.id.child_name(), &api_resource());
    object.metadata = metadata(resource, resource.id.child_name());
    object.data = json!({"spec": {
        "selector": {"matchLabels": resource.id.selector_labels()},
        "podMetricsEndpoints": [{"port": "admin", "path": "/metrics"}],
    }});
    sealed_dynamic(object)
}
