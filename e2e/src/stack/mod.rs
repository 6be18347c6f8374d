//! The local stack: real Kubernetes, Kafka and Redis as processes of this machine, in one network namespace.
//!
//! ```text
//!  up ── install/ (Debian, Go modules, jars → cache)          attach() ── Stack ── kafka()/redis()/kube()
//!   │                                                            ▲            └── Part: kill9, freeze, thaw, start
//!   ├── netns (namespace, bridge, routes)                        │ reads
//!   └── group (one thread each) ── kafka/ redis/ kube/ ──▶ KAFKA.json … + parts/NAME.pid (pid and start time)
//! ```
//!
//! [`part`] runs programs, [`island`] cuts one off from others, [`reap`] ends what was left behind, [`env`] is the stack as environment variables. Everything is
//! synchronous: it is about processes and files, and callers with a runtime have threads to spare.

mod attach;
mod command;
mod dump;
pub mod env;
mod error;
mod files;
mod group;
pub mod image;
mod install;
pub mod island;
pub mod kafka;
pub mod kube;
mod layout;
pub mod netns;
pub mod part;
mod pki;
pub mod process;
mod progress;
mod ready;
mod reap;
pub mod redis;
mod status;
mod up;

pub use attach::{Kafka, Kube, OwnedKafka, OwnedRedis, Redis, Stack, require, require_local};
pub use command::{output, wait_for};
pub use dump::dump;
pub use error::StackError;
pub use install::{Group, Programs, install};
pub use layout::Layout;
pub use part::{Part, PartSpec};
pub use progress::Progress;
pub use ready::Ready;
pub use status::{PartStatus, parts, status};
pub use up::{down, up};
