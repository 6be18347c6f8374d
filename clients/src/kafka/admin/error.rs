//! What can go wrong in an admin call, sorted by what a caller does about it.

use std::time::Duration;

use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};

/// Why an admin call, or its part about one object, did not succeed. Outcomes a caller expects (exists already, not
/// there) are values of the calls, not errors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// The argument cannot be sent; nothing was.
    #[error("{what} {value:?} cannot be sent to kafka: {reason}")]
    InvalidArgument {
        /// Which argument.
        what: &'static str,
        /// Its value; empty for secrets.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The client could not be made: a property of the connection is wrong.
    #[error("kafka client could not be created: {0}")]
    Client(String),
    /// No answer in time. The call may have taken effect.
    #[error("kafka did not answer {call} within {} ms{}", .after.as_millis(), cause(.last_trouble.as_ref()))]
    TimedOut {
        /// The call.
        call: &'static str,
        /// The deadline that passed.
        after: Duration,
        /// The last connection error seen meanwhile, if any.
        last_trouble: Option<String>,
    },
    /// The brokers refuse the client's own credentials or certificate.
    #[error("kafka refused the connection's credentials or certificate: {0}")]
    Authentication(String),
    /// The client's principal may not do this.
    #[error("kafka does not authorize this: {code:?}: {message}")]
    Authorization {
        /// The broker's code; tells which kind of resource.
        code: RDKafkaErrorCode,
        /// The broker's words.
        message: String,
    },
    /// The object this is about does not exist.
    #[error("unknown to kafka: {0}")]
    NotFound(String),
    /// The broker decided against it; the same call will fail again until something is changed.
    #[error("kafka refused: {code:?}: {message}")]
    Rejected {
        /// The broker's code.
        code: RDKafkaErrorCode,
        /// The broker's words.
        message: String,
    },
    /// Passing trouble (no controller or coordinator yet, connection lost): the same call later may succeed.
    #[error("kafka is not ready for this: {code:?}: {message}")]
    Transient {
        /// The broker's or client's code.
        code: RDKafkaErrorCode,
        /// Its words.
        message: String,
    },
    /// The answer does not speak of an object that was asked for.
    #[error("kafka's answer to {0} does not name every object asked for")]
    Incomplete(&'static str),
    /// The client was closed while the call was under way.
    #[error("the kafka admin client was closed")]
    Closed,
}

fn cause(text: Option<&String>) -> String {
    text.map_or_else(String::new, |text| format!(" (last connection error: {text})"))
}

impl AdminError {
    /// Bounded label for metrics and events.
    pub fn category(&self) -> &'static str {
        match self {
            Self::InvalidArgument { .. } => "InvalidArgument",
            Self::Client(_) => "Client",
            Self::TimedOut { .. } => "TimedOut",
            Self::Authentication(_) => "Authentication",
            Self::Authorization { .. } => "Authorization",
            Self::NotFound(_) => "NotFound",
            Self::Rejected { .. } => "Rejected",
            Self::Transient { .. } => "Transient",
            Self::Incomplete(_) => "Incomplete",
            Self::Closed => "Closed",
        }
    }

    /// True when the same call may succeed later without anybody changing anything.
    pub fn retryable(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::Transient { .. } | Self::Incomplete(_) => true,
            Self::InvalidArgument { .. }
            | Self::Client(_)
            | Self::Authentication(_)
            | Self::Authorization { .. }
            | Self::NotFound(_)
            | Self::Rejected { .. }
            | Self::Closed => false,
        }
    }

    /// Sorts a librdkafka code. `message` is what came with it; empty means the code's own text.
    pub(crate) fn from_code(code: RDKafkaErrorCode, message: &str) -> Self {
        use RDKafkaErrorCode as C;
        let message = if message.is_empty() { code.to_string() } else { cut(message) };
        match code {
            C::Authentication | C::SaslAuthenticationFailed | C::SSL => Self::Authentication(message),
            C::TopicAuthorizationFailed
            | C::GroupAuthorizationFailed
            | C::ClusterAuthorizationFailed
            | C::TransactionalIdAuthorizationFailed
            | C::DelegationTokenAuthorizationFailed => Self::Authorization { code, message },
            C::UnknownTopicOrPartition
            | C::UnknownTopic
            | C::UnknownPartition
            | C::GroupIdNotFound
            | C::ResourceNotFound => Self::NotFound(message),
            C::NotController
            | C::NotCoordinator
            | C::CoordinatorNotAvailable
            | C::CoordinatorLoadInProgress
            | C::LeaderNotAvailable
            | C::NotLeaderForPartition
            | C::UnstableOffsetCommit
            | C::RequestTimedOut
            | C::OperationTimedOut
            | C::BrokerTransportFailure
            | C::AllBrokersDown
            | C::NetworkException
            | C::BrokerNotAvailable
            | C::ReplicaNotAvailable
            | C::WaitingForCoordinator
            | C::RebalanceInProgress
            | C::ConcurrentTransactions
            | C::KafkaStorageError
            | C::ThrottlingQuotaExceeded
            | C::Resolve
            | C::NoEnt // "no leaders found": none of the partitions has one now
            | C::BrokerDestroy => Self::Transient { code, message },
            _ => Self::Rejected { code, message },
        }
    }
}

