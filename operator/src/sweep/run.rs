//! The loop of the sweeps: a round over every connection, normally every five seconds; orphans in every twelfth, and in the
//! two rounds after a resource has gone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use sluice_crds::names::ResourceId;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::board::{Target, Trigger};
use super::{kafka, monitors, orphans, redis, sums};
use crate::autoscale::{self, Swept};
use crate::connections::KafkaClient;
use crate::controller::context::Context;
use crate::settings::{ConnectionName, KafkaConnection, LagMonitor, RedisConnection};

/// Longest round over one connection.
const ROUND_TIMEOUT: Duration = Duration::from_secs(60);
/// Orphans are looked for in one round of so many.
const ORPHANS_EVERY: u64 = 12;
/// Rounds in a row that must fail before a connection counts as away.
const FAILURES: u32 = 2;

/// What is remembered of a connection.
#[derive(Debug, Default)]
struct Health {
    failures: u32,
    away: bool,
    failing_nodes: BTreeSet<String>,
}

impl Health {
    /// Notes how a round went; true when that changes whether the connection counts as away.
    fn note(&mut self, ok: bool) -> bool {
        self.failures = if ok { 0 } else { self.failures.saturating_add(1) };
        let away = self.failures >= FAILURES;
        let changed = away != self.away;
        self.away = away;
        changed
    }
}

#[derive(Debug, Default)]
struct KafkaState {
    memory: kafka::Memory,
    monitors: monitors::Memory,
    scaling: autoscale::Memory,
    health: Health,
    /// Orphans seen in the last look: only what is one twice is removed.
    orphans: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct RedisState {
    health: Health,
    seen: redis::Seen,
    orphans: BTreeSet<String>,
}

/// Sweeps for ever.
pub async fn run(ctx: Arc<Context>) {
    ctx.claims.complete().await;
    let mut ticks = interval(ctx.sweep_every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut kafka_states: HashMap<ConnectionName, KafkaState> = HashMap::new();
    let mut redis_states: HashMap<ConnectionName, RedisState> = HashMap::new();
    for number in 0_u64.. {
        ticks.tick().await;
        let settings = ctx.settings.current();
        ctx.connections.retain(&settings);
        kafka_states.retain(|name, _| settings.kafka.contains_key(name));
        redis_states.retain(|name, _| settings.redis.contains_key(name));
        let targets: Vec<Target> = ctx.board.lock().targets.values().cloned().collect();
        forget_lags(&ctx, &targets);
        let oldest = sums::oldest_known(jiff::Timestamp::now().as_millisecond(), ctx.sweep_every);
        monitors::forget(&ctx.board, &settings, oldest);
        let with_orphans = ctx.board.take_orphan_round() || number % ORPHANS_EVERY == ORPHANS_EVERY - 1;
        let kafkas = settings.kafka.values().map(|connection| {
            let state = kafka_states.remove(&connection.name).unwrap_or_default();
            kafka_connection(&ctx, connection, &targets, state, with_orphans)
        });
        let redises = settings.redis.values().map(|connection| {
            let state = redis_states.remove(&connection.name).unwrap_or_default();
            redis_connection(&ctx, connection, &targets, state, with_orphans)
        });
        let (kafkas, redises) = (kafkas.collect::<Vec<_>>(), redises.collect::<Vec<_>>());
        let (kafkas, redises) = tokio::join!(join_all(kafkas), join_all(redises));
        kafka_states.extend(kafkas);
        redis_states.extend(redises);
    }
}

/// Lag of groups that are not looked at any more is not shown any more.
fn forget_lags(ctx: &Context, targets: &[Target]) {
    let mut groups: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for target in targets {
        for group in target.processor.iter().chain(target.applier.iter().map(|applier| &applier.group)) {
            groups.entry(&group.group).or_default().extend(group.topics.keys().map(String::as_str));
        }
    }
    let known = |group: &str, topic: &str| groups.get(group).is_some_and(|topics| topics.contains(topic));
    ctx.board.lock().lags.retain(|(group, topic, _), _| known(group, topic));
}

async fn kafka_connection(
    ctx: &Context,
    connection: &Arc<KafkaConnection>,
    targets: &[Target],
    mut state: KafkaState,
    with_orphans: bool,
) -> (ConnectionName, KafkaState) {
    let name = connection.name.clone();
    let targets: Vec<Target> = targets.iter().filter(|target| target.kafka.name == name).cloned().collect();
    let Ok(client) = ctx.connections.kafka(connection) else { return (name, state) };
    let (now, begun) = (jiff::Timestamp::now().as_millisecond(), Instant::now());
    let round = timeout(ROUND_TIMEOUT, kafka::round(&ctx.board, &client, &targets, &mut state.memory, now)).await;
    let mut changed = BTreeSet::new();
    let committed = match round {
        Ok(Ok((triggers, committed))) => {
            changed = triggers;
            Some(committed)
        }
        Ok(Err(error)) => {
            tracing::warn!(connection = %name, %error, "lag could not be read");
            None
        }
        Err(_) => None,
    };
    let ok = committed.is_some();
    if ok {
        read_monitors(ctx, connection, &client, &mut state.monitors).await;
    }
    if state.health.note(ok) {
        changed.extend(targets.iter().map(|target| Trigger::from(&target.claimant)));
    }
    for trigger in changed {
        ctx.board.triggers().send(trigger).await;
    }
    let swept = committed.as_ref().map(|committed| Swept { at: now, committed, ends: &state.memory.ends });
    let scaled = autoscale::round(ctx, &client, &targets, swept, &mut state.scaling);
    for trigger in timeout(ROUND_TIMEOUT, scaled).await.unwrap_or_default() {
        ctx.board.triggers().send(trigger).await;
    }
    ctx.metrics.sweep("kafka", ok, begun.elapsed());
    if ok && with_orphans && connection.admin.is_some() {
        let instance = &ctx.settings.current().instance;
        if let Ok(Ok(users)) = timeout(ROUND_TIMEOUT, orphans::kafka_users(&client, instance)).await {
            let unused = |id: &ResourceId| ctx.board.has_no_kafka_user(id);
            let orphans = twice(ctx, users, &mut state.orphans, unused);
            if let Err(error) = orphans::remove_kafka_users(&client, &orphans).await {
                tracing::warn!(connection = %name, %error, "users of resources that are gone could not be removed");
            }
        }
    }
    (name, state)
}

/// Groups of others. A failure is theirs alone: the connection works.
async fn read_monitors(
    ctx: &Context,
    connection: &KafkaConnection,
    client: &KafkaClient,
    memory: &mut monitors::Memory,
) {
    let settings = ctx.settings.current();
    let of_it = settings.lag_monitors.values().filter(|monitor| monitor.connection == connection.name);
    let monitors: Vec<Arc<LagMonitor>> = of_it.cloned().collect();
    let (now, begun) = (jiff::Timestamp::now().as_millisecond(), Instant::now());
    let round = monitors::round(&ctx.board, client, &connection.name, &monitors, memory, now);
    let ok = match timeout(ROUND_TIMEOUT, round).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(connection = %connection.name, %error, "lag of monitored groups could not be read");
            false
        }
        Err(_) => false,
    };
    if !monitors.is_empty() {
        ctx.metrics.sweep("kafka_monitors", ok, begun.elapsed());
    }
}

