//! The worker's configuration and the certificates to trust; nothing secret. Immutable: a change is a new object.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use sluice_crds::names::ContentHash;
use sluice_crds::worker_config::WorkerConfig;

use super::metadata::{metadata, sealed};
use crate::controller::validated::ValidatedResource;

/// Key of the configuration.
pub const CONFIG_KEY: &str = "config.json";
/// Key of Kafka's authorities.
pub(super) const KAFKA_CA_KEY: &str = "kafka-ca.crt";
/// Key of Redis's authorities.
pub(super) const REDIS_CA_KEY: &str = "redis-ca.crt";

pub(super) fn config_map(resource: &ValidatedResource, config: &WorkerConfig) -> ConfigMap {
    let text = serde_json::to_string_pretty(config).expect("a configuration should serialise");
    let mut data = BTreeMap::from([(CONFIG_KEY.to_owned(), text)]);
    if let Some(pem) = resource.kafka.connection.tls.as_ref().and_then(|tls| tls.ca_pem.as_deref()) {
        data.insert(KAFKA_CA_KEY.to_owned(), pem.to_owned());
    }
    let redis = resource.redis.as_ref().and_then(|redis| redis.connection());
    if let Some(pem) = redis.and_then(|redis| redis.tls.as_ref()?.ca_pem.as_deref()) {
        data.insert(REDIS_CA_KEY.to_owned(), pem.to_owned());
    }
    let hash = ContentHash::of(data.iter().flat_map(|(key, value)| [key.as_bytes(), value.as_bytes()]));
    sealed(ConfigMap {
        metadata: metadata(resource, resource.id.hashed_child_name(&hash)),
        data: Some(data),
        immutable: Some(true),
        ..ConfigMap::default()
    })
}
