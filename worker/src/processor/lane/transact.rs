//! One transaction: begin, produce, offsets, commit; and the ladder of what to do when a call fails.
//!
//! The driver is thin: what an error means is decided in `classify`, what a transaction commits in `work`.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use sluice_clients::kafka::admin::TopicPartition;
use sluice_clients::kafka::consumer::GroupMetadata;
use sluice_clients::kafka::error::KafkaError;
use sluice_clients::kafka::producer::{Outgoing, TRANSACTION_TIMEOUT, TransactionalProducer};

use super::outgoing::{Topics, each_outgoing};
use crate::failpoint;
use crate::processor::classify::{Operation, Verdict, classify};
use crate::processor::metrics::{ProcessorMetrics, reason};
use crate::processor::watchdog::CallClock;
use crate::processor::work::Work;
use crate::reexec;

/// Time-out of one call. Several fit in a transaction's life.
const CALL: Duration = Duration::from_secs(3);
/// Getting a producer id waits for brokers to end the predecessor's transaction.
const INIT: Duration = Duration::from_secs(5);
/// A producer without an id after this time is made anew: its connections may be the trouble.
const INIT_PATIENCE: Duration = Duration::from_secs(30);
/// A commit that has not told its outcome by now is given up: a new producer resolves it.
/// Above the transaction time-out: after that the brokers have ended it themselves.
const COMMIT_PATIENCE: Duration = Duration::from_secs(12);
/// An abort that takes longer is given up in the same way.
const ABORT_PATIENCE: Duration = Duration::from_secs(4);
/// A commit, an abort or offsets slower than this may have been repeated on the wire: the producer is made anew
/// afterwards, so that a straggler meets a newer epoch (before KIP-890 part 2 a late `EndTxn` could end a later
/// transaction, a late `TxnOffsetCommit` add its offsets to one).
const SLOW: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(100);

/// Offsets of a transaction: position and report text by partition.
pub type Offsets = Vec<(TopicPartition, i64, String)>;

/// How an attempt ended.
#[derive(Debug)]
pub enum Attempt {
    /// Committed; so many records were produced.
    Committed(u64),
    /// Nothing happened; the same work may be tried again.
    Aborted(KafkaError),
    /// The group has moved on, or the outcome is unknown: drop the work, start over from the committed offsets.
    Rewind(KafkaError),
    /// Kafka does not take a record; these tags, as far as it told.
    Refused(Vec<usize>, KafkaError),
}

/// A lane's producer, made anew when it is of no use any more.
pub struct Transactor {
    config: ClientConfig,
    topics: Topics,
    producer: Producer,
    clock: CallClock,
    metrics: ProcessorMetrics,
}

/// How far a lane's producer is.
#[derive(Default)]
enum Producer {
    #[default]
    Absent,
    /// Made then, and asking for its id: that goes on when a call has timed out, and the next call resumes it. Far or busy
    /// brokers may take longer than any one call.
    Asking(TransactionalProducer, Instant),
    Ready(TransactionalProducer),
}

/// How the calls of a transaction went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    Usual,
    /// One took long, or had to be repeated: something of it may still be on the way.
    Slow,
}

/// A failed call and what it means.
struct Failed {
    verdict: Verdict,
    error: KafkaError,
    /// The record that a call refused at once.
    tag: Option<usize>,
}

impl Failed {
    fn of(operation: Operation, error: KafkaError) -> Self {
        Self { verdict: classify(operation, &error), error, tag: None }
    }

    /// A call that may be repeated, but not any more in this transaction.
    fn too_late(mut self) -> Self {
        if self.verdict == Verdict::Retry {
            self.verdict = Verdict::AbortAndRetry;
        }
        self
    }

    /// A commit that may be repeated, but was so for long enough: nobody knows how it ended.
    fn unknown(mut self) -> Self {
        if self.verdict == Verdict::Retry {
            self.verdict = Verdict::Fatal;
        }
        self
    }
}

