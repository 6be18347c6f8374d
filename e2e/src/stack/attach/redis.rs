//! Redis as a test sees it.

use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::{Variables, numbered};
use crate::stack::error::StackError;
use crate::stack::files;
use crate::stack::layout::Layout;
use crate::stack::part::Part;
use crate::stack::redis::{self, ClusterNode, Mode, RedisCluster, Role};

/// A Redis and a user that may do everything on it.
#[derive(Debug)]
pub struct Redis {
    addresses: Vec<String>,
    mode: Mode,
    tls: bool,
    username: String,
    password: SecretString,
    ca_file: Option<PathBuf>,
    local: Option<(Layout, RedisCluster)>,
}

impl Redis {
    pub(super) fn local(layout: &Layout, cluster: RedisCluster) -> Result<Self, StackError> {
        Ok(Self {
            addresses: cluster.nodes.iter().map(ToString::to_string).collect(),
            mode: cluster.mode,
            tls: cluster.tls,
            username: cluster.username.clone(),
            password: files::read_secret(&cluster.password_file)?,
            ca_file: cluster.tls.then(|| cluster.ca_file.clone()),
            local: Some((layout.clone(), cluster)),
        })
    }

    pub(super) fn existing(variables: &Variables<'_>) -> Result<Option<Self>, StackError> {
        let Some(addresses) = variables.get("REDIS_ADDRESSES") else { return Ok(None) };
        let ca_file = variables.get("REDIS_CA_FILE").map(PathBuf::from);
        Ok(Some(Self {
            addresses: addresses.split(',').map(|address| address.trim().to_owned()).collect(),
            mode: if variables.get("REDIS_MODE").as_deref() == Some("Standalone") {
                Mode::Standalone
            } else {
                Mode::Cluster
            },
            tls: variables.get("REDIS_TLS").map_or(ca_file.is_some(), |tls| tls == "true"),
            username: variables.get("REDIS_USERNAME").unwrap_or_else(|| "default".into()),
            password: variables.password("REDIS_PASSWORD")?,
            ca_file,
            local: None,
        }))
    }

    /// `host:port` of each node, in the order of their numbers.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Its shape.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether it speaks TLS.
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// A user that may do everything.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// Its password.
    pub fn password(&self) -> &SecretString {
        &self.password
    }

    /// PEM file of the authority that signed the servers' certificate; `None`: the system's authorities.
    pub fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    /// The node with this number (from 1).
    pub fn node(&self, number: usize) -> Result<Part, StackError> {
        let (layout, cluster) = self.local.as_ref().map(|(layout, cluster)| (layout, cluster)).unzip();
        numbered(layout, cluster.map_or(&[], |cluster| &cluster.parts), number, "handling one Redis node")
    }

    /// `redis-cli` against one node (from 1); an error reply is an error.
    pub fn cli(&self, number: usize, arguments: &[&str]) -> Result<String, StackError> {
        self.require_local()?.cli(number, arguments)
    }

    /// The cluster as one node (from 1) sees it.
    pub fn view(&self, asked: usize) -> Result<Vec<ClusterNode>, StackError> {
        redis::nodes(self.require_local()?, asked)
    }

    /// Number of the master that owns a slot, as one node (from 1) sees it.
    pub fn master_of(&self, slot: u16, asked: usize) -> Result<usize, StackError> {
        let owns = |node: &ClusterNode| node.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot));
        let view = self.view(asked)?;
        let node = view.iter().find(|node| node.role == Role::Master && !node.failing && owns(node));
        node.and_then(|node| self.number_of(node)).ok_or_else(|| StackError::Absent(format!("nobody owns slot {slot}")))
    }

    /// Numbers of the replicas of a master, as one node (from 1) sees it.
    pub fn replicas_of(&self, master: usize, asked: usize) -> Result<Vec<usize>, StackError> {
        let view = self.view(asked)?;
        let id = view.iter().find(|node| self.number_of(node) == Some(master)).map(|node| node.id.as_str());
        Ok(view.iter().filter(|node| node.master.as_deref() == id).filter_map(|node| self.number_of(node)).collect())
    }

    /// Number (from 1) of a node.
    pub fn number_of(&self, node: &ClusterNode) -> Option<usize> {
        let address = node.address.to_string();
        self.addresses.iter().position(|known| *known == address).map(|index| index + 1)
    }

    /// Waits until all slots are served and all replicas are in sync, as after a fault.
    pub fn wait_settled(&self, limit: std::time::Duration) -> Result<(), StackError> {
        redis::wait_ok(self.require_local()?, limit)
    }

    fn require_local(&self) -> Result<&RedisCluster, StackError> {
        self.local.as_ref().map(|(_, cluster)| cluster).ok_or(StackError::NotLocal("running redis-cli"))
    }
}
