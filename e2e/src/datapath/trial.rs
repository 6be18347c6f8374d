//! One trial: workers under load, faults, rest, verdict.

use std::collections::BTreeMap;
use std::time::Duration;

use super::loader::{Loaded, Loader};
use super::observer::{Observations, Observer, Watched};
use super::sampler::{Sampler, Sampling};
use super::scenario::{Engines, Scenario};
use super::{HarnessError, kafka, marks, now_ms, wait_for};
use crate::checker::{
    FaultKind, FaultLog, FaultWindow, PipelineHistory, Report, ShardSnapshot, TopicDump, check_caught_up, check_lag,
    check_pipeline, check_probes, check_samples, check_snapshot, check_view, fold,
};
use crate::generator::{Generator, Profile};
use crate::stack::island::Island;
use crate::worker_process::{WorkerProcess, WorkerSpec};

/// How far clocks and expiry times may be apart, in milliseconds.
const SLACK_MS: i64 = 5;
/// How long a worker may take to be ready.
const READY: Duration = Duration::from_secs(120);
/// How long everything may take to come to rest once load and faults are over: a session, a transaction and a replay.
const REST: Duration = Duration::from_secs(120);

/// A running trial.
#[derive(Debug)]
pub struct Trial<'a> {
    /// Its names and clients.
    pub scenario: &'a Scenario<'a>,
    /// Workers by pod, in the order they were first started.
    pub workers: Vec<WorkerProcess>,
    loader: Loader,
    sampler: Sampler,
    observer: Observer,
    faults: FaultLog,
}

impl<'a> Trial<'a> {
    /// Loads the reference data and starts the load: `orders` orders at `per_second`.
    pub fn start(
        scenario: &'a Scenario<'a>,
        profile: Profile,
        orders: usize,
        per_second: u32,
    ) -> Result<Self, HarnessError> {
        let generator = Generator::new(profile);
        scenario.load_reference(generator.known_skus())?;
        let sampler =
            Sampler::start(scenario.reader.clone(), scenario.sampled_keys(profile.orders), profile.seed ^ 0x5a);
        let watched = Watched {
            group: scenario.processor_group(),
            source: scenario.source(),
            outputs: vec![scenario.enriched(), scenario.review(), scenario.rejected()],
            keys: scenario.view_pattern(),
            records: scenario.record_pattern(),
        };
        let observer = Observer::start(scenario.kafka, &scenario.reader, watched)?;
        let loader = Loader::start(scenario.kafka, &scenario.source(), generator.take(orders), per_second)?;
        Ok(Self { scenario, workers: Vec::new(), loader, sampler, observer, faults: FaultLog::default() })
    }

    /// Starts a worker; it is not ready yet.
    pub fn spawn(&mut self, pod: &str, env: &[(&str, &str)]) -> Result<&mut WorkerProcess, HarnessError> {
        self.spawn_in(None, pod, env)
    }

    fn spawn_in(
        &mut self,
        island: Option<&Island>,
        pod: &str,
        env: &[(&str, &str)],
    ) -> Result<&mut WorkerProcess, HarnessError> {
        let config = self.scenario.worker_config()?;
        let spec = WorkerSpec { pod, config: &config, folder: self.scenario.folder(), env, island };
        let worker = WorkerProcess::start(&spec)?;
        let place = self.workers.iter().position(|known| known.pod() == pod);
        let place = place.unwrap_or(self.workers.len());
        if place == self.workers.len() {
            self.workers.push(worker);
        } else {
            self.workers[place] = worker;
        }
        Ok(&mut self.workers[place])
    }

    /// Starts a worker and waits until it is ready.
    pub fn add_worker(&mut self, pod: &str) -> Result<(), HarnessError> {
        self.spawn(pod, &[])?.wait_ready(READY)
    }

    /// As [`Self::add_worker`], in a network of its own.
    pub fn add_worker_on(&mut self, island: &Island, pod: &str) -> Result<(), HarnessError> {
        self.spawn_in(Some(island), pod, &[])?.wait_ready(READY)
    }

    /// Kills a worker with -9 and starts it again, as the kubelet would.
    pub fn kill_and_restart(&mut self, index: usize) -> Result<(), HarnessError> {
        self.workers[index].kill9()?;
        let pod = self.workers[index].pod().to_owned();
        self.spawn(&pod, &[]).map(drop)
    }

