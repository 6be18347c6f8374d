//! A spec that is not carried out, and what becomes of the workers of an earlier one.
//!
//! They go on while they only do what the resource still may, so that a mistake in an edit stops nothing; that none shall
//! run is understood all the same. They are stopped when a policy was taken back or another resource has a better right to
//! what they write. Then, with the last of them gone, the resource gives up its claims.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{Api, ResourceExt};
use sluice_crds::conditions::Finding;
use sluice_crds::names::{ResourceId, ResourceUid};
use sluice_crds::v1alpha1::{AutoscalingMode, ClaimState, DesiredState};
use sluice_crds::worker_config::{self, WorkerConfig};

use super::context::Context;
use super::halt::{Halt, Retry};
use super::kind::SluiceKind;
use super::stages::quiesce;
use super::status::StatusWriter;
use super::streams::notify;
use super::validate::{Invalid, identity};
use super::{build, entitled, rollout};
use crate::autoscale::Forbidden;
use crate::claims::{Claimant, Claims, Conflict};
use crate::kube_ext::{KubeError, timed};
use crate::settings::Settings;
use crate::sweep::Trigger;

/// How soon to look again while workers end.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Why a spec is not carried out.
#[derive(Debug)]
pub enum Ground {
    /// It is wrong, or asks for what its namespace may not have.
    Invalid(Invalid),
    /// Another resource has some of what it asks for.
    Taken(Conflict),
    /// Another resource has, and rightly, what the workers of this one write.
    Lost(Conflict),
}

impl Ground {
    fn finding(&self) -> Finding {
        match self {
            Self::Invalid(invalid) => Finding::stalled(invalid.condition(), invalid.reason(), invalid.to_string()),
            Self::Taken(conflict) | Self::Lost(conflict) => conflict.finding(),
        }
    }
}

/// Sees to the workers, and always halts: with why the spec is not carried out, if nothing else comes between. `findings` gets
/// what is to be said of the workers.
pub async fn run<K: SluiceKind>(
    ctx: &Context,
    settings: &Settings,
    object: &K,
    who: &Claimant,
    status: &mut StatusWriter<K>,
    ground: &Ground,
    findings: &mut Vec<Finding>,
) -> Result<(), Halt> {
    let mut finding = ground.finding();
    if ctx.scaling.forbid(&who.uid) == Forbidden::UnderWay {
        return Err(Halt::Found(finding, Retry::After(LOOK_AGAIN)));
    }
    let Ok((id, uid)) = identity::identity(&settings.instance, K::KIND, object.meta()) else {
        return Err(Halt::Found(finding, Retry::OnChange));
    };
    let api: Api<Deployment> = Api::namespaced(ctx.client.clone(), id.namespace.as_str());
    let live = timed("get deployment", api.get_opt(&id.child_name())).await?;
    let mut live = live.filter(|live| is_controlled_by(live, &uid));
    let goes_on = may_go_on(ctx, settings, object, (&id, &uid), live.as_ref(), ground).await?;
    if let Some(running) = live.as_ref().filter(|live| rollout::wanted(live) > 0) {
        if goes_on && !wants_none(object) {
            finding.message.push_str("; until then the workers go on as before");
        } else {
            live = Some(quiesce::stop(&api, &running.name_any()).await?);
        }
    }
    if live.is_some() && !goes_on {
        finding.message.push_str("; its workers are stopped, since they may not go on either");
    }
    status.draft.replicas = live.as_ref().map(rollout::ready).or(status.draft.replicas);
    findings.extend(live.iter().map(rollout::finding));
    if goes_on {
        return Err(Halt::Found(finding, Retry::OnChange));
    }
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), id.namespace.as_str());
    if live.as_ref().is_some_and(|live| !rollout::has_stopped(live)) || quiesce::pods(&pods, &id).await? > 0 {
        return Err(Halt::Found(finding, Retry::After(LOOK_AGAIN)));
    }
    give_up_claims(ctx, who, status).await?;
    Err(Halt::Found(finding, Retry::OnChange))
}

/// True when no worker shall run, whatever the rest of the spec says.
fn wants_none<K: SluiceKind>(object: &K) -> bool {
    let by_load = object
        .autoscaling()
        .is_some_and(|autoscaling| matches!(autoscaling.mode, AutoscalingMode::Operator | AutoscalingMode::Hpa));
    object.state() == DesiredState::Stopped || (object.replicas() == Some(0) && !by_load)
}

async fn may_go_on<K: SluiceKind>(
    ctx: &Context,
    settings: &Settings,
    object: &K,
    (id, uid): (&ResourceId, &ResourceUid),
    live: Option<&Deployment>,
    ground: &Ground,
) -> Result<bool, KubeError> {
    let unless_refused = match ground {
        Ground::Lost(_) => return Ok(false),
        Ground::Taken(_) => true,
        Ground::Invalid(invalid) => !invalid.is_refused_by_policy(),
    };
    let Some(live) = live else { return Ok(unless_refused) };
    let config = config_of(ctx, live, uid).await?;
    Ok(config.map_or(unless_refused, |config| entitled::may_go_on(settings, id, object, &config)))
}

/// What the workers of a Deployment run with; none when it is lost, or of another version.
async fn config_of(ctx: &Context, live: &Deployment, uid: &ResourceUid) -> Result<Option<WorkerConfig>, KubeError> {
    let pod = live.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let mut volumes = pod.and_then(|pod| pod.volumes.as_ref()).into_iter().flatten();
    let Some(name) = volumes.find_map(|volume| Some(volume.config_map.as_ref()?.name.clone())) else { return Ok(None) };
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &live.namespace().unwrap_or_default());
    let map = timed("get configuration", api.get_opt(&name)).await?.filter(|map| is_controlled_by(map, uid));
    let text = map.and_then(|map| map.data?.remove(build::CONFIG_KEY));
    Ok(text.and_then(|text| worker_config::parse(text.as_bytes()).ok()))
}

/// No worker is left: others may have what was this resource's. Status first, or the next start would not know it.
async fn give_up_claims<K: SluiceKind>(
    ctx: &Context,
    who: &Claimant,
    status: &mut StatusWriter<K>,
) -> Result<(), Halt> {
    if status.draft.claims.is_some() || !status.draft.topics.is_empty() {
        status.draft.claims = Some(ClaimState::Released);
        status.write().await?;
    }
    let affected = ctx.claims.lock().keep(who, Claims::default());
    notify(ctx, affected.iter().map(Trigger::from).collect());
    Ok(())
}

/// True when an object's controller is this resource.
pub fn is_controlled_by(object: &impl ResourceExt, uid: &ResourceUid) -> bool {
    object.owner_references().iter().any(|owner| owner.controller == Some(true) && owner.uid == uid.as_str())
}

#[cfg(test)]
#[path = "refused_tests.rs"]
mod tests;
