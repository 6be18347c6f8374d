//! Lookups against real servers: values, redirects, outages.

mod support;

use std::time::{Duration, Instant};

use sluice_clients::redis::lookup::{
    BlockingLookup, LookupClient, LookupError, LookupKey, LookupKind, LookupLimits, LookupValue,
};
use sluice_clients::redis::{RedisSettings, Slot};
use sluice_crds::v1alpha1::RedisMode;
use sluice_crds::worker_config::RedisEndpoint;
use support::{Cluster, Server, move_slot, redis_missing, wait_for};

fn lookup(mode: RedisMode, addresses: Vec<String>) -> BlockingLookup {
    let endpoint = RedisEndpoint { mode, addresses, tls: None, user: None };
    let settings = RedisSettings::from_endpoint(&endpoint).expect("good settings");
    BlockingLookup::start(LookupClient::new(settings, LookupLimits::default()).expect("good settings"))
        .expect("a thread")
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
    let lookup = lookup(RedisMode::Standalone, vec![server.address()]);
    assert_eq!(lookup.get_batch(&[string("a")]), [Ok(LookupValue::Missing)]);
    server.kill();
    let start = Instant::now();
    let got = lookup.get_batch(&vec![string("a"); 1000]);
    assert!(got.iter().all(|result| matches!(result, Err(LookupError::Unavailable(_)))), "{:?}", got[0]);
    assert!(start.elapsed() < LookupLimits::default().deadline + Duration::from_millis(500));
    server.restart();
    wait_for("lookups work again", || lookup.get_batch(&[string("a")]) == [Ok(LookupValue::Missing)]);
}

#[test]
fn a_frozen_server_costs_no_more_than_the_deadline() {
    if redis_missing() {
        return;
    }
    let server = Server::start(&[]);
    let lookup = lookup(RedisMode::Standalone, vec![server.address()]);
    assert_eq!(lookup.get_batch(&[string("a")]), [Ok(LookupValue::Missing)]);
    server.freeze(true);
    let start = Instant::now();
    let got = lookup.get_batch(&[string("a")]);
    server.freeze(false);
    assert!(matches!(got[..], [Err(LookupError::Unavailable(_))]), "{got:?}");
    assert!(start.elapsed() < LookupLimits::default().deadline + Duration::from_millis(500));
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
