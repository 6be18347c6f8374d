//! IO: one round over a Kafka connection, after each round of the sweep: measure, decide, act, show.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Api;
use kube::runtime::events::{Event, EventType};
use sluice_autoscaler::{Decision, Inputs, Missing, Replicas, Seed, State, consider};
use sluice_clients::kafka::admin::{AdminError, GroupState, Isolation, OffsetSpec};
use sluice_crds::conditions::Reason;
use sluice_crds::v1alpha1::{AutoscalingMode, GROUP, VERSION};

use super::book::Subject;
use super::hands::{Scaled, scale};
use super::inputs::{Read, Trackers, group_of, missing, waiting};
use super::retention::Retention;
use super::rivals::{self, Rival};
use super::shown::{Board, LastChange};
use crate::connections::KafkaClient;
use crate::controller::context::Context;
use crate::kube_ext::CALL_TIMEOUT;
use crate::sweep::{Committed, Ends, GroupTarget, Target, Trigger, bounds};

/// Others who scale are looked for in one round of so many, and before every change.
const LOOK_EVERY: u32 = 6;

/// What is remembered of a connection's resources.
#[derive(Debug, Default)]
pub struct Memory {
    trackers: Trackers,
    brains: HashMap<String, Brain>,
    rivals: Vec<Rival>,
    looked: Option<Instant>,
    retention: Retention,
}

/// What is remembered of one resource.
#[derive(Debug, Default)]
struct Brain {
    state: State,
    board: Board,
    last: LastChange,
}

impl Brain {
    fn new(subject: &Subject, why: Option<String>) -> Self {
        let Seed { changed, .. } = subject.seed;
        let state = State::seeded(subject.seed, subject.plan.lanes);
        Self { state, board: Board::default(), last: LastChange { at: changed, why } }
    }
}

/// What the sweep has just read.
#[derive(Clone, Copy, Debug)]
pub struct Swept<'a> {
    /// When, Unix milliseconds.
    pub at: i64,
    /// Offsets of groups.
    pub committed: &'a Committed,
    /// Ends of partitions: those that were read now, and before.
    pub ends: &'a Ends,
}

/// One round. `swept`: none = Kafka could not be asked. Gives the resources for which something shown has changed.
pub async fn round(
    ctx: &Context,
    kafka: &Arc<KafkaClient>,
    targets: &[Target],
    swept: Option<Swept<'_>>,
    memory: &mut Memory,
) -> BTreeSet<Trigger> {
    let now = Timestamp::now();
    let mut targets: HashMap<&str, &Target> =
        targets.iter().map(|target| (target.claimant.uid.as_str(), target)).collect();
    let subjects = ctx.scaling.subjects();
    let subjects: Vec<(Subject, &Target)> = subjects
        .into_iter()
        .filter_map(|subject| targets.remove(subject.claimant.uid.as_str()).map(|target| (subject, target)))
        .collect();
    let known: HashSet<&str> = subjects.iter().map(|(subject, _)| subject.claimant.uid.as_str()).collect();
    memory.brains.retain(|uid, _| known.contains(uid.as_str()));
    let groups: Vec<&GroupTarget> = subjects.iter().filter_map(|(_, target)| group_of(target)).collect();
    memory.trackers.retain(&groups);
    if subjects.is_empty() {
        memory.rivals.clear();
        return BTreeSet::new();
    }
    let read = match swept {
        None => None,
        Some(swept) => read(kafka, &groups, awake(&subjects), swept).await.map(|read| (swept, read)).ok(),
    };
    if read.is_some() && subjects.iter().any(|(subject, _)| subject.plan.settings.may_sleep()) {
        memory.retention.look(kafka).await;
    }
    let mut changed = BTreeSet::new();
    let due = memory.looked.is_none_or(|looked| looked.elapsed() + ctx.sweep_every / 2 >= ctx.sweep_every * LOOK_EVERY);
    let mut looked = due && look(ctx, memory).await;
    for (subject, target) in &subjects {
        let inputs = match &read {
            Some((swept, read)) => memory.trackers.inputs(now, subject, target, *swept, read),
            None => missing(now, subject, Missing::Unreachable),
        };
        let inputs = Inputs { offsets_kept: memory.retention.known(), ..inputs };
        let decision = decide(ctx, memory, subject, &inputs);
        let wants = decision.target.0 != subject.replicas && subject.plan.mode == AutoscalingMode::Operator;
        if wants && !looked {
            looked = look(ctx, memory).await;
        }
        let rival = rivals::of(&memory.rivals, subject).map(Rival::describe);
        let free = rival.is_none();
        let mut tell = give_way(ctx, subject, rival).await;
        // Without knowing of others nothing is changed.
        let scaled = wants && free && looked && act(ctx, memory, subject, &decision, now).await;
        tell |= show(ctx, memory, subject, &decision, now, scaled);
        if tell {
            changed.insert(Trigger::from(&subject.claimant));
        }
    }
    changed
}

/// Groups that have members: of those that sleep it does not matter, and thousands may sleep.
fn awake(subjects: &[(Subject, &Target)]) -> Vec<String> {
    let awake = subjects.iter().filter(|(subject, _)| subject.replicas > 0);
    awake.filter_map(|(_, target)| group_of(target)).map(|group| group.group.clone()).collect()
}