/// A code of Kafka's protocol or of librdkafka; one that the bindings do not know becomes `Unknown`.
pub(in crate::kafka) fn error_code(number: i32) -> RDKafkaErrorCode {
    RDKafkaRespErr::try_from(number).map_or(RDKafkaErrorCode::Unknown, RDKafkaErrorCode::from)
}

/// An error of one object of an answer, if it has one.
pub(in crate::kafka) fn failure(number: i32, message: &str) -> Result<(), AdminError> {
    match error_code(number) {
        RDKafkaErrorCode::NoError => Ok(()),
        code => Err(AdminError::from_code(code, message)),
    }
}

/// Some brokers' words hold a dump of the whole request: a beginning is enough, in a condition as in a log.
fn cut(message: &str) -> String {
    const MOST: usize = 300;
    if message.len() <= MOST {
        return message.to_owned();
    }
    let end = (0..=MOST).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &message[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_by_what_a_caller_does() {
        use RDKafkaErrorCode as C;
        let table = [
            (C::Authentication, "Authentication", false),
            (C::SaslAuthenticationFailed, "Authentication", false),
            (C::SSL, "Authentication", false),
            (C::TopicAuthorizationFailed, "Authorization", false),
            (C::GroupAuthorizationFailed, "Authorization", false),
            (C::ClusterAuthorizationFailed, "Authorization", false),
            (C::TransactionalIdAuthorizationFailed, "Authorization", false),
            (C::UnknownTopicOrPartition, "NotFound", false),
            (C::GroupIdNotFound, "NotFound", false),
            (C::NotController, "Transient", true),
            (C::CoordinatorLoadInProgress, "Transient", true),
            (C::BrokerTransportFailure, "Transient", true),
            (C::UnstableOffsetCommit, "Transient", true),
            (C::ThrottlingQuotaExceeded, "Transient", true),
            (C::TopicAlreadyExists, "Rejected", false),
            (C::InvalidPartitions, "Rejected", false),
            (C::InvalidReplicationFactor, "Rejected", false),
            (C::InvalidConfig, "Rejected", false),
            (C::PolicyViolation, "Rejected", false),
            (C::SecurityDisabled, "Rejected", false),
            (C::NonEmptyGroup, "Rejected", false),
            (C::UnsupportedVersion, "Rejected", false),
            (C::Unknown, "Rejected", false),
        ];
        for (code, category, retryable) in table {
            let error = AdminError::from_code(code, "the broker's words");
            assert_eq!((error.category(), error.retryable()), (category, retryable), "{code:?}");
            assert!(error.to_string().contains("the broker's words"), "{error}");
        }
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let error = AdminError::from_code(RDKafkaErrorCode::InvalidConfig, &"ä".repeat(1_000));
        assert!(error.to_string().len() < 400, "{error}");
    }

    #[test]
    fn an_error_without_words_gets_the_codes_own() {
        let error = AdminError::from_code(RDKafkaErrorCode::InvalidConfig, "");
        assert!(error.to_string().contains("InvalidConfig"), "{error}");
    }
}
