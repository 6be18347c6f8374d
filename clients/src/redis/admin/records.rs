//! Reading hashes that lie at known places: under names made of a node and a slot's tag, as workers keep what they have
//! applied. No `SCAN`: its cost would be that of everybody's keys.

use std::collections::BTreeMap;

use redis::{Pipeline, Value};

use super::keys::all_owned;
use super::{RedisAdmin, RedisAdminError, RedisFault, read};
use crate::redis::{NodeAddress, NodeId, Shard, Slot, Topology};

/// Hashes asked for in one pipeline.
const CHUNK: usize = 512;

/// How far to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The lowest slot of every shard, where a worker puts them: a handful of reads.
    Places,
    /// Every slot, where an older slot map or a failover may have left some: nodes × slots reads, a fraction of a second of
    /// each master.
    Everywhere,
}

impl RedisAdmin {
    /// Shows every field of every hash there is. `key` gives a hash's name on a node in a slot. Fails when a part of the
    /// slots cannot be read: what lies there may be what the caller must not miss.
    pub async fn read_hashes(
        &self,
        reach: Reach,
        key: impl Fn(&NodeId, Slot) -> String + Sync,
        mut see: impl FnMut(&str, &str) + Send,
    ) -> Result<(), RedisAdminError> {
        let topology = self.links.topology().await?;
        if !all_owned(&topology) {
            return Err(RedisFault::ClusterDown.into());
        }
        for shard in topology.shards() {
            let keys = keys(&topology, shard, reach, &key);
            let moved = self.read_from(&shard.address, keys, false, &mut see).await?;
            for (key, address) in moved {
                self.read_from(&address, std::iter::once(key), true, &mut see).await?;
            }
        }
        Ok(())
    }

    /// Keys whose slot is on its way, with where to: they are there or nowhere. A chunk of the names exists at a time: all of
    /// a shard are some MiB, for each resource that looks.
    async fn read_from(
        &self,
        address: &NodeAddress,
        mut keys: impl Iterator<Item = String> + Send,
        asking: bool,
        see: &mut (impl FnMut(&str, &str) + Send),
    ) -> Result<Vec<(String, NodeAddress)>, RedisFault> {
        let (link, mut moved) = (self.links.link(address)?, Vec::new());
        loop {
            let chunk: Vec<String> = keys.by_ref().take(CHUNK).collect();
            if chunk.is_empty() {
                return Ok(moved);
            }
            let mut pipeline = Pipeline::with_capacity(chunk.len());
            for key in &chunk {
                if asking {
                    pipeline.cmd("ASKING");
                }
                pipeline.cmd("HGETALL").arg(key);
            }
            let answers = link.pipeline(&pipeline).await?;
            let answers = answers.into_iter().skip(usize::from(asking)).step_by(1 + usize::from(asking));
            for (key, answer) in chunk.into_iter().zip(answers) {
                match answer {
                    Ok(value) => show(value, see)?,
                    Err(RedisFault::Ask(to)) if !asking => {
                        let address = to.address.ok_or(RedisFault::Malformed("ASK without an address"))?;
                        moved.push((key, address));
                    }
                    Err(fault) => return Err(fault),
                }
            }
        }
    }
}

fn show(value: Value, see: &mut impl FnMut(&str, &str)) -> Result<(), RedisFault> {
    let fields: BTreeMap<String, String> = read(value, "HGETALL")?;
    for (field, value) in &fields {
        see(field, value);
    }
    Ok(())
}

/// Names of a shard's hashes: its own, and those of nodes whose data it may have taken over.
fn keys(
    topology: &Topology,
    shard: &Shard,
    reach: Reach,
    key: &(impl Fn(&NodeId, Slot) -> String + Sync),
) -> impl Iterator<Item = String> + Send {
    // A standalone server has one place and one name.
    let slots = match reach {
        Reach::Everywhere if shard.node != NodeId::standalone() => usize::MAX,
        _ => 1,
    };
    let masters = topology.shards().iter().map(|shard| &shard.node);
    let names: Vec<&NodeId> = masters.chain(topology.others().iter().map(|(node, _)| node)).collect();
    let slots = shard.slots.iter().take(slots);
    slots.flat_map(move |slot| names.clone().into_iter().map(move |name| key(name, slot)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::SlotSet;

    #[test]
    fn places_are_few_and_everywhere_is_every_slot_under_every_name() {
        let node = |text: &str| NodeId::parse(text).expect("an id");
        let at = |text: &str| NodeAddress::parse(text).expect("an address");
        let shard = |name: &str, from, to| Shard {
            node: node(name),
            address: at("10.0.0.1:1"),
            slots: SlotSet::from_ranges([(from, to)]).expect("slots"),
        };
        let topology =
            Topology::new(vec![shard("a", 0, 9), shard("b", 10, 16_383)], vec![(node("c"), at("10.0.0.1:2"))]);
        let name = |node: &NodeId, slot: Slot| format!("{}/{}", node.as_str(), slot.number());
        let at = |shard: usize, reach| keys(&topology, &topology.shards()[shard], reach, &name).collect::<Vec<_>>();
        assert_eq!(at(0, Reach::Places), ["a/0", "b/0", "c/0"]);
        assert_eq!(at(1, Reach::Places), ["a/10", "b/10", "c/10"]);
        assert_eq!(at(0, Reach::Everywhere).len(), 30);
        let alone = Topology::standalone(NodeAddress::parse("10.0.0.1:1").expect("an address"));
        assert_eq!(keys(&alone, &alone.shards()[0], Reach::Everywhere, &name).count(), 1);
    }
}
