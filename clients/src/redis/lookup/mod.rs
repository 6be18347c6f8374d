//! Reads for the processor: a batch of keys, one pipeline a node, one answer a key.
//!
//! ```text
//! batch.rs     keys → groups by node; answers → values (pure)
//! client.rs    sends the groups, follows MOVED and ASK one command at a time, refreshes the slot map
//! blocking.rs  the same for OS threads, over one small runtime
//! ```

mod batch;
mod blocking;
mod client;

pub use batch::{LookupKey, LookupKind, LookupValue};
pub use blocking::BlockingLookup;
pub use client::{LookupClient, LookupError, LookupLimits};
