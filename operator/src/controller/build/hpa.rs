//! The autoscaler of mode `Hpa`.

use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, ExternalMetricSource, HPAScalingRules, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec, MetricIdentifier, MetricSpec, MetricTarget,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::metadata::{metadata, sealed};
use crate::controller::validated::ValidatedResource;

/// One of the names of our metric.
const METRIC: &str = "consumer_lag";

/// The autoscaler; none when the resource is not scaled by one.
pub fn hpa(resource: &ValidatedResource) -> Option<HorizontalPodAutoscaler> {
    let hpa = resource.hpa()?;
    let group = BTreeMap::from([("group".to_owned(), hpa.group.clone())]);
    let selector = LabelSelector { match_labels: Some(group), ..LabelSelector::default() };
    let metric = ExternalMetricSource {
        metric: MetricIdentifier { name: METRIC.to_owned(), selector: Some(selector) },
        target: MetricTarget {
            type_: "AverageValue".to_owned(),
            average_value: Some(Quantity(hpa.lag.to_string())),
            ..MetricTarget::default()
        },
    };
    let down = HPAScalingRules {
        stabilization_window_seconds: Some(hpa.scale_down_window_seconds),
        ..HPAScalingRules::default()
    };
    let spec = HorizontalPodAutoscalerSpec {
        scale_target_ref: CrossVersionObjectReference {
            api_version: Some("apps/v1".to_owned()),
            kind: "Deployment".to_owned(),
            name: resource.id.child_name(),
        },
        min_replicas: Some(hpa.min_replicas),
        max_replicas: hpa.max_replicas,
        metrics: Some(vec![MetricSpec {
            type_: "External".to_owned(),
            external: Some(metric),
            ..MetricSpec::default()
        }]),
        behavior: Some(HorizontalPodAutoscalerBehavior { scale_down: Some(down), scale_up: None }),
    };
    let metadata = metadata(resource, resource.id.child_name());
    Some(sealed(HorizontalPodAutoscaler { metadata, spec: Some(spec), ..HorizontalPodAutoscaler::default() }))
}
