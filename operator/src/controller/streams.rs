//! Watches in, reconciles out.
//!
//! Resources are watched behind a `DeserializeGuard`: one that does not parse is its own problem. The same stream feeds
//! the claims and the list of what exists. Children are watched by label and as metadata only, one watch a child kind
//! for both kinds of resources; what happens to a child triggers its owner.

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::PartialObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{Controller, Predicate, PredicateConfig, WatchStreamExt, predicates};
use kube::{Api, Resource, ResourceExt};
use sluice_crds::names::{INSTANCE_LABEL, Kind, MANAGED_BY, MANAGED_BY_LABEL};
use sluice_crds::v1alpha1::GROUP;
use tokio::sync::mpsc;

use super::context::Context;
use super::halt::Halt;
use super::kind::SluiceKind;
use super::reconcile::{self, claimant};
use super::validate::Rules;
use super::{held, linger};
use crate::claims::{Claimant, Claims};
use crate::sweep::Trigger;

/// Longest reconcile. Its parts have shorter limits of their own, and tell them; this is the net below them.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(120);

/// Runs the loop of one kind until `stop` ends; reconciles under way are finished.
pub async fn run<K: SluiceKind>(
    ctx: Arc<Context>,
    triggers: mpsc::Receiver<Trigger>,
    concurrency: u16,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let api: Api<DeserializeGuard<K>> = ctx.watched_api();
    let (reader, writer) = reflector::store();
    let listing = Arc::new(Mutex::new(Listing::new()));
    let feeder = Arc::clone(&ctx);
    let stream = watcher(api, watcher::Config::default().any_semantic())
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
        .inspect_err(|error| tracing::warn!(kind = %K::KIND, %error, "watch failed; it starts again"))
        .inspect_ok(move |event| feed(&feeder, &listing, event))
        .reflect(writer)
        .touched_objects()
        .predicate_filter(
            predicates::generation.combine(predicates::finalizers).combine(predicates::annotations),
            PredicateConfig::default(),
        );
    let settings_changed = futures::stream::unfold(ctx.settings.clone(), |mut settings| async move {
        settings.changed().await;
        Some(((), settings))
    });
    let monitors_changed = futures::stream::unfold(ctx.pod_monitors.clone(), |mut there| async move {
        there.changed().await.ok()?;
        Some(((), there))
    });
    let config = kube::runtime::controller::Config::default().concurrency(concurrency);
    Controller::for_stream(stream, reader)
        .with_config(config)
        .reconcile_on(references(triggers))
        .reconcile_all_on(settings_changed)
        .reconcile_all_on(monitors_changed)
        .graceful_shutdown_on(stop)
        .run(reconcile_guarded, error_policy, ctx)
        .for_each(|done| async move {
            if let Err(kube::runtime::controller::Error::QueueError(error)) = done {
                tracing::warn!(kind = %K::KIND, %error, "watch failed");
            }
        })
        .await;
}

/// What a listing brought: names and uids.
type Listing = HashMap<Trigger, String>;

/// Keeps claims and the list of what exists in step with the watch. A resource is its uid: one that was deleted and made
/// anew while the watch was away is another one of the same name.
fn feed<K: SluiceKind>(ctx: &Arc<Context>, listing: &Mutex<Listing>, event: &Event<DeserializeGuard<K>>) {
    let mut listing = listing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match event {
        Event::Init => listing.clear(),
        Event::InitApply(object) => {
            listing.insert(trigger_of::<K>(object), object.uid().unwrap_or_default());
            exists(ctx, object);
        }
        Event::Apply(object) => exists(ctx, object),
        Event::InitDone => {
            ctx.board.keep_only(K::KIND, &listing);
            let gone = |claimant: &&Claimant| {
                claimant.kind == K::KIND && listing.get(&Trigger::from(*claimant)) != Some(&claimant.uid)
            };
            let gone: Vec<Claimant> = ctx.claims.lock().claimants().filter(gone).cloned().collect();
            for who in &gone {
                forget(ctx, who);
            }
            listing.clear();
            ctx.claims.listed(K::KIND);
        }
        Event::Delete(object) => {
            ctx.board.gone(&object.uid().unwrap_or_default(), &trigger_of::<K>(object));
            forget(ctx, &claimant(K::KIND, object));
        }
    }
}

