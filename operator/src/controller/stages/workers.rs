//! Children applied in the order in which one needs the other, and old configurations pruned.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ListParams, PartialObjectMeta};
use kube::core::DynamicObject;
use kube::{Api, ResourceExt};
use sluice_crds::conditions::{ConditionType, Finding, Reason};
use sluice_crds::worker_config::{self, WorkerConfig};

use super::quiesce;
use crate::controller::build::{self, Children, Prepared};
use crate::controller::halt::Halt;
use crate::controller::kind::SluiceKind;
use crate::controller::replicas::Wanted;
use crate::controller::rollout;
use crate::controller::round::Round;
use crate::kube_ext::{Applied, KubeError, delete_if_exists, ensure, ensure_known, timed};

/// Configurations that are kept: the current one and the one before it.
const KEPT: usize = 2;
/// Who waits for a turn is told when it comes; this is the net below.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// More than ever are there; a bound for what a listing may bring.
const LIST_LIMIT: u32 = 50;

/// What Kubernetes has now.
#[derive(Clone, Copy, Debug)]
pub struct Deployed {
    /// True when the Deployment was written in this round: its status is of before.
    pub changed: bool,
}

/// Waits for the resource's turn to replace its workers.
pub async fn take_turn<K: SluiceKind>(round: &mut Round<'_, K>) -> Result<(), Halt> {
    let connection = &round.resource.kafka.connection;
    let Err(ahead) = round.ctx.turns.take(&connection.name, round.claimant, connection.max_roll_outs) else {
        return Ok(());
    };
    // The number of workers does not wait: somebody may need more of the ones there are.
    let (live, wanted) = (round.live.as_ref().map(rollout::wanted), round.wanted().count);
    if live.is_some_and(|live| live > 0 && live != wanted) {
        quiesce::scale(round, wanted).await?;
    }
    let message = format!("{ahead} other resources on this Kafka roll out first; the workers run on as they are");
    let finding = Finding::progressing(ConditionType::WorkersReady, Reason::RollOutQueued, message);
    Err(Halt::waiting(finding, ASK_AGAIN))
}

/// Applies every child that is not as it should be.
pub async fn apply<K: SluiceKind>(
    round: &mut Round<'_, K>,
    mut children: Children<Prepared>,
) -> Result<Children<Deployed>, Halt> {
    if round.live.as_ref().is_some_and(|live| rollout::replaces_pods(live, &children.deployment)) {
        take_turn(round).await?;
    }
    let Wanted { applied, hashed, .. } = round.wanted();
    if applied && !hashed {
        // Who scales by the load may have written the number since it was read: then it is read again.
        children.deployment.metadata.resource_version = round.live.as_ref().and_then(ResourceExt::resource_version);
    }
    let deployed = apply_all(round, &children).await.map_err(conflict)?;
    let Children { service_account, config_map, secret, deployment, disruption_budget, pod_monitor, config, .. } =
        children;
    let state = Deployed { changed: deployed != Applied::Unchanged };
    Ok(Children { service_account, config_map, secret, deployment, disruption_budget, pod_monitor, config, state })
}

async fn apply_all<K: SluiceKind>(round: &Round<'_, K>, children: &Children<Prepared>) -> Result<Applied, KubeError> {
    ensure(&round.api(), &children.service_account).await?;
    ensure(&round.api(), &children.config_map).await?;
    if let Some(secret) = &children.secret {
        ensure(&round.api::<Secret>(), secret).await?;
    }
    let present = round.live.as_ref().map(|live| live.metadata.clone());
    let done = ensure_known(&round.api(), "Deployment", &children.deployment, present).await?;
    ensure(&round.api(), &children.disruption_budget).await?;
    if *round.ctx.pod_monitors.borrow() {
        let namespace = round.resource.id.namespace.as_str();
        let kind = build::pod_monitor_resource();
        let api: Api<DynamicObject> = Api::namespaced_with(round.ctx.client.clone(), namespace, &kind);
        let name = children.pod_monitor.name_any();
        let present = timed("get child", api.get_metadata_opt(&name)).await?.map(|object| object.metadata);
        match ensure_known(&api, "PodMonitor", &children.pod_monitor, present).await {
            // The definition has gone since it was last looked for: nobody scrapes by it any more.
            Err(error) if error.is_not_found() => {}
            ensured => drop(ensured?),
        }
    }
    Ok(done)
}

