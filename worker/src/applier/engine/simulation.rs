//! The engine against modelled servers and a modelled log, under random faults from a seed.
//!
//! The model of a server is the script's contract: compare, write what is here, move the record, all at once. The model
//! of the world loses and delays answers, promotes replicas that lag, moves slots key by key, wipes servers, and runs a
//! second engine that believes to own the same partitions (a zombie, or a rebalance that both sides see differently).
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

mod servers;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sluice_clients::redis::Slot;
use sluice_crds::report::TopicId;

use super::PartitionId;
use crate::applier::record::Record;
use servers::Server;
use world::{Faults, World};

/// A partition: key and value, or none for a commit marker.
type Log = Vec<Option<(Vec<u8>, Option<Vec<u8>>)>>;

const PARTITIONS: i32 = 2;
const KEYS: usize = 16;

fn topic_id() -> TopicId {
    TopicId::parse("7Wc2m-Qd_kOZr4hV0nH3xA").expect("an id")
}

fn key(index: usize) -> Vec<u8> {
    format!("k{index}").into_bytes()
}

fn partition_of(key: &[u8]) -> usize {
    usize::from(key[key.len() - 1]) % PARTITIONS as usize
}

impl World {
    fn fold(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut data = BTreeMap::new();
        for (key, value) in self.log.iter().flatten().flatten() {
            match value {
                Some(value) => data.insert(key.clone(), value.clone()),
                None => data.remove(key),
            };
        }
        data
    }

    /// Faults end; the survivors bring everything to the end of the log.
    fn settle(&mut self) {
        self.calm = true;
        for from in 0..self.servers.len() {
            self.servers[from].full = false;
            while !self.servers[from].migrating.is_empty() {
                self.migrate(from);
            }
        }
        for _ in 0..60_000 {
            self.step();
            if self.is_settled() {
                return;
            }
        }
        let behind: Vec<_> =
            self.runners.iter().map(|runner| (runner.engine.slots_behind(), runner.engine.stats().clone())).collect();
        panic!("not settled: {behind:?}, {} wires", self.wires.len());
    }

    fn is_settled(&self) -> bool {
        let heads = self.log.iter().map(Vec::len);
        let at_end = |text: &String, head: usize, server: &Server| {
            let Ok(record) = Record::parse(text) else { return false };
            record.coverage.sets() == [(head as i64, server.slots.clone())]
        };
        self.servers.iter().all(|server| {
            heads.clone().enumerate().all(|(partition, head)| {
                let id = PartitionId { topic: 0, partition: partition as i32 };
                server.state.fields.get(&id).is_some_and(|text| at_end(text, head, server))
            })
        })
    }

    fn check(&self) {
        let fold = self.fold();
        let mut seen = BTreeSet::new();
        for server in &self.servers {
            for (key, (value, _)) in &server.state.data {
                if server.slots.contains(Slot::of_key(key)) {
                    assert_eq!(fold.get(key), Some(value), "key {:?} on {}", String::from_utf8_lossy(key), server.node);
                    seen.insert(key.clone());
                }
            }
        }
        assert_eq!(seen.len(), fold.len(), "keys are missing");
    }
}

fn run(seed: u64, faults: Faults) -> World {
    let mut world = World::new(seed, faults);
    for _ in 0..900 {
        world.step();
    }
    if faults.zombie && seed.is_multiple_of(2) {
        // The zombie dies with scripts on their way; those still run.
        world.runners.pop();
        let left = world.runners.len();
        for sent in &mut world.wires {
            if sent.engine >= left {
                sent.engine = 0;
                sent.orphan = true;
            }
        }
    }
    world.settle();
    world.check();
    world
}

/// Few in CI, as many as `PROPTEST_CASES` says in a campaign.
fn cases(count: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(count), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(8))]

    #[test]
    fn without_faults_every_script_counts(seed in any::<u64>()) {
        let world = run(seed, Faults::default());
        let stats = world.runners[0].engine.stats();
        prop_assert_eq!((stats.refused, stats.replays, stats.rebuilds, stats.repairs), (0, 0, 0, 0));
        // The answer of the last script may still be on its way.
        prop_assert!(world.scripts - stats.batches <= PARTITIONS as u64 * 3);
    }

    #[test]
    fn lost_answers_and_late_scripts_never_take_a_key_back(seed in any::<u64>()) {
        run(seed, Faults { network: true, pressure: true, ..Faults::default() });
    }

    #[test]
    fn two_owners_never_take_a_key_back(seed in any::<u64>()) {
        run(seed, Faults { network: true, zombie: true, pressure: true, ..Faults::default() });
    }

    #[test]
    fn promoted_replicas_are_brought_up(seed in any::<u64>()) {
        run(seed, Faults { network: true, failover: true, zombie: true, wipe: true, pressure: true, ..Faults::default() });
    }

    #[test]
    fn moved_slots_are_brought_up(seed in any::<u64>()) {
        run(seed, Faults { network: true, migration: true, zombie: true, ..Faults::default() });
    }

    #[test]
    fn everything_at_once_converges(seed in any::<u64>()) {
        let all = Faults {
            network: true, zombie: true, failover: true, migration: true, wipe: true, pressure: true, quiet: false };
        run(seed, all);
    }

    #[test]
    fn what_was_lost_in_a_move_is_noticed_without_new_records(seed in any::<u64>()) {
        run(seed, Faults { failover: true, migration: true, quiet: true, ..Faults::default() });
    }
}