    /// Orders handed to the producer so far.
    pub fn sent(&self) -> u64 {
        self.loader.sent()
    }

    /// Waits until so many orders were sent.
    pub fn wait_sent(&self, orders: u64) -> Result<(), HarnessError> {
        wait_for(&format!("{orders} orders sent"), REST, || Ok((self.loader.sent() >= orders).then_some(())))
    }

    /// Sum of the source offsets that the processor has committed.
    pub fn committed(&self) -> Result<i64, HarnessError> {
        let (group, source) = (self.scenario.processor_group(), self.scenario.source());
        Ok(kafka::committed(self.scenario.kafka, &group, &source)?.values().sum())
    }

    /// Waits until the processor has committed so many source offsets in all.
    pub fn wait_committed(&self, offsets: i64) -> Result<(), HarnessError> {
        wait_for(&format!("{offsets} offsets committed"), REST, || Ok((self.committed()? >= offsets).then_some(())))
    }

    /// Waits until every shard has passed so many offsets of the view topic in all.
    pub fn wait_applied(&self, offsets: i64) -> Result<(), HarnessError> {
        wait_for(&format!("{offsets} offsets applied on every shard"), REST, || {
            let passed = |shard: &ShardSnapshot| shard.marks.values().map(|mark| mark.offset).sum::<i64>() >= offsets;
            // A server may be slow to answer.
            let Ok(snapshots) = self.snapshots() else { return Ok(None) };
            Ok(snapshots.iter().all(passed).then_some(()))
        })
    }

    /// Notes a fault that began at `from_ms` and is repaired now.
    pub fn repaired(&mut self, kind: FaultKind, from_ms: i64) {
        self.faults.add(FaultWindow { kind, from_ms, until_ms: now_ms() });
    }

    /// Waits until every shard holds everything that is committed now, for every slot it owns.
    pub fn wait_repaired(&mut self, kind: FaultKind, from_ms: i64) -> Result<(), HarnessError> {
        let ends = kafka::ends(self.scenario.kafka, &self.scenario.view_topic(), true)?;
        wait_for("every shard holds what was committed", REST, || {
            // Servers may still be coming back.
            let Ok(snapshots) = self.snapshots() else { return Ok(None) };
            Ok(snapshots.iter().all(|snapshot| reached(snapshot, &ends)).then_some(()))
        })?;
        self.repaired(kind, from_ms);
        Ok(())
    }

    /// All shards as they are now.
    pub fn snapshots(&self) -> Result<Vec<ShardSnapshot>, HarnessError> {
        let scenario = self.scenario;
        scenario.reader.snapshots(&scenario.view_pattern(), &scenario.record_pattern(), marks::read)
    }

    /// Waits for rest and judges. An error is about the harness or means that rest never came; broken promises are in the
    /// report.
    pub fn verdict(mut self) -> Result<Report, HarnessError> {
        let loaded = self.loader.finish()?;
        let outcome = rest(self.scenario);
        if let Err(error) = outcome {
            for worker in &mut self.workers {
                eprintln!("{}", worker.fault(&format!("state at the end: {:?}", worker.get("/readyz"))));
            }
            return Err(error);
        }
        let (sampling, seen) = (self.sampler.finish(), self.observer.finish());
        for worker in &mut self.workers {
            if let Some(status) = worker.exited()? {
                eprintln!("note: worker {} had ended: {status}", worker.pod());
            }
        }
        judge(self.scenario, &loaded, &sampling, &seen, &self.faults)
    }
}

/// Whether a shard holds everything below `ends` for every slot it owns.
fn reached(snapshot: &ShardSnapshot, ends: &BTreeMap<i32, i64>) -> bool {
    ends.iter().filter(|(_, end)| **end > 0).all(|(partition, end)| {
        snapshot.marks.get(partition).is_some_and(|mark| {
            let owned = snapshot.slots.iter().flat_map(|&(first, last)| first..=last);
            mark.offset >= *end
                && mark.behind.values().all(|offset| offset >= end)
                && owned
                    .into_iter()
                    .all(|slot| mark.covered.iter().any(|&(first, last)| (first..=last).contains(&slot)))
        })
    })
}

