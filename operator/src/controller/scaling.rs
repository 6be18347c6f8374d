//! What the autoscaler may do with a resource, and what status shows of it.

use kube::ResourceExt;
use sluice_crds::conditions::{ConditionType, Finding, Reason};
use sluice_crds::v1alpha1::{AutoscalingMode, AutoscalingStatus, DesiredState};

use super::kind::SluiceKind;
use super::replicas::owns;
use super::rollout;
use super::round::Round;
use crate::autoscale::{Forbidden, Plan, Subject, seed};

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
    let finding = finding(round);
    round.note(finding);
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
    // None is what stopping for an epoch or for offsets leaves: afterwards it is to be as before.
    let asked = round.live.as_ref().map(rollout::wanted).filter(|asked| *asked > 0);
    next.desired_replicas = if plan.mode == AutoscalingMode::Operator { asked.or(remembered) } else { None };
    round.status.draft.autoscaling = Some(next);
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
            "{rival} scales the same workers: the operator leaves them alone; remove it, or set autoscaling.mode: Manual"
        );
        return inactive(Reason::ConflictingScaler, message);
    }
    if plan.mode == AutoscalingMode::Recommend {
        let message =
            "status.autoscaling says how many workers the load asks for; worker.replicas says how many there are";
        return inactive(Reason::RecommendOnly, message.to_owned());
    }
    let active = |reason, message: String| Finding::well(condition, reason, message);
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
        _ => active(Reason::ScaledByLoad, "the operator scales the workers by the load".to_owned()),
    }
}

/// Who wrote `worker.replicas` through `/scale`, if that is what it is.
fn scaled_by_hand(object: &impl ResourceExt) -> Option<String> {
    let written = object
        .managed_fields()
        .iter()
        .find(|entry| entry.subresource.as_deref() == Some("scale") && owns(entry, &["spec", "worker", "replicas"]))?;
    Some(format!("{:?}", written.manager.as_deref().unwrap_or("somebody")))
}
