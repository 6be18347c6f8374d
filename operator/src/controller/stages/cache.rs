//! Redis: the worker's user on every node, settings, eviction, and how far the views are.

use std::collections::BTreeSet;

use sluice_clients::redis::RedisFault;
use sluice_clients::redis::admin::{PasswordHash, PerNode, RedisAdminError, worker_user_rules};
use sluice_crds::conditions::{ConditionType, Finding, Reason};
use sluice_crds::worker_config::WorkerConfig;

use crate::connections::{RedisClient, redis_is_away};
use crate::controller::build;
use crate::controller::kafka::rights::RedisRights;
use crate::controller::kind::SluiceKind;
use crate::controller::round::Round;
use crate::controller::validated::WorkerAccess;
use crate::secrets::Purpose;
use crate::sweep::ViewProgress;

/// Gives the user what the spec needs, and what workers with the `older` configurations need. Notes findings and goes
/// on: what Redis could not do now does not undo what workers already have.
pub async fn run<K: SluiceKind>(round: &mut Round<'_, K>, older: &[WorkerConfig]) {
    let generated = round.resource.redis.as_ref().is_some_and(|redis| redis.access == WorkerAccess::Generated);
    if !generated {
        // Its user goes with a sweep: should it be wanted again, it must be set again.
        round.ctx.redis_users.forget(round.resource.uid.as_str());
    }
    let Some(redis) = &round.resource.redis else {
        round.note(Finding::well(ConditionType::CacheReady, Reason::NotUsed, "no Redis is used"));
        return;
    };
    let Some(connection) = redis.connection() else {
        // Addresses of the spec: reached by workers only, with the tenant's credentials.
        round.note(progress(round));
        return;
    };
    let client = match round.ctx.connections.redis(connection) {
        Ok(client) => client,
        Err(error) => return round.note(finding(ConditionType::CacheReady, "redis client", &error)),
    };
    if generated && let Err(problem) = user(round, &client, older).await {
        round.note(problem);
    }
    let settings = settings(round, &client).await;
    round.note(settings.err().unwrap_or_else(|| progress(round)));
}

/// An admin error as the finding of a domain.
pub fn finding(condition: ConditionType, doing: &str, error: &RedisAdminError) -> Finding {
    let message = format!("{doing}: {error}");
    // A login that is refused keeps us away as a server that is gone does, but only a person helps.
    if redis_is_away(error) && !matches!(error, RedisAdminError::Fault(RedisFault::Unauthenticated)) {
        Finding::progressing(condition, Reason::RedisUnreachable, message)
    } else {
        Finding::stalled(condition, Reason::RedisRefused, message)
    }
}

/// The first node that did not do it.
fn on_all<T>(condition: ConditionType, doing: &str, outcomes: &PerNode<T>) -> Result<(), Finding> {
    match outcomes.first_failure() {
        None => Ok(()),
        Some((node, error)) => Err(finding(condition, &format!("{doing} on {node}"), error)),
    }
}

async fn user<K: SluiceKind>(
    round: &Round<'_, K>,
    client: &RedisClient,
    older: &[WorkerConfig],
) -> Result<(), Finding> {
    let failed = |error: RedisAdminError| finding(ConditionType::AccessReady, "redis user", &error);
    let resource = round.resource;
    let mut rights = RedisRights::of(resource);
    for config in older {
        rights.add_config(resource, config);
    }
    let (slot, generation) = build::CURRENT_CREDENTIALS;
    let password = round.ctx.install_key.password(&resource.id, Purpose::Redis, slot, generation);
    let (read, write): (Vec<_>, Vec<_>) = (rights.read.into_iter().collect(), rights.write.into_iter().collect());
    let rules = worker_user_rules(&read, &write, &[PasswordHash::of(&password)]);
    let nodes = client.call(|admin| async move { admin.nodes().await }).await.map_err(failed)?;
    let nodes: BTreeSet<String> = nodes.iter().map(ToString::to_string).collect();
    let memo = &round.ctx.redis_users;
    if memo.is_set(resource.uid.as_str(), &rules, &nodes) {
        return Ok(());
    }
    let (name, asked) = (resource.id.redis_user().to_string(), rules.clone());
    let done = client.call(|admin| async move { admin.set_user(&name, &asked).await }).await.map_err(failed)?;
    on_all(ConditionType::AccessReady, "redis user", &done)?;
    memo.note(resource.uid.as_str(), rules, nodes);
    Ok(())
}

