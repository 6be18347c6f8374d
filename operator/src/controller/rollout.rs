//! What a Deployment's status says of the workers. Pure.

use k8s_openapi::api::apps::v1::Deployment;
use sluice_crds::conditions::{ConditionType, Finding, Reason};
use sluice_crds::names::{DESIRED_HASH_ANNOTATION, TEMPLATE_HASH_ANNOTATION};

use crate::sweep::StalledPartition;

/// True when the Deployment is the one we want, and all its pods are.
pub fn is_complete(live: &Deployment, desired: &Deployment) -> bool {
    carries_hash_of(live, desired) && finding(live).status == Some(true)
}

/// True when the last thing applied is `desired`.
fn carries_hash_of(live: &Deployment, desired: &Deployment) -> bool {
    let hash = |d: &Deployment| d.metadata.annotations.as_ref()?.get(DESIRED_HASH_ANNOTATION).cloned();
    hash(live).is_some() && hash(live) == hash(desired)
}

/// True when going from `live` to `desired` replaces pods. Starting, stopping and scaling do not.
pub fn replaces_pods(live: &Deployment, desired: &Deployment) -> bool {
    let hash = |d: &Deployment| d.metadata.annotations.as_ref()?.get(TEMPLATE_HASH_ANNOTATION).cloned();
    wanted(live) > 0 && wanted(desired) > 0 && hash(live) != hash(desired)
}

/// True while pods of another configuration run beside or before the current ones.
pub fn is_under_way(live: &Deployment) -> bool {
    let status = live.status.clone().unwrap_or_default();
    status.replicas.unwrap_or(0) > status.updated_replicas.unwrap_or(0)
}

/// Pods that the Deployment shall have.
pub fn wanted(live: &Deployment) -> i32 {
    live.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// True when no pod shall run, and the controllers have acted on it: pods that an earlier wish has not made yet are not in
/// any list, and would come.
pub fn has_stopped(live: &Deployment) -> bool {
    finding(live).reason == Reason::Stopped
}

/// Pods that are ready.
pub fn ready(live: &Deployment) -> i32 {
    live.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0)
}

/// When the Deployment last made progress, Unix milliseconds: what workers said before it, others may have said. Kubernetes
/// writes whole seconds, so this is the last moment of one; who runs says it again soon after.
pub fn progressed_at(live: &Deployment) -> Option<i64> {
    let conditions = live.status.as_ref()?.conditions.as_ref()?;
    let progressing = conditions.iter().find(|condition| condition.type_ == "Progressing")?;
    Some(progressing.last_update_time.as_ref()?.0.as_millisecond() + 999)
}

/// That a partition stands still, if workers that run now say so.
pub fn stalled(live: &Deployment, stalled: &StalledPartition) -> Option<Finding> {
    let at = i64::try_from(stalled.at).unwrap_or(i64::MAX);
    if wanted(live) == 0 || progressed_at(live).is_some_and(|progressed| at <= progressed) {
        return None;
    }
    let message = format!(
        "the record at offset {} of {} partition {} cannot be processed and there is no dead-letter topic: its partition \
         stands still; name a deadLetter topic, change the steps, or see the worker's log",
        stalled.offset, stalled.partition.topic, stalled.partition.partition
    );
    Some(Finding::stalled(ConditionType::WorkersReady, Reason::RecordStalled, message))
}

