//! One reconcile: look at the object afresh, decide what it is about, carry it out, say how it went.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use sluice_crds::conditions::{self, ConditionType, Finding, Mode, Outcome, Reason};
use sluice_crds::names::{Kind, PAUSED_ANNOTATION};
use sluice_crds::v1alpha1::{ClaimState, DesiredState};

use super::backoff::resync;
use super::context::Context;
use super::halt::{Halt, Retry};
use super::kafka::topics::facts;
use super::kind::SluiceKind;
use super::refused::{Ground, is_controlled_by};
use super::round::Round;
use super::stages::{access, cache, epochs, hpa, offsets, quiesce, secrets, topics, workers};
use super::status::StatusWriter;
use super::streams::notify;
use super::validate::Rules;
use super::validated::ValidatedResource;
use super::{build, deletion, finalizer, held, refused, report, rollout, scaling};
use crate::claims::{Claimant, Claims, Verdict};
use crate::kube_ext::timed;
use crate::settings::Settings;
use crate::sweep::{Target, Trigger};

/// Longest time for the stages. Their calls have shorter limits of their own; what is stopped here is still told.
const STAGES_TIMEOUT: Duration = Duration::from_secs(100);

/// Who an object is among the others.
pub fn claimant(kind: Kind, object: &impl ResourceExt) -> Claimant {
    Claimant {
        created: object.creation_timestamp().map_or(i64::MAX, |time| time.0.as_second()),
        uid: object.uid().unwrap_or_default(),
        kind,
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
    }
}

/// Reconciles one object.
pub async fn reconcile<K: SluiceKind>(cached: &K, ctx: &Context) -> Result<Action, Halt> {
    ctx.claims.complete().await;
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &cached.namespace().unwrap_or_default());
    // The watch's copy may be older than our own last status: an old `Creating` or epoch must never be acted upon.
    let Some(object) = timed("get resource", api.get_opt(&cached.name_any())).await? else {
        return Ok(Action::await_change());
    };
    if object.uid() != cached.uid() {
        return Ok(Action::await_change());
    }
    let settings = ctx.settings.current();
    let mut status = StatusWriter::new(api.clone(), &object);
    if object.meta().deletion_timestamp.is_some() {
        let who = claimant(K::KIND, &object);
        give_turn_back(ctx, &who);
        // A write that is under way is met by the next look at the workers: they are stopped until none is left.
        ctx.scaling.forbid(&who.uid);
        let outcome = deletion::run(ctx, &settings, &api, &object, &mut status).await;
        return match outcome {
            Err(halt) => Err(say_failed(&object, &mut status, halt).await),
            done => done,
        };
    }
    let mode = mode(&object);
    if status.is_first_visit() {
        // Tools take a resource without conditions for ready: say at once that it is not.
        first_visit(&mut status, &object, mode).await?;
    }
    let wanted = finalizer::is_needed(&object.deletion_policy()) && !finalizer::is_released(object.meta(), ctx.started);
    let object = match wanted {
        needed if needed != finalizer::is_set(object.meta()) && mode != Mode::Paused => {
            let object = match finalizer::set(&api, &object, needed).await {
                Ok(object) => object,
                Err(error) => return conclude(ctx, &object, &mut status, Vec::new(), mode, Err(error.into())).await,
            };
            status = StatusWriter::new(api.clone(), &object);
            object
        }
        _ => object,
    };
    let who = claimant(K::KIND, &object);
    let (findings, outcome) = if mode == Mode::Paused {
        give_turn_back(ctx, &who);
        ctx.scaling.forbid(&who.uid);
        match paused(&object, ctx, &settings).await {
            Ok(findings) => (findings, Ok(())),
            Err(halt) => (kept(&object), Err(halt)),
        }
    } else {
        let mut granted = None;
        let stages = Box::pin(carry_out(ctx, &settings, &object, &who, &mut status, &mut granted));
        let done = tokio::time::timeout(STAGES_TIMEOUT, stages).await;
        let (findings, outcome) = done.unwrap_or_else(|_| (Vec::new(), Err(Halt::TimedOut)));
        let concluded = conclude(ctx, &object, &mut status, findings, mode, outcome).await;
        if let Some(granted) = granted {
            // What status does not name any more was given up, with the workers gone that wrote it.
            let holds = granted.and(held::of_status(&object, status.stored()));
            let affected = ctx.claims.lock().keep(&who, holds);
            notify(ctx, affected.iter().map(Trigger::from).collect());
        }
        return concluded;
    };
    conclude(ctx, &object, &mut status, findings, mode, outcome).await
}

