//! IO: users and ACLs of resources that are gone or have no use for them any more, found by their names. Every name of ours says whose it is, so the sweep
//! needs no memory, and a resource without finalizer leaves nothing behind for long.

use std::collections::{BTreeMap, BTreeSet};

use sluice_clients::kafka::admin::{AclBinding, AdminError, Principal, ScramChange};
use sluice_clients::redis::admin::RedisAdminError;
use sluice_crds::names::{InstanceId, ResourceId, Slot};

use crate::connections::{KafkaClient, RedisClient};
use crate::controller::kafka::change;

/// What all names of users of an installation begin with.
pub fn user_prefix(instance: &InstanceId) -> String {
    format!("sluice/{instance}/")
}

/// Users of resources on Kafka, with their resource: those with a credential and those that only have ACLs.
pub async fn kafka_users(
    kafka: &KafkaClient,
    instance: &InstanceId,
) -> Result<BTreeMap<String, ResourceId>, AdminError> {
    let prefix = user_prefix(instance);
    let users = kafka.call(|admin| async move { admin.describe_scram_users(None).await }).await?;
    let acls = kafka.call(|admin| async move { admin.acls_of_principals_with_prefix(&prefix).await }).await?;
    let principals = acls.into_iter().map(|acl| acl.principal.name().to_owned());
    let names: BTreeSet<String> = users.into_keys().chain(principals).collect();
    Ok(names
        .into_iter()
        .filter_map(|name| {
            let (id, _) = ResourceId::of_scram_user(&name)?;
            (id.instance == *instance).then_some((name, id))
        })
        .collect())
}

/// Removes ACLs and credentials of users. ACLs first: a user without rights can do nothing, rights without a user wait
/// for the next one of that name.
pub async fn remove_kafka_users(kafka: &KafkaClient, users: &BTreeSet<String>) -> Result<(), AdminError> {
    let mut changes = Vec::new();
    for user in users {
        let acls: Vec<AclBinding> = change::acls_of(kafka, &Principal::user(user.clone())).await?.into_iter().collect();
        change::delete_acls(kafka, acls).await?;
        changes.push(ScramChange::Delete { user: user.clone() });
    }
    if changes.is_empty() {
        return Ok(());
    }
    let done = kafka.call(|admin| async move { admin.alter_scram_users(&changes).await }).await?;
    done.into_values().try_for_each(|outcome| outcome.map(drop))
}

/// Removes what one resource has on Kafka.
pub async fn remove_kafka_resource(kafka: &KafkaClient, id: &ResourceId) -> Result<(), AdminError> {
    let users = Slot::ALL.into_iter().map(|slot| id.scram_user(slot).to_string()).collect();
    remove_kafka_users(kafka, &users).await
}

/// Removes Redis users on every node that answers; the others are found by a later sweep.
pub async fn remove_redis_users(redis: &RedisClient, users: &BTreeSet<String>) -> Result<(), RedisAdminError> {
    if users.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = users.iter().cloned().collect();
    let done = redis.call(|admin| async move { admin.delete_users(&names).await }).await?;
    match done.outcomes.into_values().find_map(Result::err) {
        None => Ok(()),
        Some(error) => Err(error),
    }
}
