//! From what each domain found to `Ready`, `Reconciling` and `Stalled`.
//!
//! kstatus reads deletionTimestamp, then observedGeneration, then `Reconciling=True` (in progress), then
//! `Stalled=True` (failed), then `Ready`. So at most one of the three is `True`, always, and exactly one of them: a
//! resource that waits for a person is never also "in progress", or a `helm install --wait` would wait for its whole
//! time-out instead of failing at once.

use super::reasons::{ConditionType, Reason};

/// How one domain is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// As asked.
    Well,
    /// Not yet, or not now, and it will be without a person's help: starting, rolling, catching up, a server that is away.
    Progressing,
    /// Not, until a person changes the resource, the operator's settings, or what the message names.
    Stalled,
    /// Not looked at yet.
    Unknown,
}

/// What is to be said about one condition type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which condition.
    pub type_: ConditionType,
    /// Its status: `Some(true)` = `True`, `None` = `Unknown`.
    pub status: Option<bool>,
    /// How the domain is doing.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// For people: what, where, and what to do. No secrets, no raw configuration.
    pub message: String,
}

impl Finding {
    /// A domain that is as asked.
    pub fn well(type_: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self { type_, status: Some(true), outcome: Outcome::Well, reason, message: message.into() }
    }

    /// A domain that is not there yet and will be.
    pub fn progressing(type_: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self { type_, status: Some(false), outcome: Outcome::Progressing, reason, message: message.into() }
    }

    /// A domain that waits for a person.
    pub fn stalled(type_: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self { type_, status: Some(false), outcome: Outcome::Stalled, reason, message: message.into() }
    }

    /// A domain that was not looked at, since one before it is not well.
    pub fn unknown(type_: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self { type_, status: None, outcome: Outcome::Unknown, reason, message: message.into() }
    }
}

/// What the resource is meant to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Workers run.
    Running,
    /// `spec.state: Stopped`.
    Stopped,
    /// The `sluice.dev/paused` annotation: nothing is changed, so nothing is "in progress" either.
    Paused,
    /// A deletion timestamp is set.
    Deleting,
}

/// All condition types on the first visit, before anything was found out: tools that see a resource without a `Ready`
/// condition take it for ready.
pub fn first_visit(mode: Mode) -> Vec<Finding> {
    let domains: Vec<Finding> = ConditionType::DOMAINS
        .into_iter()
        .map(|type_| Finding::unknown(type_, Reason::Pending, "not looked at yet"))
        .collect();
    summarise(&domains, mode)
}

/// Adds the summaries to what the domains found: `Ready`, `Reconciling` and `Stalled`, then the domains, whether workers are
/// scaled by the load, and `Paused`.
///
/// `findings` in any order, at most one of a type; the cause shown is the first in the order of
/// [`ConditionType::DOMAINS`], one that waits for a person before all others. A domain without finding counts as unknown.
pub fn summarise(findings: &[Finding], mode: Mode) -> Vec<Finding> {
    let domains: Vec<Finding> = ConditionType::DOMAINS.into_iter().map(|type_| finding_of(findings, type_)).collect();
    let (ready, reconciling, stalled) = match (cause(&domains), mode) {
        (_, Mode::Deleting) => in_progress(Reason::Deleting, "being deleted"),
        (Some(cause), _) if cause.outcome == Outcome::Stalled => waits_for_user(cause),
        (_, Mode::Paused) => settled(Reason::Paused, "paused: the operator changes nothing"),
        (Some(cause), _) => in_progress(cause.reason, &cause.message),
        (None, Mode::Stopped) => settled(Reason::Stopped, "stopped as asked: no worker runs"),
        (None, Mode::Running) => match domains.iter().find(|domain| domain.reason == Reason::Sleeping) {
            Some(asleep) => settled(Reason::Sleeping, &asleep.message),
            None => settled(Reason::Reconciled, "everything is as asked"),
        },
    };
    let paused = if mode == Mode::Paused {
        condition(ConditionType::Paused, true, Reason::Paused, "the annotation sluice.dev/paused is set")
    } else {
        condition(ConditionType::Paused, false, Reason::NotPaused, "")
    };
    let scaling = finding_of(findings, ConditionType::AutoscalingActive);
    [ready, reconciling, stalled].into_iter().chain(domains).chain([scaling, paused]).collect()
}

fn finding_of(findings: &[Finding], type_: ConditionType) -> Finding {
    let found = findings.iter().find(|finding| finding.type_ == type_).cloned();
    found.unwrap_or_else(|| Finding::unknown(type_, Reason::Pending, "not looked at yet"))
}

/// What keeps a resource from being ready: the first that waits for a person, else the first that is not well.
fn cause(domains: &[Finding]) -> Option<&Finding> {
    let first = |wanted: &dyn Fn(Outcome) -> bool| domains.iter().find(|finding| wanted(finding.outcome));
    first(&|outcome| outcome == Outcome::Stalled)
        .or_else(|| first(&|outcome| outcome == Outcome::Progressing))
        .or_else(|| first(&|outcome| outcome == Outcome::Unknown))
}

type Summary = (Finding, Finding, Finding);

fn settled(reason: Reason, message: &str) -> Summary {
    (
        condition(ConditionType::Ready, true, reason, message),
        condition(ConditionType::Reconciling, false, reason, ""),
        condition(ConditionType::Stalled, false, reason, ""),
    )
}

fn in_progress(reason: Reason, message: &str) -> Summary {
    (
        condition(ConditionType::Ready, false, reason, message),
        condition(ConditionType::Reconciling, true, reason, message),
        condition(ConditionType::Stalled, false, Reason::Progressing, ""),
    )
}

fn waits_for_user(cause: &Finding) -> Summary {
    (
        condition(ConditionType::Ready, false, cause.reason, &cause.message),
        condition(ConditionType::Reconciling, false, Reason::WaitsForUser, ""),
        condition(ConditionType::Stalled, true, cause.reason, &cause.message),
    )
}

/// A summary; its outcome is never asked for.
fn condition(type_: ConditionType, status: bool, reason: Reason, message: &str) -> Finding {
    Finding { type_, status: Some(status), outcome: Outcome::Well, reason, message: message.to_owned() }
}
