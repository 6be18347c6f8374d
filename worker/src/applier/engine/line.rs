//! A line: a pass over a partition, with the records it holds and the window it works on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use sluice_clients::redis::{NodeId, Topology};

use super::types::{EngineSettings, Millis};
use crate::applier::mutation::{Change, Poison};

/// What a shard still has to do for a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Send a script, with the records below `upto` only when Redis refused a mutation of the one at it.
    Waiting { upto: Option<i64> },
    /// A script is on its way; `again`: groups joined meanwhile whose mutations are not in it.
    Sent { again: bool },
}

/// Records that are applied together: a batch on each shard, then the next window.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) begun: Millis,
    pub(super) from: i64,
    /// Offset after its last record.
    pub(super) to: i64,
    pub(super) records: Arc<Vec<Change>>,
    pub(super) parts: BTreeMap<NodeId, Part>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    /// Whether it reads.
    pub(super) active: bool,
    pub(super) incarnation: u32,
    /// Everything below is handled for the groups of this line.
    pub(super) position: i64,
    pub(super) queue: VecDeque<Change>,
    /// End of the committed log as last told; holds until more is fetched.
    pub(super) end: Option<i64>,
    pub(super) window: Option<Window>,
}

impl Line {
    /// Begins anew at `position`; gives the weight of what it held.
    pub(super) fn restart(&mut self, position: i64) -> usize {
        let weight = self.stop();
        self.active = true;
        self.position = position;
        weight
    }

    /// Stops reading; gives the weight of what it held.
    pub(super) fn stop(&mut self) -> usize {
        let queued: usize = self.queue.drain(..).map(|change| change.weight).sum();
        let windowed = self.window.take().map_or(0, |window| window.weight());
        self.active = false;
        self.incarnation += 1;
        self.end = None;
        queued + windowed
    }

    /// From here on nothing is missed: a group at or above it can join.
    pub(super) fn threshold(&self) -> i64 {
        self.window.as_ref().map_or(self.position, |window| window.from)
    }

    /// The record it cannot pass, once everything before it is done.
    pub(super) fn poison(&self) -> Option<(i64, &Poison)> {
        let front = self.queue.front().filter(|_| self.window.is_none())?;
        front.effect.as_ref().err().map(|poison| (front.offset, poison))
    }

    /// Takes the next window out of the queue. Each shard's share of it stays within the bounds of one script, a single
    /// record apart.
    pub(super) fn cut(&mut self, settings: &EngineSettings, topology: &Topology, now: Millis) -> bool {
        if self.window.is_some() {
            return false;
        }
        let mut shares: Vec<(usize, usize)> = vec![(0, 0); topology.shards().len()];
        let mut count = 0;
        for change in &self.queue {
            let Ok(mutations) = &change.effect else { break };
            let mut fits = true;
            for mutation in mutations {
                // A slot that nobody owns is written by nobody, and its next owner does not name it.
                let Some(owner) = topology.owner_index(mutation.slot) else { continue };
                let (items, bytes) = &mut shares[owner];
                *items += 1;
                *bytes += mutation.bytes();
                fits &= *items <= settings.max_batch_items && *bytes <= settings.max_batch_bytes;
            }
            // Records without mutations cost nothing on a shard, but memory here.
            if (!fits || count >= settings.max_batch_items * 8) && count > 0 {
                break;
            }
            count += 1;
        }
        let Some(last) = count.checked_sub(1).and_then(|last| self.queue.get(last)) else { return false };
        let to = last.offset + 1;
        let records: Vec<Change> = self.queue.drain(..count).collect();
        let mut parts = BTreeMap::new();
        for mutation in records.iter().flat_map(|change| change.effect.iter().flatten()) {
            if let Some(shard) = topology.owner(mutation.slot)
                && !parts.contains_key(&shard.node)
            {
                parts.insert(shard.node.clone(), Part::Waiting { upto: None });
            }
        }
        self.window = Some(Window { begun: now, from: self.position, to, records: Arc::new(records), parts });
        true
    }
}

impl Window {
    pub(super) fn weight(&self) -> usize {
        self.records.iter().map(|change| change.weight).sum()
    }

    /// A group of this shard joined with an offset inside the window.
    pub(super) fn join(&mut self, node: &NodeId) {
        match self.parts.get_mut(node) {
            Some(Part::Sent { again }) => *again = true,
            Some(Part::Waiting { .. }) => {}
            None => {
                self.parts.insert(node.clone(), Part::Waiting { upto: None });
            }
        }
    }

    /// The script of this shard ended without effect: it is to be sent again.
    pub(super) fn redo(&mut self, node: &NodeId) {
        if let Some(part) = self.parts.get_mut(node) {
            *part = Part::Waiting { upto: None };
        }
    }
}
