//! The servers: the script's contract, and what happens to servers.

use std::collections::{BTreeMap, BTreeSet};

use sluice_clients::redis::{NodeId, NotSent, RedisFault, Slot, SlotSet};

use super::world::World;
use super::{KEYS, Log, key, partition_of};
use crate::applier::engine::{Apply, Outcome, PartitionId};
use crate::applier::mutation::Op;
use crate::applier::record::Record;

#[derive(Clone, Default)]
pub(super) struct State {
    /// Value and the offset it came from.
    pub(super) data: BTreeMap<Vec<u8>, (Vec<u8>, i64)>,
    pub(super) header: String,
    pub(super) fields: BTreeMap<PartitionId, String>,
}

pub(super) struct Server {
    pub(super) node: NodeId,
    pub(super) state: State,
    /// What the replica has; lags until it is synced.
    pub(super) replica: State,
    pub(super) slots: SlotSet,
    pub(super) migrating: BTreeMap<u16, usize>,
    pub(super) importing: BTreeSet<u16>,
    /// Moves that a failover cut off since the replica was last synced: what was noted of them is not on the replica.
    pub(super) cut_off: BTreeMap<u16, usize>,
    pub(super) full: bool,
}

impl World {
    /// The script's contract.
    pub(super) fn apply(&mut self, apply: &Apply) -> Outcome {
        let monotone = !(self.faults.failover || self.faults.migration || self.faults.wipe);
        let Some(server) = self.servers.iter_mut().find(|server| server.node == apply.handle.node) else {
            return Outcome::Fault(RedisFault::NotSent(NotSent::Replaced));
        };
        if server.full {
            return Outcome::Fault(RedisFault::OutOfMemory);
        }
        let state = &mut server.state;
        if state.header != apply.handle.header
            || state.fields.get(&apply.partition).map_or("", String::as_str) != apply.expected
        {
            return Outcome::Refused;
        }
        self.scripts += 1;
        let mut behind: Vec<Slot> = Vec::new();
        for (index, mutation) in apply.batch.iter().enumerate() {
            let offset = apply.batch.offset(index).expect("its place");
            let gone =
                server.migrating.contains_key(&mutation.slot.number()) && !state.data.contains_key(&mutation.key);
            if (!server.slots.contains(mutation.slot) || gone) && !behind.contains(&mutation.slot) {
                behind.push(mutation.slot);
            }
            if behind.contains(&mutation.slot) {
                continue;
            }
            let newest = self.newest.entry(mutation.key.clone()).or_insert(-1);
            assert!(!monotone || *newest <= offset, "{:?} goes back from {newest} to {offset}", mutation.key);
            *newest = (*newest).max(offset);
            match &mutation.op {
                Op::Set { value, .. } => {
                    state.data.insert(mutation.key.clone(), (value.clone(), offset));
                }
                _ => {
                    state.data.remove(&mutation.key);
                }
            }
        }
        let mut text = apply.next.clone();
        if !behind.is_empty() {
            let list: Vec<String> = behind.iter().map(Slot::to_string).collect();
            text = format!("{text} !{}:{}", apply.from, list.join(","));
        }
        state.fields.insert(apply.partition, text.clone());
        if !self.faults.migration {
            check_record(state, &self.log, apply.partition, &text);
        }
        let text = (!behind.is_empty()).then_some(text);
        Outcome::Applied { behind, text }
    }

    pub(super) fn fault(&mut self) {
        let at = self.dice.roll(self.servers.len());
        match self.dice.roll(8) {
            0 | 1 if self.faults.failover && self.moves_are_whole(at) => self.fail_over(at),
            2 if self.faults.wipe => self.servers[at].state = State::default(),
            3 | 4 if self.faults.migration => self.migrate(at),
            5 if self.faults.pressure => self.servers[at].full ^= true,
            _ => {
                self.servers[at].replica = self.servers[at].state.clone();
                self.servers[at].cut_off.clear();
            }
        }
    }

