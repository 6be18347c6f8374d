//! Secrets that the spec names are there. They are mounted into workers; the operator reads their metadata only.

use k8s_openapi::api::core::v1::Secret;
use sluice_crds::conditions::{ConditionType, Finding, Reason};

use crate::controller::halt::Halt;
use crate::controller::kind::SluiceKind;
use crate::controller::round::Round;
use crate::controller::validated::{RedisPlace, ValidatedResource, WorkerAccess};
use crate::kube_ext::timed;

/// Stops when one is missing.
pub async fn run<K: SluiceKind>(round: &mut Round<'_, K>) -> Result<(), Halt> {
    let api = round.api::<Secret>();
    for (field, name) in named(round.resource) {
        if timed("get secret metadata", api.get_metadata_opt(name)).await?.is_none() {
            let message = format!("{field}: there is no Secret {name:?} in this namespace: create it");
            return Err(Halt::found(Finding::stalled(ConditionType::AccessReady, Reason::SecretMissing, message)));
        }
    }
    Ok(())
}

/// Fields and names.
fn named(resource: &ValidatedResource) -> Vec<(&'static str, &str)> {
    let mut named = Vec::new();
    if let WorkerAccess::Provided { secret } = &resource.kafka.access {
        named.push(("kafka.access.secretRef", secret.as_str()));
    }
    if let Some(redis) = &resource.redis {
        if let WorkerAccess::Provided { secret } = &redis.access {
            named.push(("redis.access.secretRef", secret.as_str()));
        }
        if let RedisPlace::Inline { tls: Some(tls), .. } = &redis.place
            && let Some(secret) = &tls.ca_secret
        {
            named.push(("redis.inline.tls.caSecretRef", secret.as_str()));
        }
    }
    named
}
