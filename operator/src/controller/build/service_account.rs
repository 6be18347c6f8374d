//! Who worker pods are in Kubernetes: an account that nothing is bound to and whose token is mounted nowhere.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::metadata::{metadata, sealed};
use crate::controller::validated::ValidatedResource;

pub(super) fn service_account(resource: &ValidatedResource) -> ServiceAccount {
    sealed(ServiceAccount {
        metadata: metadata(resource, resource.id.child_name()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    })
}
