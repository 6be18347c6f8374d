//! The world: engines, their messages on the way, the log, and the dice that decide what comes next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use sluice_clients::redis::{Generation, Lost, NodeAddress, NodeId, NotSent, RedisFault, Shard, SlotSet, Topology};

use super::servers::{Server, State};
use super::{KEYS, Log, PARTITIONS, key, partition_of, topic_id};
use crate::applier::engine::{
    Apply, Effect, Engine, EngineSettings, Event, LineId, Now, OpenError, Outcome, PartitionId, Reading, ShardHandle,
    Times,
};
use crate::applier::mutation::{Change, Mutation, Op};

/// Pseudo-random numbers (xorshift): the seed is the whole run.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % sides.max(1)
    }
}

/// Which faults a run has.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "a set of switches")]
pub(super) struct Faults {
    pub(super) network: bool,
    pub(super) zombie: bool,
    pub(super) failover: bool,
    pub(super) migration: bool,
    pub(super) wipe: bool,
    pub(super) pressure: bool,
    /// No records after the beginning: a key that is lost is not written again by chance.
    pub(super) quiet: bool,
}

pub(super) struct Sent {
    pub(super) engine: usize,
    pub(super) apply: Apply,
    /// The sender gave up on it.
    pub(super) orphan: bool,
}

pub(super) struct Runner {
    pub(super) engine: Engine,
    pub(super) readings: BTreeMap<(PartitionId, LineId), (Reading, i64)>,
    /// Answers on their way.
    pub(super) inbox: VecDeque<Event>,
    pub(super) topology_asked: bool,
    pub(super) opens: Vec<(u64, NodeId)>,
}

pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) faults: Faults,
    pub(super) calm: bool,
    pub(super) servers: Vec<Server>,
    pub(super) log: Vec<Log>,
    pub(super) runners: Vec<Runner>,
    pub(super) wires: Vec<Sent>,
    pub(super) now: u64,
    pub(super) names: u32,
    pub(super) eras: u64,
    /// Highest offset ever written for a key, for G4.
    pub(super) newest: BTreeMap<Vec<u8>, i64>,
    pub(super) scripts: u64,
}

pub(super) fn change(offset: usize, (key, value): &(Vec<u8>, Option<Vec<u8>>)) -> Change {
    let op = value.clone().map_or(Op::Delete, |value| Op::Set { value, expire_at_ms: None });
    let effect = Ok(vec![Mutation::new(key.clone(), op)]);
    Change { offset: offset as i64, timestamp_ms: 0, weight: 1, effect }
}

