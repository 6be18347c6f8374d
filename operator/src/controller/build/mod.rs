//! Validated resource + what Kafka says of its topics → the objects Kubernetes shall have. Pure and infallible.
//!
//! ```text
//! inputs.rs          what is known only after Kafka was asked: topic ids, compaction, sizes, the epoch
//! metadata.rs        names, labels, owner reference, desired hash: the same for every child
//! worker_config.rs   the file workers start from
//! service_account.rs config_map.rs secret.rs deployment.rs disruption_budget.rs pod_monitor.rs hpa.rs   one child each
//! ```

mod config_map;
mod deployment;
mod disruption_budget;
mod hpa;
pub mod inputs;
mod metadata;
mod pod_monitor;
mod secret;
mod service_account;
pub mod worker_config;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::DynamicObject;
use sluice_crds::worker_config::WorkerConfig;

pub use self::config_map::CONFIG_KEY;
pub use self::hpa::hpa;
pub use self::inputs::{Inputs, TopicFacts};
pub use self::pod_monitor::api_resource as pod_monitor_resource;
pub use self::secret::CURRENT as CURRENT_CREDENTIALS;
use super::validated::ValidatedResource;

/// Not sent to Kubernetes yet.
#[derive(Clone, Copy, Debug)]
pub struct Prepared;

/// The objects of one resource. `S` says whether Kubernetes has them: only `apply` makes `Children<Applied>`, and only
/// that can be turned into a status.
#[derive(Clone, Debug)]
pub struct Children<S> {
    /// Who worker pods are: nobody.
    pub service_account: ServiceAccount,
    /// The worker's configuration; immutable, named by content.
    pub config_map: ConfigMap,
    /// Generated credentials; immutable, named by content. None when there are none.
    pub secret: Option<Secret>,
    /// The workers.
    pub deployment: Deployment,
    /// How many may go at once.
    pub disruption_budget: PodDisruptionBudget,
    /// Scraping; applied only where its definition exists.
    pub pod_monitor: DynamicObject,
    /// The configuration inside `config_map`.
    pub config: WorkerConfig,
    /// What applying brought to light.
    pub state: S,
}

/// Builds every child.
pub fn build(resource: &ValidatedResource, inputs: &Inputs<'_>) -> Children<Prepared> {
    let config = worker_config::worker_config(resource, inputs);
    let config_map = config_map::config_map(resource, &config);
    let secret = secret::secret(resource, inputs);
    let deployment = deployment::deployment(resource, inputs, &config_map, secret.as_ref());
    Children {
        service_account: service_account::service_account(resource),
        deployment,
        disruption_budget: disruption_budget::disruption_budget(resource),
        pod_monitor: pod_monitor::pod_monitor(resource),
        config_map,
        secret,
        config,
        state: Prepared,
    }
}

#[cfg(test)]
mod tests;
