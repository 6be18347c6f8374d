//! Generated credentials. Immutable: new credentials are a new object, so that pods of both roll-out sides have theirs.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use secrecy::ExposeSecret;
use sluice_crds::names::{ContentHash, Slot};

use super::Inputs;
use super::metadata::{metadata, sealed};
use crate::controller::validated::{ValidatedResource, WorkerAccess};
use crate::secrets::Purpose;

pub(super) const KAFKA_USERNAME_KEY: &str = "kafka-username";
pub(super) const KAFKA_PASSWORD_KEY: &str = "kafka-password";
pub(super) const REDIS_USERNAME_KEY: &str = "redis-username";
pub(super) const REDIS_PASSWORD_KEY: &str = "redis-password";

/// Slot and generation in use; rotation will make them part of the inputs.
pub const CURRENT: (Slot, u32) = (Slot::A, 0);

pub(super) fn secret(resource: &ValidatedResource, inputs: &Inputs<'_>) -> Option<Secret> {
    let id = &resource.id;
    let (slot, generation) = CURRENT;
    let password = |purpose| inputs.install_key.password(id, purpose, slot, generation).expose_secret().to_owned();
    let mut data: BTreeMap<String, ByteString> = BTreeMap::new();
    let mut put = |key: &str, value: String| data.insert(key.to_owned(), ByteString(value.into_bytes()));
    if resource.kafka.access == WorkerAccess::Generated {
        put(KAFKA_USERNAME_KEY, id.scram_user(slot).to_string());
        put(KAFKA_PASSWORD_KEY, password(Purpose::Kafka));
    }
    if resource.redis.as_ref().is_some_and(|redis| redis.access == WorkerAccess::Generated) {
        put(REDIS_USERNAME_KEY, id.redis_user().to_string());
        put(REDIS_PASSWORD_KEY, password(Purpose::Redis));
    }
    if data.is_empty() {
        return None;
    }
    // The name is public and holds 50 bits of a hash over 256-bit passwords: it tells nobody anything.
    let hash = ContentHash::of(data.iter().flat_map(|(key, value)| [key.as_bytes(), value.0.as_slice()]));
    Some(sealed(Secret {
        metadata: metadata(resource, id.hashed_child_name(&hash)),
        data: Some(data),
        immutable: Some(true),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }))
}
