//! From a record's timestamp to its output and to Redis, for every record: no sampling, no coordinated omission, since the
//! timestamps are the loader's and the loader does not wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::checker::slot_of;
use crate::datapath::kafka::Arrival;
use crate::datapath::redis::{Master, RedisReader};
use crate::datapath::scenario::Scenario;
use crate::datapath::{HarnessError, kafka, marks, now_ms};

/// Times in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    /// Half of the records took at most this.
    pub p50_ms: i64,
    /// 99 of 100 took at most this.
    pub p99_ms: i64,
    /// Records measured.
    pub records: usize,
}

impl Latency {
    fn of(mut times: Vec<i64>) -> Self {
        times.sort_unstable();
        let at = |share: usize| times.get(times.len().saturating_sub(1) * share / 100).copied().unwrap_or(0);
        Self { p50_ms: at(50), p99_ms: at(99), records: times.len() }
    }
}

/// When a shard's watermark was first seen at an offset: (milliseconds since 1970, offset), both ascending.
type Steps = Vec<(i64, i64)>;

/// Watches outputs and watermarks.
#[derive(Debug)]
pub struct LatencyObserver {
    stop: Arc<AtomicBool>,
    arrivals: JoinHandle<Result<Vec<Arrival>, HarnessError>>,
    /// One for each master.
    shards: Vec<(Master, JoinHandle<BTreeMap<i32, Steps>>)>,
    view_key: crate::checker::ViewSpec,
    seen: Arc<std::sync::atomic::AtomicUsize>,
}

impl LatencyObserver {
    /// Starts watching; the topics are still empty.
    pub fn start(scenario: &Scenario<'_>) -> Result<Self, HarnessError> {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let arrivals = {
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            let mut follower = kafka::Follower::start(scenario.kafka, &scenario.view_topic())?;
            std::thread::spawn(move || {
                let mut all = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    all.extend(follower.next(Duration::from_millis(100))?);
                    seen.store(all.len(), Ordering::Relaxed);
                }
                Ok(all)
            })
        };
        let watch = |master: Master| {
            let (reader, records, stop) = (scenario.reader.clone(), scenario.record_pattern(), Arc::clone(&stop));
            let watched = master.clone();
            (master, std::thread::spawn(move || follow_marks(&reader, &watched, &records, &stop)))
        };
        let shards = scenario.reader.masters()?.into_iter().map(watch).collect();
        let view_key = scenario.views().swap_remove(1);
        Ok(Self { stop, arrivals, shards, view_key, seen })
    }

    /// Waits until `records` outputs have arrived and are in Redis, and hands back both latencies.
    pub fn finish(self, records: usize) -> Result<(Latency, Latency), HarnessError> {
        let started = Instant::now();
        while self.seen.load(Ordering::Relaxed) < records && started.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(100));
        }
        // The watermark of an idle shard follows about once a second.
        std::thread::sleep(Duration::from_secs(3));
        self.stop.store(true, Ordering::Relaxed);
        let arrivals = self.arrivals.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let shards: Vec<(Master, BTreeMap<i32, Steps>)> =
            self.shards.into_iter().map(|(master, thread)| (master, thread.join().unwrap_or_default())).collect();
        let applied = arrivals.iter().filter_map(|arrival| {
            let slot = slot_of(&self.view_key.redis_key(&arrival.key));
            let owns = |master: &Master| master.slots.iter().any(|&(first, last)| (first..=last).contains(&slot));
            let (_, steps) = shards.iter().find(|(master, _)| owns(master))?;
            let steps = steps.get(&arrival.partition)?;
            let step = steps.partition_point(|&(_, watermark)| watermark <= arrival.offset);
            Some(steps.get(step)?.0 - arrival.timestamp_ms)
        });
        let to_redis = Latency::of(applied.collect());
        let to_commit = Latency::of(arrivals.iter().map(|arrival| arrival.at_ms - arrival.timestamp_ms).collect());
        Ok((to_commit, to_redis))
    }
}

fn follow_marks(reader: &RedisReader, master: &Master, pattern: &str, stop: &AtomicBool) -> BTreeMap<i32, Steps> {
    let mut steps: BTreeMap<i32, Steps> = BTreeMap::new();
    let mut key: Option<String> = None;
    let Ok(mut connection) = reader.connect(&master.address) else { return steps };
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(2));
        let Some(known) = &key else {
            key = reader.find_key(&mut connection, pattern).ok().flatten();
            continue;
        };
        let Ok(fields) = reader.read_hash(&mut connection, known) else { continue };
        let now = now_ms();
        for (partition, mark) in marks::read(known, &fields) {
            let known = steps.entry(partition).or_default();
            if known.last().is_none_or(|&(_, offset)| offset < mark.offset) {
                known.push((now, mark.offset));
            }
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_all_records() {
        let latency = Latency::of((1..=1_000).rev().collect());
        assert_eq!(latency, Latency { p50_ms: 500, p99_ms: 990, records: 1_000 });
        assert_eq!(Latency::of(Vec::new()), Latency::default());
    }
}
