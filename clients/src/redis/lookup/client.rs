//! Sends batches of reads to the nodes that own the keys.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use redis::{Pipeline, cmd};
use thiserror::Error;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::batch::{LookupKey, LookupValue};
use crate::redis::error::{Lost, NotSent, Redirect, RedisFault};
use crate::redis::links::Links;
use crate::redis::node::Answer;
use crate::redis::settings::{NodeAddress, RedisSettings, SettingsError};
use crate::redis::slots::Slot;
use crate::redis::topology::Topology;

/// Why a key could not be read. The key may well exist.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LookupError {
    /// Redis, or the way to it, is unwell: stop asking for a while (circuit breaker) and try again.
    #[error("redis is not available: {0}")]
    Unavailable(RedisFault),
    /// Redis refuses: user name, password or the key's pattern. Freshly made users reach the nodes late, so this may heal.
    #[error("redis refuses the lookup: {0}")]
    Refused(RedisFault),
    /// Anything else.
    #[error("redis lookup failed: {0}")]
    Failed(RedisFault),
}

impl LookupError {
    /// The fault behind it.
    pub fn fault(&self) -> &RedisFault {
        match self {
            Self::Unavailable(fault) | Self::Refused(fault) | Self::Failed(fault) => fault,
        }
    }

    /// Bounded name for metrics and events.
    pub fn category(&self) -> &'static str {
        self.fault().category()
    }
}

impl From<RedisFault> for LookupError {
    fn from(fault: RedisFault) -> Self {
        match fault {
            RedisFault::NoPermission(_) | RedisFault::Unauthenticated => Self::Refused(fault),
            RedisFault::Malformed(_) | RedisFault::Other(_) | RedisFault::CrossSlot => Self::Failed(fault),
            _ => Self::Unavailable(fault),
        }
    }
}

/// Bounds of a client.
#[derive(Clone, Copy, Debug)]
pub struct LookupLimits {
    /// Longest time for one batch, redirects and reconnects included.
    pub deadline: Duration,
    /// Most commands in one pipeline.
    pub pipeline: usize,
    /// Most pipelines on the way at once, over all callers and nodes.
    pub in_flight: usize,
}

impl Default for LookupLimits {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(3), pipeline: 256, in_flight: 16 }
    }
}

/// Most redirects that one key follows before it waits for a new slot map.
const MOST_REDIRECTS: usize = 4;
/// Shortest time between two readings of the slot map.
const REFRESH_PAUSE: Duration = Duration::from_millis(200);

/// Reads keys of one Redis. Shared by reference between all lanes.
#[derive(Debug)]
pub struct LookupClient {
    links: Links,
    limits: LookupLimits,
    in_flight: Semaphore,
    map: Mutex<Option<Arc<Topology>>>,
    refreshing: AsyncMutex<Option<Instant>>,
}

impl LookupClient {
    /// A client that connects at its first batch.
    pub fn new(settings: RedisSettings, limits: LookupLimits) -> Result<Self, SettingsError> {
        Ok(Self {
            links: Links::new(settings)?,
            limits,
            in_flight: Semaphore::new(limits.in_flight.max(1)),
            map: Mutex::default(),
            refreshing: AsyncMutex::default(),
        })
    }

    /// Reads the keys; one result a key, in their order. Ends within [`LookupLimits::deadline`].
    pub async fn get_batch(&self, keys: &[LookupKey]) -> Vec<Result<LookupValue, LookupError>> {
        let deadline = Instant::now() + self.limits.deadline;
        let mut answers: Vec<Answer> = keys.iter().map(|_| Err(RedisFault::NotSent(NotSent::NoOwner))).collect();
        match self.topology(deadline).await {
            Ok(map) => {
                let all: Vec<usize> = (0..keys.len()).collect();
                self.ask_owners(keys, &all, &map, &mut answers, deadline).await;
                self.settle(keys, &map, &mut answers, deadline).await;
            }
            Err(fault) => answers.iter_mut().for_each(|answer| *answer = Err(fault.clone())),
        }
        keys.iter().zip(answers).map(|(key, answer)| key.value(answer).map_err(LookupError::from)).collect()
    }

    /// Asks the owners of the keys with these indexes.
    async fn ask_owners(
        &self,
        keys: &[LookupKey],
        indexes: &[usize],
        map: &Topology,
        answers: &mut [Answer],
        deadline: Instant,
    ) {
        let mut groups: BTreeMap<&NodeAddress, Vec<usize>> = BTreeMap::new();
        for index in indexes {
            if let Some(shard) = map.owner(Slot::of_key(&keys[*index].key)) {
                groups.entry(&shard.address).or_default().push(*index);
            }
        }
        let size = self.limits.pipeline.max(1);
        let chunks: Vec<(&NodeAddress, &[usize])> =
            groups.iter().flat_map(|(node, all)| all.chunks(size).map(move |chunk| (*node, chunk))).collect();
        let sent = join_all(chunks.iter().map(|(address, chunk)| {
            let mut pipeline = Pipeline::with_capacity(chunk.len());
            for index in *chunk {
                pipeline.add_command(keys[*index].command());
            }
            async move { self.send(address, &pipeline, deadline).await }
        }))
        .await;
        for ((_, chunk), result) in chunks.iter().zip(sent) {
            match result {
                Ok(values) => chunk.iter().zip(values).for_each(|(index, answer)| answers[*index] = answer),
                Err(fault) => chunk.iter().for_each(|index| answers[*index] = Err(fault.clone())),
            }
        }
    }

