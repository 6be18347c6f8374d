//! The epoch of the views: a new one when their definition or topic changed, and when Redis knows of a later one than
//! status, which then was lost or comes from an old copy. Workers stop applying under an epoch that Redis is ahead of.

use std::collections::BTreeMap;

use sluice_clients::redis::admin::{Reach, RedisAdmin, RedisAdminError};
use sluice_crds::conditions::ConditionType;
use sluice_crds::names::{NodeId, TopicName, WatermarkKeys};
use sluice_crds::report::record_epoch;

use super::{cache, quiesce, views};
use crate::connections::{KafkaClient, RedisClient};
use crate::controller::build::TopicFacts;
use crate::controller::epoch::{self, EpochPlan};
use crate::controller::halt::Halt;
use crate::controller::kind::SluiceKind;
use crate::controller::round::Round;
use crate::controller::validated::WorkerAccess;

/// The epoch that workers shall have; 0 without views. A new one only with the workers stopped: at once when a topic was
/// made `anew`, else when it is the resource's turn.
pub async fn run<K: SluiceKind>(
    round: &mut Round<'_, K>,
    kafka: &KafkaClient,
    facts: &BTreeMap<TopicName, TopicFacts>,
    anew: bool,
) -> Result<u64, Halt> {
    let wanted = epoch::view_statuses(round.resource, facts);
    match epoch::decide(&round.status.draft, &wanted) {
        EpochPlan::None if round.status.draft.views.is_empty() => return Ok(0),
        EpochPlan::None => {
            // Until its workers have stopped, nobody else may write there.
            quiesce::run(round, kafka, "the views are removed").await?;
            views::forget(round, &[]).await?;
            round.status.draft.views.clear();
            return Ok(0);
        }
        EpochPlan::Keep(epoch) if !is_behind(round, epoch).await => return Ok(epoch),
        EpochPlan::Keep(_) | EpochPlan::New => {}
    }
    if anew {
        quiesce::at_once(round, kafka, "a topic of the views was made anew").await?;
    } else {
        // Asked once before: a Redis that is away must not stop workers that could do their other half.
        recorded(round, Reach::Places).await?;
        quiesce::run(round, kafka, "the views are rebuilt").await?;
    }
    let recorded = recorded(round, Reach::Everywhere).await?;
    views::forget(round, &wanted).await?;
    let epoch = epoch::next(&round.status.draft, recorded, round.now);
    round.status.draft.views = wanted;
    round.status.draft.epoch = i64::try_from(epoch).ok();
    // What was said of the views was said of the old epoch.
    let cache = ConditionType::CacheReady.as_str();
    round.status.draft.conditions.retain(|condition| condition.type_ != cache);
    Ok(epoch)
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
    let Some(connection) = round.resource.redis.as_ref().and_then(|redis| redis.connection()) else { return Ok(None) };
    let open = round.resource.redis.as_ref().is_some_and(|redis| redis.access == WorkerAccess::Open);
    if connection.admin.is_none() && !open {
        return Ok(None);
    }
    let failed = |error: RedisAdminError| {
        Halt::found(cache::finding(ConditionType::CacheReady, "redis records of the views", &error))
    };
    let client = round.ctx.connections.redis(connection).map_err(failed)?;
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