async fn settings<K: SluiceKind>(round: &Round<'_, K>, client: &RedisClient) -> Result<(), Finding> {
    let condition = ConditionType::CacheReady;
    for (name, value) in round.resource.redis.iter().flat_map(|redis| &redis.settings) {
        let doing = format!("redis setting {name}");
        let (asked, to) = (name.clone(), value.clone());
        let done = client.call(|admin| async move { admin.set_setting(&asked, &to).await }).await;
        let done = done.map_err(|error| finding(condition, &doing, &error))?;
        if let Some((node, error)) = done.first_failure() {
            let refused = !redis_is_away(error);
            let finding = finding(condition, &format!("{doing} on {node}"), error);
            return Err(if refused { Finding { reason: Reason::SettingRefused, ..finding } } else { finding });
        }
    }
    eviction(client, round.resource.applier.is_some()).await
}

/// Every node is asked, so that one that is away shows also when nothing has to be set on it.
///
/// A server that may evict any key cannot hold a complete view; one that evicts only keys with a life may, as long as
/// the views' keys have none.
async fn eviction(client: &RedisClient, has_views: bool) -> Result<(), Finding> {
    let condition = ConditionType::CacheReady;
    let asked = client.call(|admin| async move { admin.setting("maxmemory-policy").await }).await;
    let asked = asked.map_err(|error| finding(condition, "redis maxmemory-policy", &error))?;
    on_all(condition, "redis maxmemory-policy", &asked)?;
    let unsafe_node = asked.successes().find(|(_, policy)| policy.as_deref().is_some_and(|p| p.starts_with("allkeys")));
    match unsafe_node.filter(|_| has_views) {
        None => Ok(()),
        Some((node, policy)) => {
            let message = format!(
                "maxmemory-policy on {node} is {}: the server may evict keys of the views; use noeviction",
                policy.as_deref().unwrap_or_default()
            );
            Err(Finding::stalled(condition, Reason::EvictionUnsafe, message))
        }
    }
}

/// How far the views are, by what workers reported with their offsets.
fn progress<K: SluiceKind>(round: &Round<'_, K>) -> Finding {
    let condition = ConditionType::CacheReady;
    if round.resource.applier.is_none() {
        return Finding::well(condition, Reason::Reconciled, "Redis takes the lookups");
    }
    if round.wanted().count == 0 {
        return Finding::well(condition, Reason::Stopped, "no worker keeps the views");
    }
    match round.ctx.board.views(round.resource.uid.as_str()) {
        // After a start of the operator nothing is known yet: what was shown stays until it is.
        None if was_ready(round) => Finding::well(condition, Reason::Reconciled, "the views were shown to be complete"),
        None => Finding::progressing(condition, Reason::CatchingUp, "no worker has reported on the views yet"),
        Some(ViewProgress { rebuilding, .. }) if rebuilding > 0 => {
            let message = format!("{rebuilding} partitions are being rebuilt");
            Finding::progressing(condition, Reason::Rebuilding, message)
        }
        Some(ViewProgress { partitions, caught_up, .. }) if caught_up < partitions => {
            let message = format!("{caught_up} of {partitions} partitions have caught up");
            Finding::progressing(condition, Reason::CatchingUp, message)
        }
        Some(ViewProgress { partitions, .. }) => {
            Finding::well(condition, Reason::Reconciled, format!("the views show all {partitions} partitions"))
        }
    }
}

/// True when status says that the views were complete; a new epoch has taken that back.
fn was_ready<K: SluiceKind>(round: &Round<'_, K>) -> bool {
    let mut conditions = round.status.stored().conditions.iter();
    let cache = conditions.find(|known| known.type_ == ConditionType::CacheReady.as_str());
    cache.is_some_and(|known| known.status == "True" && known.reason == Reason::Reconciled.as_str())
}
