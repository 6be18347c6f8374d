//! Lookups against real servers: values, redirects, outages.

mod support;

use std::time::{Duration, Instant};

use sluice_clients::redis::lookup::{
    BlockingLookup, LookupClient, LookupError, LookupKey, LookupKind, LookupLimits, LookupValue,
};
use sluice_clients::redis::{RedisSettings, RedisTimeouts, Slot};
use sluice_crds::v1alpha1::RedisMode;
use sluice_crds::worker_config::RedisEndpoint;
use support::{Cluster, Server, move_slot, redis_missing, wait_for};

const PATIENCE: Duration = Duration::from_secs(30);

/// A client with much patience: a busy machine is no outage.
fn lookup(mode: RedisMode, addresses: Vec<String>) -> BlockingLookup {
    let timeouts = RedisTimeouts { connect: PATIENCE, response: PATIENCE };
    start(mode, addresses, timeouts, LookupLimits { deadline: PATIENCE, ..LookupLimits::default() })
}

/// A client as workers have it, of one server that answers.
fn usual_lookup(server: &Server) -> BlockingLookup {
    let lookup =
        start(RedisMode::Standalone, vec![server.address()], RedisTimeouts::default(), LookupLimits::default());
    wait_for("lookups work", || lookup.get_batch(&[string("a")]) == [Ok(LookupValue::Missing)]);
    lookup
}

fn start(mode: RedisMode, addresses: Vec<String>, timeouts: RedisTimeouts, limits: LookupLimits) -> BlockingLookup {
    let endpoint = RedisEndpoint { mode, addresses, tls: None, user: None };
    let settings = RedisSettings { timeouts, ..RedisSettings::from_endpoint(&endpoint).expect("good settings") };
    BlockingLookup::start(LookupClient::new(settings, limits).expect("good settings")).expect("a thread")
}

/// Without a deadline a call would take forever, or the deadline once for each key: a few seconds more are the machine's.
fn assert_within_deadline(start: Instant) {
    let limit = LookupLimits::default().deadline + Duration::from_secs(15);
    assert!(start.elapsed() < limit, "took {:?}", start.elapsed());
}

fn string(key: &str) -> LookupKey {
    LookupKey { key: key.into(), kind: LookupKind::String }
}

fn hash(key: &str) -> LookupKey {
    LookupKey { key: key.into(), kind: LookupKind::Hash }
}

#[test]
fn strings_hashes_misses_and_wrong_types_are_values() {
    if redis_missing() {
        return;
    }
    let server = Server::start(&[]);
    server.call(&["SET", "s", "1"]);
    server.call(&["HSET", "h", "a", "1"]);
    let lookup = lookup(RedisMode::Standalone, vec![server.address()]);
    let got = lookup.get_batch(&[string("s"), hash("h"), string("none"), hash("none"), string("h"), hash("s")]);
    let want = [
        LookupValue::String(b"1".to_vec()),
        LookupValue::Hash(vec![(b"a".to_vec(), b"1".to_vec())]),
        LookupValue::Missing,
        LookupValue::Missing,
        LookupValue::WrongType,
        LookupValue::WrongType,
    ];
    assert_eq!(got, want.map(Ok));
}

#[test]
fn batches_follow_slots_in_motion_and_moved_slots() {
    if redis_missing() {
        return;
    }
    let cluster = Cluster::start(2, 0);
    let lookup = lookup(RedisMode::Cluster, cluster.addresses());
    let keys: Vec<LookupKey> = (0..600).map(|number| string(&format!("k:{}", number % 300))).collect();
    let check = || {
        for (key, got) in keys.iter().zip(lookup.get_batch(&keys)) {
            assert_eq!(got, Ok(LookupValue::String(key.key.clone())));
        }
    };
    for key in &keys {
        let text = String::from_utf8(key.key.clone()).expect("text");
        let half = usize::from(Slot::of_key(&key.key).number() >= 8192);
        cluster.masters[half].call(&["SET", &text, &text]);
    }
    check();
    let slot = Slot::of_key(b"k:7").number();
    let (from, to) = if slot < 8192 { (0, 1) } else { (1, 0) };
    move_slot(slot, &cluster.masters[from], &cluster.masters[to], &[], check);
    check();
}

#[test]
fn a_dead_server_is_an_outage_within_the_deadline_and_heals() {
    if redis_missing() {
        return;
    }
    let mut server = Server::start(&[]);
    let lookup = usual_lookup(&server);
    server.kill();
    let start = Instant::now();
    let got = lookup.get_batch(&vec![string("a"); 1000]);
    assert!(got.iter().all(|result| matches!(result, Err(LookupError::Unavailable(_)))), "{:?}", got[0]);
    assert_within_deadline(start);
    server.restart();
    wait_for("lookups work again", || lookup.get_batch(&[string("a")]) == [Ok(LookupValue::Missing)]);
}

#[test]
fn a_frozen_server_costs_no_more_than_the_deadline() {
    if redis_missing() {
        return;
    }
    let server = Server::start(&[]);
    let lookup = usual_lookup(&server);
    server.freeze(true);
    let start = Instant::now();
    let got = lookup.get_batch(&[string("a")]);
    server.freeze(false);
    assert!(matches!(got[..], [Err(LookupError::Unavailable(_))]), "{got:?}");
    assert_within_deadline(start);
}

#[test]
fn a_refused_password_is_not_an_outage() {
    if redis_missing() {
        return;
    }
    let server = Server::start(&["--requirepass", "right"]);
    let lookup = lookup(RedisMode::Standalone, vec![server.address()]);
    let got = lookup.get_batch(&[string("a")]);
    assert!(matches!(got[..], [Err(LookupError::Refused(_))]), "{got:?}");
}
