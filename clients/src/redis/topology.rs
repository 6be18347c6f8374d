//! Who owns which slots: CLUSTER SHARDS read into one value. Standalone Redis is a topology of one shard.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use redis::{Value, cmd};

use super::error::RedisFault;
use super::node::NodeLink;
use super::settings::NodeAddress;
use super::slots::{SLOT_COUNT, Slot, SlotSet};

/// A node as the cluster knows it (40 hex digits), or [`NodeId::standalone`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// A cluster node's id; none when it is not letters and digits, 1-64 of them.
    pub fn parse(text: &str) -> Option<Self> {
        let good = (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        good.then(|| Self(text.into()))
    }

    /// What the one shard of a standalone Redis is called.
    pub fn standalone() -> Self {
        Self("standalone".into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One master that owns slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// The master.
    pub node: NodeId,
    /// Where it listens, with TLS when the connection that asked had TLS.
    pub address: NodeAddress,
    /// What it owns.
    pub slots: SlotSet,
}

/// Every shard, and who owns each slot.
#[derive(Clone, PartialEq, Eq)]
pub struct Topology {
    shards: Vec<Shard>,
    /// Nodes that own no slot: replicas, failed or empty masters.
    others: Vec<(NodeId, NodeAddress)>,
    owner: Box<[u16]>,
}

const NOBODY: u16 = u16::MAX;

impl Topology {
    /// A topology of these shards, sorted by node; of two that claim a slot the first in that order has it.
    pub fn new(mut shards: Vec<Shard>, mut others: Vec<(NodeId, NodeAddress)>) -> Self {
        shards.sort_by(|a, b| a.node.cmp(&b.node));
        others.sort();
        let mut owner = vec![NOBODY; usize::from(SLOT_COUNT)].into_boxed_slice();
        for (index, shard) in shards.iter_mut().enumerate() {
            let free = |slot: &Slot| owner[usize::from(slot.number())] == NOBODY;
            shard.slots = shard.slots.iter().filter(free).collect();
            for slot in shard.slots.iter() {
                owner[usize::from(slot.number())] = u16::try_from(index).unwrap_or(NOBODY);
            }
        }
        Self { shards, others, owner }
    }

    /// One server with everything.
    pub fn standalone(address: NodeAddress) -> Self {
        Self::new(vec![Shard { node: NodeId::standalone(), address, slots: SlotSet::all() }], Vec::new())
    }

    /// The shards, sorted by node.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Nodes without slots.
    pub fn others(&self) -> &[(NodeId, NodeAddress)] {
        &self.others
    }

    /// Who owns the slot, as an index into [`Self::shards`].
    pub fn owner_index(&self, slot: Slot) -> Option<usize> {
        let index = self.owner[usize::from(slot.number())];
        (index != NOBODY).then(|| usize::from(index))
    }

    /// Who owns the slot.
    pub fn owner(&self, slot: Slot) -> Option<&Shard> {
        self.owner_index(slot).map(|index| &self.shards[index])
    }

    /// The shard of a node.
    pub fn shard(&self, node: &NodeId) -> Option<&Shard> {
        self.shards.iter().find(|shard| shard.node == *node)
    }

    /// Asks one node. With `tls` the nodes' TLS ports are taken.
    pub async fn ask(link: &NodeLink, tls: bool) -> Result<Self, RedisFault> {
        let answer = link.command(cmd("CLUSTER").arg("SHARDS")).await?;
        Self::read(&answer, link.address(), tls).ok_or(RedisFault::Malformed("CLUSTER SHARDS"))
    }

    /// True when the answer of ROLE is that of a replica: it refuses writes, and what it shows may be old.
    pub fn is_replica(role: &Value) -> bool {
        role.as_sequence().and_then(|words| string(words.first()?)) == Some("slave")
    }

    /// Reads the answer of CLUSTER SHARDS that `asked` gave. A shard without a live master has no owner.
    pub fn read(answer: &Value, asked: &NodeAddress, tls: bool) -> Option<Self> {
        let (mut shards, mut others) = (Vec::new(), Vec::new());
        let Value::Array(entries) = answer else { return None };
        for entry in entries {
            let entry = fields(entry)?;
            let slots = read_slots(entry.get("slots")?)?;
            let mut owned = false;
            for node in entry.get("nodes")?.as_sequence()? {
                let node = read_node(&fields(node)?, asked, tls)?;
                if node.live_master && !slots.is_empty() && !owned {
                    owned = true;
                    shards.push(Shard { node: node.id, address: node.address, slots: slots.clone() });
                } else {
                    others.push((node.id, node.address));
                }
            }
        }
        Some(Self::new(shards, others))
    }
}

struct Node {
    id: NodeId,
    address: NodeAddress,
    live_master: bool,
}

fn read_node(node: &HashMap<&str, &Value>, asked: &NodeAddress, tls: bool) -> Option<Node> {
    let string = |name: &str| node.get(name).and_then(|value| string(value));
    // Redis says what clients should use as `endpoint`; unknown means the host that was asked.
    let host = string("endpoint").filter(|host| !host.is_empty() && *host != "?").unwrap_or(asked.host());
    let port = node.get(if tls { "tls-port" } else { "port" });
    let port = match port {
        Some(Value::Int(port)) => u16::try_from(*port).ok()?,
        _ => return None,
    };
    Some(Node {
        id: NodeId::parse(string("id")?)?,
        address: NodeAddress::new(host, port),
        live_master: string("role")? == "master" && string("health") != Some("fail"),
    })
}

fn read_slots(value: &Value) -> Option<SlotSet> {
    let numbers: Option<Vec<u16>> = value
        .as_sequence()?
        .iter()
        .map(|number| match number {
            Value::Int(number) => u16::try_from(*number).ok(),
            other => string(other)?.parse().ok(),
        })
        .collect();
    let numbers = numbers?;
    let (pairs, rest) = numbers.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    SlotSet::from_ranges(pairs.iter().map(|pair| (pair[0], pair[1])))
}

/// A RESP3 map, or RESP2's flat list of names and values.
fn fields(value: &Value) -> Option<HashMap<&str, &Value>> {
    value.as_map_iter()?.map(|(name, value)| Some((string(name)?, value))).collect()
}

fn string(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.shards).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn node(id: &str, port: i64, role: &str, health: &str) -> Value {
        Value::Array(vec![
            text("id"),
            text(id),
            text("port"),
            Value::Int(port),
            text("tls-port"),
            Value::Int(port + 1000),
            text("ip"),
            text("10.0.0.1"),
            text("endpoint"),
            text("?"),
            text("role"),
            text(role),
            text("replication-offset"),
            Value::Int(1),
            text("health"),
            text(health),
        ])
    }

    fn shard(slots: &[i64], nodes: Vec<Value>) -> Value {
        let slots = slots.iter().map(|number| Value::Int(*number)).collect();
        Value::Array(vec![text("slots"), Value::Array(slots), text("nodes"), Value::Array(nodes)])
    }

    fn slot(number: u16) -> Slot {
        Slot::new(number).expect("in range")
    }

    #[test]
    fn shards_replicas_and_failed_masters_are_told_apart() {
        let answer = Value::Array(vec![
            shard(&[0, 5460, 6000, 6000], vec![node("bb", 1, "master", "online"), node("cc", 2, "replica", "online")]),
            shard(&[5461, 5999], vec![node("aa", 3, "master", "fail")]),
            shard(&[], vec![node("dd", 4, "master", "online")]),
        ]);
        let topology = Topology::read(&answer, &NodeAddress::new("asked", 9), true).expect("readable");
        assert_eq!(topology.shards().len(), 1);
        let owner = topology.owner(slot(6000)).expect("owned");
        assert_eq!((owner.node.as_str(), owner.address.to_string().as_str()), ("bb", "asked:1001"));
        assert_eq!(topology.owner(slot(5461)), None);
        assert_eq!(topology.others().iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["aa", "cc", "dd"]);
    }

    #[test]
    fn nonsense_is_not_a_topology() {
        let asked = NodeAddress::new("asked", 9);
        for wrong in [
            Value::Nil,
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![shard(&[0], vec![])]),
            Value::Array(vec![shard(&[0, 16384], vec![])]),
            Value::Array(vec![shard(&[0, 1], vec![node("not an id", 1, "master", "online")])]),
        ] {
            assert_eq!(Topology::read(&wrong, &asked, false), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_slot_has_one_owner() {
        let shard = |id: &str, slots| Shard {
            node: NodeId::parse(id).expect("id"),
            address: NodeAddress::new("h", 1),
            slots: SlotSet::from_ranges([slots]).expect("ranges"),
        };
        let topology = Topology::new(vec![shard("b", (0, 10)), shard("a", (5, 20))], Vec::new());
        assert_eq!(topology.shards()[1].slots, SlotSet::from_ranges([(0, 4)]).expect("ranges"));
        assert_eq!(topology.owner_index(slot(5)), Some(0));
        assert_eq!(topology.owner_index(slot(21)), None);
    }
}