impl Transactor {
    /// Makes no connection yet.
    pub fn new(config: ClientConfig, topics: Topics, clock: CallClock, metrics: ProcessorMetrics) -> Self {
        Self { config, topics, producer: Producer::Absent, clock, metrics }
    }

    /// Where records go.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Whether there is a producer with an id.
    pub fn is_ready(&self) -> bool {
        matches!(self.producer, Producer::Ready(_))
    }

    /// Makes the producer and gets its id, once; fences predecessors with the same transactional id and ends their
    /// transactions. The caller repeats it.
    pub fn make_ready(&mut self) -> Result<(), KafkaError> {
        self.producer = Producer::Ready(self.obtain()?);
        Ok(())
    }

    /// Takes the producer with its id. Who can still use it afterwards puts it back.
    fn obtain(&mut self) -> Result<TransactionalProducer, KafkaError> {
        let (producer, since) = match std::mem::take(&mut self.producer) {
            Producer::Ready(producer) => return Ok(producer),
            Producer::Asking(producer, since) => (producer, since),
            Producer::Absent => {
                let topics = self.topics.names.iter().map(String::as_str);
                (TransactionalProducer::new(&self.config, topics)?, Instant::now())
            }
        };
        let Err(error) = self.clock.watch(INIT, || producer.init(INIT)) else { return Ok(producer) };
        if classify(Operation::Init, &error) == Verdict::Retry && since.elapsed() < INIT_PATIENCE {
            self.producer = Producer::Asking(producer, since);
        } else {
            discard(producer);
        }
        Err(error)
    }

    /// Commits `work` and `offsets` together, or nothing of them.
    pub fn attempt(&mut self, work: &[Work], offsets: &Offsets, group: &GroupMetadata) -> Attempt {
        let producer = match self.obtain() {
            Ok(producer) => producer,
            Err(error) => return Attempt::Aborted(error),
        };
        let began = Instant::now();
        let mut pace = Pace::Usual;
        match self.run(&producer, work, offsets, group, began, &mut pace) {
            Ok(count) => {
                reexec::worked();
                self.metrics.transactions.inc();
                self.metrics.commit_seconds.observe(began.elapsed().as_secs_f64());
                if pace == Pace::Slow {
                    self.replace(producer, "SlowCommit");
                } else {
                    self.producer = Producer::Ready(producer);
                }
                Attempt::Committed(count)
            }
            Err(failed) => self.recover(producer, failed, pace),
        }
    }

    fn run(
        &self,
        producer: &TransactionalProducer,
        work: &[Work],
        offsets: &Offsets,
        group: &GroupMetadata,
        began: Instant,
        pace: &mut Pace,
    ) -> Result<u64, Failed> {
        self.clock.watch(CALL, || producer.begin()).map_err(|error| Failed::of(Operation::Begin, error))?;
        let mut count = 0;
        for (tag, one) in work.iter().enumerate() {
            each_outgoing(&one.outcome, &one.item.record, tag, &self.topics, |topic, outgoing| {
                count += 1;
                produce(producer, topic, outgoing, began)
            })?;
        }
        failpoint::hit("before-send-offsets");
        let entries = || offsets.iter().map(|(partition, offset, text)| (partition, *offset, text.as_str()));
        let send = || {
            failpoint::hit("in-send-offsets");
            producer.send_offsets(entries(), group, CALL)
        };
        let patience = TRANSACTION_TIMEOUT.saturating_sub(began.elapsed());
        self.repeat(Operation::SendOffsets, patience, pace, send).map_err(Failed::too_late)?;
        failpoint::hit("before-commit");
        self.repeat(Operation::Commit, COMMIT_PATIENCE, pace, || producer.commit(CALL)).map_err(Failed::unknown)?;
        failpoint::hit("after-commit");
        Ok(count)
    }

