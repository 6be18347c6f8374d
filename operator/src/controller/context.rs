//! What every reconcile shares.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use kube::runtime::events::Recorder;
use kube::{Api, Client, Resource};
use sluice_crds::names::Kind;
use tokio::sync::watch;

use super::backoff::Backoff;
use super::redis_keys::KeySweeps;
use super::turns::Turns;
use crate::autoscale::ScalingBook;
use crate::claims::ClaimIndex;
use crate::connections::Connections;
use crate::metrics::Metrics;
use crate::metrics_api::Standing;
use crate::secrets::InstallKey;
use crate::settings::SettingsHandle;
use crate::sweep::Board;

/// What every reconcile shares.
pub struct Context {
    /// Kubernetes.
    pub client: Client,
    /// The administrator's settings.
    pub settings: SettingsHandle,
    /// Where generated passwords come from.
    pub install_key: InstallKey,
    /// Kafka and Redis.
    pub connections: Connections,
    /// Who may have what.
    pub claims: ClaimBook,
    /// Events.
    pub recorder: Recorder,
    /// Metrics.
    pub metrics: Metrics,
    /// Failures in a row.
    pub backoff: Backoff,
    /// What the sweeps found.
    pub board: Board,
    /// Redis users that need not be set again.
    pub redis_users: RedisUserMemo,
    /// Who rolls out, and who waits for it.
    pub turns: Turns,
    /// Epochs that Redis is known not to be ahead of.
    pub epochs: EpochMemo,
    /// What the autoscaler may do and shows.
    pub scaling: ScalingBook,
    /// Deletions of keys under way.
    pub key_sweeps: KeySweeps,
    /// How it stands with the external metrics API.
    pub external_metrics: Standing,
    /// Whether `PodMonitors` can be applied.
    pub pod_monitors: watch::Receiver<bool>,
    /// When this process began.
    pub started: jiff::Timestamp,
    /// Between two rounds of the sweeps.
    pub sweep_every: Duration,
    /// The one namespace that is watched; none = all.
    pub watched: Option<String>,
}

impl Context {
    /// Objects of a kind in everything that is watched.
    pub fn watched_api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.watched {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// True when resources of this namespace are this operator's business.
    pub fn is_watched(&self, namespace: &str) -> bool {
        self.watched.as_deref().is_none_or(|watched| watched == namespace)
    }
}

/// The claims of all resources, complete only after both kinds were listed.
#[derive(Debug)]
pub struct ClaimBook {
    index: Mutex<ClaimIndex>,
    listed: watch::Sender<HashSet<Kind>>,
}

impl Default for ClaimBook {
    fn default() -> Self {
        Self { index: Mutex::default(), listed: watch::channel(HashSet::new()).0 }
    }
}

impl ClaimBook {
    /// The index, to read or change.
    pub fn lock(&self) -> MutexGuard<'_, ClaimIndex> {
        self.index.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A kind was listed to its end.
    pub fn listed(&self, kind: Kind) {
        self.listed.send_if_modified(|listed| listed.insert(kind));
    }

    /// True when both kinds were listed.
    pub fn is_complete(&self) -> bool {
        self.listed.borrow().len() == Kind::ALL.len()
    }

    /// Waits until both kinds were listed: before that the oldest claimant may not be known.
    pub async fn complete(&self) {
        // The sender lives as long as self: this cannot fail.
        let _ = self.listed.subscribe().wait_for(|listed| listed.len() == Kind::ALL.len()).await;
    }
}

/// A user as it was last set.
#[derive(Debug)]
struct SetUser {
    rules: Vec<String>,
    nodes: BTreeSet<String>,
    setting: u64,
}

/// Redis users as they were last set, by uid: the same rules on the same nodes need no command.
#[derive(Debug, Default)]
pub struct RedisUserMemo {
    set: Mutex<HashMap<String, SetUser>>,
    settings: AtomicU64,
}

impl RedisUserMemo {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, SetUser>> {
        self.set.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// True when these rules were set on all of these nodes.
    pub fn is_set(&self, uid: &str, rules: &[String], nodes: &BTreeSet<String>) -> bool {
        self.lock().get(uid).is_some_and(|done| done.rules == rules && nodes.is_subset(&done.nodes))
    }

    /// Notes that these rules are set on these nodes.
    pub fn note(&self, uid: &str, rules: Vec<String>, nodes: BTreeSet<String>) {
        let setting = self.settings.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(uid.to_owned(), SetUser { rules, nodes, setting });
    }

    /// A number that is another one each time the user is set; none: it has to be set.
    pub fn setting(&self, uid: &str) -> Option<u64> {
        self.lock().get(uid).map(|user| user.setting)
    }

    /// Forgets a resource: a node lost its users, or the resource is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }
}

/// Epochs that were compared with Redis' records, by uid.
#[derive(Debug, Default)]
pub struct EpochMemo {
    seen: Mutex<HashMap<String, u64>>,
}

impl EpochMemo {
    /// True when this epoch was compared.
    pub fn is_known(&self, uid: &str, epoch: u64) -> bool {
        self.lock().get(uid) == Some(&epoch)
    }

    /// Notes that it was.
    pub fn note(&self, uid: &str, epoch: u64) {
        self.lock().insert(uid.to_owned(), epoch);
    }

    /// Forgets a resource that is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
