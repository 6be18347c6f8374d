//! What a failed transactional call means. One pure function; nothing else in the processor looks at error codes.

use rdkafka::error::RDKafkaErrorCode as Code;
use sluice_clients::kafka::error::{ErrorCode, ErrorFlags, KafkaError};

/// A transactional call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Getting a producer id.
    Init,
    /// Beginning a transaction.
    Begin,
    /// Queueing a record.
    Produce,
    /// Adding offsets.
    SendOffsets,
    /// Committing.
    Commit,
    /// Aborting.
    Abort,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Make the same call again after a pause.
    Retry,
    /// Abort, then do the same work again.
    AbortAndRetry,
    /// Abort, drop the work, start over from the committed offsets: the group has moved on.
    AbortAndRewind,
    /// Abort, find the record that Kafka does not take, and set it aside.
    AbortAndIsolate,
    /// This client is of no use any more, or nobody knows how the call ended: make a new producer, whose
    /// initialisation resolves what is open, and start over from the committed offsets.
    Fatal,
}

impl Verdict {
    /// CamelCase word for metrics.
    pub fn category(self) -> &'static str {
        match self {
            Self::Retry => "Retry",
            Self::AbortAndRetry => "AbortAndRetry",
            Self::AbortAndRewind => "AbortAndRewind",
            Self::AbortAndIsolate => "AbortAndIsolate",
            Self::Fatal => "Fatal",
        }
    }
}

/// Classifies the error of a call.
pub fn classify(operation: Operation, error: &KafkaError) -> Verdict {
    match error {
        KafkaError::Call { code, flags, .. } => classify_code(operation, *code, *flags),
        KafkaError::NotAMember => Verdict::AbortAndRewind,
        KafkaError::Creation { .. } | KafkaError::NulByte { .. } => Verdict::Fatal,
    }
}

fn classify_code(operation: Operation, code: ErrorCode, flags: ErrorFlags) -> Verdict {
    use Operation::{Abort, Commit, Init, Produce};
    if flags.fatal {
        return Verdict::Fatal;
    }
    match (operation, code.0) {
        // "Retriable" by its flag, but only when another call is running; here that is a broken state: do not loop.
        (_, Code::Conflict) | (Abort | Init, Code::State) => Verdict::Fatal,
        // The transaction failed while the call was under way, for a reason that delivery reports tell.
        (_, Code::State) => Verdict::AbortAndRetry,
        (Produce, Code::QueueFull) => Verdict::Retry,
        // An abort that failed is repeated or given up: there is nothing left to abort.
        (Abort | Init, _) => {
            if flags.retriable || is_transient(code) {
                Verdict::Retry
            } else {
                Verdict::Fatal
            }
        }
        _ if code.is_stale_membership() => Verdict::AbortAndRewind,
        (Produce | Commit, _) if code.is_record() => Verdict::AbortAndIsolate,
        _ if flags.abort => Verdict::AbortAndRetry,
        _ if flags.retriable => Verdict::Retry,
        // A refused record leaves the transaction as it was, but half a batch is no batch.
        (Produce, _) => Verdict::AbortAndRetry,
        _ => Verdict::Fatal,
    }
}