/// Drops what is kept of a resource that is gone from the board, and tells those who may now go on. Without a finalizer
/// its workers end after it: what they write is nobody else's before that.
fn forget(ctx: &Arc<Context>, who: &Claimant) {
    ctx.backoff.forget(&who.uid);
    ctx.redis_users.forget(&who.uid);
    ctx.epochs.forget(&who.uid);
    ctx.key_sweeps.forget(&who.uid);
    ctx.scaling.forget(&who.uid);
    let (lingers, affected) = ctx.claims.lock().end(who);
    let next = ctx.turns.give_back(who);
    notify(ctx, affected.iter().chain(&next).map(Trigger::from).collect());
    if lingers {
        tokio::spawn(linger::outlive(Arc::clone(ctx), who.clone(), linger::LOOK_AGAIN));
    }
}

fn exists<K: SluiceKind>(ctx: &Context, object: &DeserializeGuard<K>) {
    ctx.board.born(trigger_of::<K>(object), object.uid().unwrap_or_default());
    let Ok(object) = &object.0 else { return };
    let settings = ctx.settings.current();
    let who = claimant(K::KIND, object);
    // What is invalid asks for nothing, and holds what it has.
    let asks = object.validate(Rules { settings: &settings }).as_ref().map(Claims::of).unwrap_or_default();
    let affected = {
        let mut claims = ctx.claims.lock();
        claims.remember(&who, object.status().map(|status| held::of_status(object, status)).unwrap_or_default());
        claims.insert(&who, asks)
    };
    notify(ctx, affected.iter().map(Trigger::from).collect());
}

/// Triggers from a place that cannot wait.
pub(super) fn notify(ctx: &Context, triggers: Vec<Trigger>) {
    if triggers.is_empty() {
        return;
    }
    let sender = ctx.board.triggers().clone();
    tokio::spawn(async move {
        for trigger in triggers {
            sender.send(trigger).await;
        }
    });
}

fn trigger_of<K: SluiceKind>(object: &DeserializeGuard<K>) -> Trigger {
    Trigger { kind: K::KIND, namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}

/// Triggers as the controller takes them.
fn references<K: SluiceKind>(
    triggers: mpsc::Receiver<Trigger>,
) -> impl Stream<Item = ObjectRef<DeserializeGuard<K>>> + Send + 'static {
    futures::stream::unfold(triggers, |mut triggers| async move {
        let trigger = triggers.recv().await?;
        Some((ObjectRef::new(&trigger.name).within(&trigger.namespace), triggers))
    })
}

async fn reconcile_guarded<K: SluiceKind>(
    object: Arc<DeserializeGuard<K>>,
    ctx: Arc<Context>,
) -> Result<Action, Arc<Halt>> {
    let begun = Instant::now();
    let outcome = match &object.0 {
        Err(invalid) => {
            tracing::warn!(
                kind = %K::KIND, namespace = object.namespace(), name = object.name_any(), error = %invalid.error,
                "a resource does not parse; it is left alone until it changes"
            );
            Ok(Action::await_change())
        }
        Ok(object) => match tokio::time::timeout(RECONCILE_TIMEOUT, reconcile::reconcile(object, &ctx)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Halt::TimedOut),
        },
    };
    let category = outcome.as_ref().map_or_else(Halt::category, |_| "ok");
    let now = jiff::Timestamp::now().as_second() as f64;
    ctx.metrics.reconciled(K::KIND, category, begun.elapsed().as_secs_f64(), now);
    outcome.map_err(Arc::new)
}

