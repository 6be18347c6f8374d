//! Truth table of the summaries, and merging: times move only on a flip.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use sluice_crds::conditions::{ConditionType, Finding, Mode, Outcome, Reason, first_visit, merge, summarise};

const OUTCOMES: [Outcome; 4] = [Outcome::Well, Outcome::Progressing, Outcome::Stalled, Outcome::Unknown];
const MODES: [Mode; 4] = [Mode::Running, Mode::Stopped, Mode::Paused, Mode::Deleting];

fn finding(type_: ConditionType, outcome: Outcome) -> Finding {
    let message = format!("{type_} {outcome:?}");
    match outcome {
        Outcome::Well => Finding::well(type_, Reason::Reconciled, message),
        Outcome::Progressing => Finding::progressing(type_, Reason::RollingOut, message),
        Outcome::Stalled => Finding::stalled(type_, Reason::TopicMismatch, message),
        Outcome::Unknown => Finding::unknown(type_, Reason::Pending, message),
    }
}

fn of(findings: &[Finding], type_: ConditionType) -> &Finding {
    let mut all = findings.iter().filter(|finding| finding.type_ == type_);
    let one = all.next().expect("every type is set");
    assert!(all.next().is_none(), "{type_} twice");
    one
}

fn statuses(findings: &[Finding]) -> [Option<bool>; 3] {
    [ConditionType::Ready, ConditionType::Reconciling, ConditionType::Stalled].map(|type_| of(findings, type_).status)
}

fn combinations() -> impl Iterator<Item = [Outcome; 4]> {
    (0..256).map(|n| [0, 2, 4, 6].map(|shift| OUTCOMES[(n >> shift) & 3]))
}

/// Asleep is as asked, and says so; unless something else is not well.
#[test]
fn asleep_is_ready() {
    let mut domains = ConditionType::DOMAINS.map(|type_| finding(type_, Outcome::Well));
    domains[3] = Finding::well(ConditionType::WorkersReady, Reason::Sleeping, "no worker runs since noon");
    let got = summarise(&domains, Mode::Running);
    assert_eq!(statuses(&got), [Some(true), Some(false), Some(false)]);
    let ready = of(&got, ConditionType::Ready);
    assert_eq!((ready.reason, ready.message.as_str()), (Reason::Sleeping, "no worker runs since noon"));
    domains[1] = finding(ConditionType::TopicsReady, Outcome::Stalled);
    assert_eq!(of(&summarise(&domains, Mode::Running), ConditionType::Ready).reason, Reason::TopicMismatch);
}

/// All 4⁴ outcomes in all modes: exactly one of the three summaries is `True`, and it is the one the rules give.
#[test]
fn truth_table() {
    const READY: [Option<bool>; 3] = [Some(true), Some(false), Some(false)];
    const IN_PROGRESS: [Option<bool>; 3] = [Some(false), Some(true), Some(false)];
    const FAILED: [Option<bool>; 3] = [Some(false), Some(false), Some(true)];
    for outcomes in combinations() {
        let domains: Vec<Finding> =
            ConditionType::DOMAINS.into_iter().zip(outcomes).map(|(type_, outcome)| finding(type_, outcome)).collect();
        for mode in MODES {
            let got = summarise(&domains, mode);
            let stalled = outcomes.contains(&Outcome::Stalled);
            let well = outcomes.iter().all(|outcome| *outcome == Outcome::Well);
            let expected = match mode {
                Mode::Deleting => IN_PROGRESS,
                _ if stalled => FAILED,
                Mode::Paused => READY,
                _ if well => READY,
                _ => IN_PROGRESS,
            };
            assert_eq!(statuses(&got), expected, "{outcomes:?} {mode:?}");
            assert_eq!(got.len(), ConditionType::ALL.len());
            assert_eq!(of(&got, ConditionType::Paused).status, Some(mode == Mode::Paused));
            for domain in &domains {
                assert_eq!(of(&got, domain.type_), domain, "domains are passed on as they are");
            }
        }
    }
}

#[test]
fn the_cause_shown_is_the_first_that_waits_for_a_person_then_the_first_in_order_of_dependence() {
    let got = summarise(
        &[
            finding(ConditionType::WorkersReady, Outcome::Stalled),
            finding(ConditionType::TopicsReady, Outcome::Progressing),
            finding(ConditionType::AccessReady, Outcome::Unknown),
            finding(ConditionType::CacheReady, Outcome::Well),
        ],
        Mode::Running,
    );
    for type_ in [ConditionType::Ready, ConditionType::Stalled] {
        assert_eq!(of(&got, type_).reason, Reason::TopicMismatch);
        assert_eq!(of(&got, type_).message, "WorkersReady Stalled");
    }
    let got = summarise(
        &[
            finding(ConditionType::WorkersReady, Outcome::Progressing),
            finding(ConditionType::TopicsReady, Outcome::Progressing),
            finding(ConditionType::AccessReady, Outcome::Unknown),
            finding(ConditionType::CacheReady, Outcome::Well),
        ],
        Mode::Running,
    );
    assert_eq!(of(&got, ConditionType::Ready).message, "TopicsReady Progressing");
    assert_eq!(of(&got, ConditionType::Reconciling).message, "TopicsReady Progressing");
}

