//! IO: carries plans out.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::SecretString;
use sluice_clients::kafka::admin::{
    AclBinding, AclFilter, AdminError, CommittedOffset, GroupState, Isolation, OffsetSpec, Principal, ScramChange,
    TopicPartition,
};
use sluice_crds::names::{GroupId, ScramUser};

use super::topics::TopicPlan;
use crate::connections::KafkaClient;

/// Rounds of PBKDF2 for generated passwords. They have 256 bits of their own: more rounds would only cost the brokers.
const SCRAM_ITERATIONS: u32 = 4_096;

/// Creates the topics of a plan. One that came into being meanwhile is looked at in the next round.
pub async fn create(kafka: &KafkaClient, plan: &TopicPlan) -> Result<(), AdminError> {
    if plan.create.is_empty() {
        return Ok(());
    }
    let topics = plan.create.clone();
    let done = kafka.call(|admin| async move { admin.create_topics(&topics, false).await }).await?;
    done.into_values().try_for_each(|outcome| outcome.map(drop))
}

/// Repairs settings.
pub async fn alter(kafka: &KafkaClient, plan: &TopicPlan) -> Result<(), AdminError> {
    if plan.alter.is_empty() {
        return Ok(());
    }
    let changes = plan.alter.clone();
    let done = kafka.call(|admin| async move { admin.alter_topic_configs(&changes).await }).await?;
    done.into_values().collect()
}

/// Grows topics.
pub async fn grow(kafka: &KafkaClient, totals: &BTreeMap<String, u32>) -> Result<(), AdminError> {
    if totals.is_empty() {
        return Ok(());
    }
    let totals = totals.clone();
    let done = kafka.call(|admin| async move { admin.create_partitions(&totals).await }).await?;
    done.into_values().collect()
}

/// Makes a user with its password, if there is none or `renew` says that its password may be another.
pub async fn user(
    kafka: &KafkaClient,
    user: &ScramUser,
    password: SecretString,
    salt: Vec<u8>,
    renew: bool,
) -> Result<bool, AdminError> {
    let name = vec![user.to_string()];
    let mut found = kafka.call(|admin| async move { admin.describe_scram_users(Some(&name)).await }).await?;
    let there = found.remove(user.as_str()).ok_or(AdminError::Incomplete("describe users"))??;
    if there.is_some() && !renew {
        return Ok(false);
    }
    let change = ScramChange::Upsert { user: user.to_string(), password, iterations: SCRAM_ITERATIONS, salt };
    let done = kafka.call(|admin| async move { admin.alter_scram_users(&[change]).await }).await?;
    done.into_values().try_for_each(|outcome| outcome.map(drop))?;
    Ok(true)
}

/// Bindings that a principal has.
pub async fn acls_of(kafka: &KafkaClient, principal: &Principal) -> Result<BTreeSet<AclBinding>, AdminError> {
    let filter = AclFilter { principal: Some(principal.clone()), resource: None };
    let found = kafka.call(|admin| async move { admin.describe_acls(&filter).await }).await?;
    Ok(found.into_iter().collect())
}

/// Creates bindings.
pub async fn create_acls(kafka: &KafkaClient, acls: Vec<AclBinding>) -> Result<(), AdminError> {
    if acls.is_empty() {
        return Ok(());
    }
    kafka.call(|admin| async move { admin.create_acls(&acls).await }).await?.into_iter().collect()
}

/// Deletes bindings.
pub async fn delete_acls(kafka: &KafkaClient, acls: Vec<AclBinding>) -> Result<(), AdminError> {
    if acls.is_empty() {
        return Ok(());
    }
    let done = kafka.call(|admin| async move { admin.delete_acls(&acls).await }).await?;
    done.into_iter().try_for_each(|outcome| outcome.map(drop))
}

/// True when no member is in any of the groups.
pub async fn groups_are_empty(kafka: &KafkaClient, groups: &BTreeSet<&GroupId>) -> Result<bool, AdminError> {
    let names: Vec<String> = groups.iter().map(ToString::to_string).collect();
    let found = kafka.call_group(|admin| async move { admin.describe_groups(&names).await }).await?;
    for description in found.into_values() {
        if !matches!(description?.state, GroupState::Empty | GroupState::Dead) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Commits offsets for a group without members.
pub async fn commit(
    kafka: &KafkaClient,
    group: &GroupId,
    specs: &BTreeMap<TopicPartition, OffsetSpec>,
) -> Result<(), AdminError> {
    if specs.is_empty() {
        return Ok(());
    }
    let asked = specs.clone();
    let found = kafka.call(|admin| async move { admin.list_offsets(&asked, Isolation::Uncommitted).await }).await?;
    let mut offsets = BTreeMap::new();
    for (partition, offset) in found {
        offsets.insert(partition, CommittedOffset { offset: offset?, metadata: String::new() });
    }
    let name = group.to_string();
    let done = kafka.call_group(|admin| async move { admin.alter_group_offsets(&name, &offsets).await }).await?;
    done.into_values().collect()
}
