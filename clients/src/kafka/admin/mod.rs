//! Typed Kafka admin calls, batched over many objects, each with its own outcome.
//!
//! ```text
//! topics.rs   create, grow, delete, describe; read and change their settings
//! acls.rs     bindings of principals
//! users.rs    SCRAM-SHA-512 users
//! groups.rs   consumer groups: state, members, committed offsets; offsets of partitions
//! error.rs    what can go wrong, by what the caller does about it
//! ```
//!
//! A call gives `Err` when it failed as a whole (no broker, no rights for the call) and otherwise one outcome an object.
//! Every call ends by [`Admin`]'s deadline. No call retries by itself: that is the reconciler's decision.

mod acls;
mod error;
mod groups;
mod topics;
mod users;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;

pub use self::acls::{AclBinding, AclFilter, AclOperation, AclPermission, AclResource, PatternType, Principal};
pub use self::error::AdminError;
pub use self::groups::{
    CommittedOffset, GroupDeletion, GroupDescription, GroupMember, GroupOffsets, GroupState, Isolation, OffsetSpec,
    TopicPartition,
};
pub use self::topics::{
    ConfigChange, ConfigEntry, ConfigSource, Deletion, NewTopic, PartitionDescription, TopicConfig, TopicCreation,
    TopicDescription, TopicId,
};
pub use self::users::{ScramChange, ScramOutcome, ScramUser};
use super::ffi::admin::AdminHandle;

/// One outcome for each object asked for, by its name.
pub type ByName<T> = BTreeMap<String, Result<T, AdminError>>;

/// Admin calls to one Kafka cluster as one principal. Cheap to clone; clones share one client and its connections.
#[derive(Clone)]
pub struct Admin {
    shared: Arc<Shared>,
    deadline: Duration,
}

/// The client of the moment, and how to make the next one.
struct Shared {
    config: ClientConfig,
    handle: Mutex<Arc<AdminHandle>>,
}

impl Admin {
    /// Makes the client and its one dispatching thread; connects in the background. `deadline` bounds every call,
    /// finding a broker included (1 ms to 1 h; values outside are moved to the nearest end).
    pub fn new(config: &ClientConfig, deadline: Duration) -> Result<Self, AdminError> {
        let handle = Mutex::new(Arc::new(AdminHandle::new(config)?));
        Ok(Self { shared: Arc::new(Shared { config: config.clone(), handle }), deadline: bounded(deadline) })
    }

    /// The same client with another deadline.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { shared: Arc::clone(&self.shared), deadline: bounded(deadline) }
    }

    /// The last connection trouble the client reported, e.g. a failed login; cleared by the next successful call.
    pub fn last_trouble(&self) -> Option<String> {
        self.lock().last_trouble()
    }

    fn lock(&self) -> MutexGuard<'_, Arc<AdminHandle>> {
        self.shared.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client for the next call; another one when the last is spent, which is closed when its other calls have ended.
    fn handle(&self) -> Result<Arc<AdminHandle>, AdminError> {
        let mut handle = self.lock();
        if handle.is_spent() {
            *handle = Arc::new(AdminHandle::new(&self.shared.config)?);
        }
        Ok(Arc::clone(&handle))
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
mod tests {
    use super::*;

    /// Needs no broker: the port is one that nobody may listen on.
    #[tokio::test]
    async fn a_client_with_an_unanswered_call_to_a_coordinator_is_replaced() {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", "127.0.0.1:1");
        let admin = Admin::new(&config, Duration::from_millis(200)).unwrap();
        let first = admin.handle().unwrap();
        let error = admin.describe_topics(&["t".to_owned()]).await.unwrap_err();
        assert!(Arc::ptr_eq(&first, &admin.handle().unwrap()), "librdkafka ends this one itself: {error}");

        let error = admin.describe_groups(&["g".to_owned()]).await.unwrap_err();
        assert_eq!((error.category(), error.retryable()), ("TimedOut", true), "{error}");
        let second = admin.with_deadline(Duration::from_secs(9)).handle().unwrap();
        assert!(!Arc::ptr_eq(&first, &second), "for clones too");

        // Also when the caller is gone before its time.
        let short = Duration::from_millis(20);
        assert!(tokio::time::timeout(short, admin.list_group_offsets("g", None, true)).await.is_err());
        assert!(!Arc::ptr_eq(&second, &admin.handle().unwrap()));
    }
}