    /// When an answer shows that the slot map is old: reads it anew, asks the new owners of slots whose owner could not
    /// be reached, and follows redirects one command at a time.
    async fn settle(&self, keys: &[LookupKey], old: &Topology, answers: &mut [Answer], deadline: Instant) {
        let Some(fault) =
            answers.iter().find_map(|answer| answer.as_ref().err().filter(|fault| says_map_is_old(fault)))
        else {
            return;
        };
        debug!(fault = fault.category(), "the slot map may be old");
        // A failed refresh leaves the old map; redirects still find their way.
        let refreshed = self.refresh(deadline).await;
        let new = refreshed.as_deref().unwrap_or(old);
        let moved: Vec<usize> = (0..keys.len())
            .filter(|index| {
                let slot = Slot::of_key(&keys[*index].key);
                let unreached =
                    answers[*index].as_ref().is_err_and(|fault| says_map_is_old(fault) && !is_redirect(fault));
                unreached && new.owner(slot).map(|shard| &shard.address) != old.owner(slot).map(|shard| &shard.address)
            })
            .collect();
        self.ask_owners(keys, &moved, new, answers, deadline).await;
        for (key, answer) in keys.iter().zip(answers) {
            if let Err(fault) = &*answer
                && is_redirect(fault)
            {
                *answer = self.follow(key, fault.clone(), new, deadline).await;
            }
        }
    }

    async fn follow(&self, key: &LookupKey, mut fault: RedisFault, map: &Topology, deadline: Instant) -> Answer {
        let owner = || map.owner(Slot::of_key(&key.key)).map(|shard| shard.address.clone());
        for _ in 0..MOST_REDIRECTS {
            let (address, asking) = match &fault {
                RedisFault::Moved(Redirect { address, .. }) => (address.clone().or_else(owner), false),
                RedisFault::Ask(Redirect { address, .. }) => (address.clone(), true),
                _ => (owner(), false),
            };
            let Some(address) = address else { return Err(fault) };
            let mut pipeline = Pipeline::new();
            if asking {
                pipeline.add_command(cmd("ASKING"));
            }
            pipeline.add_command(key.command());
            let answers = self.send(&address, &pipeline, deadline).await?;
            match answers.into_iter().next_back().unwrap_or(Err(RedisFault::Malformed("no answer"))) {
                Err(next) if is_redirect(&next) => fault = next,
                settled => return settled,
            }
        }
        Err(fault)
    }

    async fn send(
        &self,
        address: &NodeAddress,
        pipeline: &Pipeline,
        deadline: Instant,
    ) -> Result<Vec<Answer>, RedisFault> {
        let late = |_| RedisFault::NotSent(NotSent::Deadline);
        let permit = timeout_at(deadline, self.in_flight.acquire()).await.map_err(late)?;
        let _permit = permit.expect("should be open: the semaphore is never closed");
        let link = self.links.link(address)?;
        timeout_at(deadline, link.pipeline(pipeline)).await.map_err(|_| RedisFault::UnknownOutcome(Lost::TimedOut))?
    }

    async fn topology(&self, deadline: Instant) -> Result<Arc<Topology>, RedisFault> {
        match self.known() {
            Some(topology) => Ok(topology),
            None => self.refresh(deadline).await,
        }
    }

    fn known(&self) -> Option<Arc<Topology>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the slot map, unless somebody did a moment ago.
    async fn refresh(&self, deadline: Instant) -> Result<Arc<Topology>, RedisFault> {
        let late = |_| RedisFault::NotSent(NotSent::Deadline);
        let mut last = timeout_at(deadline, self.refreshing.lock()).await.map_err(late)?;
        if let (Some(at), Some(topology)) = (*last, self.known())
            && at.elapsed() < REFRESH_PAUSE
        {
            return Ok(topology);
        }
        let topology = timeout_at(deadline, self.links.topology()).await.map_err(late)??;
        *last = Some(Instant::now());
        *self.map.lock().unwrap_or_else(PoisonError::into_inner) = Some(topology.clone());
        Ok(topology)
    }
}

/// Redirects, roles that changed, and nodes that cannot be reached (a replica may have taken over).
fn says_map_is_old(fault: &RedisFault) -> bool {
    fault.is_topology()
        || matches!(
            fault,
            RedisFault::NotSent(NotSent::Connect(_) | NotSent::BackingOff | NotSent::NoOwner | NotSent::Replica(_))
                | RedisFault::UnknownOutcome(_)
        )
}

/// Answers that another node, or the same one a little later, will settle.
fn is_redirect(fault: &RedisFault) -> bool {
    matches!(fault, RedisFault::Moved(_) | RedisFault::Ask(_) | RedisFault::TryAgain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circuit_breaker_can_tell_outages_from_refusals() {
        assert!(matches!(RedisFault::Loading.into(), LookupError::Unavailable(_)));
        assert!(matches!(RedisFault::UnknownOutcome(Lost::TimedOut).into(), LookupError::Unavailable(_)));
        assert!(matches!(RedisFault::Unauthenticated.into(), LookupError::Refused(_)));
        assert!(matches!(RedisFault::NoPermission(String::new()).into(), LookupError::Refused(_)));
        assert!(matches!(RedisFault::Other(String::new()).into(), LookupError::Failed(_)));
    }
}
