//! Typed Kafka admin calls, batched over many objects, each with its own outcome.
//!
//! ```text
//! topics.rs   create, grow, delete, describe; read and change their settings
//! acls.rs     bindings of principals
//! brokers.rs  settings of brokers
//! users.rs    SCRAM-SHA-512 users
//! groups.rs   consumer groups: state, members, committed offsets, of many at once; offsets of partitions
//! requests.rs how many requests were sent, for metrics
//! error.rs    what can go wrong, by what the caller does about it
//! ```
//!
//! A call gives `Err` when it failed as a whole (no broker, no rights for the call) and otherwise one outcome an object.
//! Every call ends by [`Admin`]'s deadline. No call retries by itself, that is the reconciler's decision; only a coordinator
//! that is remembered wrongly is found anew within the call. A client with a call to a
//! coordinator that was not answered in time is left to its last callers, and the next call gets a new one (ADR 0007).

mod acls;
mod brokers;
mod error;
mod groups;
mod requests;
mod topics;
mod users;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rdkafka::ClientConfig;

pub use self::acls::{AclBinding, AclFilter, AclOperation, AclPermission, AclResource, PatternType, Principal};
pub use self::error::AdminError;
pub(in crate::kafka) use self::error::{error_code, failure};
pub use self::groups::{
    CommittedOffset, GroupDeletion, GroupDescription, GroupMember, GroupOffsets, GroupState, Isolation, OffsetSpec,
    TopicPartition,
};
pub(in crate::kafka) use self::requests::Counted;
pub use self::requests::Requests;
pub use self::topics::{
    ConfigChange, ConfigEntry, ConfigSource, Deletion, NewTopic, PartitionDescription, TopicConfig, TopicCreation,
    TopicDescription, TopicId,
};
pub use self::users::{ScramChange, ScramOutcome, ScramUser};
use super::coordinators::Coordinators;
use super::ffi::admin::AdminHandle;
use super::lock;

/// One outcome for each object asked for, by its name.
pub type ByName<T> = BTreeMap<String, Result<T, AdminError>>;

/// Admin calls to one Kafka cluster as one principal. Cheap to clone; clones share one client and its connections.
#[derive(Clone)]
pub struct Admin {
    clients: Arc<Clients>,
    deadline: Duration,
}

/// The present client, and what the next one is made of.
struct Clients {
    config: ClientConfig,
    /// Sent by all of them.
    requests: Arc<Mutex<Requests>>,
    present: Mutex<Arc<AdminHandle>>,
    coordinators: Coordinators,
}

impl Admin {
    /// Makes the client and its one dispatching thread; connects in the background. `deadline` bounds every call,
    /// finding a broker included (1 ms to 1 h; values outside are moved to the nearest end).
    pub fn new(config: &ClientConfig, deadline: Duration) -> Result<Self, AdminError> {
        let requests = Arc::default();
        let present = Mutex::new(Arc::new(AdminHandle::new(config, Arc::clone(&requests))?));
        let coordinators = Coordinators::new(config, Arc::clone(&requests))?;
        let clients = Clients { config: config.clone(), requests, present, coordinators };
        Ok(Self { clients: Arc::new(clients), deadline: bounded(deadline) })
    }

    /// The same client with another deadline.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { clients: Arc::clone(&self.clients), deadline: bounded(deadline) }
    }

    /// The last connection trouble the client reported, e.g. a failed login; cleared by the next successful call.
    pub fn last_trouble(&self) -> Option<String> {
        self.present().last_trouble()
    }

    /// Requests sent to the brokers so far, as of some seconds ago.
    pub fn requests(&self) -> Requests {
        lock(&self.clients.requests).clone()
    }

    fn present(&self) -> MutexGuard<'_, Arc<AdminHandle>> {
        lock(&self.clients.present)
    }

    /// The client for one call: a new one if the present one is of no more use.
    fn handle(&self) -> Result<Arc<AdminHandle>, AdminError> {
        let mut present = self.present();
        if present.is_spent() {
            *present = Arc::new(AdminHandle::new(&self.clients.config, Arc::clone(&self.clients.requests))?);
        }
        Ok(Arc::clone(&present))
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

fn bounded(deadline: Duration) -> Duration {
    deadline.clamp(Duration::from_millis(1), Duration::from_secs(3600))
}

#[cfg(test)]
#[path = "away_tests.rs"]
mod away_tests;
