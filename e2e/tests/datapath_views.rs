//! Redis equals the committed topic, whatever happens to the servers: lost writes, moved slots, lost data.

mod datapath;

use std::time::Duration;

use datapath::{OrFail, PARTITIONS, seeds, stack};
use sluice_e2e::checker::{FaultKind, ShardSnapshot, slot_of};
use sluice_e2e::datapath::resp::Reply;
use sluice_e2e::datapath::scenario::{Engines, Scenario};
use sluice_e2e::datapath::trial::Trial;
use sluice_e2e::datapath::{now_ms, wait_for};
use sluice_e2e::generator::{Mix, Profile};
use sluice_e2e::stack::redis::{Mode, RedisOptions};
use sluice_e2e::stack::{OwnedRedis, Stack};

/// Orders that every view can read; deletes among them.
const MIX: Mix = Mix { broken_json: 0, ..Mix::MIXED };

/// A Redis Cluster of the test's own: what happens to it disturbs nobody.
fn own_redis(stack: &Stack, name: &str) -> OwnedRedis {
    let options = RedisOptions {
        name: name.into(),
        mode: Mode::Cluster,
        tls: false,
        persistent: true,
        base_port: 0,
        settings: vec!["cluster-require-full-coverage no".into()],
    };
    stack.start_redis(&options).unwrap_or_else(|error| panic!("{error}"))
}

/// A trial of a cache sync under load, with one worker at work.
fn sync<'a>(scenario: &'a Scenario<'a>, seed: u64) -> Trial<'a> {
    let profile = Profile { mix: MIX, ..Profile::mixed(seed, PARTITIONS) };
    let mut trial = Trial::start(scenario, profile, datapath::ORDERS, datapath::RATE).or_fail();
    trial.add_worker("w-0").or_fail();
    trial
}

/// Sum of all watermarks of one server.
fn progress(snapshots: &[ShardSnapshot], address: &str) -> i64 {
    let of = |snapshot: &&ShardSnapshot| snapshot.shard == address;
    snapshots.iter().filter(of).flat_map(|snapshot| snapshot.marks.values().map(|mark| mark.offset)).sum()
}

#[test]
fn a_cache_follows_its_topic() {
    let Some(stack) = stack() else { return };
    let (kafka, redis) = (stack.kafka().expect("required"), stack.redis().expect("required"));
    let scenario = Scenario::create("sync", kafka, redis, PARTITIONS, Engines::Applier).or_fail();
    let mut trial = sync(&scenario, 1);
    trial.wait_applied(500).or_fail();
    trial.kill_and_restart(0).or_fail();
    let report = acquit_views(trial);
    assert!(report > 1_000, "only {report} keys were proven by watermarks");
}

/// As [`acquit`], for a trial without a pipeline; hands back how many keys the watermarks proved.
fn acquit_views(trial: Trial<'_>) -> u64 {
    let report = trial.verdict().or_fail();
    assert!(report.is_clean(), "{report}");
    assert!(report.checked("samples with a value") > 300, "too little was read: {report}");
    println!("{report}");
    report.checked("keys proven by a watermark")
}

#[test]
fn an_applier_that_wakes_up_with_old_batches_is_refused() {
    let Some(stack) = stack() else { return };
    for seed in seeds() {
        let (kafka, redis) = (stack.kafka().expect("required"), stack.redis().expect("required"));
        let scenario = Scenario::create("asleep", kafka, redis, PARTITIONS, Engines::Applier).or_fail();
        let profile = Profile { mix: MIX, ..Profile::mixed(seed, PARTITIONS) };
        // Everything is there at once, so that the worker is frozen with batches in its hands.
        let mut trial = Trial::start(&scenario, profile, 30_000, 0).or_fail();
        trial.wait_sent(30_000).or_fail();
        trial.spawn("w-0", &[]).or_fail();
        trial.wait_applied(1_000).or_fail();
        trial.workers[0].freeze().or_fail();
        trial.add_worker("w-1").or_fail();
        // The other one applies everything meanwhile; what the first wakes up with is old by then.
        trial.wait_repaired(FaultKind::Other, now_ms()).or_fail();
        trial.workers[0].thaw().or_fail();
        acquit_views(trial);
    }
}

