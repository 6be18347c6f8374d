//! Redis without a cluster client: we must know which node a script goes to.
//!
//! ```text
//! settings.rs  addresses, TLS, user, time-outs; read once from files
//! slots.rs     keys → slots, sets of slots, a tag for each slot (pure)
//! error.rs     what an error answer or a broken call means (pure)
//! node.rs      one node, one multiplexed connection, pipelines with an answer a command
//! topology.rs  CLUSTER SHARDS → who owns which slot; standalone = one shard
//! links.rs     the nodes' connections and a slot map that is refreshed when somebody finds it wrong
//! lookup/      batches of reads for the processor, redirects followed
//! admin/       ACL users and settings on every node
//! ```
//!
//! The library's cluster client is not used: it refuses pipelines over several slots, and where it does not, it sends
//! the whole pipeline again after one redirect, so that later batches may overtake it.

pub mod admin;
mod error;
mod links;
pub mod lookup;
mod node;
mod settings;
mod slots;
mod topology;

pub use error::{Lost, NotSent, Redirect, RedisFault};
pub use links::Links;
pub use node::{Answer, Generation, NodeLink, only};
pub use settings::{NodeAddress, RedisSettings, RedisTimeouts, RedisTls, RedisUser, SettingsError};
pub use slots::{SLOT_COUNT, Slot, SlotSet, crc16, hash_tag};
pub use topology::{NodeId, Shard, Topology};
