//! Metadata → who the resource is.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sluice_crds::names::{InstanceId, Kind, Namespace, ResourceId, ResourceName, ResourceUid};

use super::Invalid;

/// Who a resource is, and which incarnation.
pub fn identity(instance: &InstanceId, kind: Kind, meta: &ObjectMeta) -> Result<(ResourceId, ResourceUid), Invalid> {
    let name = meta.name.clone().ok_or(Invalid::Metadata("metadata.name"))?;
    let namespace = meta.namespace.clone().ok_or(Invalid::Metadata("metadata.namespace"))?;
    let uid = meta.uid.clone().ok_or(Invalid::Metadata("metadata.uid"))?;
    let named = |field: &str| {
        let field = field.to_owned();
        move |problem| Invalid::Name { field, problem }
    };
    let id = ResourceId {
        instance: instance.clone(),
        namespace: Namespace::parse(namespace).map_err(named("metadata.namespace"))?,
        kind,
        name: ResourceName::parse(name).map_err(named("metadata.name"))?,
    };
    Ok((id, ResourceUid::parse(uid).map_err(named("metadata.uid"))?))
}
