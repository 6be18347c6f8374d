//! The one error of the harness.

use std::path::PathBuf;

use rdkafka::error::KafkaError;

use crate::stack::StackError;

/// Why a test could not be run to its verdict. Broken promises are not errors: they are in the report.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// The stack.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// Kafka.
    #[error("kafka, {what}: {source}")]
    Kafka {
        /// What was attempted.
        what: &'static str,
        /// What the client said.
        source: KafkaError,
    },
    /// Redis, or the connection to it.
    #[error("redis {address}: {message}")]
    Redis {
        /// Which server.
        address: String,
        /// What it said, or the system.
        message: String,
    },
    /// A file.
    #[error("{path:?}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A process could not be started, or has ended.
    #[error("{name}: {message}")]
    Process {
        /// Its name.
        name: String,
        /// What happened; the end of its log.
        message: String,
    },
    /// A condition did not come true in time.
    #[error("{what}: not after {seconds} s")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long, in seconds.
        seconds: u64,
    },
    /// A witness printed something that cannot be read.
    #[error("{witness} printed what cannot be read: {message}")]
    Unreadable {
        /// Who.
        witness: &'static str,
        /// What.
        message: String,
    },
}

/// Says what was attempted with Kafka.
pub(super) trait During<T> {
    /// Turns the error into [`HarnessError::Kafka`].
    fn during(self, what: &'static str) -> Result<T, HarnessError>;
}

impl<T> During<T> for Result<T, KafkaError> {
    fn during(self, what: &'static str) -> Result<T, HarnessError> {
        self.map_err(|source| HarnessError::Kafka { what, source })
    }
}
