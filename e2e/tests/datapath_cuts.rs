//! A worker that the network cuts off, from all of Kafka, from one broker, from Redis, for longer than its session and its
//! transactions live; the others on the machine go on. When the network is back nothing is doubled and nothing is missing.

mod datapath;

use std::time::Duration;

use datapath::{ORDERS, OrFail, acquit, scenario, seeds, stack, trial};
use sluice_e2e::checker::FaultKind;
use sluice_e2e::datapath::trial::Trial;
use sluice_e2e::datapath::{now_ms, wait_for};
use sluice_e2e::stack::Stack;
use sluice_e2e::stack::island::Island;

/// Longer than a worker's session (12 s) and its transactions (8 s).
const BEYOND_SESSION: Duration = Duration::from_secs(16);
/// Partitions of the source.
const ALL: u64 = datapath::PARTITIONS as u64;
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

fn island() -> Island {
    Island::new().unwrap_or_else(|error| panic!("{error}"))
}

/// The ports of these `host:port`.
fn ports<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Vec<u16> {
    let port = |address: &str| address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    addresses.into_iter().map(|address| port(address).unwrap_or_else(|| panic!("{address} has no port"))).collect()
}

fn brokers(stack: &Stack) -> Vec<u16> {
    ports(stack.kafka().expect("required").bootstrap().split(','))
}

/// Partitions that a worker has.
fn partitions(trial: &Trial<'_>, index: usize) -> u64 {
    trial.workers[index].metric("sluice_processor_partitions").unwrap_or(0)
}

/// Waits until a worker has partitions again.
fn wait_back(trial: &Trial<'_>, index: usize) {
    let back = || Ok((partitions(trial, index) > 0).then_some(()));
    wait_for(&format!("{} has partitions", trial.workers[index].pod()), PATIENCE, back).or_fail();
}

/// Whether every order that was sent is done.
fn is_done(trial: &Trial<'_>) -> bool {
    trial.committed().or_fail() >= i64::try_from(ORDERS).expect("few")
}

#[test]
fn a_worker_without_kafka_is_replaced_and_does_no_harm_when_it_is_back() {
    let Some(stack) = stack() else { return };
    for seed in seeds() {
        let (scenario, island) = (scenario(&stack, "cut-kafka"), island());
        let mut trial = trial(&scenario, seed);
        trial.add_worker_on(&island, "w-0").or_fail();
        trial.wait_sent(700).or_fail();
        let (from, cut) = (now_ms(), island.cut(&brokers(&stack)).expect("cut"));
        // Ready when the first one's session is over: it has all partitions then.
        trial.add_worker("w-1").or_fail();
        trial.wait_committed(i64::try_from(ORDERS).expect("few")).or_fail();
        assert_eq!(partitions(&trial, 1), ALL, "the other one is still there");
        // The first one wakes up with an open transaction, a batch and an old membership.
        drop(cut);
        trial.repaired(FaultKind::Other, from);
        wait_back(&trial, 0);
        acquit(trial);
    }
}

#[test]
fn a_worker_without_one_broker_waits_or_hands_over() {
    let Some(stack) = stack() else { return };
    for seed in seeds() {
        let (scenario, island) = (scenario(&stack, "cut-broker"), island());
        let mut trial = trial(&scenario, seed);
        trial.add_worker_on(&island, "w-0").or_fail();
        trial.add_worker("w-1").or_fail();
        trial.wait_sent(700).or_fail();
        let all = brokers(&stack);
        let one = all[usize::try_from(seed).expect("few") % all.len()];
        let (from, cut) = (now_ms(), island.cut(&[one]).expect("cut"));
        std::thread::sleep(BEYOND_SESSION);
        // What the broker leads stands still, or its worker is out of the group because the broker coordinates it.
        assert!(!is_done(&trial) || partitions(&trial, 1) == ALL, "the cut cut nothing");
        drop(cut);
        trial.repaired(FaultKind::Other, from);
        wait_back(&trial, 0);
        acquit(trial);
    }
}

#[test]
fn a_worker_without_redis_holds_its_partitions_and_goes_on() {
    let Some(stack) = stack() else { return };
    let redis = ports(stack.redis().expect("required").addresses().iter().map(String::as_str));
    for seed in seeds() {
        let (scenario, island) = (scenario(&stack, "cut-redis"), island());
        let mut trial = trial(&scenario, seed);
        trial.add_worker_on(&island, "w-0").or_fail();
        trial.wait_sent(700).or_fail();
        let (from, cut) = (now_ms(), island.cut(&redis).expect("cut"));
        std::thread::sleep(BEYOND_SESSION);
        // It waits: it neither leaves its group nor starts over again and again, and Kubernetes has no reason to kill it.
        let worker = &mut trial.workers[0];
        assert!(worker.exited().or_fail().is_none(), "{}", worker.fault("ended"));
        assert_eq!(worker.get("/livez").map(|(status, _)| status), Some(200), "{}", worker.fault("is not alive"));
        assert_eq!(partitions(&trial, 0), ALL);
        assert!(!is_done(&trial), "the cut cut nothing");
        drop(cut);
        trial.repaired(FaultKind::Other, from);
        acquit(trial);
    }
}