#[test]
fn a_promoted_replica_that_lost_writes_is_repaired() {
    let Some(stack) = stack() else { return };
    for seed in seeds() {
        let redis = own_redis(&stack, "dp-promote");
        let scenario =
            Scenario::create("promote", stack.kafka().expect("required"), &redis, PARTITIONS, Engines::Applier)
                .or_fail();
        let mut trial = sync(&scenario, seed);
        trial.wait_applied(500).or_fail();
        // Node 4 replicates node 1. While it is frozen, what node 1 acknowledges gets no further than a socket's buffer.
        let (master, replica) = (redis.node(1).expect("there"), redis.node(4).expect("there"));
        let mut promoted = scenario.reader.connect(&redis.addresses()[3]).or_fail();
        replica.freeze().expect("frozen");
        trial.wait_applied(1_800).or_fail();
        // The worker stands still meanwhile, so that the loss can be seen before it is repaired.
        trial.workers[0].freeze().or_fail();
        let before = progress(&trial.snapshots().or_fail(), &redis.addresses()[0]);
        let from = now_ms();
        master.kill9().expect("killed");
        // The order to take over lies ready when the replica wakes up, beside the writes it has not read.
        promoted.send(&[b"CLUSTER", b"FAILOVER", b"TAKEOVER"]).or_fail();
        replica.thaw().expect("thawed");
        promoted.receive().or_fail();
        let after = wait_for("the others know the new master", Duration::from_secs(90), || {
            let snapshots = trial.snapshots().unwrap_or_default();
            let known = snapshots.iter().any(|snapshot| snapshot.shard == redis.addresses()[3]);
            Ok(known.then(|| progress(&snapshots, &redis.addresses()[3])))
        })
        .or_fail();
        assert!(after < before, "nothing was lost ({before} before, {after} after): this proves nothing");
        trial.workers[0].thaw().or_fail();
        trial.wait_repaired(FaultKind::RedisLoss, from).or_fail();
        // The old master comes back with its newer data and must follow.
        master.start_and_wait().expect("started");
        acquit_views(trial);
    }
}

#[test]
fn a_flushed_shard_is_filled_again() {
    let Some(stack) = stack() else { return };
    for seed in seeds() {
        let redis = own_redis(&stack, "dp-flush");
        let scenario =
            Scenario::create("flush", stack.kafka().expect("required"), &redis, PARTITIONS, Engines::Applier).or_fail();
        let mut trial = sync(&scenario, seed);
        trial.wait_applied(1_000).or_fail();
        let from = now_ms();
        redis.cli(2, &["FLUSHALL"]).expect("flushed");
        trial.wait_repaired(FaultKind::RedisLoss, from).or_fail();
        acquit_views(trial);
    }
}

#[test]
fn slots_move_under_load() {
    let Some(stack) = stack() else { return };
    for seed in seeds() {
        let redis = own_redis(&stack, "dp-move");
        let scenario =
            Scenario::create("move", stack.kafka().expect("required"), &redis, PARTITIONS, Engines::Applier).or_fail();
        let mut trial = sync(&scenario, seed);
        trial.wait_applied(500).or_fail();
        // Slots with keys of the view, and the lowest slots of node 1, where its records live.
        let views = scenario.views();
        let keys = (0..400).map(|number| views[0].redis_key(&sluice_e2e::generator::order_key(number)));
        let mut slots: Vec<u16> = keys.map(|key| slot_of(&key)).filter(|slot| *slot <= 5_460).take(40).collect();
        slots.extend([0, 1]);
        slots.sort_unstable();
        slots.dedup();
        let from = now_ms();
        move_slots(&scenario, &redis, &slots);
        trial.wait_repaired(FaultKind::SlotMove, from).or_fail();
        let moved = redis.master_of(slots[5], 3).expect("owned");
        assert_eq!(moved, 2);
        acquit_views(trial);
    }
}

/// Moves slots from node 1 to node 2 as `redis-cli --cluster reshard` does, key by key, while clients go on.
fn move_slots(scenario: &Scenario<'_>, redis: &OwnedRedis, slots: &[u16]) {
    use secrecy::ExposeSecret;
    let id = |node: usize| redis.cli(node, &["CLUSTER", "MYID"]).expect("an id").trim().to_owned();
    let (source, target) = (id(1), id(2));
    let (host, port) = redis.addresses()[1].split_once(':').expect("host:port");
    let mut from = scenario.reader.connect(&redis.addresses()[0]).or_fail();
    for slot in slots {
        let number = slot.to_string();
        redis.cli(2, &["CLUSTER", "SETSLOT", &number, "IMPORTING", &source]).expect("importing");
        redis.cli(1, &["CLUSTER", "SETSLOT", &number, "MIGRATING", &target]).expect("migrating");
        loop {
            let keys = from.command(&[b"CLUSTER", b"GETKEYSINSLOT", number.as_bytes(), b"50"]).or_fail();
            let keys: Vec<Vec<u8>> = keys.array().unwrap_or_default().into_iter().filter_map(Reply::bytes).collect();
            if keys.is_empty() {
                break;
            }
            let (user, password) = (redis.username(), redis.password().expose_secret());
            let mut words: Vec<&[u8]> = vec![b"MIGRATE", host.as_bytes(), port.as_bytes(), b"", b"0", b"15000"];
            words.extend([b"REPLACE".as_slice(), b"AUTH2", user.as_bytes(), password.as_bytes(), b"KEYS"]);
            words.extend(keys.iter().map(Vec::as_slice));
            from.command(&words).or_fail();
        }
        // The target first, so that the slot is never without an owner.
        for node in [2, 1, 3] {
            redis.cli(node, &["CLUSTER", "SETSLOT", &number, "NODE", &target]).expect("assigned");
        }
    }
}
