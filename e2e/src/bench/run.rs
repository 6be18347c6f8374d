//! One table's measurements.

use std::time::{Duration, Instant};

use super::floors::{self, Floors};
use super::latency::{Latency, LatencyObserver};
use crate::checker::{Folded, check_caught_up};
use crate::datapath::loader::Loader;
use crate::datapath::scenario::{Engines, Scenario};
use crate::datapath::{HarnessError, kafka, marks, wait_for};
use crate::generator::{Generator, Mix, Profile};
use crate::stack::{Kafka, Redis};
use crate::worker_process::{Usage, WorkerProcess, WorkerSpec, usage_of};

/// How long one measurement may take.
const LIMIT: Duration = Duration::from_secs(600);
/// Partitions of every topic.
const PARTITIONS: u32 = 4;

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Orders of the run at full speed.
    pub events: usize,
    /// Size of an order's value in bytes.
    pub value_bytes: usize,
    /// Orders a second of the run that measures latency.
    pub steady_rate: u32,
    /// How long that run lasts.
    pub steady_seconds: u32,
}

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    /// Brokers.
    pub brokers: usize,
    /// Orders of the run at full speed.
    pub events: u64,
    /// Source records committed a second, from the first commit that was seen to the last.
    pub commit_rate: f64,
    /// The same until Redis held all of them.
    pub view_rate: f64,
    /// Processor time of the worker for each event, in microseconds.
    pub worker_us: f64,
    /// The same of all brokers together.
    pub broker_us: f64,
    /// The same of all Redis servers together.
    pub redis_us: f64,
    /// The worker's processor time for each event by groups of threads, in microseconds, most first.
    pub threads: Vec<(String, f64)>,
    /// Largest resident memory of the worker, in bytes.
    pub peak_bytes: u64,
    /// Rate of the run that measures latency.
    pub steady_rate: u32,
    /// Record timestamp → output visible to a `read_committed` reader.
    pub to_commit: Latency,
    /// Record timestamp → in Redis.
    pub to_redis: Latency,
    /// The parts alone.
    pub floors: Floors,
}

/// Measures S1 on this Kafka and Redis.
pub fn measure(kafka: &Kafka, redis: &Redis, plan: &Plan) -> Result<Measured, HarnessError> {
    let mut measured = full_speed(kafka, redis, plan)?;
    let (to_commit, to_redis) = steady(kafka, redis, plan)?;
    measured.steady_rate = plan.steady_rate;
    measured.to_commit = to_commit;
    measured.to_redis = to_redis;
    Ok(measured)
}

fn profile(plan: &Plan, seed: u64) -> Profile {
    // Twenty writes of each key on average: neither all new nor all the same.
    let orders = u32::try_from(plan.events / 20).unwrap_or(u32::MAX);
    Profile {
        seed,
        partitions: PARTITIONS,
        orders,
        customers: 10_000,
        skus: 1_000,
        value_bytes: plan.value_bytes,
        mix: Mix::CLEAN,
    }
}

/// Processor time of all processes of a kind, in microseconds.
pub fn cpu_us(pids: &[i32]) -> u64 {
    pids.iter().filter_map(|pid| usage_of(*pid)).map(|usage| usage.cpu_us).sum()
}

/// Processes of parts of the stack that run.
pub fn pids(parts: impl Iterator<Item = crate::stack::Part>) -> Vec<i32> {
    parts.filter_map(|part| part.process()).map(crate::stack::process::ProcessId::pid).collect()
}

fn start(scenario: &Scenario<'_>, pod: &str) -> Result<WorkerProcess, HarnessError> {
    let config = scenario.projection_config()?;
    let mut worker = WorkerProcess::start(&WorkerSpec {
        pod,
        config: &config,
        folder: scenario.folder(),
        env: &[("SLUICE_LOG", "warn")],
        island: None,
    })?;
    worker.wait_ready(Duration::from_secs(60))?;
    Ok(worker)
}