impl World {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        let mut world = Self {
            dice: Dice(seed | 1),
            faults,
            calm: false,
            servers: Vec::new(),
            log: vec![Vec::new(); PARTITIONS as usize],
            runners: Vec::new(),
            wires: Vec::new(),
            now: 1_000,
            names: 0,
            eras: 0,
            newest: BTreeMap::new(),
            scripts: 0,
        };
        for range in [(0, 5_000), (5_001, 11_000), (11_001, 16_383)] {
            let node = world.name();
            let slots = SlotSet::from_ranges([range]).expect("a range");
            let state = State::default();
            world.servers.push(Server {
                node,
                replica: state.clone(),
                state,
                slots,
                migrating: BTreeMap::new(),
                importing: BTreeSet::new(),
                cut_off: BTreeMap::new(),
                full: false,
            });
        }
        world.append(30);
        world.add_runner();
        if faults.zombie {
            world.add_runner();
        }
        world
    }

    pub(super) fn name(&mut self) -> NodeId {
        self.names += 1;
        NodeId::parse(&format!("node{:03}", self.names)).expect("an id")
    }

    pub(super) fn add_runner(&mut self) {
        let settings = EngineSettings {
            epoch: 7,
            topics: vec![topic_id()],
            tombstones_kept_ms: vec![None],
            max_batch_items: 3,
            max_batch_bytes: 10_000,
            times: Times { lazy_advance: 200, grace: 300, ..Times::default() },
        };
        let mut inbox = VecDeque::new();
        inbox
            .push_back(Event::Assigned((0..PARTITIONS).map(|partition| PartitionId { topic: 0, partition }).collect()));
        self.runners.push(Runner {
            engine: Engine::new(settings),
            readings: BTreeMap::new(),
            inbox,
            topology_asked: false,
            opens: Vec::new(),
        });
    }

    pub(super) fn append(&mut self, count: usize) {
        for _ in 0..count {
            let key = key(self.dice.roll(KEYS));
            let log = &mut self.log[partition_of(&key)];
            let value = (self.dice.roll(5) > 0).then(|| format!("v{}", log.len()).into_bytes());
            log.push(Some((key, value)));
            if self.dice.roll(6) == 0 {
                // A commit marker: an offset without a record, at the end of the log too.
                log.push(None);
            }
        }
    }

    pub(super) fn topology(&self) -> Arc<Topology> {
        let shard = |server: &Server| Shard {
            node: server.node.clone(),
            address: NodeAddress::new(server.node.as_str(), 1),
            slots: server.slots.clone(),
        };
        Arc::new(Topology::new(self.servers.iter().map(shard).collect(), Vec::new()))
    }

    /// One random step.
    pub(super) fn step(&mut self) {
        self.now += 20;
        let runner = self.dice.roll(self.runners.len());
        match self.dice.roll(12) {
            0 | 1 => self.deliver(runner),
            2 => self.fetch(runner),
            3 => self.answer_opens(runner),
            4 => self.answer_topology(runner),
            6..=8 => self.run_script(),
            9 if !self.calm && !self.faults.quiet => self.append(1),
            10 | 11 if !self.calm => self.fault(),
            _ => self.feed(runner, Event::Tick),
        }
    }

    pub(super) fn deliver(&mut self, runner: usize) {
        if let Some(event) = self.runners[runner].inbox.pop_front() {
            self.feed(runner, event);
        }
    }

    pub(super) fn feed(&mut self, runner: usize, event: Event) {
        let now = Now { millis: self.now, wall_ms: 1_700_000_000_000 + self.now };
        for effect in self.runners[runner].engine.handle(now, event) {
            let this = &mut self.runners[runner];
            match effect {
                Effect::AskTopics { request } => {
                    this.inbox.push_back(Event::Topics { request, found: vec![Some(topic_id())] });
                }
                Effect::RefreshTopology => this.topology_asked = true,
                Effect::OpenShard { request, node } => this.opens.push((request, node)),
                Effect::Read { reading, offset } => {
                    this.readings.insert((reading.partition, reading.line), (reading, offset));
                }
                Effect::StopReading { partition, line } => {
                    this.readings.remove(&(partition, line));
                }
                Effect::Apply(apply) => self.wires.push(Sent { engine: runner, apply, orphan: false }),
                Effect::Stop(reason) => panic!("stopped: {reason}"),
                Effect::Commit(_) | Effect::Released { .. } => {}
            }
        }
    }

    pub(super) fn fetch(&mut self, runner: usize) {
        let readings: Vec<_> = self.runners[runner].readings.keys().copied().collect();
        if readings.is_empty() {
            return;
        }
        let at = readings[self.dice.roll(readings.len())];
        let (reading, offset) = self.runners[runner].readings[&at];
        let log = &self.log[at.0.partition as usize];
        let upto = (offset as usize + 1 + self.dice.roll(5)).min(log.len());
        let changes: Vec<Change> =
            (offset as usize..upto).filter_map(|at| log[at].as_ref().map(|entry| change(at, entry))).collect();
        let end = upto == log.len();
        if let Some((_, position)) = self.runners[runner].readings.get_mut(&at) {
            *position = upto as i64;
        }
        if !changes.is_empty() {
            self.feed(runner, Event::Fetched { reading, changes });
        }
        if end {
            self.feed(runner, Event::End { reading, offset: upto as i64 });
        }
    }

    pub(super) fn answer_topology(&mut self, runner: usize) {
        if std::mem::take(&mut self.runners[runner].topology_asked) {
            let topology = self.topology();
            self.runners[runner].inbox.push_back(Event::Topology(topology));
        }
    }

    pub(super) fn answer_opens(&mut self, runner: usize) {
        if self.runners[runner].opens.is_empty() {
            return;
        }
        let at = self.dice.roll(self.runners[runner].opens.len());
        let (request, node) = self.runners[runner].opens.swap_remove(at);
        let lost = self.faults.network && !self.calm && self.dice.roll(8) == 0;
        let event = match self.servers.iter_mut().find(|server| server.node == node) {
            Some(server) if !lost => {
                if server.state.header.is_empty() {
                    self.eras += 1;
                    server.state.header = format!("1 {} abc", self.eras);
                }
                let handle = ShardHandle {
                    address: NodeAddress::new(node.as_str(), 1),
                    node,
                    generation: Generation::new(1),
                    key: "hash".to_owned(),
                    header: server.state.header.clone(),
                };
                let fields = server.state.fields.iter().map(|(id, text)| (*id, text.clone())).collect();
                Event::ShardOpened { request, handle: Arc::new(handle), fields }
            }
            _ => {
                let error = OpenError::Fault(RedisFault::NotSent(NotSent::BackingOff));
                Event::ShardFailed { request, node, error }
            }
        };
        self.runners[runner].inbox.push_back(event);
    }

    /// A script on its way runs, or its sender hears that nobody knows, or both.
    pub(super) fn run_script(&mut self) {
        if self.wires.is_empty() {
            return;
        }
        let at = self.dice.roll(self.wires.len());
        let rough = self.faults.network && !self.calm;
        if rough && !self.wires[at].orphan && self.dice.roll(12) == 0 {
            // The sender times out; the script may still run, much later.
            self.wires[at].orphan = true;
            let (engine, ticket) = (self.wires[at].engine, self.wires[at].apply.ticket);
            let outcome = Outcome::Fault(RedisFault::UnknownOutcome(Lost::TimedOut));
            self.runners[engine].inbox.push_back(Event::Script { ticket, outcome });
            return;
        }
        let sent = self.wires.swap_remove(at);
        if rough && sent.orphan && self.dice.roll(3) == 0 {
            return;
        }
        let outcome = self.apply(&sent.apply);
        let outcome = if rough && self.dice.roll(15) == 0 {
            Outcome::Fault(RedisFault::UnknownOutcome(Lost::Disconnected))
        } else {
            outcome
        };
        if !sent.orphan {
            self.runners[sent.engine].inbox.push_back(Event::Script { ticket: sent.apply.ticket, outcome });
        }
    }
}
