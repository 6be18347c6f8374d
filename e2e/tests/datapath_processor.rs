//! Exactly once from the source through steps and routes into outputs and dead letters, whatever happens to the workers.

mod datapath;

use std::time::Duration;

use datapath::{OrFail, PARTITIONS, acquit, engines, scenario, seeds, stack, trial};
use sluice_e2e::checker::FaultKind;
use sluice_e2e::datapath::scenario::Scenario;
use sluice_e2e::datapath::{console, kafka, now_ms};
use sluice_e2e::generator::Random;
use sluice_e2e::stack::kafka::{Compiler, KafkaOptions, Security};

/// Longer than a worker's session, so that its partitions are given to others.
const BEYOND_SESSION: Duration = Duration::from_secs(16);
/// What a pod is given to end.
const GRACE: Duration = Duration::from_secs(25);

#[test]
fn every_order_ends_where_it_belongs() {
    let Some(stack) = stack() else { return };
    let scenario = scenario(&stack, "happy");
    let mut trial = trial(&scenario, 1);
    trial.add_worker("w-0").or_fail();
    acquit(trial);
    // Another client in another language sees the same committed records.
    let ours = kafka::dump(scenario.kafka, &scenario.enriched()).or_fail();
    let theirs = console::dump(scenario.kafka, &scenario.enriched(), &ours).or_fail();
    let differs = ours.records.iter().zip(&theirs.records).find(|(one, other)| one != other);
    assert!(differs.is_none(), "{differs:?}");
    assert_eq!(ours.records.len(), theirs.records.len());
}

#[test]
fn workers_are_killed_again_and_again() {
    let Some(stack) = stack() else { return };
    for seed in seeds() {
        let scenario = scenario(&stack, "kill");
        let mut random = Random::new(seed);
        let mut trial = trial(&scenario, seed);
        trial.add_worker("w-0").or_fail();
        trial.add_worker("w-1").or_fail();
        for kill in 1..=4u64 {
            // At any moment of the load: in a batch, in a commit, in a rebalance that the last kill caused.
            trial.wait_sent(kill * 600 + u64::from(random.below(300))).or_fail();
            trial.kill_and_restart(random.below(2) as usize).or_fail();
        }
        acquit(trial);
    }
}

#[test]
fn workers_come_and_go() {
    let Some(stack) = stack() else { return };
    for seed in seeds() {
        let scenario = scenario(&stack, "scale");
        let mut trial = trial(&scenario, seed);
        trial.add_worker("w-0").or_fail();
        trial.wait_sent(700).or_fail();
        trial.spawn("w-1", &[]).or_fail();
        trial.spawn("w-2", &[]).or_fail();
        trial.wait_sent(1_700).or_fail();
        // Scaled down in the middle of the load: each finishes what it has, and exits with 0 in time.
        for index in [2, 1] {
            let status = trial.workers[index].terminate(GRACE).or_fail();
            assert!(status.success(), "{}", trial.workers[index].fault(&format!("ended with {status}")));
        }
        acquit(trial);
    }
}

#[test]
fn a_worker_frozen_past_its_session_does_no_harm() {
    let Some(stack) = stack() else { return };
    for seed in seeds() {
        let scenario = scenario(&stack, "zombie");
        let mut trial = trial(&scenario, seed);
        trial.add_worker("w-0").or_fail();
        trial.add_worker("w-1").or_fail();
        trial.wait_sent(800).or_fail();
        trial.workers[0].freeze().or_fail();
        std::thread::sleep(BEYOND_SESSION);
        // The other one has all partitions now; the frozen one wakes up in the middle of its old batch.
        trial.workers[0].thaw().or_fail();
        acquit(trial);
    }
}

#[test]
fn a_broker_is_killed_and_comes_back() {
    let Some(stack) = stack() else { return };
    for seed in seeds() {
        let options = KafkaOptions {
            name: "dp-broker".into(),
            brokers: 1,
            security: Security::Plaintext,
            heap_mib: 384,
            compiler: Compiler::Quick,
            base_port: 0,
        };
        let kafka = stack.start_kafka(&options).unwrap_or_else(|error| panic!("{error}"));
        let redis = stack.redis().expect("required");
        let scenario = Scenario::create("broker", &kafka, redis, PARTITIONS, engines()).or_fail();
        let mut trial = trial(&scenario, seed);
        trial.add_worker("w-0").or_fail();
        trial.add_worker("w-1").or_fail();
        trial.wait_sent(900).or_fail();
        let broker = kafka.broker(1).expect("it has one");
        let from = now_ms();
        broker.kill9().and_then(|()| broker.start_and_wait()).unwrap_or_else(|error| panic!("{error}"));
        trial.repaired(FaultKind::Other, from);
        // An outage is waited out: no worker ends because of it.
        for worker in &mut trial.workers {
            let ended = worker.exited().or_fail();
            assert!(ended.is_none(), "{}", worker.fault(&format!("ended with {ended:?}")));
        }
        acquit(trial);
    }
}

/// Every step boundary of a transaction; the worker dies there as if by kill -9.
const PLACES: [&str; 3] = ["before-send-offsets", "before-commit", "after-commit"];

#[test]
fn a_worker_dies_at_each_step_of_a_transaction() {
    let Some(stack) = stack() else { return };
    for seed in seeds() {
        let scenario = scenario(&stack, "steps");
        let mut trial = trial(&scenario, seed);
        for (number, place) in PLACES.into_iter().enumerate() {
            let armed = format!("{place}:{}", 2 + seed % 3);
            trial.spawn("w-0", &[("SLUICE_FAILPOINT", &armed)]).or_fail();
            let status = trial.workers[0].wait_exit(Duration::from_secs(120)).or_fail();
            assert!(!status.success(), "{place}: {status}");
            trial.wait_sent((number as u64 + 1) * 500).or_fail();
        }
        trial.add_worker("w-0").or_fail();
        acquit(trial);
    }
}