fn mode<K: SluiceKind>(object: &K) -> Mode {
    if object.annotations().get(PAUSED_ANNOTATION).is_some_and(|value| value == "true") {
        return Mode::Paused;
    }
    match object.state() {
        DesiredState::Running => Mode::Running,
        DesiredState::Stopped => Mode::Stopped,
    }
}

async fn first_visit<K: SluiceKind>(status: &mut StatusWriter<K>, object: &K, mode: Mode) -> Result<(), Halt> {
    let now = Time(jiff::Timestamp::now());
    let findings = conditions::first_visit(mode);
    status.conclude(&findings, mode, object.meta().generation, &now);
    status.write().await?;
    Ok(())
}

/// Validates, checks the claims, and goes through the stages. Findings are returned however far it came; `granted` is
/// what the resource has asked for and got.
async fn carry_out<K: SluiceKind>(
    ctx: &Context,
    settings: &Arc<Settings>,
    object: &K,
    who: &Claimant,
    status: &mut StatusWriter<K>,
    granted: &mut Option<Claims>,
) -> (Vec<Finding>, Result<(), Halt>) {
    let resource = match entitle(ctx, settings, object, who) {
        Ok(Ok(resource)) => resource,
        Ok(Err(ground)) => {
            give_turn_back(ctx, who);
            let mut findings = Vec::new();
            let outcome = refused::run(ctx, settings, object, who, status, &ground, &mut findings).await;
            return (findings, outcome);
        }
        Err(halt) => return (Vec::new(), Err(halt)),
    };
    *granted = Some(Claims::of(&resource));
    if status.draft.claims == Some(ClaimState::Released) {
        // Others may have written there meanwhile: what the views show is made anew.
        status.draft.views.iter_mut().for_each(|view| view.definition = None);
    }
    status.draft.claims = Some(ClaimState::Held);
    let now = jiff::Timestamp::now().as_second();
    let mut round = Round {
        ctx,
        settings: Arc::clone(settings),
        object,
        claimant: who,
        resource: &resource,
        status,
        live: None,
        findings: Vec::new(),
        now,
    };
    let mut outcome = Box::pin(stages(&mut round)).await;
    if let Err(Halt::Found(..)) = &outcome
        && let Err(error) = keep_down(&mut round).await
    {
        outcome = Err(error);
    }
    note_workers(&mut round);
    settle_turn(&round, &outcome);
    (round.findings, outcome)
}

/// What the spec means, if it means something and the resource may have it.
fn entitle<K: SluiceKind>(
    ctx: &Context,
    settings: &Settings,
    object: &K,
    who: &Claimant,
) -> Result<Result<ValidatedResource, Ground>, Halt> {
    let valid = object.validate(Rules { settings });
    let (affected, verdict) = {
        let mut claims = ctx.claims.lock();
        // Asked under the lock: a deletion takes the resource off the board first and its claims then, so that nothing
        // of one that is gone can stay here.
        if !ctx.board.is_known(who) {
            return Err(Halt::Gone);
        }
        let asks = valid.as_ref().map(Claims::of).unwrap_or_default();
        let affected = claims.insert(who, asks);
        (affected, valid.is_ok().then(|| claims.decide(who)))
    };
    notify(ctx, affected.iter().map(Trigger::from).collect());
    Ok(match (valid, verdict) {
        (Err(invalid), _) => Err(Ground::Invalid(invalid)),
        (Ok(_), Some(Verdict::Refused(conflict))) => Err(Ground::Taken(conflict)),
        (Ok(_), Some(Verdict::Lost(conflict))) => Err(Ground::Lost(conflict)),
        (Ok(resource), _) => Ok(resource),
    })
}

/// Gives the turn back when there is nothing to wait for any more, and takes it for a roll-out that is met under way.
fn settle_turn<K: SluiceKind>(round: &Round<'_, K>, outcome: &Result<(), Halt>) {
    let underway = matches!(outcome, Err(Halt::Found(_, Retry::After(_)) | Halt::Kube(_) | Halt::Status(_)));
    let found = round.live.as_ref().map(|live| (rollout::finding(live), rollout::is_under_way(live)));
    match found {
        _ if underway => {}
        Some((finding, true)) if finding.outcome == Outcome::Progressing => {
            round.ctx.turns.hold(&round.resource.kafka.connection.name, round.claimant);
        }
        Some((finding, _)) if finding.outcome == Outcome::Progressing => {}
        _ => give_turn_back(round.ctx, round.claimant),
    }
}

