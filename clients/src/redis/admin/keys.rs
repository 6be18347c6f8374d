//! Deleting the keys of a view, in bounded portions that can be continued.

use std::collections::{BTreeMap, BTreeSet};

use super::{KeyPrefix, NodeLink, RedisAdmin, RedisAdminError, RedisFault, command, read};
use crate::redis::{NodeId, SLOT_COUNT, Shard, Slot, Topology};

/// How much one call may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyDeletionBudget {
    /// Most `SCAN` steps on each master. A step looks at about 1,000 keys and blocks the server for a fraction of a
    /// millisecond; between steps others are served.
    pub steps_per_master: u32,
}

impl Default for KeyDeletionBudget {
    fn default() -> Self {
        Self { steps_per_master: 200 }
    }
}

/// Where a deletion stands. Lives in memory only: one that is lost begins anew, which is harmless.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyDeletion {
    /// Where `SCAN` goes on, by node id. A cursor means nothing on another node, so a promoted replica begins anew.
    cursors: BTreeMap<NodeId, u64>,
    /// Masters that this pass has been through.
    passed: BTreeSet<NodeId>,
    /// Keys this pass met.
    found: u64,
    /// Keys deleted in all.
    deleted: u64,
}

/// What a call has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyDeletionProgress {
    /// A whole pass over all masters met no key any more.
    Done,
    /// Not yet: call again.
    More,
}

/// Keys a `SCAN` step looks at.
const SCAN_COUNT: u32 = 1_000;

impl RedisAdmin {
    /// Deletes keys with this prefix on every master: a portion of them, within the budget. Begin with
    /// `KeyDeletion::default()` and call again with the same state until it is done, which it is after a whole pass met
    /// nothing: keys of slots that moved between masters meanwhile are caught by the next pass. A master that fails does
    /// not keep the others from being swept; the first such error is returned at the end.
    pub async fn delete_keys(
        &self,
        prefix: &KeyPrefix,
        state: &mut KeyDeletion,
        budget: KeyDeletionBudget,
    ) -> Result<KeyDeletionProgress, RedisAdminError> {
        let topology = self.links.topology().await?;
        let ids: BTreeSet<NodeId> = topology.shards().iter().map(|shard| shard.node.clone()).collect();
        state.cursors.retain(|id, _| ids.contains(id));
        let pattern = prefix.pattern();
        // Slots without a master hold keys that cannot be seen now.
        let mut failure = if all_owned(&topology) { None } else { Some(RedisFault::ClusterDown) };
        // One master after the other: a clean-up must not load the whole cluster at once.
        for master in topology.shards() {
            if let Err(fault) = self.sweep_master(master, &pattern, state, budget).await {
                failure.get_or_insert(fault);
            }
        }
        match failure {
            Some(fault) => Err(fault.into()),
            None => Ok(state.advance(&ids)),
        }
    }

    async fn sweep_master(
        &self,
        master: &Shard,
        pattern: &str,
        state: &mut KeyDeletion,
        budget: KeyDeletionBudget,
    ) -> Result<(), RedisFault> {
        let link = self.links.link(&master.address)?;
        for _ in 0..budget.steps_per_master {
            if state.passed.contains(&master.node) {
                break;
            }
            let cursor = state.cursors.get(&master.node).copied().unwrap_or(0);
            let swept = sweep(&link, pattern, cursor).await?;
            state.found += swept.found;
            state.deleted += swept.deleted;
            if swept.cursor == 0 {
                state.cursors.remove(&master.node);
                state.passed.insert(master.node.clone());
            } else {
                state.cursors.insert(master.node.clone(), swept.cursor);
            }
        }
        Ok(())
    }
}

impl KeyDeletion {
    /// Keys deleted so far.
    pub fn deleted(&self) -> u64 {
        self.deleted
    }

    /// Ends a pass that has been through all masters.
    fn advance(&mut self, masters: &BTreeSet<NodeId>) -> KeyDeletionProgress {
        if !masters.is_subset(&self.passed) {
            return KeyDeletionProgress::More;
        }
        let clean = self.found == 0;
        *self = Self { deleted: self.deleted, ..Self::default() };
        if clean { KeyDeletionProgress::Done } else { KeyDeletionProgress::More }
    }
}

struct Swept {
    cursor: u64,
    found: u64,
    deleted: u64,
}

pub(super) fn all_owned(topology: &Topology) -> bool {
    (0..SLOT_COUNT).filter_map(Slot::new).all(|slot| topology.owner_index(slot).is_some())
}

async fn sweep(link: &NodeLink, pattern: &str, cursor: u64) -> Result<Swept, RedisFault> {
    let mut scan = command(&["SCAN"]);
    scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_COUNT);
    let (cursor, keys): (u64, Vec<Vec<u8>>) = read(link.command(&scan).await?, "SCAN")?;
    let found = keys.len() as u64;
    let mut deleted = 0;
    if found > 0 {
        // One command a key: keys of several slots may not stand in one.
        let mut pipeline = redis::pipe();
        for key in &keys {
            pipeline.cmd("UNLINK").arg(key);
        }
        for answer in link.pipeline(&pipeline).await? {
            match answer {
                Ok(count) => deleted += read::<u64>(count, "UNLINK")?,
                // A slot on the move: its keys were counted as found, so that another pass comes.
                Err(fault) if fault.is_topology() => {}
                Err(fault) => return Err(fault),
            }
        }
    }
    Ok(Swept { cursor, found, deleted })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[&str]) -> BTreeSet<NodeId> {
        ids.iter().map(|id| NodeId::parse(id).expect("should be an id")).collect()
    }

    #[test]
    fn it_is_done_only_after_a_pass_that_met_nothing() {
        let mut state = KeyDeletion { passed: ids(&["a", "b"]), found: 3, deleted: 3, ..KeyDeletion::default() };
        assert_eq!(state.advance(&ids(&["a", "b"])), KeyDeletionProgress::More);
        assert_eq!(state, KeyDeletion { deleted: 3, ..KeyDeletion::default() });
        state.passed = ids(&["a", "b"]);
        assert_eq!(state.advance(&ids(&["a", "b"])), KeyDeletionProgress::Done);
    }

    #[test]
    fn a_master_that_joined_meanwhile_keeps_the_pass_open() {
        let mut state = KeyDeletion { passed: ids(&["a"]), ..KeyDeletion::default() };
        assert_eq!(state.advance(&ids(&["a", "b"])), KeyDeletionProgress::More);
    }
}
