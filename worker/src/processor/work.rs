//! A batch between the steps and the transaction: what each record becomes, and which offsets that commits. Pure but
//! for the records it holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use sluice_clients::kafka::consumer::Record;
use sluice_clients::kafka::error::ErrorCode;
use sluice_transform::{DeadLetter, Reason};

use super::lease::{Incarnation, SharedLease};
use super::progress::Done;

/// What is in a lane's hands, in records and bytes; the consumer hands out by it.
#[derive(Debug, Default)]
pub struct LaneLoad {
    records: AtomicUsize,
    bytes: AtomicUsize,
    releases: AtomicUsize,
}

impl LaneLoad {
    /// The consumer asks for a lease back.
    pub fn ask_release(&self) {
        self.releases.fetch_add(1, Ordering::Release);
    }

    /// The lane has let go of one.
    pub fn released(&self) {
        self.releases.fetch_sub(1, Ordering::Release);
    }

    /// Whether a lease is asked for: a lane that waits for something must stop waiting, since a rebalance waits for it.
    pub fn is_asked(&self) -> bool {
        self.releases.load(Ordering::Acquire) > 0
    }

    /// Records and bytes now.
    pub fn now(&self) -> (usize, usize) {
        (self.records.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// What a record costs besides its bytes, about: librdkafka's and our own bookkeeping. Small records cost mostly that.
const OVERHEAD: usize = 512;

/// A record in a lane's hands. Dropping it makes room for another, however it ends.
#[derive(Debug)]
pub struct Item {
    /// The lease it was read under.
    pub lease: SharedLease,
    /// The record.
    pub record: Record,
    load: Arc<LaneLoad>,
}

impl Item {
    /// Counts the record in.
    pub fn new(lease: SharedLease, record: Record, load: Arc<LaneLoad>) -> Self {
        load.records.fetch_add(1, Ordering::Relaxed);
        let item = Self { lease, record, load };
        item.load.bytes.fetch_add(item.weight(), Ordering::Relaxed);
        item
    }

    /// Bytes it holds in memory, about.
    pub fn weight(&self) -> usize {
        self.record.size() + OVERHEAD
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        self.load.records.fetch_sub(1, Ordering::Relaxed);
        self.load.bytes.fetch_sub(self.weight(), Ordering::Relaxed);
    }
}

/// Bytes of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bytes {
    /// The source record's, untouched.
    Source,
    /// None.
    Null,
    /// New ones.
    Own(Vec<u8>),
}

/// What goes out: one value to one or more routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outputs {
    /// The value.
    pub value: Bytes,
    /// Routes by index, each with its key; at least one.
    pub routes: Vec<(usize, Bytes)>,
}

/// What a source record becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Records to produce.
    Produce(Outputs),
    /// A filter step took it out.
    Filtered,
    /// A lookup or the routing discarded it.
    Discarded,
    /// It cannot be processed.
    DeadLetter(DeadLetter),
    /// As `DeadLetter`, without its content: the topic does not take that much.
    Stub(DeadLetter),
    /// Nothing, and its offset is not committed: the partition stands still at it or before it, or is not ours any more.
    Skip,
}

impl Outcome {
    /// Label for metrics; `None` for what is not counted.
    pub fn label(&self) -> Option<&'static str> {
        match self {
            Self::Produce(_) => Some("Produced"),
            Self::Filtered => Some("Filtered"),
            Self::Discarded => Some("Discarded"),
            Self::DeadLetter(_) | Self::Stub(_) => Some("DeadLetter"),
            Self::Skip => None,
        }
    }
}

/// A record and what it becomes.
#[derive(Debug)]
pub struct Work {
    /// The record.
    pub item: Item,
    /// What it becomes.
    pub outcome: Outcome,
}

/// What a lane does about a record that Kafka refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escalation {
    /// Try again with the new outcome.
    TryAgain,
    /// Nothing smaller is left, or there is nowhere to put it: the partition stands still.
    StandStill,
}

/// Makes the next smaller thing of an outcome that Kafka refused: a dead letter with this letter, then a stub.
pub fn escalate(outcome: &mut Outcome, refused: DeadLetter, has_dead_letter_topic: bool) -> Escalation {
    let smaller = match std::mem::replace(outcome, Outcome::Skip) {
        Outcome::Produce(_) if has_dead_letter_topic => Outcome::DeadLetter(refused),
        Outcome::DeadLetter(letter) if has_dead_letter_topic => Outcome::Stub(letter),
        _ => return Escalation::StandStill,
    };
    *outcome = smaller;
    Escalation::TryAgain
}