/// Reads what the sweep does not: beginnings where records wait, members.
async fn read(
    kafka: &KafkaClient,
    groups: &[&GroupTarget],
    awake: Vec<String>,
    swept: Swept<'_>,
) -> Result<Read, AdminError> {
    let late = groups.iter().flat_map(|group| waiting(group, swept)).collect();
    let starts = bounds(kafka, late, OffsetSpec::Earliest, Isolation::Uncommitted).await?;
    let described = kafka.call_group(|admin| async move { admin.describe_groups(&awake).await }).await;
    let described = described.inspect_err(|error| tracing::warn!(%error, "groups could not be described"));
    let groups: BTreeMap<String, (GroupState, usize)> = described
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(name, group)| group.ok().map(|group| (name, (group.state, group.members.len()))))
        .collect();
    Ok(Read { starts, groups })
}

fn decide(ctx: &Context, memory: &mut Memory, subject: &Subject, inputs: &Inputs) -> Decision {
    let uid = &subject.claimant.uid;
    let brain = memory
        .brains
        .entry(uid.clone())
        .or_insert_with(|| Brain::new(subject, ctx.scaling.shown(uid).and_then(|shown| shown.last_scale)));
    let (state, decision) = consider(&subject.plan.settings, std::mem::take(&mut brain.state), inputs);
    brain.state = state;
    decision
}

/// Looks for others who scale; true when that worked.
async fn look(ctx: &Context, memory: &mut Memory) -> bool {
    match rivals::list(ctx).await {
        Ok(found) => {
            (memory.rivals, memory.looked) = (found, Some(Instant::now()));
            true
        }
        Err(error) => {
            tracing::warn!(%error, "whether others scale the same workers cannot be seen: nothing is scaled");
            false
        }
    }
}

/// Notes who else scales the workers; true when that has changed.
async fn give_way(ctx: &Context, subject: &Subject, rival: Option<String>) -> bool {
    let rival = rival.filter(|_| subject.plan.mode != AutoscalingMode::Recommend);
    if !ctx.scaling.note_rival(&subject.claimant.uid, rival.clone()) {
        return false;
    }
    if let Some(rival) = rival {
        let note = format!("{rival} scales the same workers too: two scalers undo each other's work");
        say(ctx, subject, EventType::Warning, Reason::ConflictingScaler, note).await;
    }
    true
}

/// Changes the number of workers; true when it is changed.
async fn act(ctx: &Context, memory: &mut Memory, subject: &Subject, decision: &Decision, now: Timestamp) -> bool {
    let uid = &subject.claimant.uid;
    if !ctx.scaling.begin(subject) {
        return false;
    }
    let api: Api<Deployment> = Api::namespaced(ctx.client.clone(), &subject.claimant.namespace);
    let (from, to) = (subject.replicas, decision.target.0);
    let done = scale(&api, &subject.deployment, from, to).await;
    ctx.scaling.end(
        uid,
        match &done {
            Ok(Scaled::Done) => Some(to),
            Ok(Scaled::Other(replicas)) => Some(*replicas),
            Ok(Scaled::Gone) | Err(_) => None,
        },
    );
    match done {
        Ok(Scaled::Done) => {}
        Ok(Scaled::Other(_) | Scaled::Gone) => return false,
        Err(error) => {
            tracing::warn!(namespace = subject.claimant.namespace, name = subject.claimant.name, %error, "not scaled");
            return false;
        }
    }
    let note = format!("from {from} to {to} workers: {}", decision.explain());
    tracing::info!(namespace = subject.claimant.namespace, name = subject.claimant.name, note, "scaled");
    if let Some(brain) = memory.brains.get_mut(uid) {
        brain.state.carried_out(now, Replicas(to));
        brain.last = LastChange { at: Timestamp::from_second(now.as_second()).ok(), why: Some(note.clone()) };
    }
    say(ctx, subject, EventType::Normal, Reason::WorkersScaled, note).await;
    true
}

fn show(
    ctx: &Context,
    memory: &mut Memory,
    subject: &Subject,
    decision: &Decision,
    now: Timestamp,
    scaled: bool,
) -> bool {
    let Some(brain) = memory.brains.get_mut(&subject.claimant.uid) else { return false };
    let shown = brain.board.note(now, subject.plan.mode, decision, &brain.last, scaled);
    let Some(shown) = shown else { return false };
    let advice = decision.partition_bound.map(|bound| bound.advice());
    ctx.scaling.show(&subject.claimant.uid, shown, advice);
    true
}

/// Publishes an event about a resource; never in the way of scaling.
async fn say(ctx: &Context, subject: &Subject, type_: EventType, reason: Reason, mut note: String) {
    // The API takes at most 1,024 bytes.
    while note.len() > 1_000 {
        note.pop();
    }
    let event = Event {
        type_,
        reason: reason.as_str().to_owned(),
        note: Some(note),
        action: "Scale".to_owned(),
        secondary: None,
    };
    let who = &subject.claimant;
    let reference = ObjectReference {
        api_version: Some(format!("{GROUP}/{VERSION}")),
        kind: Some(who.kind.api_kind().to_owned()),
        name: Some(who.name.clone()),
        namespace: Some(who.namespace.clone()),
        uid: Some(who.uid.clone()),
        ..ObjectReference::default()
    };
    match tokio::time::timeout(CALL_TIMEOUT, ctx.recorder.publish(&event, &reference)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an event could not be published"),
        Err(_) => tracing::debug!("an event could not be published in time"),
    }
}