// The signature is the library's.
#[allow(clippy::needless_pass_by_value)]
fn error_policy<K: SluiceKind>(object: Arc<DeserializeGuard<K>>, error: &Arc<Halt>, ctx: Arc<Context>) -> Action {
    if error.is_gone() {
        // A resource or child that is there again comes with an event of its own.
        return Action::requeue(Duration::from_secs(1));
    }
    let wait = if error.is_conflict() {
        // Somebody wrote meanwhile: look again at once, with what they wrote.
        Duration::from_millis(200)
    } else {
        tracing::warn!(
            kind = %K::KIND, namespace = object.namespace(), name = object.name_any(), %error, "reconcile failed"
        );
        ctx.backoff.failed(&object.uid().unwrap_or_default())
    };
    Action::requeue(wait)
}

/// Watches the children of both kinds and triggers their owners. Ends only with the process.
///
/// Not Secrets: a watch needs the right to list them all. One that is gone shows in the Deployment, whose pods wait for it.
pub async fn watch_children(ctx: Arc<Context>) {
    let instance = ctx.settings.current().instance.to_string();
    let selector = format!("{MANAGED_BY_LABEL}={MANAGED_BY},{INSTANCE_LABEL}={instance}");
    let ctx = &*ctx;
    tokio::join!(
        watch_kind::<Deployment>(ctx, &selector),
        watch_kind::<ConfigMap>(ctx, &selector),
        watch_kind::<ServiceAccount>(ctx, &selector),
        watch_kind::<PodDisruptionBudget>(ctx, &selector),
    );
}

async fn watch_kind<C>(ctx: &Context, selector: &str)
where
    C: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Send + 'static,
{
    let (api, triggers) = (ctx.watched_api::<PartialObjectMeta<C>>(), ctx.board.triggers());
    let config = watcher::Config::default().labels(selector).any_semantic();
    let mut events = watcher(api, config).default_backoff().boxed();
    while let Some(event) = events.next().await {
        match event {
            // What is there at the start was seen by the owner's own first reconcile.
            Ok(Event::Apply(child) | Event::Delete(child)) => {
                if let Some(trigger) = owner(&child) {
                    triggers.send(trigger).await;
                }
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "a watch of children failed; it starts again"),
        }
    }
}

