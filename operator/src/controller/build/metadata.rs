//! Names, labels, owner reference: the same for every child.

use std::collections::BTreeMap;

use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicObject;
use serde::Serialize;
use sluice_crds::names::{ContentHash, DESIRED_HASH_ANNOTATION, TEMPLATE_HASH_ANNOTATION};

use crate::controller::validated::ValidatedResource;

/// Metadata of a child; its desired hash is added by [`sealed`].
pub fn metadata(resource: &ValidatedResource, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(resource.id.namespace.to_string()),
        labels: Some(resource.id.labels()),
        owner_references: Some(vec![resource.owner_reference()]),
        ..ObjectMeta::default()
    }
}

/// Writes the hash of a finished child into its annotations: an object that carries it needs no apply.
pub fn sealed<K: Serialize + Metadata<Ty = ObjectMeta>>(mut child: K) -> K {
    let hash = hash(&child);
    seal(child.metadata_mut(), hash);
    child
}

/// The same for a Deployment, which also says by a hash of its own whether its pods are replaced.
pub fn sealed_deployment(mut deployment: Deployment) -> Deployment {
    let template = hash(&deployment.spec.as_ref().map(|spec| &spec.template));
    let annotations = deployment.metadata.annotations.get_or_insert_with(BTreeMap::new);
    annotations.insert(TEMPLATE_HASH_ANNOTATION.to_owned(), template);
    sealed(deployment)
}

/// The same for an object without a type of its own.
pub fn sealed_dynamic(mut child: DynamicObject) -> DynamicObject {
    let hash = hash(&child);
    seal(&mut child.metadata, hash);
    child
}

fn hash(child: &impl Serialize) -> String {
    let text = serde_json::to_vec(child).expect("an object made of plain data should serialise");
    ContentHash::of([text.as_slice()]).long()
}

fn seal(metadata: &mut ObjectMeta, hash: String) {
    let annotations = metadata.annotations.get_or_insert_with(BTreeMap::new);
    annotations.insert(DESIRED_HASH_ANNOTATION.to_owned(), hash);
}
