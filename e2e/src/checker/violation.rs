//! Broken promises.

use crate::generator::RecordId;

/// One broken promise, with what is needed to look for its cause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A record in the input, an output or the dead letters has no id, or one that was never made.
    #[error("I1 {topic}/{partition}@{offset} holds a record that nobody produced (id {id:?})")]
    Stranger {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// Offset.
        offset: i64,
        /// Its id, if it has one.
        id: Option<String>,
    },
    /// An input below the committed offset has no trace where it should have one.
    #[error("I1 input {id} (offset {offset}, committed {committed}) is missing in {topic}")]
    Lost {
        /// The input.
        id: RecordId,
        /// Its offset.
        offset: i64,
        /// The group's committed offset.
        committed: i64,
        /// Where it should be.
        topic: String,
    },
    /// An input has more than one trace in one topic.
    #[error("I1 input {id} is {times} times in {topic}, at offsets {offsets:?}")]
    Doubled {
        /// The input.
        id: RecordId,
        /// Where.
        topic: String,
        /// How often.
        times: usize,
        /// At which offsets.
        offsets: Vec<i64>,
    },
    /// An input has a trace where it should have none.
    #[error("I1 input {id} is in {topic}@{offset}, expected was {expected}")]
    Misrouted {
        /// The input.
        id: RecordId,
        /// Where it is.
        topic: String,
        /// At which offset.
        offset: i64,
        /// What was expected of it.
        expected: String,
    },
    /// An input at or above the committed offset has a trace.
    #[error("I1 input {id} (offset {offset}) is in {topic} though the group has only committed {committed}")]
    AboveCommitted {
        /// The input.
        id: RecordId,
        /// Its offset.
        offset: i64,
        /// The group's committed offset.
        committed: i64,
        /// Where it is.
        topic: String,
    },
    /// A trace says something else than it should.
    #[error("I1 input {id} in {topic}@{offset}: {part} is {found}, expected {expected}")]
    Content {
        /// The input.
        id: RecordId,
        /// Where.
        topic: String,
        /// Offset there.
        offset: i64,
        /// Which part: key, value, header, timestamp.
        part: &'static str,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// Two inputs of a key came out in the other order.
    #[error("I2 {topic}: key {key} has input {later} after input {earlier} (output offset {offset})")]
    Reordered {
        /// Where.
        topic: String,
        /// The output's key.
        key: String,
        /// The input that came out too late.
        later: RecordId,
        /// The input before it in the output.
        earlier: RecordId,
        /// Offset of the record that is too late.
        offset: i64,
    },
    /// A committed offset was visible before an output it covers was written, or an output before its offset.
    #[error(
        "I3 probe {probe}: input {id} and its output {topic}@{offset} do not agree with the committed offset {committed}"
    )]
    Torn {
        /// Number of the probe.
        probe: usize,
        /// The input.
        id: RecordId,
        /// Where its output is.
        topic: String,
        /// Offset of the output.
        offset: i64,
        /// Committed offset that the probe saw.
        committed: i64,
    },
    /// Redis does not hold what the view topic says.
    #[error("I4 {key}: Redis holds {found}, the view topic says {expected} (offset {offset})")]
    Stale {
        /// The Redis key.
        key: String,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
        /// Offset of the record that says so.
        offset: i64,
    },
    /// Redis holds a key that should be gone: deleted, expired, or never written by this view.
    #[error("I4 {key}: Redis holds {found}, but {why}")]
    GhostKey {
        /// The Redis key.
        key: String,
        /// What is there.
        found: String,
        /// Why it should not be.
        why: &'static str,
    },
    /// A key expires at another time than its record says.
    #[error("I4 {key}: expires at {found:?} ms, the record says {expected:?} ms")]
    WrongExpiry {
        /// The Redis key.
        key: String,
        /// When it expires.
        found: Option<i64>,
        /// When it should.
        expected: Option<i64>,
    },
    /// A reader saw a value that no committed record says.
    #[error("I5 {key}: a reader saw {found} at {at_ms} ms, which no committed record says")]
    Uncommitted {
        /// The Redis key.
        key: String,
        /// What was seen.
        found: String,
        /// When, in milliseconds of the sampler's clock.
        at_ms: i64,
    },
    /// A reader saw an older value after a newer one.
    #[error("I6 {key}: a reader saw {found} at {at_ms} ms after the value of offset {after}")]
    Backwards {
        /// The Redis key.
        key: String,
        /// What was seen.
        found: String,
        /// When, in milliseconds of the sampler's clock.
        at_ms: i64,
        /// Offset whose value had been seen.
        after: i64,
    },
    /// A shard's watermark and its data do not agree.
    #[error("I7 {shard}: {key} holds {found}; the watermark {watermark} of partition {partition} says {expected}")]
    WatermarkLies {
        /// The shard.
        shard: String,
        /// The Redis key.
        key: String,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
        /// The partition.
        partition: i32,
        /// Its watermark on this shard.
        watermark: i64,
    },
    /// A shard's watermark has not reached the end of the topic.
    #[error("I9 {shard}: partition {partition} stands at {found:?} of {end}{detail}")]
    NotCaughtUp {
        /// The shard.
        shard: String,
        /// The partition.
        partition: i32,
        /// Its watermark, if it has one.
        found: Option<i64>,
        /// The end of the topic.
        end: i64,
        /// More, starting with a separator.
        detail: String,
    },
    /// A group has lag though nothing is produced any more.
    #[error("I9 group {group}: partition {partition} has committed {committed:?} of {end}")]
    Lag {
        /// The group.
        group: String,
        /// The partition.
        partition: i32,
        /// Its committed offset.
        committed: Option<i64>,
        /// The end of the partition.
        end: i64,
    },
}

impl Violation {
    /// The invariant that is broken.
    pub fn invariant(&self) -> &'static str {
        match self {
            Self::Stranger { .. }
            | Self::Lost { .. }
            | Self::Doubled { .. }
            | Self::Misrouted { .. }
            | Self::AboveCommitted { .. }
            | Self::Content { .. } => "I1",
            Self::Reordered { .. } => "I2",
            Self::Torn { .. } => "I3",
            Self::Stale { .. } | Self::GhostKey { .. } | Self::WrongExpiry { .. } => "I4",
            Self::Uncommitted { .. } => "I5",
            Self::Backwards { .. } => "I6",
            Self::WatermarkLies { .. } => "I7",
            Self::NotCaughtUp { .. } | Self::Lag { .. } => "I9",
        }
    }
}

/// Bytes for a message: readable, and never more than a line.
pub(super) fn show(bytes: &[u8]) -> String {
    const LIMIT: usize = 160;
    let text = bytes.escape_ascii().to_string();
    if text.len() <= LIMIT { text } else { format!("{}… ({} bytes)", &text[..LIMIT], bytes.len()) }
}