/// Lets the next ones roll out.
fn give_turn_back(ctx: &Context, who: &Claimant) {
    notify(ctx, ctx.turns.give_back(who).iter().map(Trigger::from).collect());
}

async fn stages<K: SluiceKind>(round: &mut Round<'_, K>) -> Result<(), Halt> {
    let name = round.resource.id.child_name();
    round.live = timed("get deployment", round.api::<Deployment>().get_opt(&name)).await?;
    if round.live.as_ref().is_some_and(|live| !is_controlled_by(live, &round.resource.uid)) {
        let message = format!("the Deployment {name:?} exists and is not this resource's: remove or rename it");
        return Err(Halt::found(Finding::stalled(ConditionType::WorkersReady, Reason::ChildConflict, message)));
    }
    secrets::run(round).await?;
    let kafka = round
        .ctx
        .connections
        .kafka(&round.resource.kafka.connection)
        .map_err(|error| Halt::found(super::kafka::finding(ConditionType::AccessReady, "kafka client", &error)))?;
    let topics = topics::run(round, &kafka).await?;
    offsets::run(round, &kafka, &topics).await?;
    let facts = facts(&topics.observed);
    let epoch = epochs::run(round, &kafka, &facts, !topics.recreated.is_empty()).await?;
    // From here on a crash must find what was decided.
    round.status.write().await?;

    let settings = Arc::clone(&round.settings);
    let replicas = round.wanted();
    let install_key = &round.ctx.install_key;
    let inputs = build::Inputs { topics: &facts, epoch, replicas, install_key, worker: &settings.worker };
    let children = build::build(round.resource, &inputs);
    let settled = workers::is_settled(round, &children).await?;
    let older = if settled { Vec::new() } else { workers::older_configs(round, &children.config_map).await? };
    register(round, &facts, epoch, settled);
    access::run(round, &kafka, &children, settled).await?;
    cache::run(round, &older).await;
    if settled {
        workers::prune(round, &children).await?;
    } else if !round.is_well(ConditionType::AccessReady) {
        // Pods that start now would only be refused.
        return Ok(());
    }
    hpa::remove(round).await?;
    let deployed = workers::apply(round, children).await?;
    hpa::apply(round).await?;
    if deployed.state.changed {
        round.live = timed("get deployment", round.api::<Deployment>().get_opt(&name)).await?;
    }
    scaling::allow(round);
    if !settled && round.live.as_ref().is_some_and(|live| rollout::is_complete(live, &deployed.deployment)) {
        // Only ending pods keep it from being settled: rights are narrowed when they are gone.
        let finding = round.live.as_ref().map(rollout::finding);
        return finding.map_or(Ok(()), |finding| Err(Halt::Found(finding, Retry::After(SOON))));
    }
    Ok(())
}

/// How soon to look again at what is about to be done.
const SOON: Duration = Duration::from_secs(3);

/// Tells the sweeps what to look at.
fn register<K: SluiceKind>(
    round: &Round<'_, K>,
    facts: &std::collections::BTreeMap<sluice_crds::names::TopicName, build::TopicFacts>,
    epoch: u64,
    settled: bool,
) {
    round.ctx.board.register(Target::of(round.claimant.clone(), round.resource, facts, epoch, settled));
}

/// When the stages stop early, a wish for fewer workers is granted all the same: stopping needs neither Kafka nor Redis.
/// More workers are not started this way, they could be what a quiesce has just stopped.
async fn keep_down<K: SluiceKind>(round: &mut Round<'_, K>) -> Result<(), Halt> {
    let Some(live) = &round.live else { return Ok(()) };
    if round.wanted().count == 0 && rollout::wanted(live) > 0 && is_controlled_by(live, &round.resource.uid) {
        quiesce::scale_to_zero(round).await?;
    }
    Ok(())
}