    /// Whether the targets of this server's moves still know of them. A failover of target and source within one move (also
    /// when the source has failed over before, and its next replica knows as little of it), or a move given up after its
    /// target lost keys, leaves nothing to notice it by: that is for people to repair.
    fn moves_are_whole(&self, at: usize) -> bool {
        let server = &self.servers[at];
        let mut moves = server.migrating.iter().chain(&server.cut_off);
        moves.all(|(slot, to)| self.servers[*to].importing.contains(slot))
    }

    /// The replica has a prefix, and the hash under the old name, which is adopted with a new header. It knows nothing of a
    /// move that its master had begun: the keys moved so far stay with the target, which goes on importing.
    fn fail_over(&mut self, at: usize) {
        self.eras += 1;
        let (node, era) = (self.name(), self.eras);
        let others = self.servers.iter().enumerate().filter(|(other, _)| *other != at);
        let imported: BTreeSet<u16> = others.flat_map(|(_, server)| server.importing.iter().copied()).collect();
        let server = &mut self.servers[at];
        server.node = node;
        server.state = server.replica.clone();
        server.cut_off.append(&mut server.migrating);
        server.importing.clear();
        if !server.state.header.is_empty() {
            server.state.header = format!("1 {era} abc");
        }
        let moved_away: SlotSet = imported.into_iter().filter_map(Slot::new).collect();
        for text in server.state.fields.values_mut() {
            if let Some(record) = Record::parse(text).expect("readable").without(&moved_away) {
                *text = record.text();
            }
        }
    }

    /// Begins to move a slot, moves one of its keys, or ends the move.
    pub(super) fn migrate(&mut self, from: usize) {
        let to = (from + 1) % self.servers.len();
        let used: Vec<u16> = (0..KEYS).map(|index| Slot::of_key(&key(index)).number()).collect();
        let moving = self.servers[from].migrating.first_key_value().map(|(slot, to)| (*slot, *to));
        let Some((slot, to)) = moving else {
            let slot = used[self.dice.roll(used.len())];
            if self.servers[from].slots.contains(Slot::new(slot).expect("a slot")) {
                self.servers[from].migrating.insert(slot, to);
                self.servers[to].importing.insert(slot);
            }
            return;
        };
        let in_slot = |key: &Vec<u8>| Slot::of_key(key).number() == slot;
        if !self.calm && self.dice.roll(6) == 0 && self.moves_are_whole(from) {
            // The move is given up: what was moved comes back.
            let back: Vec<_> = self.servers[to].state.data.keys().filter(|key| in_slot(key)).cloned().collect();
            for key in back {
                let value = self.servers[to].state.data.remove(&key).expect("there");
                self.servers[from].state.data.insert(key, value);
            }
            self.servers[from].migrating.remove(&slot);
            self.servers[to].importing.remove(&slot);
            return;
        }
        let next = self.servers[from].state.data.keys().find(|key| in_slot(key)).cloned();
        if let Some(key) = next {
            let value = self.servers[from].state.data.remove(&key).expect("there");
            self.servers[to].state.data.insert(key, value);
        } else {
            self.servers[to].importing.remove(&slot);
            let one: SlotSet = Slot::new(slot).into_iter().collect();
            self.servers[from].migrating.remove(&slot);
            self.servers[from].slots = self.servers[from].slots.difference(&one);
            self.servers[to].slots = self.servers[to].slots.union(&one);
        }
    }
}

/// What a record claims is what is there: the data of the named slots is the fold of the log up to the offset.
pub(super) fn check_record(state: &State, log: &[Log], id: PartitionId, text: &str) {
    let record = Record::parse(text).expect("readable");
    for (offset, slots) in record.coverage.sets() {
        let mut fold: BTreeMap<&Vec<u8>, &Vec<u8>> = BTreeMap::new();
        for (key, value) in log[id.partition as usize].iter().take(*offset as usize).flatten() {
            match value {
                Some(value) => fold.insert(key, value),
                None => fold.remove(key),
            };
        }
        for index in 0..KEYS {
            let key = key(index);
            if partition_of(&key) == id.partition as usize && slots.contains(Slot::of_key(&key)) {
                let there = state.data.get(&key).map(|(value, _)| value);
                assert_eq!(there, fold.get(&key).copied(), "{text}: key {:?}", String::from_utf8_lossy(&key));
            }
        }
    }
}
