//! What a reconcile needs to know of a kind.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use serde::de::DeserializeOwned;
use sluice_crds::names::Kind;
use sluice_crds::v1alpha1 as api;

use super::validate::{Invalid, Rules};
use super::validated::ValidatedResource;

/// A kind of the API.
pub trait SluiceKind:
    kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Which.
    const KIND: Kind;

    /// Its status.
    fn status(&self) -> Option<&api::Status>;
    /// Whether workers run.
    fn state(&self) -> api::DesiredState;
    /// Workers asked for.
    fn replicas(&self) -> Option<i32>;
    /// How its workers are scaled.
    fn autoscaling(&self) -> Option<&api::Autoscaling>;
    /// What goes when it goes.
    fn deletion_policy(&self) -> api::DeletionPolicy;
    /// Its Kafka.
    fn kafka(&self) -> &api::Kafka;
    /// Its Redis.
    fn redis(&self) -> &api::Redis;
    /// The consumer group that its spec names.
    fn group_id(&self) -> Option<&str>;
    /// Spec + settings → what can be carried out. Pure.
    fn validate(&self, rules: Rules<'_>) -> Result<ValidatedResource, Invalid>;
}

/// Implements [`SluiceKind`] for a kind whose spec has the fields that both have, by their names.
macro_rules! sluice_kind {
    ($type:ty, $kind:expr, $validate:path) => {
        impl $crate::controller::kind::SluiceKind for $type {
            const KIND: sluice_crds::names::Kind = $kind;

            fn status(&self) -> Option<&sluice_crds::v1alpha1::Status> {
                self.status.as_ref()
            }

            fn state(&self) -> sluice_crds::v1alpha1::DesiredState {
                self.spec.state
            }

            fn replicas(&self) -> Option<i32> {
                self.spec.worker.replicas
            }

            fn autoscaling(&self) -> Option<&sluice_crds::v1alpha1::Autoscaling> {
                self.spec.autoscaling.as_ref()
            }

            fn deletion_policy(&self) -> sluice_crds::v1alpha1::DeletionPolicy {
                self.spec.deletion_policy.clone().into()
            }

            fn kafka(&self) -> &sluice_crds::v1alpha1::Kafka {
                &self.spec.kafka
            }

            fn redis(&self) -> &sluice_crds::v1alpha1::Redis {
                &self.spec.redis
            }

            fn group_id(&self) -> Option<&str> {
                self.spec.source.group_id.as_deref()
            }

            fn validate(
                &self,
                rules: $crate::controller::validate::Rules<'_>,
            ) -> Result<$crate::controller::validated::ValidatedResource, $crate::controller::validate::Invalid> {
                $validate(self, rules)
            }
        }
    };
}

pub(super) use sluice_kind;
