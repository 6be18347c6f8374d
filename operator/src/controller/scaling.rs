//! What the autoscaler may do with a resource, and what status shows of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use sluice_crds::conditions::{ConditionType, Finding, Reason};
use sluice_crds::v1alpha1::{AutoscalingMode, AutoscalingStatus, DesiredState};

use super::kind::SluiceKind;
use super::replicas::{is_written_by_others, owns};
use super::rollout;
use super::round::Round;
use crate::autoscale::{Forbidden, Hpa, Plan, Subject, seed};

/// The reconcile has come to its end: the workers are as the spec says, and may be scaled.
pub fn allow<K: SluiceKind>(round: &Round<'_, K>) {
    let book = &round.ctx.scaling;
    let uid = round.resource.uid.as_str();
    let (Some(plan), Some(live)) = (plan(round), &round.live) else {
        // A write under way is as good as one that ended before: the next apply says the number of the spec.
        if book.forbid(uid) != Forbidden::UnderWay {
            book.forget(uid);
        }
        return;
    };
    book.allow(Subject {
        claimant: round.claimant.clone(),
        plan: std::sync::Arc::clone(plan),
        deployment: (round.resource.id.child_name(), live.uid().unwrap_or_default()),
        replicas: rollout::wanted(live).unsigned_abs(),
        seed: seed(round.status.stored().autoscaling.as_ref()),
    });
}

/// Puts into status what the autoscaler shows, and its condition.
pub fn note<K: SluiceKind>(round: &mut Round<'_, K>) {
    show(round);
    let finding = finding(round);
    round.note(finding);
}

fn show<K: SluiceKind>(round: &mut Round<'_, K>) {
    let Some(plan) = plan(round) else {
        if round.resource.autoscaling.is_none() {
            round.status.draft.autoscaling = None;
        }
        return;
    };
    let shown = round.ctx.scaling.shown(round.resource.uid.as_str()).filter(|shown| shown.mode == plan.mode);
    // After a start of the operator nothing is known yet: what was shown stays until it is.
    let before = round.status.draft.autoscaling.take().filter(|before| before.mode == plan.mode);
    let remembered = before.as_ref().and_then(|before| before.desired_replicas);
    let mut next =
        shown.or(before).unwrap_or_else(|| AutoscalingStatus { mode: plan.mode, ..AutoscalingStatus::default() });
    // None that nobody else wrote is what stopping for an epoch or for offsets leaves: afterwards it is to be as before.
    let live = round.live.as_ref().filter(|live| rollout::wanted(live) > 0 || is_written_by_others(live));
    let asked = live.map(rollout::wanted);
    next.desired_replicas = if plan.mode == AutoscalingMode::Recommend { None } else { asked.or(remembered) };
    round.status.draft.autoscaling = Some(next);
}

/// What to say of workers that sleep: no worker runs, because nothing arrives and nothing waits, and one will when it does.
pub fn asleep<K: SluiceKind>(round: &Round<'_, K>, condition: ConditionType) -> Option<Finding> {
    plan(round).filter(|plan| plan.mode == AutoscalingMode::Operator && plan.settings.may_sleep())?;
    round.live.as_ref().filter(|live| rollout::has_stopped(live))?;
    // Not while workers are only stopped for a moment: then another number is remembered.
    let shown = round.status.draft.autoscaling.as_ref().filter(|shown| shown.desired_replicas == Some(0))?;
    let time = |time: &Option<Time>, before: &str| {
        let text = time.as_ref().map(|time| format!("{before} {:.0}", time.0));
        text.unwrap_or_default()
    };
    let message = format!(
        "no worker runs{}: nothing arrives and nothing waits. One starts when a record does, when that cannot be seen for \
         autoscaling.fallback.afterSeconds, and before Kafka forgets the group's offsets{}",
        time(&shown.last_scale_time, " since"),
        time(&shown.wake_time, ", at the latest at"),
    );
    Some(Finding::well(condition, Reason::Sleeping, message))
}

/// How the resource is scaled now; none when nobody does.
fn plan<'a, K>(round: &Round<'a, K>) -> Option<&'a std::sync::Arc<Plan>> {
    round.resource.autoscaling.as_ref().filter(|_| round.resource.state == DesiredState::Running)
}

