//! What goes into the engine and what comes out of it.

use std::fmt;
use std::sync::Arc;

use sluice_clients::redis::{Generation, NodeAddress, NodeId, RedisFault, Slot, Topology};
use sluice_crds::report::{PartitionReport, TopicId};

use crate::applier::mutation::{Batch, Change};
use crate::applier::record::RecordError;

/// Milliseconds of one clock that never goes back (the process's).
pub type Millis = u64;

/// A partition of one of the applier's topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    /// Index of the topic in the configuration.
    pub topic: u16,
    /// Number of the partition.
    pub partition: i32,
}

/// A pass over a partition. Most slots are on the main line; what fell behind is brought up by the repair line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LineId {
    /// At the head of the partition.
    Main,
    /// Behind it, in the background, until it has caught up.
    Repair,
}

/// Which reading of a partition records came from; what an older reading still delivers is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reading {
    /// Of what.
    pub partition: PartitionId,
    /// For which line.
    pub line: LineId,
    /// Grows with each start or move.
    pub incarnation: u32,
}

/// A shard whose records were read: what scripts are sent with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardHandle {
    /// The master.
    pub node: NodeId,
    /// Where it listens.
    pub address: NodeAddress,
    /// The connection everything was read on.
    pub generation: Generation,
    /// Key of the hash with the records.
    pub key: String,
    /// Its header; a script on a hash with another header does nothing.
    pub header: String,
}

/// One call of the script.
#[derive(Clone, Debug)]
pub struct Apply {
    /// Comes back with the outcome.
    pub ticket: u64,
    /// Where to.
    pub handle: Arc<ShardHandle>,
    /// Whose record.
    pub partition: PartitionId,
    /// Text the record must have now; empty: no record.
    pub expected: String,
    /// Text it gets.
    pub next: String,
    /// Offset that slots keep which cannot be written.
    pub from: i64,
    /// What is written.
    pub batch: Batch,
}

/// How a script call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Data and record were written.
    Applied {
        /// Slots that could not be written: not here, or in motion.
        behind: Vec<Slot>,
        /// The record's text, when it is not the one that was sent.
        text: Option<String>,
    },
    /// Header or record was not the expected one; nothing was written.
    Refused,
    /// A mutation can never succeed as things are; the record was not written, earlier mutations were.
    Failed {
        /// Index in the batch.
        item: usize,
        /// What Redis said.
        error: String,
    },
    /// The call failed.
    Fault(RedisFault),
}

/// Why a shard cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// A call failed.
    #[error("{0}")]
    Fault(RedisFault),
    /// The records changed while they were being read or adopted; the next attempt sees them as they are.
    #[error("the records changed while they were being read")]
    Raced,
    /// Scripts over several slots are refused.
    #[error("the server refuses scripts over several slots: {0}")]
    CrossSlotScriptsRefused(String),
    /// Older than 7.0.
    #[error("server version {0} is too old: 7.0 is needed")]
    ServerTooOld(String),
    /// A header is not one of ours, or of a newer worker.
    #[error("header of the watermark records: {0}")]
    Unreadable(RecordError),
}

impl OpenError {
    /// Bounded name for metrics and events.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Fault(fault) => fault.category(),
            Self::Raced => "Raced",
            Self::CrossSlotScriptsRefused(_) => "CrossSlotScriptsRefused",
            Self::ServerTooOld(_) => "ServerTooOld",
            Self::Unreadable(_) => "UnreadableRecord",
        }
    }
}

/// Why the applier stops for good: going on would write what is wrong. A new configuration or an operator's decision is
/// needed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// A newer configuration is at work.
    #[error(
        "partition {partition}: a watermark record has epoch {found}, ours is {ours}: a newer configuration is at work"
    )]
    EpochSuperseded {
        /// Where.
        partition: PartitionId,
        /// In the record.
        found: u64,
        /// In our configuration.
        ours: u64,
    },
    /// Offsets would belong to another topic of the same name.
    #[error("topic {topic} has id {found} now, ours is {ours}: it was made again")]
    TopicReplaced {
        /// Which, as an index into the configuration.
        topic: u16,
        /// In Kafka, or in a record.
        found: TopicId,
        /// In our configuration.
        ours: TopicId,
    },
    /// The log ends before what was applied.
    #[error("partition {partition} ends at {end}, but {applied} was applied: the log was truncated or made again")]
    LogTruncated {
        /// Where.
        partition: PartitionId,
        /// End of the log.
        end: i64,
        /// What was applied.
        applied: i64,
    },
    /// A record that is not ours, or of a newer worker.
    #[error("watermark record: {0}")]
    UnreadableRecord(RecordError),
}

