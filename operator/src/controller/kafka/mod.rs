//! What a resource needs of Kafka.
//!
//! ```text
//! topics.rs    PURE plan: wanted + there + status → create, grow, alter, or why not
//! rights.rs    PURE: the ACLs its workers need
//! offsets.rs   PURE plan: start offsets, lost offsets
//! observe.rs   IO: read topics, settings, offsets          change.rs   IO: carry plans out
//! ```

pub mod change;
pub mod observe;
pub mod offsets;
pub mod rights;
pub mod topics;

use sluice_clients::kafka::admin::AdminError;
use sluice_crds::conditions::{ConditionType, Finding, Reason};

/// An admin error as the finding of a domain: what passes by itself is progress, what only an administrator can change
/// waits for a person.
pub fn finding(condition: ConditionType, doing: &str, error: &AdminError) -> Finding {
    let message = format!("{doing}: {error}");
    if matches!(error, AdminError::Authentication(_)) {
        // Away for our calls, but only a person gives us a login or certificate that is taken.
        Finding::stalled(condition, Reason::KafkaRefused, message)
    } else if crate::connections::kafka_is_away(error) {
        Finding::progressing(condition, Reason::KafkaUnreachable, message)
    } else {
        Finding::stalled(condition, Reason::KafkaRefused, message)
    }
}

#[cfg(test)]
mod tests {
    use sluice_crds::conditions::Outcome;

    use super::*;

    #[test]
    fn what_only_a_person_can_change_waits_for_one() {
        for (error, outcome, reason) in [
            (AdminError::Authentication("SASL".to_owned()), Outcome::Stalled, Reason::KafkaRefused),
            (AdminError::NotFound("group".to_owned()), Outcome::Stalled, Reason::KafkaRefused),
            (AdminError::Incomplete("answer"), Outcome::Progressing, Reason::KafkaUnreachable),
            (AdminError::Closed, Outcome::Progressing, Reason::KafkaUnreachable),
        ] {
            let finding = finding(ConditionType::TopicsReady, "topics", &error);
            assert_eq!((finding.outcome, finding.reason), (outcome, reason), "{error}");
        }
    }
}