/// The dead letter of a record that the brokers refuse.
pub fn refused(code: Option<ErrorCode>, has_key: bool) -> DeadLetter {
    let (reason, message) = match code.map(|code| code.0) {
        // Compacted topics take no record without a key; that is what they call invalid.
        Some(RDKafkaErrorCode::InvalidRecord) if !has_key => {
            (Reason::NullKey, "the brokers refuse the result: the topic is compacted and there is no key")
        }
        Some(RDKafkaErrorCode::InvalidRecord | RDKafkaErrorCode::InvalidTimestamp) => {
            (Reason::ExpressionError, "the brokers refuse the result: invalid for the topic")
        }
        _ => (Reason::TooLarge, "the brokers refuse the result: larger than the topic's max.message.bytes"),
    };
    DeadLetter { step: sluice_transform::ROUTING.to_owned(), reason, message: message.to_owned() }
}

/// Leases whose partition stands still, and the offset of the record it stands at.
pub type Still = BTreeMap<Incarnation, i64>;

/// Skips records whose lease has ended, and those from where their partition stands still.
pub fn skip_void(work: &mut [Work], still: &Still) {
    for one in work {
        let lease = &one.item.lease;
        let stands = still.get(&lease.incarnation).is_some_and(|at| one.item.record.offset() >= *at);
        if stands || lease.has_ended() {
            one.outcome = Outcome::Skip;
        }
    }
}

/// The end of what a lease's partition holds: everything before it is done once the records handed out are.
#[derive(Clone, Debug)]
pub struct EndMark {
    /// The lease.
    pub lease: SharedLease,
    /// The position after everything, markers included.
    pub offset: i64,
}

/// What a transaction over `work` commits, by lease. `busy` is shared out by the number of records.
pub fn done(work: &[Work], busy: Duration) -> BTreeMap<Incarnation, (SharedLease, Done)> {
    let mut all: BTreeMap<Incarnation, (SharedLease, Done)> = BTreeMap::new();
    for one in work {
        if one.outcome == Outcome::Skip {
            continue;
        }
        let lease = &one.item.lease;
        let (_, done) = all.entry(lease.incarnation).or_insert_with(|| (lease.clone(), Done::default()));
        done.position = one.item.record.offset() + 1;
        done.records += 1;
        done.dead_letters += u64::from(matches!(one.outcome, Outcome::DeadLetter(_) | Outcome::Stub(_)));
        let timestamp = one.item.record.timestamp().and_then(|millis| u64::try_from(millis).ok());
        done.last_timestamp = done.last_timestamp.max(timestamp);
    }
    let records: u64 = all.values().map(|(_, done)| done.records).sum();
    for (_, done) in all.values_mut() {
        done.busy = busy.mul_f64(done.records as f64 / records.max(1) as f64);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> DeadLetter {
        DeadLetter { step: "s".to_owned(), reason: Reason::InvalidJson, message: String::new() }
    }

    fn produce() -> Outcome {
        Outcome::Produce(Outputs { value: Bytes::Source, routes: vec![(0, Bytes::Source)] })
    }

    #[test]
    fn a_refused_record_shrinks_until_nothing_is_left() {
        let mut outcome = produce();
        assert_eq!(escalate(&mut outcome, refused(None, true), true), Escalation::TryAgain);
        assert!(matches!(&outcome, Outcome::DeadLetter(letter) if letter.reason == Reason::TooLarge));
        assert_eq!(escalate(&mut outcome, refused(None, true), true), Escalation::TryAgain);
        assert!(matches!(outcome, Outcome::Stub(_)));
        assert_eq!(escalate(&mut outcome, refused(None, true), true), Escalation::StandStill);
        assert_eq!(outcome, Outcome::Skip);
    }

    #[test]
    fn without_a_dead_letter_topic_it_stands_still_at_once() {
        for mut outcome in [produce(), Outcome::DeadLetter(letter())] {
            assert_eq!(escalate(&mut outcome, refused(None, true), false), Escalation::StandStill);
        }
    }
}