#[test]
fn stopped_and_paused_are_ready_and_say_why() {
    let well: Vec<Finding> = ConditionType::DOMAINS.into_iter().map(|type_| finding(type_, Outcome::Well)).collect();
    let reason = |mode| of(&summarise(&well, mode), ConditionType::Ready).reason;
    assert_eq!(reason(Mode::Running), Reason::Reconciled);
    assert_eq!(reason(Mode::Stopped), Reason::Stopped);
    assert_eq!(reason(Mode::Paused), Reason::Paused);
    assert_eq!(reason(Mode::Deleting), Reason::Deleting);
}

#[test]
fn the_first_visit_sets_every_condition_and_is_never_ready() {
    for mode in [Mode::Running, Mode::Stopped] {
        let got = first_visit(mode);
        assert_eq!(statuses(&got), [Some(false), Some(true), Some(false)]);
        for type_ in ConditionType::DOMAINS {
            assert_eq!((of(&got, type_).status, of(&got, type_).reason), (None, Reason::Pending));
        }
    }
    assert_eq!(statuses(&summarise(&[], Mode::Running)), [Some(false), Some(true), Some(false)]);
}

fn at(second: i64) -> Time {
    Time(Timestamp::from_second(1_700_000_000 + second).unwrap())
}

#[test]
fn a_time_moves_only_when_a_status_flips() {
    let first = merge(&[], &[finding(ConditionType::TopicsReady, Outcome::Progressing)], Some(1), &at(0));
    assert_eq!(first[0].status, "False");
    assert_eq!(first[0].last_transition_time, at(0));

    let other_reason = Finding::stalled(ConditionType::TopicsReady, Reason::TopicMissing, "order.created is missing");
    let second = merge(&first, &[other_reason], Some(2), &at(10));
    assert_eq!(second[0].last_transition_time, at(0), "False stays False");
    assert_eq!((second[0].reason.as_str(), second[0].observed_generation), ("TopicMissing", Some(2)));

    for (outcome, status) in [(Outcome::Well, "True"), (Outcome::Unknown, "Unknown")] {
        let third = merge(&second, &[finding(ConditionType::TopicsReady, outcome)], Some(2), &at(20));
        assert_eq!((third[0].status.as_str(), &third[0].last_transition_time), (status, &at(20)));
    }
}

#[test]
fn finding_the_same_again_changes_nothing() {
    for outcomes in combinations() {
        let domains = ConditionType::DOMAINS.into_iter().zip(outcomes).map(|(type_, outcome)| finding(type_, outcome));
        let findings = summarise(&domains.collect::<Vec<_>>(), Mode::Running);
        let once = merge(&[], &findings, Some(3), &at(0));
        assert_eq!(merge(&once, &findings, Some(3), &at(99)), once);
    }
}

#[test]
fn conditions_of_others_stay_and_ours_keep_their_order() {
    let foreign = Condition {
        type_: "example.com/Audited".to_owned(),
        status: "True".to_owned(),
        reason: "Done".to_owned(),
        message: String::new(),
        observed_generation: None,
        last_transition_time: at(-5),
    };
    let old = merge(std::slice::from_ref(&foreign), &first_visit(Mode::Running), Some(1), &at(0));
    assert_eq!(old.last(), Some(&foreign));
    let types: Vec<&str> = old.iter().map(|condition| condition.type_.as_str()).collect();
    let ours: Vec<&str> = ConditionType::ALL.into_iter().map(ConditionType::as_str).collect();
    assert_eq!(types[..ours.len()], ours);
    let partly = merge(&old, &[finding(ConditionType::CacheReady, Outcome::Well)], Some(1), &at(1));
    assert_eq!(partly.len(), old.len(), "a type without a new finding stays");
}

#[test]
fn messages_are_cut_between_characters() {
    let long = Finding::stalled(ConditionType::Stalled, Reason::InvalidSpec, "ü".repeat(5000));
    let message = &merge(&[], &[long], None, &at(0))[0].message;
    assert_eq!(message.chars().count(), 1024);
    assert!(message.ends_with('…'));
}

/// metav1.Condition: `^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$`; ours are CamelCase.
#[test]
fn reasons_and_types_are_camel_case_and_distinct() {
    let mut seen = std::collections::BTreeSet::new();
    for text in Reason::ALL.iter().map(|reason| reason.as_str()) {
        assert!(text.starts_with(|c: char| c.is_ascii_uppercase()) && text.chars().all(|c| c.is_ascii_alphanumeric()));
        assert!(seen.insert(text), "{text} twice");
    }
    for type_ in ConditionType::ALL {
        assert_eq!(ConditionType::of(type_.as_str()), Some(type_));
    }
    assert_eq!(ConditionType::of("Other"), None);
}
