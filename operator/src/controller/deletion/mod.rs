//! A resource that is being deleted. Order: workers gone, groups empty → Redis keys → groups → topics → users and ACLs →
//! finalizer. Only what the spec says goes, and of topics only those that status says were created here, with the same
//! id. Every step may find that there is nothing left to do.
//!
//! What cannot be reached is tried again until the deadline of the settings, once more without regard to the order, and
//! then the resource is let go; an event and the log name what stays behind. The annotation `sluice.dev/force-finalize:
//! "true"` makes the next attempt the last one.

mod outside;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt};
use sluice_crds::conditions::{ConditionType, Finding, Mode, Reason};
use sluice_crds::names::FORCE_FINALIZE_ANNOTATION;

use self::outside::{Left, Outside};
use super::context::Context;
use super::halt::Halt;
use super::kind::SluiceKind;
use super::reconcile::claimant;
use super::stages::quiesce;
use super::status::StatusWriter;
use super::validate::identity;
use super::{finalizer, report, rollout};
use crate::kube_ext::timed;
use crate::settings::Settings;

/// How soon to look again while workers end or servers are away.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Longest last attempt; well below the limit of a reconcile, so that it always comes to its end.
const LAST_ATTEMPT: Duration = Duration::from_secs(60);

/// Whether workers may still run.
enum Workers {
    Gone,
    Ending(&'static str),
}

/// Goes one round through the steps.
pub async fn run<K: SluiceKind>(
    ctx: &Context,
    settings: &Arc<Settings>,
    api: &Api<K>,
    object: &K,
    status: &mut StatusWriter<K>,
) -> Result<Action, Halt> {
    if !finalizer::is_set(object.meta()) {
        return Ok(Action::await_change());
    }
    // A resource whose name was never valid has never had anything.
    let Ok((id, uid)) = identity::identity(&settings.instance, K::KIND, object.meta()) else {
        return release(ctx, api, object).await;
    };
    let outside = Outside { ctx, settings, object, who: claimant(K::KIND, object), id, uid };
    let last = outside.gives_up();
    let left = match outside.stop_workers().await? {
        Workers::Gone => outside.attempt(last).await,
        Workers::Ending(why) => {
            // They may write what an earlier attempt has deleted.
            ctx.key_sweeps.forget(outside.uid.as_str());
            outside.nothing_done(why)
        }
    };
    if let Some(first) = left.iter().find(|left| left.again).filter(|_| !last) {
        let finding = Finding::progressing(
            ConditionType::WorkersReady,
            Reason::Deleting,
            format!("{}: {}", first.what, first.why),
        );
        status.conclude(&[finding], Mode::Deleting, object.meta().generation, &Time(jiff::Timestamp::now()));
        status.write().await?;
        return Ok(Action::requeue(LOOK_AGAIN));
    }
    if !left.is_empty() {
        let names: Vec<String> = left.iter().map(|left| format!("{} ({})", left.what, left.why)).collect();
        let note = format!("deleted, but this stays behind: {}", names.join(", "));
        // A namespace that is being deleted takes no events: the log has it too.
        tracing::warn!(kind = %K::KIND, namespace = object.namespace(), name = object.name_any(), "{note}");
        report::say(ctx, object, EventType::Warning, Reason::Deleting, &note).await;
    }
    release(ctx, api, object).await
}

async fn release<K: SluiceKind>(ctx: &Context, api: &Api<K>, object: &K) -> Result<Action, Halt> {
    match finalizer::set(api, object, false).await {
        Err(error) if !error.is_not_found() => return Err(error.into()),
        _ => {}
    }
    let uid = object.uid().unwrap_or_default();
    ctx.backoff.forget(&uid);
    ctx.redis_users.forget(&uid);
    ctx.key_sweeps.forget(&uid);
    Ok(Action::await_change())
}

impl<K: SluiceKind> Outside<'_, K> {
    /// One attempt, bounded: after a last one nothing may be open.
    async fn attempt(&self, last: bool) -> Vec<Left> {
        match tokio::time::timeout(LAST_ATTEMPT, self.remove(last)).await {
            Ok(left) => left,
            Err(_) => self.nothing_done("the servers take too long"),
        }
    }

    /// Everything is left, for one reason; also when nothing outside is asked for, the workers still have to end.
    fn nothing_done(&self, why: &str) -> Vec<Left> {
        let mut asked = self.asked();
        if asked.is_empty() {
            asked.push("workers".to_owned());
        }
        asked.into_iter().map(|what| Left { what, why: why.to_owned(), again: true }).collect()
    }

    async fn stop_workers(&self) -> Result<Workers, Halt> {
        let api: Api<Deployment> = Api::namespaced(self.ctx.client.clone(), self.id.namespace.as_str());
        let name = self.id.child_name();
        if let Some(live) = timed("get deployment", api.get_opt(&name)).await? {
            let ours = live.owner_references().iter().any(|owner| owner.uid == self.uid.as_str());
            let running = live.spec.as_ref().and_then(|spec| spec.replicas) != Some(0);
            let ours = ours && live.metadata.deletion_timestamp.is_none();
            if ours && running {
                quiesce::stop(&api, &name).await?;
                return Ok(Workers::Ending("the workers stop"));
            }
            if ours && !rollout::has_stopped(&live) {
                return Ok(Workers::Ending("the workers are ending"));
            }
        }
        let pods: Api<Pod> = Api::namespaced(self.ctx.client.clone(), self.id.namespace.as_str());
        let left = quiesce::pods(&pods, &self.id).await?;
        Ok(if left == 0 { Workers::Gone } else { Workers::Ending("the workers are ending") })
    }

    fn gives_up(&self) -> bool {
        if self.object.annotations().get(FORCE_FINALIZE_ANNOTATION).is_some_and(|value| value == "true") {
            return true;
        }
        let since = self.object.meta().deletion_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second());
        jiff::Timestamp::now().as_second().saturating_sub(since) > i64::from(self.settings.deletion_deadline_seconds)
    }
}
