//! ACL users, settings and clean-up, on every node of a Redis.
//!
//! ```text
//! rules.rs     the rights of a worker as ACL rules (pure)
//! users.rs     ACL users on every node        settings.rs  server settings on every node
//! keys.rs      deleting a view's keys, in bounded portions
//! records.rs   hashes at known places, as workers keep what they have applied
//! ```
//!
//! ACLs and settings are not replicated, so masters and replicas are all visited. A node that is down fails alone
//! ([`PerNode`]): the others are done, and the caller comes back for it in its next round.

mod keys;
mod records;
mod rules;
mod settings;
mod users;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use futures::StreamExt;
use redis::{Cmd, Value};

pub use self::keys::{KeyDeletion, KeyDeletionBudget, KeyDeletionProgress};
pub use self::records::Reach;
pub use self::rules::{KeyPrefix, PasswordHash, worker_user_rules};
pub use self::settings::SettingOutcome;
pub use self::users::{Persistence, UserDeletion, UserOutcome, UserState};
use super::{Links, NodeAddress, NodeLink, RedisFault, RedisSettings, SettingsError};

/// Nodes worked on at the same time.
const PARALLEL_NODES: usize = 16;

/// Why something was not done, on a node or at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisAdminError {
    /// The argument cannot be used; nothing was sent.
    #[error("{what} {value:?} cannot be used: {reason}")]
    InvalidArgument {
        /// Which argument.
        what: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Addresses, authorities or user of the connection cannot be used.
    #[error("redis connection cannot be used: {0}")]
    Connection(String),
    /// The call failed.
    #[error(transparent)]
    Fault(#[from] RedisFault),
}

impl RedisAdminError {
    /// Bounded label for metrics and events.
    pub fn category(&self) -> &'static str {
        match self {
            Self::InvalidArgument { .. } => "InvalidArgument",
            Self::Connection(_) => "Connection",
            Self::Fault(fault) => fault.category(),
        }
    }

    /// True when the same call may succeed later without anybody changing what was asked or the login.
    pub fn retryable(&self) -> bool {
        match self {
            Self::InvalidArgument { .. } | Self::Connection(_) => false,
            Self::Fault(fault) => !matches!(
                fault,
                RedisFault::NoPermission(_)
                    | RedisFault::Unauthenticated
                    | RedisFault::CrossSlot
                    | RedisFault::WrongType
                    | RedisFault::NoScript
                    | RedisFault::Malformed(_)
                    | RedisFault::Other(_)
            ),
        }
    }
}

/// Admin calls to one Redis. Cheap to clone; clones share the connections, one a node, made when first needed and kept.
#[derive(Clone, Debug)]
pub struct RedisAdmin {
    links: Arc<Links>,
}

impl RedisAdmin {
    /// The settings' time-outs bound every call on a node. Nothing is connected yet.
    pub fn new(settings: RedisSettings) -> Result<Self, RedisAdminError> {
        let refused = |error: SettingsError| RedisAdminError::Connection(error.to_string());
        if settings.seeds.is_empty() {
            return Err(refused(SettingsError::NoAddress));
        }
        Ok(Self { links: Arc::new(Links::new(settings).map_err(refused)?) })
    }

    /// Every node there is, masters and replicas, as the first node that answers knows them.
    pub async fn nodes(&self) -> Result<Vec<NodeAddress>, RedisAdminError> {
        let topology = self.links.topology().await?;
        let masters = topology.shards().iter().map(|shard| shard.address.clone());
        Ok(masters.chain(topology.others().iter().map(|(_, address)| address.clone())).collect())
    }

    /// Does something on every node, several at a time; a node that fails fails alone.
    async fn on_every_node<T, W>(&self, work: impl Fn(NodeLink) -> W + Sync) -> Result<PerNode<T>, RedisAdminError>
    where
        W: Future<Output = Result<T, RedisFault>> + Send,
        T: Send,
    {
        let nodes = self.nodes().await?;
        let work = &work;
        let outcomes = futures::stream::iter(nodes)
            .map(|address| async move {
                let outcome = match self.links.link(&address) {
                    Ok(link) => work(link).await,
                    Err(fault) => Err(fault),
                };
                (address, outcome.map_err(RedisAdminError::from))
            })
            .buffer_unordered(PARALLEL_NODES)
            .collect()
            .await;
        Ok(PerNode { outcomes })
    }
}

/// What happened on each node.
#[derive(Clone, Debug)]
pub struct PerNode<T> {
    /// By address.
    pub outcomes: BTreeMap<NodeAddress, Result<T, RedisAdminError>>,
}

impl<T> PerNode<T> {
    /// True when every node did it.
    pub fn all_ok(&self) -> bool {
        self.outcomes.values().all(Result::is_ok)
    }

    /// The nodes that did it.
    pub fn successes(&self) -> impl Iterator<Item = (&NodeAddress, &T)> {
        self.outcomes.iter().filter_map(|(node, outcome)| Some((node, outcome.as_ref().ok()?)))
    }

    /// The nodes that did not.
    pub fn failures(&self) -> impl Iterator<Item = (&NodeAddress, &RedisAdminError)> {
        self.outcomes.iter().filter_map(|(node, outcome)| Some((node, outcome.as_ref().err()?)))
    }

    /// The first failure, if any: all a condition's message has room for.
    pub fn first_failure(&self) -> Option<(&NodeAddress, &RedisAdminError)> {
        self.failures().next()
    }
}

/// A command from its words.
fn command(words: &[&str]) -> Cmd {
    let mut command = Cmd::with_capacity(words.len(), words.iter().map(|word| word.len()).sum());
    for word in words {
        command.arg(*word);
    }
    command
}

/// A value as a type of ours.
fn read<T: redis::FromRedisValue>(value: Value, what: &'static str) -> Result<T, RedisFault> {
    redis::from_redis_value(value).map_err(|_| RedisFault::Malformed(what))
}

/// Reads one parameter of a server; `None` = the server does not know it.
async fn parameter(link: &NodeLink, name: &str) -> Result<Option<String>, RedisFault> {
    let answer = link.command(&command(&["CONFIG", "GET", name])).await?;
    let pairs: BTreeMap<String, String> = read(answer, "CONFIG GET")?;
    Ok(pairs.into_values().next())
}
