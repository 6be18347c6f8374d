//! Errors of the consumer and the transactional producer, with everything their callers classify by.

use std::fmt;

use rdkafka::error::RDKafkaErrorCode;
use rdkafka_sys as sys;

/// A librdkafka or Kafka error code.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode(pub RDKafkaErrorCode);

impl ErrorCode {
    pub(super) fn from_response(code: sys::rd_kafka_resp_err_t) -> Option<Self> {
        (code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| Self(code.into()))
    }

    /// The code of an error callback, which hands over a bare number: the ones librdkafka raises there.
    pub(super) fn from_raw(code: i32) -> Self {
        use RDKafkaErrorCode as Code;
        let raised = [
            Code::AllBrokersDown,
            Code::BrokerTransportFailure,
            Code::Authentication,
            Code::SSL,
            Code::Resolve,
            Code::OperationTimedOut,
            Code::PollExceeded,
            Code::TopicAuthorizationFailed,
            Code::GroupAuthorizationFailed,
            Code::ClusterAuthorizationFailed,
        ];
        Self(raised.into_iter().find(|known| *known as i32 == code).unwrap_or(Code::Unknown))
    }

    /// Kafka itself, or this client, says that the principal may not do this.
    pub fn is_authorization(self) -> bool {
        use RDKafkaErrorCode as Code;
        matches!(
            self.0,
            Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::TransactionalIdAuthorizationFailed
                | Code::Authentication
                | Code::SaslAuthenticationFailed
        )
    }

    /// The group does not know this member or generation (any more).
    pub fn is_stale_membership(self) -> bool {
        use RDKafkaErrorCode as Code;
        matches!(
            self.0,
            Code::IllegalGeneration
                | Code::UnknownMemberId
                | Code::FencedInstanceId
                | Code::RebalanceInProgress
                | Code::FencedMemberEpoch
                | Code::StaleMemberEpoch
        )
    }

    /// The position asked for is not in the log.
    pub fn is_position(self) -> bool {
        matches!(self.0, RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset)
    }

    /// The record itself is the reason: no retry of the same bytes can succeed.
    pub fn is_record(self) -> bool {
        use RDKafkaErrorCode as Code;
        matches!(self.0, Code::MessageSizeTooLarge | Code::InvalidRecord | Code::InvalidTimestamp)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Why a call into Kafka failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KafkaError {
    /// A client could not be made: a property is wrong, or the system is out of threads or files.
    #[error("cannot make a Kafka client: {reason}")]
    Creation {
        /// librdkafka's words; holds no secret.
        reason: String,
    },
    /// A name holds a NUL byte.
    #[error("{text:?} holds a NUL byte")]
    NulByte {
        /// The name.
        text: String,
    },
    /// A call failed.
    #[error("{call}: {detail} ({code:?})")]
    Call {
        /// Which.
        call: &'static str,
        /// Why.
        code: ErrorCode,
        /// librdkafka's words.
        detail: String,
        /// What librdkafka says about the client and the transaction.
        flags: ErrorFlags,
    },
    /// The consumer is no member of its group now: it has no metadata a transaction could be checked against.
    #[error("the consumer is not a member of its group now")]
    NotAMember,
}

/// What librdkafka says about an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ErrorFlags {
    /// The client is of no use any more.
    pub fatal: bool,
    /// The same call may be made again.
    pub retriable: bool,
    /// The transaction must be aborted.
    pub abort: bool,
}

impl KafkaError {
    /// The code, where there is one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Call { code, .. } => Some(*code),
            _ => None,
        }
    }
}
