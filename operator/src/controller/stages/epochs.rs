//! The epoch of the views: a new one when their definition or topic changed, when deletions may have been missed, and when
//! Redis knows of a later one than status, which then was lost or comes from an old copy. Workers stop applying under an
//! epoch that Redis is ahead of.

use std::collections::BTreeMap;

use kube::runtime::events::EventType;
use sluice_clients::redis::admin::{Reach, RedisAdmin, RedisAdminError};
use sluice_crds::conditions::{ConditionType, Reason};
use sluice_crds::names::{NodeId, TopicName, WatermarkKeys};
use sluice_crds::report::record_epoch;
use sluice_crds::v1alpha1::ViewStatus;

use super::{cache, quiesce, views};
use crate::connections::{KafkaClient, RedisClient};
use crate::controller::build::TopicFacts;
use crate::controller::clearing::{self, Ground};
use crate::controller::epoch::{self, EpochPlan};
use crate::controller::halt::Halt;
use crate::controller::kind::SluiceKind;
use crate::controller::report;
use crate::controller::round::Round;

/// The epoch that workers shall have; 0 without views. A new one only with the workers stopped: at once when a topic was
/// made `anew`, else when it is the resource's turn.
pub async fn run<K: SluiceKind>(
    round: &mut Round<'_, K>,
    kafka: &KafkaClient,
    facts: &BTreeMap<TopicName, TopicFacts>,
    anew: bool,
) -> Result<u64, Halt> {
    let wanted = epoch::view_statuses(round.resource, facts);
    let before = &round.status.draft;
    let (rebuild, missed) = match epoch::decide(before, &wanted) {
        EpochPlan::None if before.views.is_empty() => return Ok(0),
        EpochPlan::Keep(epoch) => {
            let missed = round.ctx.board.missed_deletions(round.resource.uid.as_str(), epoch);
            let missed = missed.and_then(|missed| epoch::after_absence(&missed, facts));
            if missed.is_none() && !is_behind(round, epoch).await {
                return Ok(epoch);
            }
            (true, missed)
        }
        EpochPlan::None | EpochPlan::New => (false, None),
    };
    let before = &round.status.draft.views;
    let mut ground = clearing::ground(before, &wanted, rebuild, round.resource.deletion.redis_keys);
    let begun = clearing::is_under_way(before);
    let why = match (anew, &missed) {
        (true, _) => "a topic of the views was made anew",
        (false, Some(missed)) => missed.as_str(),
        (false, None) if wanted.is_empty() => "the views are removed",
        (false, None) => "the views are rebuilt",
    };
    let stopped = stop(round, kafka, &wanted, &ground, (why, anew)).await;
    if stopped.is_err() {
        // Workers may have written since the last pass over the keys.
        round.ctx.key_sweeps.forget(round.resource.uid.as_str());
    }
    stopped?;
    let recorded = if wanted.is_empty() { None } else { recorded(round, Reach::Everywhere).await? };
    if recorded.is_none() && !begun && !wanted.is_empty() && views::place(round)?.is_some() {
        // Nothing of this resource was ever applied there: what lies there is somebody else's.
        ground.clear();
    }
    views::clear(round, &ground, recorded).await?;
    round.ctx.key_sweeps.forget(round.resource.uid.as_str());
    round.status.draft.views = wanted;
    if round.status.draft.views.is_empty() {
        return Ok(0);
    }
    if let Some(missed) = missed {
        report::say(round.ctx, round.object, EventType::Warning, Reason::Rebuilding, &missed).await;
    }
    let epoch = epoch::next(&round.status.draft, recorded, round.now);
    round.status.draft.epoch = i64::try_from(epoch).ok();
    // What was said of the views was said of the old epoch.
    let cache = ConditionType::CacheReady.as_str();
    round.status.draft.conditions.retain(|condition| condition.type_ != cache);
    Ok(epoch)
}

/// Halts until no worker can write any more, and not for what could be known before they stop.
async fn stop<K: SluiceKind>(
    round: &mut Round<'_, K>,
    kafka: &KafkaClient,
    wanted: &[ViewStatus],
    ground: &[Ground],
    (why, at_once): (&str, bool),
) -> Result<(), Halt> {
    if at_once {
        return quiesce::at_once(round, kafka, why).await;
    }
    if wanted.is_empty() {
        // Until its workers have stopped, nobody else may write there.
        return quiesce::run(round, kafka, why).await;
    }
    // Asked once before: a Redis that is away must not stop workers that could do their other half.
    recorded(round, Reach::Places).await?;
    views::check(round, ground)?;
    quiesce::run(round, kafka, why).await
}

/// True when Redis knows of a later epoch. Looked at once a process and epoch: only somebody who puts an old status back
/// can make it so.
async fn is_behind<K: SluiceKind>(round: &Round<'_, K>, epoch: u64) -> bool {
    let (memo, uid) = (&round.ctx.epochs, round.resource.uid.as_str());
    if memo.is_known(uid, epoch) {
        return false;
    }
    match recorded(round, Reach::Places).await {
        Ok(Some(recorded)) if recorded > epoch => {
            tracing::warn!(uid, epoch, recorded, "Redis is ahead of the epoch in status: the views are rebuilt");
            true
        }
        Ok(_) => {
            memo.note(uid, epoch);
            false
        }
        // Redis is away: that is said elsewhere, and looked at again in the next round.
        Err(_) => false,
    }
}

/// The highest epoch in Redis' records of this resource; none when there are none, or when the operator has no way to this
/// Redis.
async fn recorded<K: SluiceKind>(round: &Round<'_, K>, reach: Reach) -> Result<Option<u64>, Halt> {
    if round.resource.redis.is_none() {
        return Ok(None);
    }
    let Some(connection) = views::place(round)? else { return Ok(None) };
    let failed = |error: RedisAdminError| {
        Halt::found(cache::finding(ConditionType::CacheReady, "redis records of the views", &error))
    };
    let client = round.ctx.connections.redis(&connection).map_err(failed)?;
    let keys = WatermarkKeys::new(&round.resource.id.instance, &round.resource.uid);
    highest(&client, keys, reach).await.map_err(failed)
}

async fn highest(client: &RedisClient, keys: WatermarkKeys, reach: Reach) -> Result<Option<u64>, RedisAdminError> {
    let work = |admin: RedisAdmin| async move {
        let mut highest = None;
        // Redis' own names of nodes are letters and digits, as ours must be.
        let key = |node: &sluice_clients::redis::NodeId, slot: sluice_clients::redis::Slot| {
            NodeId::parse(node.as_str()).map(|node| keys.key(&node, slot.tag())).unwrap_or_default()
        };
        let see = |_: &str, value: &str| {
            // What is no record (the header) or no operator's epoch says nothing.
            let epoch = record_epoch(value).filter(|epoch| *epoch < epoch::HIGHEST);
            highest = highest.max(epoch);
        };
        admin.read_hashes(reach, key, see).await?;
        Ok(highest)
    };
    client.call(work).await
}