fn finding<K: SluiceKind>(round: &Round<'_, K>) -> Finding {
    let condition = ConditionType::AutoscalingActive;
    let inactive = |reason, message: String| Finding::progressing(condition, reason, message);
    if round.resource.state == DesiredState::Stopped {
        return inactive(Reason::Stopped, "no worker shall run".to_owned());
    }
    let Some(plan) = plan(round) else {
        return inactive(Reason::Manual, "worker.replicas says how many workers there are".to_owned());
    };
    let (book, uid) = (&round.ctx.scaling, round.resource.uid.as_str());
    if let Some(rival) = book.rival(uid) {
        let message = format!(
            "{rival} scales the same workers: {} remove it, or set autoscaling.mode: Manual",
            if plan.mode == AutoscalingMode::Hpa {
                "two autoscalers undo each other's work;"
            } else {
                "the operator leaves them alone;"
            }
        );
        return inactive(Reason::ConflictingScaler, message);
    }
    if plan.mode == AutoscalingMode::Recommend {
        let message =
            "status.autoscaling says how many workers the load asks for; worker.replicas says how many there are";
        return inactive(Reason::RecommendOnly, message.to_owned());
    }
    let active = |reason, message: String| Finding::well(condition, reason, message);
    if let Some(hpa) = &plan.hpa {
        return by_hpa(hpa, round.ctx.external_metrics.trouble());
    }
    if let Some(by) = scaled_by_hand(round.object) {
        let message = format!(
            "{by} has written worker.replicas through /scale: while the operator scales by the load that is only how many \
             there are at first; set autoscaling.mode: Manual to scale by hand"
        );
        return active(Reason::ScaleIgnored, message);
    }
    if let Some(advice) = book.advice(uid) {
        return active(Reason::PartitionBound, advice);
    }
    let reason = book.shown(uid).and_then(|shown| shown.reason);
    match reason.as_deref() {
        Some("MetricsMissing" | "FallbackApplied") => inactive(
            Reason::MetricsMissing,
            "the load cannot be measured: the number of workers stays, then autoscaling.fallback counts".to_owned(),
        ),
        Some("Ineffective" | "NoProgress") => active(
            Reason::Ineffective,
            "more workers do not help: see whether Redis is slow or a record cannot be processed".to_owned(),
        ),
        _ => asleep(round, condition)
            .unwrap_or_else(|| active(Reason::ScaledByLoad, "the operator scales the workers by the load".to_owned())),
    }
}

/// What is said while an autoscaler of ours scales the workers. `trouble`: why nobody answers it.
fn by_hpa(hpa: &Hpa, trouble: Option<String>) -> Finding {
    let condition = ConditionType::AutoscalingActive;
    let Some(trouble) = trouble else {
        let message = format!("a HorizontalPodAutoscaler scales the workers by the lag of {}", hpa.group);
        return Finding::well(condition, Reason::ScaledByHpa, message);
    };
    let message = format!(
        "mode Hpa needs the operator's external metrics API: {trouble}; until then the number of workers stays"
    );
    Finding::progressing(condition, Reason::MetricsApiUnavailable, message)
}