/// Waiting helps: an outage, not a verdict.
fn is_transient(code: ErrorCode) -> bool {
    matches!(
        code.0,
        Code::OperationTimedOut
            | Code::TimedOutQueue
            | Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::ConcurrentTransactions
            | Code::RequestTimedOut
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Operation; 6] = [
        Operation::Init,
        Operation::Begin,
        Operation::Produce,
        Operation::SendOffsets,
        Operation::Commit,
        Operation::Abort,
    ];
    const NONE: ErrorFlags = ErrorFlags { fatal: false, retriable: false, abort: false };
    const FATAL: ErrorFlags = ErrorFlags { fatal: true, ..NONE };
    const RETRIABLE: ErrorFlags = ErrorFlags { retriable: true, ..NONE };
    const ABORT: ErrorFlags = ErrorFlags { abort: true, ..NONE };

    /// The whole table: for each kind of code and flags, the verdict of each operation in the order of `ALL`.
    #[test]
    fn the_table() {
        use Verdict::{AbortAndIsolate as Isolate, AbortAndRetry as Again, AbortAndRewind as Rewind, Fatal, Retry};
        let table: &[(&[Code], ErrorFlags, [Verdict; 6])] = &[
            // fatal wins over everything
            (
                &[
                    Code::Fenced,
                    Code::ProducerFenced,
                    Code::InvalidProducerEpoch,
                    Code::IllegalGeneration,
                    Code::QueueFull,
                ],
                FATAL,
                [Fatal; 6],
            ),
            // broken state, also when called retriable
            (&[Code::Conflict], RETRIABLE, [Fatal; 6]),
            (&[Code::Conflict], ABORT, [Fatal; 6]),
            (&[Code::Conflict], NONE, [Fatal; 6]),
            (&[Code::State], RETRIABLE, [Fatal, Again, Again, Again, Again, Fatal]),
            (&[Code::State], ABORT, [Fatal, Again, Again, Again, Again, Fatal]),
            (&[Code::State], NONE, [Fatal, Again, Again, Again, Again, Fatal]),
            // the group has moved on
            (
                &[Code::IllegalGeneration, Code::UnknownMemberId, Code::FencedInstanceId, Code::RebalanceInProgress],
                ABORT,
                [Fatal, Rewind, Rewind, Rewind, Rewind, Fatal],
            ),
            (&[Code::IllegalGeneration], NONE, [Fatal, Rewind, Rewind, Rewind, Rewind, Fatal]),
            // a record is the reason
            (&[Code::MessageSizeTooLarge, Code::InvalidRecord], ABORT, [Fatal, Again, Isolate, Again, Isolate, Fatal]),
            (&[Code::MessageSizeTooLarge], NONE, [Fatal, Fatal, Isolate, Fatal, Isolate, Fatal]),
            // the queue is full
            (&[Code::QueueFull], NONE, [Fatal, Fatal, Retry, Fatal, Fatal, Fatal]),
            // abortable for other reasons: outages and missing rights
            (
                &[Code::MessageTimedOut, Code::TopicAuthorizationFailed, Code::GroupAuthorizationFailed],
                ABORT,
                [Fatal, Again, Again, Again, Again, Fatal],
            ),
            // time-outs that may be repeated
            (&[Code::OperationTimedOut, Code::BrokerTransportFailure], RETRIABLE, [Retry; 6]),
            (
                &[Code::OperationTimedOut, Code::CoordinatorNotAvailable],
                NONE,
                [Retry, Fatal, Again, Fatal, Fatal, Retry],
            ),
            (&[Code::ConcurrentTransactions], RETRIABLE, [Retry; 6]),
            // never heard of
            (&[Code::Unknown, Code::InvalidTransactionalState], NONE, [Fatal, Fatal, Again, Fatal, Fatal, Fatal]),
            (&[Code::TransactionalIdAuthorizationFailed], NONE, [Fatal, Fatal, Again, Fatal, Fatal, Fatal]),
        ];
        for (codes, flags, verdicts) in table {
            for code in *codes {
                for (operation, verdict) in ALL.into_iter().zip(verdicts) {
                    assert_eq!(
                        classify_code(operation, ErrorCode(*code), *flags),
                        *verdict,
                        "{operation:?} {code:?} {flags:?}"
                    );
                }
            }
        }
    }

    /// Whatever the code: fatal is fatal, an abort is never answered by an abort, nothing that must be aborted is
    /// committed again.
    #[test]
    fn no_code_escapes() {
        for raw in -200..120 {
            let code = ErrorCode(response(raw));
            for operation in ALL {
                assert_eq!(classify_code(operation, code, FATAL), Verdict::Fatal);
                let aborted = classify_code(Operation::Abort, code, ABORT);
                assert!(matches!(aborted, Verdict::Retry | Verdict::Fatal), "{raw}");
                assert_ne!(classify_code(Operation::Commit, code, ABORT), Verdict::Retry, "{raw}");
            }
        }
    }

    /// Codes by number, as far as the crate knows them.
    fn response(raw: i32) -> Code {
        let known = [
            Code::Fenced,
            Code::State,
            Code::Conflict,
            Code::QueueFull,
            Code::OperationTimedOut,
            Code::MessageTimedOut,
            Code::PurgeQueue,
            Code::PurgeInflight,
            Code::IllegalGeneration,
            Code::UnknownMemberId,
            Code::MessageSizeTooLarge,
            Code::InvalidRecord,
            Code::ProducerFenced,
            Code::ConcurrentTransactions,
            Code::CoordinatorNotAvailable,
            Code::NotCoordinator,
            Code::TopicAuthorizationFailed,
            Code::GroupAuthorizationFailed,
            Code::UnknownTopicOrPartition,
            Code::NotEnoughReplicas,
        ];
        known.into_iter().find(|code| *code as i32 == raw).unwrap_or(Code::Unknown)
    }
}
