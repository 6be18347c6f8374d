//! The operator's settings: which Kafka and Redis there are, what each namespace may do with them, and what workers
//! are made of.
//!
//! ```text
//! file.rs    the YAML file as an administrator writes it; unknown fields are refused
//! model.rs   what it means: checked names, one map of connections; PURE
//! policy.rs  what a namespace may do with a connection; what is not named is not allowed
//! monitors.rs  groups of others whose lag is measured; PURE
//! load.rs    IO: read the file and the files it names; watch them for changes
//! ```
//!
//! A connection whose credentials are not there (a Secret is missing) is put aside: its resources say so, all others work.
//! A file that cannot be used never replaces one that could: the operator starts only with a good file, and keeps the
//! last good one (saying so in its log, its metrics and `/readyz`) when a change breaks it.

mod file;
mod load;
mod model;
mod monitors;
mod policy;

pub use file::SettingsFile;
pub use load::{LoadError, SettingsHandle, load, reload_loop, say_unusable};
pub use model::{
    ConnectionName, Credentials, InvalidSettings, KafkaConnection, RedisConnection, Settings, TlsMaterial, Unusable,
    WorkerSettings,
};
pub use monitors::LagMonitor;
pub use policy::{KafkaPolicy, RedisPolicy};
