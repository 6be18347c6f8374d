//! Connections, policies and credentials.

use std::sync::Arc;

use sluice_crds::names::ResourceId;
use sluice_crds::v1alpha1 as api;
use sluice_crds::worker_config::SaslMechanism;

use super::{Invalid, Rules, contradiction, no_duplicates};
use crate::controller::validated::{InlineTls, KafkaUse, RedisPlace, RedisUse, WorkerAccess};
use crate::settings::{ConnectionName, KafkaPolicy, Unusable};

/// The connection used when the spec names none.
const DEFAULT_CONNECTION: &str = "default";

/// Kafka of the spec, and what the namespace may do with it.
pub fn kafka(rules: Rules<'_>, id: &ResourceId, spec: &api::Kafka) -> Result<(KafkaUse, KafkaPolicy), Invalid> {
    let name = spec.connection_ref.as_ref().map_or(DEFAULT_CONNECTION, |reference| reference.name.as_str());
    let key = ConnectionName::new(name);
    let connection =
        rules.settings.kafka.get(&key).ok_or_else(|| unavailable(rules, "kafka", name, &Unusable::Kafka(key)))?;
    let policy = connection.namespaces.get(&id.namespace).ok_or_else(|| Invalid::NamespaceNotAllowed {
        sort: "kafka",
        connection: name.to_owned(),
        namespace: id.namespace.to_string(),
    })?;
    let access = access("kafka.access", &spec.access, connection.admin.is_some())?;
    let plain = connection.admin.as_ref().is_some_and(|(mechanism, _)| *mechanism == SaslMechanism::Plain);
    if plain && access == WorkerAccess::Generated {
        let problem = "this connection uses PLAIN, for which no users can be made: set access.mode to Provided";
        return Err(contradiction("kafka.access.mode", problem));
    }
    Ok((KafkaUse { connection: Arc::clone(connection), access }, policy.clone()))
}

/// Redis of the spec, and whether its keys can be deleted there if they shall be. Only called when something needs it.
pub fn redis(
    rules: Rules<'_>,
    id: &ResourceId,
    spec: &api::Redis,
    keys: api::DeletionAction,
) -> Result<RedisUse, Invalid> {
    let place = match (&spec.connection_ref, &spec.inline) {
        (Some(_), Some(_)) => {
            let members = "connectionRef, inline";
            return Err(Invalid::Union { field: "redis".to_owned(), members, found: 2 });
        }
        (None, Some(_)) if keys == api::DeletionAction::Delete => {
            let problem = "Delete needs a connection: the operator never goes to inline addresses; set Retain";
            return Err(contradiction("deletionPolicy.redisKeys", problem));
        }
        (None, Some(inline)) => inline_redis(spec, inline)?,
        (reference, None) => {
            let name = reference.as_ref().map_or(DEFAULT_CONNECTION, |reference| reference.name.as_str());
            let key = ConnectionName::new(name);
            let connection = rules
                .settings
                .redis
                .get(&key)
                .ok_or_else(|| unavailable(rules, "redis", name, &Unusable::Redis(key)))?;
            if !connection.namespaces.contains_key(&id.namespace) {
                return Err(Invalid::NamespaceNotAllowed {
                    sort: "redis",
                    connection: name.to_owned(),
                    namespace: id.namespace.to_string(),
                });
            }
            RedisPlace::Connection(Arc::clone(connection))
        }
    };
    let has_users = match &place {
        RedisPlace::Connection(connection) => connection.admin.is_some(),
        RedisPlace::Inline { .. } => true,
    };
    let access = access("redis.access", &spec.access, has_users)?;
    no_duplicates("redis.settings", spec.settings.iter().map(|setting| setting.name.as_str()))?;
    let settings = spec.settings.iter().map(|setting| (setting.name.clone(), setting.value.clone())).collect();
    let redis = RedisUse { place, access, settings };
    let allowed = |name: &str| redis.policy(id).is_some_and(|policy| policy.may_set(name));
    if let Some(name) = redis.settings.keys().find(|name| !allowed(name)) {
        return Err(Invalid::SettingNotAllowed { name: name.clone() });
    }
    Ok(redis)
}

/// Why there is no connection of this name.
fn unavailable(rules: Rules<'_>, sort: &'static str, name: &str, key: &Unusable) -> Invalid {
    let name = name.to_owned();
    match rules.settings.unusable.get(key) {
        Some(problem) => Invalid::ConnectionUnusable { sort, name, problem: problem.clone() },
        None if sort == "kafka" => Invalid::ConnectionUnknown { field: "kafka.connectionRef", sort, name },
        None => Invalid::ConnectionUnknown { field: "redis.connectionRef", sort, name },
    }
}

fn inline_redis(spec: &api::Redis, inline: &api::InlineRedis) -> Result<RedisPlace, Invalid> {
    if spec.access.mode != api::AccessMode::Provided {
        let problem =
            "inline addresses need access.mode Provided: the operator makes users only on its own connections";
        return Err(contradiction("redis.access.mode", problem));
    }
    if inline.addresses.is_empty() {
        return Err(Invalid::Empty { field: "redis.inline.addresses".to_owned() });
    }
    let tls = inline
        .tls
        .as_ref()
        .map(|tls| InlineTls { ca_secret: tls.ca_secret_ref.as_ref().map(|reference| reference.name.clone()) });
    Ok(RedisPlace::Inline { mode: inline.mode, addresses: inline.addresses.clone(), tls })
}

fn access(field: &str, spec: &api::Access, has_users: bool) -> Result<WorkerAccess, Invalid> {
    match (spec.mode, &spec.secret_ref) {
        (api::AccessMode::Provided, Some(secret)) => Ok(WorkerAccess::Provided { secret: secret.name.clone() }),
        (api::AccessMode::Provided, None) => {
            Err(contradiction(format!("{field}.secretRef"), "access.mode Provided needs the name of a Secret"))
        }
        (api::AccessMode::Generated, Some(_)) => {
            let problem = "access.mode Generated makes its own credentials: remove secretRef or set Provided";
            Err(contradiction(format!("{field}.secretRef"), problem))
        }
        (api::AccessMode::Generated, None) if has_users => Ok(WorkerAccess::Generated),
        (api::AccessMode::Generated, None) => Ok(WorkerAccess::Open),
    }
}
