//! Reading view topics: one thread for the group's consumer, one for repairs.
//!
//! ```text
//! thread.rs            the loop: commands in, rebalances, records and ends out
//! thread/positions.rs  where reading begins
//! budget.rs            how much may be held, and which partitions are paused for it (pure)
//! ```
//!
//! The group decides which partitions are ours and carries lag and reports; where reading begins is decided by the
//! records in Redis, so every partition is paused until the engine says where. The repair consumer joins no group.

mod budget;
mod thread;

use sluice_clients::kafka::error::KafkaError;
use sluice_crds::report::PartitionReport;
use tokio::sync::mpsc;

use super::engine::{Event, PartitionId, Reading};

pub use thread::{Source, SourceSettings};

/// What the engine wants of a source.
#[derive(Debug)]
pub enum Command {
    /// Read from here; 0 = from the beginning of the log.
    Read {
        /// For whom.
        reading: Reading,
        /// Where.
        offset: i64,
    },
    /// Read no more.
    Stop(PartitionId),
    /// Records of this weight are not held any more.
    Released {
        /// Of what.
        partition: PartitionId,
        /// Sum of their weights.
        weight: usize,
    },
    /// Commit for lag and reports.
    Commit(Vec<(PartitionId, i64, PartitionReport)>),
    /// Leave the group and end.
    Shutdown,
}

/// What a source tells.
#[derive(Debug)]
pub enum Told {
    /// For the engine.
    Event(Event),
    /// High watermarks, for lag.
    Ends(Vec<(PartitionId, i64)>),
    /// Trouble with Kafka, for people.
    Trouble {
        /// Bounded.
        category: &'static str,
        /// In words.
        message: String,
    },
    /// The client is of no use any more.
    Fatal(String),
}

/// Which line a source serves, and how it gets its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// From the group; the main line.
    Group,
    /// As told; the repair line.
    Repair,
}

/// Starts a source's thread.
pub fn spawn(settings: SourceSettings, mode: Mode, told: mpsc::Sender<Told>) -> Result<SourceHandle, KafkaError> {
    let (sender, commands) = std::sync::mpsc::channel();
    let source = Source::new(settings, mode, commands, told);
    let name = match mode {
        Mode::Group => "applier-source",
        Mode::Repair => "applier-repair",
    };
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || source.run());
    let thread = thread.map_err(|error| KafkaError::Creation { reason: error.to_string() })?;
    Ok(SourceHandle { sender, thread })
}

/// A running source.
#[derive(Debug)]
pub struct SourceHandle {
    sender: std::sync::mpsc::Sender<Command>,
    thread: std::thread::JoinHandle<()>,
}

impl SourceHandle {
    /// Sends a command. A source that ended has told why.
    pub fn send(&self, command: Command) {
        let _ = self.sender.send(command);
    }

    /// Whether the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}