impl StopReason {
    /// Bounded name for metrics, events and readiness.
    pub fn category(&self) -> &'static str {
        match self {
            Self::EpochSuperseded { .. } => "EpochSuperseded",
            Self::TopicReplaced { .. } => "TopicReplaced",
            Self::LogTruncated { .. } => "LogTruncated",
            Self::UnreadableRecord(_) => "UnreadableRecord",
        }
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Partitions are ours.
    Assigned(Vec<PartitionId>),
    /// Partitions are not ours any more.
    Revoked(Vec<PartitionId>),
    /// The topics' ids as the brokers know them now.
    Topics {
        /// Of [`Effect::AskTopics`].
        request: u64,
        /// In the configuration's order; none for a topic that is not there.
        found: Vec<Option<TopicId>>,
    },
    /// Who owns which slots.
    Topology(Arc<Topology>),
    /// Nobody could say.
    TopologyFailed,
    /// A shard's records were read, on a connection that scripts may use.
    ShardOpened {
        /// Of [`Effect::OpenShard`].
        request: u64,
        /// What to send scripts with.
        handle: Arc<ShardHandle>,
        /// Records by partition; a partition without one is not in it.
        fields: Vec<(PartitionId, String)>,
    },
    /// A shard's records could not be read.
    ShardFailed {
        /// Of [`Effect::OpenShard`].
        request: u64,
        /// Which.
        node: NodeId,
        /// Why.
        error: OpenError,
    },
    /// Records, in order.
    Fetched {
        /// By which reading.
        reading: Reading,
        /// The records.
        changes: Vec<Change>,
    },
    /// The committed part of the partition ends here.
    End {
        /// By which reading.
        reading: Reading,
        /// Next offset a record can have.
        offset: i64,
    },
    /// The position asked for is not in the log.
    OutOfRange {
        /// By which reading.
        reading: Reading,
        /// First offset in the log.
        first: i64,
        /// Next offset a record can have.
        end: i64,
    },
    /// A script call ended.
    Script {
        /// Of [`Apply`].
        ticket: u64,
        /// How.
        outcome: Outcome,
    },
    /// Time passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Ask the brokers for the ids of the topics, again and again until they say.
    AskTopics {
        /// Comes back with the answer.
        request: u64,
    },
    /// Ask who owns which slots.
    RefreshTopology,
    /// Connect to a shard and read its records.
    OpenShard {
        /// Comes back with the answer.
        request: u64,
        /// Which.
        node: NodeId,
    },
    /// Read from this offset on; 0 = the beginning of the log.
    Read {
        /// Comes back with the records.
        reading: Reading,
        /// Where.
        offset: i64,
    },
    /// Read this line no more.
    StopReading {
        /// Of what.
        partition: PartitionId,
        /// Which.
        line: LineId,
    },
    /// Call the script.
    Apply(Apply),
    /// Commit group offsets, for lag and reports.
    Commit(Vec<(PartitionId, i64, PartitionReport)>),
    /// Fetched records of this weight are not held any more.
    Released {
        /// Of what.
        partition: PartitionId,
        /// Which line.
        line: LineId,
        /// Sum of their weights.
        weight: usize,
    },
    /// Everything stopped.
    Stop(StopReason),
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.topic, self.partition)
    }
}

/// What the engine works with; fixed for its life.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// Epoch of the views.
    pub epoch: u64,
    /// Ids of the topics, in the configuration's order.
    pub topics: Vec<TopicId>,
    /// How long compaction leaves tombstones in them at least, in the same order; none = it does not remove any.
    pub tombstones_kept_ms: Vec<Option<u64>>,
    /// Most mutations in one script.
    pub max_batch_items: usize,
    /// Most bytes of keys and values in one script; a single record may exceed it.
    pub max_batch_bytes: usize,
    /// Times.
    pub times: Times,
}

/// How long the engine waits for what.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// A shard that cannot be reached holds its partitions up this long; then the others go on without it.
    pub grace: Millis,
    /// Between attempts on a shard that cannot be used.
    pub retry: Millis,
    /// Between attempts on slots in motion.
    pub motion_retry: Millis,
    /// Between attempts on a mutation that Redis refuses.
    pub refusal_retry: Millis,
    /// Between writes of a record that only moves on.
    pub lazy_advance: Millis,
    /// A shard that nothing was written to is read back this often.
    pub read_back: Millis,
    /// Between two looks at the slot map when nothing seems wrong.
    pub topology: Millis,
    /// Between two looks at the slot map when something is.
    pub topology_hurry: Millis,
    /// Between two looks at the ids of the topics.
    pub topics: Millis,
    /// Without any event for so long the process was frozen.
    pub sleep: Millis,
    /// Between group commits of a partition that moves.
    pub commit: Millis,
    /// Between group commits of a partition that does not.
    pub commit_idle: Millis,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            grace: 1_000,
            retry: 500,
            motion_retry: 1_000,
            refusal_retry: 5_000,
            lazy_advance: 1_000,
            read_back: 3_000,
            topology: 5_000,
            topology_hurry: 250,
            topics: 30_000,
            sleep: 1_000,
            commit: 1_000,
            commit_idle: 15_000,
        }
    }
}

/// What the engine counted since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records handled on main lines.
    pub records: u64,
    /// Mutations written.
    pub mutations: u64,
    /// Scripts that wrote.
    pub batches: u64,
    /// Scripts whose expected record was not there.
    pub refused: u64,
    /// Shards of a partition found with an older record than we knew.
    pub replays: u64,
    /// Shards of a partition found without a record although we knew one.
    pub rebuilds: u64,
    /// Repair lines started.
    pub repairs: u64,
    /// Times that slots could not be written because they were not there or in motion.
    pub slots_left_behind: u64,
    /// Mutations that Redis refused for good.
    pub failed_mutations: u64,
    /// Positions that the log did not hold any more.
    pub expired_positions: u64,
    /// Shards of a partition that nobody brought forward for so long that deletions may have been missed.
    pub missed_deletions: u64,
}