/// How the group's offsets advanced. A worker's start and the group's first rebalance are not throughput, so time counts
/// from the first commit that was seen, and so do records.
#[derive(Debug)]
struct Progress {
    began: Instant,
    first: i64,
    ended: Instant,
}

impl Progress {
    fn follow(kafka: &Kafka, scenario: &Scenario<'_>, events: usize) -> Result<Self, HarnessError> {
        // Without waiting for open transactions: there always is one.
        let reader = kafka::grouped(kafka, &scenario.processor_group(), "uncommitted")?;
        let (source, total) = (scenario.source(), i64::try_from(events).unwrap_or(i64::MAX));
        let mut began = None;
        wait_for("all outputs are committed", LIMIT, || {
            let done: i64 = kafka::committed_by(&reader, &source)?.values().sum();
            let now = Instant::now();
            if done > 0 {
                began.get_or_insert((now, done));
            }
            let (began, first) = began.unwrap_or((now, 0));
            Ok((done >= total).then_some(Self { began, first, ended: now }))
        })
    }

    fn rate(&self, events: usize, until: Instant) -> f64 {
        (events as f64 - self.first as f64) / until.duration_since(self.began).as_secs_f64()
    }
}

fn full_speed(kafka: &Kafka, redis: &Redis, plan: &Plan) -> Result<Measured, HarnessError> {
    let scenario = Scenario::create("bench", kafka, redis, PARTITIONS, Engines::Both)?;
    let orders = Generator::new(profile(plan, 1)).take(plan.events);
    Loader::start(kafka, &scenario.source(), orders, 0)?.finish()?;
    let floors = floors::measure(kafka, &scenario, plan)?;
    let brokers = pids((1..=kafka.broker_count()).filter_map(|id| kafka.broker(id).ok()));
    let servers = pids((1..=redis.addresses().len()).filter_map(|number| redis.node(number).ok()));
    let before = (cpu_us(&brokers), cpu_us(&servers));
    let worker = start(&scenario, "bench-0")?;
    let progress = Progress::follow(kafka, &scenario, plan.events)?;
    let ends = kafka::dump_ends(kafka, &scenario.view_topic())?;
    let folded = Folded { ends, ..Folded::default() };
    wait_for("Redis holds all of them", LIMIT, || {
        // Only the records: reading all keys would be a load of its own.
        let snapshots = scenario.reader.snapshots("[]", &scenario.record_pattern(), marks::read)?;
        Ok(check_caught_up(&folded, &snapshots).is_clean().then_some(()))
    })?;
    let view_rate = progress.rate(plan.events, Instant::now());
    let used: Usage = worker.usage();
    let each = |us: u64| us as f64 / plan.events as f64;
    Ok(Measured {
        brokers: kafka.broker_count(),
        events: plan.events as u64,
        commit_rate: progress.rate(plan.events, progress.ended),
        view_rate,
        worker_us: each(used.cpu_us),
        broker_us: each(cpu_us(&brokers) - before.0),
        redis_us: each(cpu_us(&servers) - before.1),
        threads: worker.threads().into_iter().map(|(name, us)| (name, each(us))).collect(),
        peak_bytes: used.peak_bytes,
        floors,
        ..Measured::default()
    })
}

fn steady(kafka: &Kafka, redis: &Redis, plan: &Plan) -> Result<(Latency, Latency), HarnessError> {
    let scenario = Scenario::create("steady", kafka, redis, PARTITIONS, Engines::Both)?;
    let worker = start(&scenario, "steady-0")?;
    let observer = LatencyObserver::start(&scenario)?;
    let count = plan.steady_rate as usize * plan.steady_seconds as usize;
    let orders = Generator::new(profile(plan, 2)).take(count);
    Loader::start(kafka, &scenario.source(), orders, plan.steady_rate)?.finish()?;
    let latencies = observer.finish(count)?;
    drop(worker);
    Ok(latencies)
}