/// Waits until nobody lags and every shard has reached the end.
fn rest(scenario: &Scenario<'_>) -> Result<(), HarnessError> {
    if scenario.engines() != Engines::Applier {
        let (group, source) = (scenario.processor_group(), scenario.source());
        let ends = kafka::ends(scenario.kafka, &source, true)?;
        wait_for("the processor has no lag", REST, || {
            let committed = kafka::committed(scenario.kafka, &group, &source)?;
            Ok(check_lag(&group, &committed, &ends).is_clean().then_some(()))
        })?;
    }
    if scenario.engines() == Engines::Processor {
        return Ok(());
    }
    let topic = scenario.view_topic();
    // The outputs end with the last transaction's markers, which follow the offsets within a moment.
    let mut last = String::new();
    let rested = wait_for("the views have no lag", REST, || {
        let ends = kafka::dump_ends(scenario.kafka, &topic)?;
        let folded = crate::checker::Folded { ends: ends.clone(), ..Default::default() };
        let read = scenario.reader.snapshots(&scenario.view_pattern(), &scenario.record_pattern(), marks::read);
        let snapshots = match read {
            Ok(snapshots) => snapshots,
            Err(error) => {
                last = error.to_string();
                return Ok(None);
            }
        };
        let mut report = check_caught_up(&folded, &snapshots);
        let committed = kafka::committed(scenario.kafka, &scenario.applier_group(), &topic)?;
        report.merge(check_lag(&scenario.applier_group(), &committed, &ends));
        last = report.to_string();
        Ok(report.is_clean().then_some(()))
    });
    rested.map_err(|error| HarnessError::Process { name: "views".into(), message: format!("{error}: {last}") })
}

fn judge(
    scenario: &Scenario<'_>,
    loaded: &Loaded,
    sampling: &Sampling,
    seen: &Observations,
    faults: &FaultLog,
) -> Result<Report, HarnessError> {
    let kafka = scenario.kafka;
    if scenario.engines() == Engines::Applier {
        let topic = kafka::dump(kafka, &scenario.source())?;
        return judge_views(scenario, &topic, sampling, seen, faults, Report::default());
    }
    let input = kafka::dump(kafka, &scenario.source())?;
    let outputs = [kafka::dump(kafka, &scenario.enriched())?, kafka::dump(kafka, &scenario.review())?];
    let dead_letters = kafka::dump(kafka, &scenario.rejected())?;
    let committed = kafka::committed(kafka, &scenario.processor_group(), &scenario.source())?;
    let fates = scenario.fates(&loaded.expected);
    let history = PipelineHistory {
        input: &input,
        fates: &fates,
        outputs: &outputs,
        dead_letters: Some(&dead_letters),
        committed: &committed,
    };
    let mut report = check_pipeline(&history);
    report.merge(check_probes(&history, &seen.probes));
    report.merge(check_lag(&scenario.processor_group(), &committed, &input.ends));
    if scenario.engines() == Engines::Processor {
        Ok(report)
    } else {
        judge_views(scenario, &outputs[0], sampling, seen, faults, report)
    }
}

fn judge_views(
    scenario: &Scenario<'_>,
    topic: &TopicDump,
    sampling: &Sampling,
    seen: &Observations,
    faults: &FaultLog,
    mut report: Report,
) -> Result<Report, HarnessError> {
    let folded = fold(topic, &scenario.views());
    report.merge(check_view(&folded, &scenario.reader.dump(&scenario.view_pattern())?, SLACK_MS));
    report.merge(check_samples(&folded, &sampling.samples, faults, SLACK_MS));
    // A slot in motion is on two shards at once; a topology read a moment too late would look like a lie.
    let still = |snapshot: &&ShardSnapshot| !faults.is_moving(snapshot.at_ms);
    for snapshot in seen.snapshots.iter().filter(still) {
        report.merge(check_snapshot(&folded, snapshot, SLACK_MS));
    }
    let last = scenario.reader.snapshots(&scenario.view_pattern(), &scenario.record_pattern(), marks::read)?;
    report.merge(check_caught_up(&folded, &last));
    for snapshot in &last {
        report.merge(check_snapshot(&folded, snapshot, SLACK_MS));
    }
    Ok(report)
}
