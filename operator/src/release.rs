//! `release-finalizers`: before an uninstall, so that no resource waits for an operator that is gone.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::{Api, Client};
use sluice_crds::v1alpha1::{CacheSync, EventPipeline};

use crate::controller::finalizer;
use crate::controller::kind::SluiceKind;
use crate::kube_ext::{KubeError, timed};

/// Resources read at once.
const PAGE: u32 = 100;
/// How often a resource is read again that somebody else wrote meanwhile.
const TRIES: u32 = 10;

/// Why not all finalizers were removed.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The resources could not be listed.
    #[error(transparent)]
    List(#[from] KubeError),
    /// Some are left.
    #[error("{released} finalizers were removed; these are left: {left}: run this again")]
    Left {
        /// How many were removed.
        released: usize,
        /// Which were not, and why.
        left: String,
    },
}

/// Removes our finalizer from every resource of a namespace, or of all. Reads metadata only: a resource that does not
/// parse, or that has been deleted already, is let go like the others.
pub async fn run(client: &Client, namespace: Option<String>) -> Result<(), ReleaseError> {
    let mut left = Vec::new();
    let namespace = namespace.as_deref();
    let released = release_kind::<EventPipeline>(client, namespace, &mut left).await?
        + release_kind::<CacheSync>(client, namespace, &mut left).await?;
    if !left.is_empty() {
        return Err(ReleaseError::Left { released, left: left.join(", ") });
    }
    tracing::info!(released, "finalizers were removed");
    Ok(())
}

async fn release_kind<K: SluiceKind>(
    client: &Client,
    namespace: Option<&str>,
    left: &mut Vec<String>,
) -> Result<usize, KubeError> {
    let all: Api<K> = namespace.map_or_else(|| Api::all(client.clone()), |name| Api::namespaced(client.clone(), name));
    let mut parameters = ListParams::default().limit(PAGE);
    let mut released = 0;
    loop {
        let page = match timed("list resources", all.list_metadata(&parameters)).await {
            // The definitions are gone, and with them every resource.
            Err(error) if error.is_not_found() => return Ok(released),
            page => page?,
        };
        for object in page.items.into_iter().filter(|object| finalizer::is_set(&object.metadata)) {
            let namespace = object.metadata.namespace.clone().unwrap_or_default();
            let name = object.metadata.name.clone().unwrap_or_default();
            let api: Api<K> = Api::namespaced(client.clone(), &namespace);
            match release_one(&api, object.metadata).await {
                Ok(()) => released += 1,
                Err(error) => left.push(format!("{} {namespace}/{name} ({error})", K::KIND)),
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(released),
        }
    }
}

/// Others write the resource too: it is read again until nobody did in between.
async fn release_one<K: SluiceKind>(api: &Api<K>, mut meta: ObjectMeta) -> Result<(), KubeError> {
    let name = meta.name.clone().unwrap_or_default();
    for _ in 1..TRIES {
        match finalizer::release(api, &meta, jiff::Timestamp::now()).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error),
        }
        match timed("get resource", api.get_metadata_opt(&name)).await? {
            Some(object) => meta = object.metadata,
            None => return Ok(()),
        }
    }
    finalizer::release(api, &meta, jiff::Timestamp::now()).await.map(drop)
}