async fn redis_connection(
    ctx: &Context,
    connection: &Arc<RedisConnection>,
    targets: &[Target],
    mut state: RedisState,
    with_orphans: bool,
) -> (ConnectionName, RedisState) {
    let name = connection.name.clone();
    let on_it = |target: &&Target| target.redis.as_ref().is_some_and(|(redis, _)| redis.name == name);
    let targets: Vec<&Target> = targets.iter().filter(on_it).collect();
    if connection.admin.is_none() {
        return (name, state);
    }
    let Ok(client) = ctx.connections.redis(connection) else { return (name, state) };
    let instance = ctx.settings.current().instance.clone();
    let (prefix, begun) = (orphans::user_prefix(&instance), Instant::now());
    let round = timeout(ROUND_TIMEOUT, redis::round(&client, &prefix)).await;
    let nodes = round.ok().and_then(|round| {
        round.inspect_err(|error| tracing::warn!(connection = %name, %error, "redis nodes could not be read")).ok()
    });
    ctx.metrics.sweep("redis", nodes.is_some(), begun.elapsed());
    let mut changed: BTreeSet<Trigger> = BTreeSet::new();
    let failing = nodes.as_ref().map(|nodes| nodes.failing.clone()).unwrap_or_default();
    let flipped = state.health.note(nodes.is_some());
    if flipped || failing != state.health.failing_nodes {
        changed.extend(targets.iter().map(|target| Trigger::from(&target.claimant)));
    }
    state.health.failing_nodes = failing;
    if let Some(nodes) = &nodes {
        changed.extend(lost_users(ctx, &targets, nodes, &mut state.seen));
    }
    for trigger in changed {
        ctx.board.triggers().send(trigger).await;
    }
    if let Some(nodes) = nodes.filter(|_| with_orphans) {
        let users = nodes.users.into_values().flat_map(BTreeMap::into_keys);
        let users = users.filter_map(|user| Some((user.clone(), ResourceId::of_redis_user(&user)?))).collect();
        let orphans = twice(ctx, users, &mut state.orphans, |id| ctx.board.has_no_redis_user(id));
        if let Err(error) = orphans::remove_redis_users(&client, &orphans).await {
            tracing::warn!(connection = %name, %error, "users of resources that are gone could not be removed");
        }
    }
    (name, state)
}

/// Resources whose user is not on every node as it was set; it will be set again.
fn lost_users(ctx: &Context, targets: &[&Target], nodes: &redis::Nodes, seen: &mut redis::Seen) -> BTreeSet<Trigger> {
    seen.keep_only(&targets.iter().map(|target| target.claimant.uid.as_str()).collect());
    let lost = targets.iter().filter(|target| {
        let uid = &target.claimant.uid;
        // One that is not set yet, or is known to be lost, is about to be.
        let (Some(setting), Some((_, user))) = (ctx.redis_users.setting(uid), &target.redis) else { return false };
        seen.is_lost(uid, user, setting, nodes)
    });
    let forget = |target: &&Target| {
        ctx.redis_users.forget(&target.claimant.uid);
        Trigger::from(&target.claimant)
    };
    lost.map(forget).collect()
}

/// Users whose resource did not exist, or had no use for them, in the last look either.
fn twice(
    ctx: &Context,
    users: BTreeMap<String, ResourceId>,
    before: &mut BTreeSet<String>,
    unused: impl Fn(&ResourceId) -> bool,
) -> BTreeSet<String> {
    let orphans: BTreeSet<String> = users
        .into_iter()
        .filter(|(_, id)| ctx.is_watched(id.namespace.as_str()) && (!ctx.board.is_alive(id) || unused(id)))
        .map(|(name, _)| name)
        .collect();
    let both = orphans.intersection(before).cloned().collect();
    *before = orphans;
    both
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_round_is_no_outage() {
        let mut health = Health::default();
        assert!(!health.note(false));
        assert!(!health.note(true));
        assert!(!health.note(false));
        assert!(health.note(false), "two in a row are");
        assert!(!health.note(false));
        assert!(health.note(true), "and the end of it is told");
    }
}
