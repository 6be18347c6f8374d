//! From findings and the conditions a status had to the conditions it gets.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::reasons::ConditionType;
use super::summary::Finding;

/// Longest message written, in characters; the API server takes 32,768 bytes, people read less.
const MESSAGE_MAX: usize = 1024;

/// The conditions of the next status.
///
/// - `lastTransitionTime` moves to `now` only where a status flips, so that a reconcile that finds the same writes the
///   same and a status write never triggers the next one.
/// - Conditions of types that are not ours stay as they are: somebody else wrote them.
/// - Ours come first, in the order of [`ConditionType::ALL`]; one without a new finding stays as it was.
pub fn merge(old: &[Condition], findings: &[Finding], generation: Option<i64>, now: &Time) -> Vec<Condition> {
    let was = |type_: ConditionType| old.iter().find(|condition| condition.type_ == type_.as_str());
    let ours = ConditionType::ALL.into_iter().filter_map(|type_| {
        match findings.iter().find(|finding| finding.type_ == type_) {
            Some(finding) => Some(to_condition(finding, was(type_), generation, now)),
            None => was(type_).cloned(),
        }
    });
    let others = old.iter().filter(|condition| ConditionType::of(&condition.type_).is_none()).cloned();
    ours.chain(others).collect()
}

fn to_condition(finding: &Finding, was: Option<&Condition>, generation: Option<i64>, now: &Time) -> Condition {
    let status = match finding.status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let since = was.filter(|was| was.status == status).map(|was| was.last_transition_time.clone());
    Condition {
        type_: finding.type_.as_str().to_owned(),
        status: status.to_owned(),
        reason: finding.reason.as_str().to_owned(),
        message: shortened(&finding.message),
        observed_generation: generation,
        last_transition_time: since.unwrap_or_else(|| now.clone()),
    }
}

fn shortened(message: &str) -> String {
    if message.chars().count() <= MESSAGE_MAX {
        return message.to_owned();
    }
    message.chars().take(MESSAGE_MAX - 1).chain(['…']).collect()
}