/// What the Deployment says, for `WorkersReady`, replicas and selector.
fn note_workers<K: SluiceKind>(round: &mut Round<'_, K>) {
    round.status.draft.selector = Some(round.resource.id.selector());
    round.status.draft.replicas = Some(round.live.as_ref().map_or(0, rollout::ready));
    scaling::note(round);
    // After a start of the operator nothing is known yet: what was shown stays until it is.
    if let Some(lag) = round.ctx.board.lag(round.resource.uid.as_str()) {
        round.status.draft.lag = Some(lag);
    }
    if let Some(live) = &round.live {
        let asleep = scaling::asleep(round, ConditionType::WorkersReady);
        let finding = asleep.unwrap_or_else(|| rollout::finding(live));
        let stalled = round.ctx.board.stalled(round.resource.uid.as_str());
        let stalled = stalled.and_then(|stalled| rollout::stalled(live, &stalled));
        round.ctx.board.note_stall_shown(round.resource.uid.as_str(), stalled.is_some());
        round.note(finding);
        if let Some(stalled) = stalled {
            round.note(stalled);
        }
    }
}

/// Paused: nothing is changed, but the workers' state stays fresh.
async fn paused<K: SluiceKind>(object: &K, ctx: &Context, settings: &Arc<Settings>) -> Result<Vec<Finding>, Halt> {
    let Ok(resource) = object.validate(Rules { settings }) else { return Ok(kept(object)) };
    let api: Api<Deployment> = Api::namespaced(ctx.client.clone(), resource.id.namespace.as_str());
    let live = timed("get deployment", api.get_opt(&resource.id.child_name())).await?;
    let mut findings = kept(object);
    if let Some(live) = live {
        findings.retain(|finding| finding.type_ != ConditionType::WorkersReady);
        findings.push(rollout::finding(&live));
    }
    Ok(findings)
}

/// Findings as they were, for conditions that were not looked at.
fn kept<K: SluiceKind>(object: &K) -> Vec<Finding> {
    let conditions = object.status().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let finding = |type_: ConditionType| {
        let condition = conditions.iter().find(|condition| condition.type_ == type_.as_str())?;
        let reason = Reason::ALL.iter().copied().find(|reason| reason.as_str() == condition.reason)?;
        Some(match condition.status.as_str() {
            "True" => Finding::well(type_, reason, condition.message.clone()),
            "False" => Finding::progressing(type_, reason, condition.message.clone()),
            _ => Finding::unknown(type_, reason, condition.message.clone()),
        })
    };
    ConditionType::DOMAINS.into_iter().chain([ConditionType::AutoscalingActive]).filter_map(finding).collect()
}

/// Tells in status what stopped a deletion; the error to go on with.
async fn say_failed<K: SluiceKind>(object: &K, status: &mut StatusWriter<K>, halt: Halt) -> Halt {
    let Some(finding) = halt.finding() else { return halt };
    status.conclude(&[finding], Mode::Deleting, object.meta().generation, &Time(jiff::Timestamp::now()));
    match status.write().await {
        Ok(_) => halt,
        Err(error) => error.into(),
    }
}

/// Writes status if it differs, tells people when `Ready` changed, and says when to look again.
async fn conclude<K: SluiceKind>(
    ctx: &Context,
    object: &K,
    status: &mut StatusWriter<K>,
    mut findings: Vec<Finding>,
    mode: Mode,
    outcome: Result<(), Halt>,
) -> Result<Action, Halt> {
    let (retry, failed) = match outcome {
        Ok(()) => (None, None),
        Err(halt) => {
            let Some(finding) = halt.finding() else { return Err(halt) };
            // What stopped the reconcile is the word on its condition.
            findings.retain(|known| known.type_ != finding.type_);
            findings.push(finding);
            match halt {
                Halt::Found(_, retry) => (Some(retry), None),
                failed => (None, Some(failed)),
            }
        }
    };
    let before = status.stored().clone();
    let now = Time(jiff::Timestamp::now());
    status.conclude(&findings, mode, object.meta().generation, &now);
    if status.write().await? {
        report::ready_changed(ctx, object, &before, &status.draft).await;
    }
    if let Some(failed) = failed {
        return Err(failed);
    }
    let uid = object.uid().unwrap_or_default();
    let troubled = findings.iter().any(|finding| {
        matches!(finding.reason, Reason::RedisUnreachable | Reason::RedisRefused | Reason::SettingRefused)
    });
    Ok(match retry {
        Some(Retry::After(wait)) => Action::requeue(wait),
        Some(Retry::Backoff) => Action::requeue(ctx.backoff.failed(&uid)),
        None if troubled => Action::requeue(ctx.backoff.failed(&uid)),
        Some(Retry::OnChange) | None => {
            ctx.backoff.forget(&uid);
            Action::requeue(resync(&uid))
        }
    })
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
