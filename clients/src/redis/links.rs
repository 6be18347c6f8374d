//! The nodes' connections, and the slot map they gave.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redis::cmd;
use sluice_crds::v1alpha1::RedisMode;

use super::error::{NotSent, RedisFault};
use super::node::NodeLink;
use super::settings::{NodeAddress, RedisSettings, SettingsError};
use super::topology::Topology;

/// Every node we talk to. Shared by reference; connections are made at the first call.
#[derive(Debug)]
pub struct Links {
    settings: RedisSettings,
    /// By address. Bounded: links of nodes that a new map does not know are dropped.
    nodes: Mutex<HashMap<NodeAddress, NodeLink>>,
    /// Which node the next refresh asks first: a node that sees an old map must not be asked every time.
    turn: AtomicUsize,
}

impl Links {
    /// Links to the nodes of this Redis; connects to none.
    pub fn new(settings: RedisSettings) -> Result<Self, SettingsError> {
        for seed in &settings.seeds {
            settings.client(seed)?;
        }
        Ok(Self { settings, nodes: Mutex::default(), turn: AtomicUsize::new(0) })
    }

    /// The settings they were made with.
    pub fn settings(&self) -> &RedisSettings {
        &self.settings
    }

    /// The link to a node.
    pub fn link(&self, address: &NodeAddress) -> Result<NodeLink, RedisFault> {
        let mut links = self.locked();
        if let Some(link) = links.get(address) {
            return Ok(link.clone());
        }
        let link = NodeLink::new(&self.settings, address.clone())
            .map_err(|error| RedisFault::NotSent(NotSent::Connect(error.to_string())))?;
        links.insert(address.clone(), link.clone());
        Ok(link)
    }

    /// Asks one node after another who owns what, beginning with another one each time, until one answers. Standalone:
    /// the first address, in the order given, that is a master.
    pub async fn topology(&self) -> Result<Arc<Topology>, RedisFault> {
        let nodes = self.known();
        let first = match self.settings.mode {
            RedisMode::Cluster => self.turn.fetch_add(1, Ordering::Relaxed) % nodes.len().max(1),
            RedisMode::Standalone => 0,
        };
        let mut last = RedisFault::NotSent(NotSent::NoOwner);
        for address in nodes[first..].iter().chain(&nodes[..first]) {
            match self.ask(address).await {
                Ok(topology) => {
                    self.forget_all_but(&topology);
                    return Ok(Arc::new(topology));
                }
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    async fn ask(&self, address: &NodeAddress) -> Result<Topology, RedisFault> {
        let link = self.link(address)?;
        match self.settings.mode {
            RedisMode::Cluster => Topology::ask(&link, self.settings.tls.is_some()).await,
            RedisMode::Standalone => match link.command(&cmd("ROLE")).await {
                Ok(role) if Topology::is_replica(&role) => {
                    Err(RedisFault::NotSent(NotSent::Replica(address.to_string())))
                }
                // A user of the tenant's own may not be allowed to ask: the scripts find out.
                Ok(_) | Err(RedisFault::NoPermission(_)) => Ok(Topology::standalone(address.clone())),
                Err(fault) => Err(fault),
            },
        }
    }

    /// Seeds and nodes of the last map. Standalone: the seeds in their order.
    fn known(&self) -> Vec<NodeAddress> {
        let mut nodes = self.settings.seeds.clone();
        if self.settings.mode == RedisMode::Cluster {
            nodes.extend(self.locked().keys().cloned());
            nodes.sort();
            nodes.dedup();
        }
        nodes
    }

    fn forget_all_but(&self, topology: &Topology) {
        let nodes = topology.shards().iter().map(|shard| &shard.address);
        let known: Vec<_> =
            nodes.chain(topology.others().iter().map(|(_, address)| address)).chain(&self.settings.seeds).collect();
        self.locked().retain(|address, _| known.contains(&address));
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<NodeAddress, NodeLink>> {
        // The map is whole at every point where a panic could have happened.
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
