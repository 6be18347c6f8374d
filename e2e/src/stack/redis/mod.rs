//! Redis: a cluster of three masters and three replicas, or one standalone server.
//!
//! With TLS there is no plaintext port at all. The user `default` is off; `admin` may do everything; replicas speak to their
//! masters as `replica`. Users live in an ACL file, so that `ACL SAVE` keeps the ones made later.

mod cluster;
mod config;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::command;
use super::error::StackError;
use super::files;
use super::netns;
use super::part::{PartSpec, argv};
use super::pki::{Authority, Subject};
use super::ready::Ready;

pub use cluster::{ClusterNode, Role, form, nodes, wait_ok};

/// The shape of a Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Three masters, three replicas: node `i + 3` starts as the replica of node `i`.
    Cluster,
    /// One server.
    Standalone,
}

/// What Redis to make.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// Prefix of the part names, unique in the stack.
    pub name: String,
    /// Its shape.
    pub mode: Mode,
    /// TLS on every port (clients, replicas, cluster bus), or none.
    pub tls: bool,
    /// Append-only file, synchronised each second. Without it a restarted server is empty.
    pub persistent: bool,
    /// Port of the first node; the next nodes count on. The cluster bus is 10000 above. A Redis of one's own gets a free one
    /// instead.
    pub base_port: u16,
    /// More lines of `redis.conf` (`maxmemory 64mb`).
    pub settings: Vec<String>,
}

impl RedisOptions {
    /// The shared cluster of the stack.
    pub fn shared() -> Self {
        Self {
            name: "redis".into(),
            mode: Mode::Cluster,
            tls: true,
            persistent: true,
            base_port: 7001,
            // Nobody kills its nodes: one that is silent is a busy machine's, and must not lose its place to its replica.
            settings: vec!["cluster-node-timeout 15000".into()],
        }
    }

    /// One plain server without persistence, for a test or a benchmark.
    pub fn standalone(name: &str) -> Self {
        Self {
            name: name.into(),
            mode: Mode::Standalone,
            tls: false,
            persistent: false,
            base_port: 0,
            settings: Vec::new(),
        }
    }
}

/// A Redis that was laid out: how to start it and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisCluster {
    /// One for each node.
    pub parts: Vec<PartSpec>,
    /// The nodes' addresses, in the same order.
    pub nodes: Vec<SocketAddr>,
    /// Its shape.
    pub mode: Mode,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// A user that may do everything.
    pub username: String,
    /// Its password.
    pub password_file: PathBuf,
    /// The authority that signed the servers' certificate. Empty path without TLS.
    pub ca_file: PathBuf,
}

/// Lays out a new Redis in `folder`, which must be empty or absent.
pub fn create(folder: &Path, options: &RedisOptions) -> Result<RedisCluster, StackError> {
    files::make_dir(folder)?;
    let count = if options.mode == Mode::Cluster { 6 } else { 1 };
    let nodes: Vec<SocketAddr> = (0..count).map(|index| (netns::NODE, options.base_port + index).into()).collect();
    let admin = files::random_hex(16)?;
    let replica = files::random_hex(16)?;
    let mut redis = RedisCluster {
        parts: Vec::new(),
        nodes,
        mode: options.mode,
        tls: options.tls,
        username: "admin".into(),
        password_file: folder.join("admin.password"),
        ca_file: PathBuf::new(),
    };
    files::write_private(&redis.password_file, &admin)?;
    if options.tls {
        let authority = Authority::create(folder, "ca")?;
        let addresses = [IpAddr::V4(netns::NODE), IpAddr::V4(Ipv4Addr::LOCALHOST)];
        authority.issue("server", &Subject::server("redis", &addresses))?;
        authority.certificate().clone_into(&mut redis.ca_file);
    }
    for (index, address) in redis.nodes.iter().enumerate() {
        let node = folder.join(format!("node-{}", index + 1));
        files::make_dir(&node)?;
        files::write_private(&node.join("users.acl"), &config::users(&admin, &replica))?;
        let config = node.join("redis.conf");
        files::write_private(&config, &config::server(*address, folder, &node, options, &replica))?;
        let script = folder.join("cli");
        let ready = [script.display().to_string(), address.port().to_string(), "-e".into(), "PING".into()];
        redis.parts.push(PartSpec {
            name: format!("{}-{}", options.name, index + 1),
            argv: argv("redis-server", [config.display().to_string()])?,
            env: [].into(),
            ready: Ready::Command(ready.to_vec()),
            start_seconds: 90,
        });
    }
    files::write_script(&folder.join("cli"), &config::cli_script(&redis))?;
    Ok(redis)
}

impl RedisCluster {
    /// Runs `redis-cli` as the admin user against one node (from 1, as in the part's name) and hands back what it printed. An
    /// error reply is an error.
    pub fn cli(&self, node: usize, arguments: &[&str]) -> Result<String, StackError> {
        let address = node.checked_sub(1).and_then(|index| self.nodes.get(index));
        let address = address.ok_or_else(|| StackError::UnknownPart { name: format!("redis node {node}") })?;
        let script = self.password_file.with_file_name("cli");
        let mut command = command::bounded(20, script);
        command::output(command.arg(address.port().to_string()).arg("-e").args(arguments))
    }
}
