//! Forming a Redis Cluster and asking who is what in it.
//!
//! `redis-cli --cluster create` would do, but spreads replicas by chance; tests want to know which node replicates which.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Mode, RedisCluster};
use crate::stack::command::wait_for;
use crate::stack::error::StackError;

/// Hash slots of each master.
const SLOTS: [(u16, u16); 3] = [(0, 5460), (5461, 10922), (10923, 16383)];

/// Longest wait for gossip.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It owns slots, or could.
    Master,
    /// It copies a master.
    Replica,
}

/// One line of `CLUSTER NODES`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNode {
    /// Node id.
    pub id: String,
    /// Client address.
    pub address: SocketAddr,
    /// What it is.
    pub role: Role,
    /// Id of its master, if it is a replica.
    pub master: Option<String>,
    /// Marked `fail` or `fail?` by the node that was asked.
    pub failing: bool,
    /// Slot ranges, both ends included.
    pub slots: Vec<(u16, u16)>,
}

/// Makes one cluster of six running, empty nodes.
pub fn form(redis: &RedisCluster) -> Result<(), StackError> {
    if redis.mode != Mode::Cluster {
        return Ok(());
    }
    for (node, (first, last)) in (1..).zip(SLOTS) {
        redis.cli(node, &["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()])?;
        redis.cli(node, &["CLUSTER", "SET-CONFIG-EPOCH", &node.to_string()])?;
    }
    meet(redis)?;
    for node in SLOTS.len() + 1..=redis.nodes.len() {
        let master = redis.cli(node - SLOTS.len(), &["CLUSTER", "MYID"])?;
        let master = master.trim();
        // A node can replicate only whom gossip has told it of.
        let told = wait_for(PATIENCE, || {
            redis.cli(node, &["CLUSTER", "REPLICATE", master]).ok().filter(|reply| reply.trim() == "OK")
        });
        told.ok_or_else(|| timeout(format!("redis node {node} has not met its master"), PATIENCE.as_secs()))?;
    }
    wait_ok(redis, PATIENCE)
}

/// Introduces all nodes to the first, again and again: a handshake that takes longer than the node time-out, as on a busy
/// machine, is given up, and nobody repeats it.
fn meet(redis: &RedisCluster) -> Result<(), StackError> {
    let met = wait_for(PATIENCE, || {
        let known = nodes(redis, 1).ok()?;
        let unknown: Vec<&SocketAddr> =
            redis.nodes[1..].iter().filter(|address| !known.iter().any(|node| node.address == **address)).collect();
        for address in &unknown {
            let _ = redis.cli(1, &["CLUSTER", "MEET", &address.ip().to_string(), &address.port().to_string()]);
        }
        unknown.is_empty().then_some(())
    });
    met.ok_or_else(|| timeout("redis node 1 has not met all others".into(), PATIENCE.as_secs()))
}

/// Waits until every node sees all slots served and every replica is in sync with its master.
pub fn wait_ok(redis: &RedisCluster, limit: Duration) -> Result<(), StackError> {
    if redis.mode != Mode::Cluster {
        return Ok(());
    }
    let mut last = String::new();
    let ok = wait_for(limit, || match settled(redis) {
        Ok(None) => Some(()),
        Ok(Some(reason)) => {
            last = reason;
            None
        }
        Err(error) => {
            last = error.to_string();
            None
        }
    });
    ok.ok_or_else(|| timeout(format!("redis cluster is not settled ({last})"), limit.as_secs()))
}

/// What keeps the cluster from being settled, if anything.
fn settled(redis: &RedisCluster) -> Result<Option<String>, StackError> {
    for (node, address) in (1..).zip(&redis.nodes) {
        let info = redis.cli(node, &["CLUSTER", "INFO"])?;
        if !info.contains("cluster_state:ok") || !info.contains(&format!("cluster_known_nodes:{}", redis.nodes.len())) {
            return Ok(Some(format!("{address} does not see the whole cluster")));
        }
        let replication = redis.cli(node, &["INFO", "replication"])?;
        if replication.contains("role:slave") && !replication.contains("master_link_status:up") {
            return Ok(Some(format!("{address} is not in sync with its master")));
        }
    }
    let replicas = nodes(redis, 1)?.iter().filter(|node| node.role == Role::Replica).count();
    let wanted = redis.nodes.len() - SLOTS.len();
    Ok((replicas != wanted).then(|| format!("{replicas} replicas instead of {wanted}")))
}

/// The cluster as one node (from 1) sees it.
pub fn nodes(redis: &RedisCluster, asked: usize) -> Result<Vec<ClusterNode>, StackError> {
    Ok(redis.cli(asked, &["CLUSTER", "NODES"])?.lines().filter_map(parse_line).collect())
}

/// `<id> <ip:port@bus[,host]> <flags> <master|-> <ping> <pong> <epoch> <link> <slot>…`; a node in handshake has no id yet and
/// is none.
fn parse_line(line: &str) -> Option<ClusterNode> {
    let mut words = line.split_whitespace();
    let id = words.next()?.to_owned();
    let address = words.next()?.split('@').next()?.parse().ok()?;
    let flags = words.next().filter(|flags| !flags.contains("handshake"))?;
    let master = words.next()?;
    let slots = words.skip(4).filter_map(parse_slots).collect();
    let role = if flags.contains("slave") { Role::Replica } else { Role::Master };
    Some(ClusterNode {
        id,
        address,
        role,
        master: (master != "-").then(|| master.to_owned()),
        failing: flags.contains("fail"),
        slots,
    })
}

/// `5`, `5-9`; slots in motion (`[5->-id]`) are not owned ranges.
fn parse_slots(word: &str) -> Option<(u16, u16)> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    Some((first.parse().ok()?, last.parse().ok()?))
}

fn timeout(what: String, seconds: u64) -> StackError {
    StackError::Timeout { what, seconds, detail: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_masters_replicas_and_moving_slots() {
        let master =
            "07c37df 10.44.0.1:7001@17001,host myself,master - 0 1426238317239 4 connected 0-5460 7000 [93->-2926]";
        let node = parse_line(master).expect("a node line");
        assert_eq!(node.role, Role::Master);
        assert_eq!(node.address.port(), 7001);
        assert_eq!(node.slots, [(0, 5460), (7000, 7000)]);
        assert_eq!((node.master, node.failing), (None, false));

        let replica =
            parse_line("67ed2db 10.44.0.1:7004@17004 slave,fail 07c37df 0 14 1 disconnected").expect("a node");
        assert_eq!((replica.role, replica.failing), (Role::Replica, true));
        assert_eq!(replica.master.as_deref(), Some("07c37df"));
        assert!(parse_line("").is_none());
        assert!(parse_line("9d1f4c2 10.44.0.1:7005@17005 handshake - 0 0 0 disconnected").is_none());
    }
}
