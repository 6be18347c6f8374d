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
use std::sync::Arc;
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
    handle: Arc<AdminHandle>,
    deadline: Duration,
}

impl Admin {
    /// Makes the client and its one dispatching thread; connects in the background. `deadline` bounds every call,
    /// finding a broker included (1 ms to 1 h; values outside are moved to the nearest end).
    pub fn new(config: &ClientConfig, deadline: Duration) -> Result<Self, AdminError> {
        Ok(Self { handle: Arc::new(AdminHandle::new(config)?), deadline: bounded(deadline) })
    }

    /// The same client with another deadline.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { handle: Arc::clone(&self.handle), deadline: bounded(deadline) }
    }

    /// The last connection trouble the client reported, e.g. a failed login; cleared by the next successful call.
    pub fn last_trouble(&self) -> Option<String> {
        self.handle.last_trouble()
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