/// The workers' finding.
pub fn finding(live: &Deployment) -> Finding {
    let type_ = ConditionType::WorkersReady;
    let wanted = wanted(live);
    let status = live.status.clone().unwrap_or_default();
    let seen = status.observed_generation.unwrap_or(0) >= live.metadata.generation.unwrap_or(0);
    let count = |value: Option<i32>| value.unwrap_or(0);
    let (all, updated, ready) = (count(status.replicas), count(status.updated_replicas), count(status.ready_replicas));
    let failed = status.conditions.iter().flatten().find(|condition| {
        condition.type_ == "Progressing" && condition.reason.as_deref() == Some("ProgressDeadlineExceeded")
    });
    if !seen {
        return Finding::progressing(type_, Reason::RollingOut, "the Deployment has just changed");
    }
    if wanted == 0 {
        return match all {
            0 => Finding::well(type_, Reason::Stopped, "no worker shall run"),
            left => Finding::progressing(type_, Reason::WorkersStopping, format!("{left} workers are ending")),
        };
    }
    if updated == wanted && ready == wanted && all == wanted {
        return Finding::well(type_, Reason::Reconciled, format!("{ready} of {wanted} workers are ready"));
    }
    if failed.is_some() {
        let text = format!("{ready} of {wanted} workers are ready, and no progress is made: look at the pods");
        return Finding::stalled(type_, Reason::WorkersUnavailable, text);
    }
    if updated < wanted || all > updated {
        let text = format!("{updated} of {wanted} workers have the current configuration");
        return Finding::progressing(type_, Reason::RollingOut, text);
    }
    Finding::progressing(type_, Reason::WorkersStarting, format!("{ready} of {wanted} workers are ready"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(wanted: i32, all: i32, updated: i32, ready: i32) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"generation": 2, "annotations": {DESIRED_HASH_ANNOTATION: "h"}},
            "spec": {"replicas": wanted, "selector": {}, "template": {}},
            "status": {"observedGeneration": 2, "replicas": all, "updatedReplicas": updated, "readyReplicas": ready},
        }))
        .unwrap()
    }

    #[test]
    fn only_all_new_and_all_ready_is_complete() {
        for (wanted, all, updated, ready, reason) in [
            (2, 2, 2, 2, Reason::Reconciled),
            (2, 2, 1, 2, Reason::RollingOut),
            (2, 3, 2, 2, Reason::RollingOut),
            (2, 2, 2, 1, Reason::WorkersStarting),
            (2, 0, 0, 0, Reason::RollingOut),
            (0, 0, 0, 0, Reason::Stopped),
            (0, 1, 1, 1, Reason::WorkersStopping),
        ] {
            let live = deployment(wanted, all, updated, ready);
            assert_eq!(finding(&live).reason, reason, "{wanted} {all} {updated} {ready}");
            assert_eq!(is_complete(&live, &live), matches!(reason, Reason::Reconciled | Reason::Stopped));
            assert_eq!(has_stopped(&live), reason == Reason::Stopped);
        }
    }

    #[test]
    fn pods_are_replaced_by_another_template_and_by_nothing_else() {
        let with = |replicas: i32, hash: &str| {
            let mut deployment = deployment(replicas, replicas, replicas, replicas);
            let annotations = deployment.metadata.annotations.as_mut().unwrap();
            annotations.insert(TEMPLATE_HASH_ANNOTATION.into(), hash.into());
            deployment
        };
        for (live, desired, expected) in [
            ((2, "a"), (2, "b"), true),
            ((2, "a"), (3, "a"), false),
            ((0, "a"), (2, "b"), false),
            ((2, "a"), (0, "b"), false),
        ] {
            let (before, after) = (with(live.0, live.1), with(desired.0, desired.1));
            assert_eq!(replaces_pods(&before, &after), expected, "{live:?} {desired:?}");
        }
        assert!(replaces_pods(&deployment(2, 2, 2, 2), &with(2, "b")), "one that an older operator made");
        assert!(is_under_way(&deployment(3, 3, 1, 2)) && !is_under_way(&deployment(3, 2, 2, 0)));
    }

    #[test]
    fn a_status_of_an_older_generation_says_nothing() {
        let mut live = deployment(2, 2, 2, 2);
        live.metadata.generation = Some(3);
        assert_eq!(finding(&live).reason, Reason::RollingOut);
        let mut stopping = deployment(0, 0, 0, 0);
        stopping.metadata.generation = Some(3);
        assert!(!has_stopped(&stopping), "what was wished before may still be under way");
    }

    #[test]
    fn another_desired_state_is_not_complete() {
        let live = deployment(2, 2, 2, 2);
        let mut desired = live.clone();
        desired.metadata.annotations.as_mut().unwrap().insert(DESIRED_HASH_ANNOTATION.into(), "other".into());
        assert!(!is_complete(&live, &desired));
    }

    #[test]
    fn only_what_the_present_workers_say_keeps_a_partition_stalled() {
        let said = |at: u64| StalledPartition {
            partition: sluice_clients::kafka::admin::TopicPartition::new("t", 1),
            offset: 7,
            at,
        };
        let mut live = deployment(2, 2, 2, 2);
        assert_eq!(stalled(&live, &said(1)).unwrap().reason, Reason::RecordStalled);
        live.status.as_mut().unwrap().conditions = serde_json::from_value(json!([
            {"type": "Progressing", "status": "True", "lastUpdateTime": "1970-01-01T00:00:10Z"}
        ]))
        .unwrap();
        assert_eq!(stalled(&live, &said(10_000)), None, "said before the roll-out that may have mended it");
        assert_eq!(stalled(&live, &said(10_999)), None, "in the same second it may have been before");
        assert!(stalled(&live, &said(11_000)).is_some());
        assert_eq!(stalled(&deployment(0, 0, 0, 0), &said(10_001)), None);
    }

    #[test]
    fn no_progress_waits_for_a_person() {
        let mut live = deployment(2, 2, 2, 0);
        live.status.as_mut().unwrap().conditions = serde_json::from_value(json!([
            {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
        ]))
        .unwrap();
        assert_eq!(finding(&live).reason, Reason::WorkersUnavailable);
    }
}