/// Somebody else's object in a child's place waits for a person.
pub fn conflict(error: KubeError) -> Halt {
    match error {
        KubeError::NotOurs { .. } => {
            Halt::found(Finding::stalled(ConditionType::WorkersReady, Reason::ChildConflict, error.to_string()))
        }
        KubeError::Terminating { .. } => {
            Halt::found(Finding::progressing(ConditionType::WorkersReady, Reason::Progressing, error.to_string()))
        }
        error => Halt::Kube(error),
    }
}

/// Configurations that pods of this resource may still run with, other than the current one.
pub async fn older_configs<K: SluiceKind>(
    round: &Round<'_, K>,
    current: &ConfigMap,
) -> Result<Vec<WorkerConfig>, KubeError> {
    let api = round.api::<ConfigMap>();
    let mut older = Vec::new();
    for meta in config_maps(round, &api).await? {
        let name = meta.name_any();
        if name == current.name_any() {
            continue;
        }
        let Some(map) = timed("get older configuration", api.get_opt(&name)).await? else { continue };
        let text = map.data.as_ref().and_then(|data| data.get(build::CONFIG_KEY));
        // One that does not parse is of another version: no pod of ours could have its rights from it.
        older.extend(text.and_then(|text| worker_config::parse(text.as_bytes()).ok()));
    }
    Ok(older)
}

/// Deletes configurations beyond the last two. Only called when every pod has the current one.
///
/// Secrets are not pruned, because finding them needs the right to list Secrets. There are few without it: the content of
/// one is decided by the install key and by which of Kafka and Redis it is for, so a resource never has more than three of
/// an install key, and those of an older key open nothing any more.
pub async fn prune<K: SluiceKind>(round: &Round<'_, K>, children: &Children<Prepared>) -> Result<(), KubeError> {
    let (api, current) = (round.api::<ConfigMap>(), children.config_map.name_any());
    let mut all = config_maps(round, &api).await?;
    // Youngest first, the current one before all.
    all.sort_by_key(|meta| std::cmp::Reverse((meta.name_any() == current, meta.creation_timestamp())));
    for meta in all.into_iter().skip(KEPT) {
        delete_if_exists(&api, &meta.name_any(), meta.uid()).await?;
    }
    Ok(())
}

/// Metadata of this resource's configurations, by label and controller reference.
async fn config_maps<K: SluiceKind>(
    round: &Round<'_, K>,
    api: &Api<ConfigMap>,
) -> Result<Vec<PartialObjectMeta<ConfigMap>>, KubeError> {
    let selector = ListParams::default().labels(&round.resource.id.selector()).limit(LIST_LIMIT);
    let listed = timed("list older configurations", api.list_metadata(&selector)).await?.items;
    let ours = |meta: &PartialObjectMeta<ConfigMap>| {
        meta.owner_references()
            .iter()
            .any(|owner| owner.controller == Some(true) && owner.uid == round.resource.uid.as_str())
    };
    Ok(listed.into_iter().filter(ours).collect())
}

/// True when the Deployment is as desired, all its pods are new and no old one is ending.
pub async fn is_settled<K: SluiceKind>(round: &Round<'_, K>, children: &Children<Prepared>) -> Result<bool, KubeError> {
    let Some(live) = &round.live else { return Ok(false) };
    if !rollout::is_complete(live, &children.deployment) {
        return Ok(false);
    }
    let wanted = usize::try_from(rollout::wanted(live)).unwrap_or(0);
    Ok(quiesce::pods(&round.api(), &round.resource.id).await? <= wanted)
}