    /// Makes a call again for as long as that may help.
    fn repeat(
        &self,
        operation: Operation,
        patience: Duration,
        pace: &mut Pace,
        call: impl Fn() -> Result<(), KafkaError>,
    ) -> Result<(), Failed> {
        let began = Instant::now();
        loop {
            let result = self.clock.watch(CALL, &call);
            if began.elapsed() > SLOW {
                *pace = Pace::Slow;
            }
            let Err(error) = result else { return Ok(()) };
            let failed = Failed::of(operation, error);
            if failed.verdict != Verdict::Retry || began.elapsed() > patience {
                return Err(failed);
            }
            *pace = Pace::Slow;
            std::thread::sleep(PAUSE);
        }
    }

    /// Ends the transaction that failed, and says what to do about its work.
    fn recover(&mut self, producer: TransactionalProducer, failed: Failed, mut pace: Pace) -> Attempt {
        let Failed { verdict, error, tag } = failed;
        self.metrics.aborted.get_or_create(&reason(verdict.category())).inc();
        if verdict == Verdict::Fatal || !self.abort(&producer, &mut pace) {
            self.replace(producer, "Fatal");
            return Attempt::Rewind(error);
        }
        // Complete now: aborting waited for all delivery reports. A refused record fails the transaction, and then
        // whatever call comes next: the report says more than that call's error.
        let told = producer.take_failures();
        let refused: Vec<usize> =
            told.iter().filter(|failure| failure.code.is_record()).map(|failure| failure.tag).collect();
        if pace == Pace::Slow {
            self.replace(producer, "SlowAbort");
        } else {
            self.producer = Producer::Ready(producer);
        }
        match verdict {
            Verdict::AbortAndRewind | Verdict::Fatal => Attempt::Rewind(error),
            Verdict::AbortAndIsolate => Attempt::Refused(tag.map_or(refused, |tag| vec![tag]), error),
            _ if !refused.is_empty() => Attempt::Refused(refused, error),
            Verdict::Retry | Verdict::AbortAndRetry => Attempt::Aborted(error),
        }
    }

    fn abort(&self, producer: &TransactionalProducer, pace: &mut Pace) -> bool {
        match self.repeat(Operation::Abort, ABORT_PATIENCE, pace, || producer.abort(CALL)) {
            Ok(()) => true,
            Err(failed) => {
                tracing::warn!(error = %failed.error, "cannot abort, the producer is made anew");
                false
            }
        }
    }

    /// Makes a new producer, at least tries: later attempts try again.
    fn replace(&mut self, old: TransactionalProducer, why: &'static str) {
        self.metrics.producers.get_or_create(&reason(why)).inc();
        discard(old);
        if let Err(error) = self.make_ready() {
            tracing::warn!(%error, "cannot initialise the new producer yet");
        }
    }
}

/// Queues one record, waiting for room.
fn produce(
    producer: &TransactionalProducer,
    topic: usize,
    outgoing: &Outgoing<'_>,
    began: Instant,
) -> Result<(), Failed> {
    let unknown = || KafkaError::Creation { reason: "no such topic handle".to_owned() };
    let topic = producer.topic(topic).ok_or_else(|| Failed::of(Operation::Produce, unknown()))?;
    while let Err(error) = producer.produce(topic, outgoing) {
        let failed = Failed { tag: Some(outgoing.tag), ..Failed::of(Operation::Produce, error) };
        if failed.verdict != Verdict::Retry || began.elapsed() > TRANSACTION_TIMEOUT {
            return Err(failed.too_late());
        }
        // The queue is full: the brokers are behind. Commit would wait for them too.
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Destroys a producer elsewhere: destruction can block while brokers are away. A destroyed client sends nothing more.
fn discard(producer: TransactionalProducer) {
    let (done, finished) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name("producer-drop".to_owned()).spawn(move || {
        drop(producer);
        let _ = done.send(());
    });
    if thread.is_ok() && finished.recv_timeout(Duration::from_secs(3)).is_err() {
        tracing::warn!("a discarded producer takes long to end");
    }
}

#[cfg(test)]
#[path = "transact_tests.rs"]
mod tests;