/// The resource that controls a child.
fn owner<C: ResourceExt>(child: &C) -> Option<Trigger> {
    let owner = child.owner_references().iter().find(|owner| owner.controller == Some(true))?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.api_kind() == owner.kind)?;
    owner.api_version.starts_with(&format!("{GROUP}/")).then(|| Trigger {
        kind,
        namespace: child.namespace().unwrap_or_default(),
        name: owner.name.clone(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sluice_crds::v1alpha1::EventPipeline;

    use super::*;
    use crate::claims::Verdict;
    use crate::controller::test_support::{PIPELINE, api_server, context, refusal};

    type Pipeline = DeserializeGuard<EventPipeline>;

    fn named(name: &str, uid: &str, created: &str) -> Pipeline {
        let mut object: EventPipeline = serde_saphyr::from_str(PIPELINE).unwrap();
        object.metadata.name = Some(name.to_owned());
        object.metadata.uid = Some(uid.to_owned());
        object.metadata.creation_timestamp = serde_json::from_value(created.into()).unwrap();
        DeserializeGuard(Ok(object))
    }

    fn relist(ctx: &Arc<Context>, listing: &Mutex<Listing>, objects: Vec<Pipeline>) {
        feed(ctx, listing, &Event::<Pipeline>::Init);
        for object in objects {
            feed(ctx, listing, &Event::InitApply(object));
        }
        feed(ctx, listing, &Event::<Pipeline>::InitDone);
    }

    const OLD: &str = "0b5c2c4e-7a55-4a0e-9d6e-2f0d8e7a1c11";
    const NEW: &str = "0b5c2c4e-7a55-4a0e-9d6e-2f0d8e7a1c12";
    const OTHER: &str = "0b5c2c4e-7a55-4a0e-9d6e-2f0d8e7a1c13";

    #[tokio::test]
    async fn a_resource_made_anew_while_the_watch_was_away_is_not_held_up_by_its_own_ghost() {
        let none =
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "items": []});
        let (client, _) =
            api_server(
                move |asked| {
                    if asked.uri.contains("/pods") { (200, none.clone()) } else { refusal(404, "NotFound", "no") }
                },
            );
        let (ctx, mut triggers) = context(client);
        let ctx = Arc::new(ctx);
        let listing = Mutex::default();
        let young = named("young", OTHER, "2026-01-03T00:00:00Z");
        relist(&ctx, &listing, vec![named("enrich", OLD, "2026-01-01T00:00:00Z"), young.clone()]);
        assert_eq!(ctx.claims.lock().claimants().count(), 2);
        while triggers.try_recv().is_ok() {}
        let anew = named("enrich", NEW, "2026-01-02T00:00:00Z");
        relist(&ctx, &listing, vec![anew.clone(), young.clone()]);
        let who = claimant(Kind::EventPipeline, &anew);
        assert!(ctx.claims.lock().claimants().all(|claimant| claimant.uid != OLD));
        assert_eq!(ctx.claims.lock().decide(&who), Verdict::Granted);
        assert!(ctx.board.is_known(&who));
        // Gone for good: the younger one is told that it may have what the older one had, when no worker is left.
        relist(&ctx, &listing, vec![young.clone()]);
        assert!(!ctx.board.is_known(&who));
        let told = async {
            while let Some(trigger) = triggers.recv().await {
                let young = claimant(Kind::EventPipeline, &young);
                if trigger.name == "young" && ctx.claims.lock().decide(&young) == Verdict::Granted {
                    break;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), told).await.expect("a trigger");
    }

    #[tokio::test]
    async fn a_turn_at_rolling_out_goes_on_when_its_resource_went_while_the_watch_was_away() {
        let (ctx, mut triggers) = context(api_server(|_| refusal(500, "InternalError", "no")).0);
        let ctx = Arc::new(ctx);
        let listing = Mutex::default();
        let (first, second) =
            (named("enrich", OLD, "2026-01-01T00:00:00Z"), named("other", NEW, "2026-01-02T00:00:00Z"));
        relist(&ctx, &listing, vec![first.clone(), second.clone()]);
        while triggers.try_recv().is_ok() {}
        let connection = crate::settings::ConnectionName::new("default");
        let who = |object| claimant(Kind::EventPipeline, object);
        assert_eq!(ctx.turns.take(&connection, &who(&first), 1), Ok(()));
        assert_eq!(ctx.turns.take(&connection, &who(&second), 1), Err(1));
        relist(&ctx, &listing, vec![second.clone()]);
        assert_eq!(ctx.turns.take(&connection, &who(&second), 1), Ok(()));
        assert_eq!(ctx.turns.counts(), (1, 0));
    }

    #[tokio::test]
    async fn a_resource_that_does_not_parse_any_more_leaves_no_claims_when_it_goes() {
        let (ctx, _triggers) = context(api_server(|_| refusal(500, "InternalError", "no")).0);
        let ctx = Arc::new(ctx);
        let listing = Mutex::default();
        let valid = named("enrich", OLD, "2026-01-01T00:00:00Z");
        let unreadable: Pipeline = serde_json::from_value(serde_json::json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "EventPipeline", "spec": 7, "metadata": valid.meta(),
        }))
        .unwrap();
        assert!(unreadable.0.is_err());
        relist(&ctx, &listing, vec![valid]);
        feed(&ctx, &listing, &Event::Delete(unreadable));
        assert_eq!(ctx.claims.lock().claimants().count(), 0);
    }
}