/// Who wrote `worker.replicas` through `/scale`, if that is what it is.
fn scaled_by_hand(object: &impl ResourceExt) -> Option<String> {
    let written = object
        .managed_fields()
        .iter()
        .find(|entry| entry.subresource.as_deref() == Some("scale") && owns(entry, &["spec", "worker", "replicas"]))?;
    Some(format!("{:?}", written.manager.as_deref().unwrap_or("somebody")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use sluice_autoscaler::{Settings, SettingsSpec};
    use sluice_crds::names::FIELD_MANAGER;
    use sluice_crds::v1alpha1::EventPipeline;

    use super::*;
    use crate::autoscale::SCALE_MANAGER;
    use crate::controller::round::Round;
    use crate::controller::test_support::{PIPELINE, api_server, in_round, settings};

    /// What is said of a Deployment with so many workers, written by `manager`, when the bounds begin at `min`.
    async fn said(
        min: u32,
        replicas: i32,
        manager: &str,
        remembered: i32,
    ) -> (Option<i32>, Vec<(ConditionType, Reason)>) {
        let mut object: EventPipeline = serde_saphyr::from_str(PIPELINE).unwrap();
        object.status = serde_json::from_value(json!({"conditions": [], "autoscaling": {
            "mode": "Operator", "desiredReplicas": remembered, "wakeTime": "2026-11-24T00:00:00Z",
        }}))
        .unwrap();
        // A zero that comes through `/scale` is nobody's.
        let ours = replicas > 0 || manager == FIELD_MANAGER;
        let fields = if ours { json!({"f:replicas": {}}) } else { json!({}) };
        let live = json!({
            "metadata": {"managedFields": [{"manager": manager, "operation": "Update", "fieldsV1": {"f:spec": fields}}]},
            "spec": {"replicas": replicas, "selector": {}, "template": {}},
        });
        let (client, _calls) = api_server(|_| (200, json!({})));
        let mut said = (None, Vec::new());
        in_round(&object, client, settings(), Some(serde_json::from_value(live).unwrap()), async |round| {
            let plan = crate::autoscale::tests::subject().plan;
            let bounds = SettingsSpec { min_replicas: min, max_replicas: 8, ..SettingsSpec::default() };
            let plan = Plan { settings: Settings::new(bounds).unwrap(), ..(*plan).clone() };
            let mut resource = round.resource.clone();
            resource.autoscaling = Some(Arc::new(plan));
            let mut round = Round {
                ctx: round.ctx,
                settings: Arc::clone(&round.settings),
                object: round.object,
                claimant: round.claimant,
                resource: &resource,
                status: &mut *round.status,
                live: round.live.take(),
                findings: Vec::new(),
                now: 0,
            };
            note(&mut round);
            let conditions = [ConditionType::WorkersReady].into_iter().filter_map(|type_| asleep(&round, type_));
            let findings =
                conditions.chain(round.findings.iter().cloned()).map(|finding| (finding.type_, finding.reason));
            said =
                (round.status.draft.autoscaling.as_ref().and_then(|shown| shown.desired_replicas), findings.collect());
        })
        .await;
        said
    }

    #[test]
    fn without_the_metrics_an_autoscaler_of_ours_has_no_effect_and_that_is_said() {
        let hpa =
            Hpa { min_replicas: 1, max_replicas: 2, lag: 3, scale_down_window_seconds: 10, group: "g".to_owned() };
        let well = by_hpa(&hpa, None);
        assert_eq!((well.status, well.reason), (Some(true), Reason::ScaledByHpa));
        let off = crate::metrics_api::Standing::default().trouble();
        let not = by_hpa(&hpa, off);
        assert_eq!((not.status, not.reason), (Some(false), Reason::MetricsApiUnavailable));
        assert!(not.message.contains("externalMetrics.enabled"), "{not:?}");
        assert_eq!(crate::metrics_api::Standing::expected().trouble(), None, "not looked at yet is no trouble");
    }

    #[tokio::test]
    async fn asleep_is_told_from_stopped_for_a_moment() {
        use ConditionType::{AutoscalingActive, WorkersReady};
        let sleeping = vec![(WorkersReady, Reason::Sleeping), (AutoscalingActive, Reason::Sleeping)];
        let awake = vec![(AutoscalingActive, Reason::ScaledByLoad)];
        assert_eq!(said(0, 0, SCALE_MANAGER, 1).await, (Some(0), sleeping.clone()));
        // A Deployment that somebody removed and that we made again.
        assert_eq!(said(0, 0, FIELD_MANAGER, 0).await, (Some(0), sleeping));
        // For an epoch or for offsets: afterwards it is to be as before.
        assert_eq!(said(0, 0, FIELD_MANAGER, 3).await, (Some(3), awake.clone()));
        assert_eq!(said(0, 2, SCALE_MANAGER, 0).await, (Some(2), awake.clone()));
        assert_eq!(said(1, 0, SCALE_MANAGER, 1).await, (Some(0), awake));
    }
}
