//! Out of noisy measurements: arrival rates, the capacity of a replica, partitions that stand still.

use std::time::Duration;

use jiff::Timestamp;

use crate::inputs::{Inputs, MAX_PARTITIONS, Partition};
use crate::units::{Rate, since};

/// Time constants of the two averages of the arrival rate. The fast one follows a jump within two or three sweeps, the
/// slow one forgets a dip so late that a wave is not followed down and up again.
const FAST_SECONDS: f64 = 8.0;
const SLOW_SECONDS: f64 = 60.0;
/// Busy seconds are forgotten with this time constant.
const CAPACITY_MEMORY_SECONDS: f64 = 90.0;
/// Below this share of busy time the capacity is mostly the fixed cost of small batches and does not replace what was
/// measured under load.
const MEANINGFUL_BUSY: f64 = 0.3;
/// Records that take so long wait in every partition of a settled group for so long: what is done then is all that can be done.
/// Less work may only seem to wait: offsets and ends are read one after the other.
const SATURATED_WORK_SECONDS: f64 = 5.0;
const SATURATED_AFTER_SECONDS: f64 = 10.0;
const LONGEST_STEP_SECONDS: f64 = 30.0;
/// A partition with a living consumer and records waiting that commits nothing for so long stands still.
pub(crate) const STUCK_AFTER: Duration = Duration::from_secs(60);
/// A total this much above the slow average is a jump, not noise.
const JUMP: f64 = 1.2;
/// A trend adds at most this share of the rate.
const MAX_TREND: f64 = 0.25;

/// What is remembered of the measurements.
#[derive(Clone, Debug, Default)]
pub(crate) struct Estimates {
    partitions: Vec<PartitionState>,
    processed: Option<f64>,
    /// Consecutive measurements far above the slow average, and the last of them in records a second.
    jump: (u32, f64),
    /// Consecutive measurements in which the lag did not shrink, and the last lag.
    growth: (u32, f64),
    capacity: Capacity,
    at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, Default)]
struct PartitionState {
    fast: Option<f64>,
    slow: Option<f64>,
    lag: f64,
    oldest: Duration,
    standing_since: Option<Timestamp>,
}

/// Records a second of work, of one lane.
#[derive(Clone, Copy, Debug, Default)]
struct Capacity {
    records: f64,
    busy: f64,
    known: Option<f64>,
    /// Seconds for which records have waited everywhere.
    saturated: f64,
}

#[expect(clippy::struct_excessive_bools, reason = "independent facts about one measurement, not states")]
/// The load as the formula needs it. Partitions that stand still are not in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load {
    /// Partitions of all source topics, at least 1.
    pub partitions: u32,
    /// Those that move.
    pub moving: Vec<PartitionLoad>,
    /// Indices of those that do not.
    pub stuck: Vec<usize>,
    /// Records a second, soon, over those that move.
    pub arrival: f64,
    /// Records waiting, over those that move.
    pub lag: f64,
    /// The arrivals have just jumped; how far, the next measurement tells, since this one covers only a part of it.
    pub jumping: bool,
    /// The lag did not shrink twice in a row.
    pub growing: bool,
    /// Longest wait among those that move.
    pub oldest: Duration,
    /// Records processed a second, all partitions.
    pub processed: f64,
    /// Records a second of work, of one lane; absent until somebody worked.
    pub lane_capacity: Option<f64>,
    /// Whether lag and arrival of every partition are known.
    pub complete: bool,
    /// Whether there is nothing to do at all: nothing arrives, nothing waits, not even in a partition that stands still.
    pub idle: bool,
    /// Somewhere a record waits or arrives. What is not known is none.
    pub calls: bool,
    /// Records wait, a consumer lives, and none is processed.
    pub no_progress: bool,
}

/// One partition that moves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PartitionLoad {
    pub index: usize,
    /// Records a second.
    pub rate: f64,
    /// Records waiting.
    pub lag: f64,
}

impl Estimates {
    /// Takes in one measurement. `settled`: the group is stable with the members it should have.
    pub(crate) fn update(&mut self, inputs: &Inputs, samples: &[Partition], settled: bool) -> Load {
        let samples = &samples[..samples.len().min(MAX_PARTITIONS)];
        let elapsed = self.at.map_or(Duration::ZERO, |at| since(inputs.now, at)).as_secs_f64();
        self.at = Some(inputs.now);
        self.partitions.resize(samples.len(), PartitionState::default());
        self.notice_jump(samples);
        for (state, sample) in self.partitions.iter_mut().zip(samples) {
            state.update(sample, elapsed, inputs.now, settled && inputs.group.members > 0);
        }
        let processed = samples.iter().filter_map(|s| s.processed).map(Rate::per_second).sum();
        self.processed = Some(blend(self.processed, processed, elapsed, FAST_SECONDS));
        let lanes = f64::from(inputs.group.members) * f64::from(inputs.lanes.get());
        self.capacity.update(samples, elapsed, lanes, settled);
        let mut load = self.load(inputs.now, samples);
        // Less than a second of arrivals is no lag, and what was seen before a gap is no neighbour.
        let shrinks = load.lag < self.growth.1 || load.lag < load.arrival;
        self.growth = (if shrinks { 0 } else { self.growth.0.saturating_add(1) }, load.lag);
        load.growing = self.growth.0 >= 2;
        load
    }

    /// Records a second of work, of one lane, by what is known from before.
    pub(crate) fn remember_capacity(&mut self, lane: Option<f64>) {
        self.capacity.known = lane.filter(|&lane| lane > 0.0);
    }

    /// Nothing was measured: what is seen next has no neighbour.
    pub(crate) fn interrupt(&mut self) {
        self.growth = (0, 0.0);
        self.jump = (0, 0.0);
    }

    fn notice_jump(&mut self, samples: &[Partition]) {
        let arrives: f64 = samples.iter().filter_map(|s| s.arrival).map(Rate::per_second).sum();
        let before: f64 = self.partitions.iter().filter_map(|state| state.slow).sum();
        let jumps = before > 0.0 && arrives > JUMP * before;
        self.jump = if jumps { (self.jump.0.saturating_add(1), arrives) } else { (0, 0.0) };
    }

    fn load(&self, now: Timestamp, samples: &[Partition]) -> Load {
        let mut load = Load {
            partitions: u32::try_from(samples.len()).unwrap_or(u32::MAX).max(1),
            processed: self.processed.unwrap_or_default(),
            lane_capacity: self.capacity.known,
            complete: samples.iter().all(|s| s.lag.is_some() && s.arrival.is_some()),
            idle: samples.iter().all(|s| s.lag.is_some_and(|lag| lag.0 == 0) && s.arrival.is_some_and(is_zero)),
            calls: samples
                .iter()
                .any(|s| s.lag.is_some_and(|lag| lag.0 > 0) || s.arrival.is_some_and(|arrival| !is_zero(arrival))),
            ..Load::default()
        };
        let (mut fast, mut slow) = (0.0, 0.0);
        for (index, state) in self.partitions.iter().enumerate() {
            if state.standing_since.is_some_and(|then| since(now, then) >= STUCK_AFTER) {
                load.stuck.push(index);
                continue;
            }
            let (f, s) = (state.fast.unwrap_or_default(), state.slow.unwrap_or_default());
            fast += f;
            slow += s;
            load.lag += state.lag;
            load.oldest = load.oldest.max(state.oldest);
            load.moving.push(PartitionLoad { index, rate: s, lag: state.lag });
        }
        load.no_progress =
            !load.stuck.is_empty() && load.processed < 1e-3 && load.moving.iter().all(|partition| partition.lag < 1.0);
        let level = fast.max(slow);
        // The two averages of a ramp lie as far apart as it climbs in the difference of their time constants.
        let slope = (fast - slow).max(0.0) / (SLOW_SECONDS - FAST_SECONDS);
        let trend = (slope * FAST_SECONDS).min(level * MAX_TREND);
        load.jumping = self.jump.0 == 1;
        load.arrival = match self.jump {
            // Seen twice it is no accident, and the averages would lag behind it: one full step, not two half ones.
            // Partitions that stand still are in the total; their share is not known to have jumped.
            (2.., arrives) if load.stuck.is_empty() => level.max(arrives),
            _ => level + trend,
        };
        // Shares come from the slow averages, where the noise of single partitions is gone; the sum from above.
        let scale = if slow > 0.0 { load.arrival / slow } else { 0.0 };
        let even = load.arrival / load.moving.len().max(1) as f64;
        for partition in &mut load.moving {
            partition.rate = if slow > 0.0 { partition.rate * scale } else { even };
        }
        load
    }
}

impl PartitionState {
    fn update(&mut self, sample: &Partition, elapsed: f64, now: Timestamp, alive: bool) {
        if let Some(rate) = sample.arrival {
            self.fast = Some(blend(self.fast, rate.per_second(), elapsed, FAST_SECONDS));
            self.slow = Some(blend(self.slow, rate.per_second(), elapsed, SLOW_SECONDS));
        }
        if let Some(lag) = sample.lag {
            self.lag = lag.count();
            self.oldest = sample.oldest.unwrap_or_default();
        }
        let stands = alive && self.lag > 0.0 && sample.lag.is_some() && sample.processed.is_some_and(is_zero);
        self.standing_since = if stands { self.standing_since.or(Some(now)) } else { None };
    }
}

impl Capacity {
    fn update(&mut self, samples: &[Partition], elapsed: f64, lanes: f64, settled: bool) {
        let keep = CAPACITY_MEMORY_SECONDS / (CAPACITY_MEMORY_SECONDS + elapsed);
        let (mut records, mut share) = (0.0, 0.0);
        let (mut waiting, mut late, mut processed, mut reported) = (0, 0, 0.0, false);
        for sample in samples {
            let Some(rate) = sample.processed else { continue };
            processed += rate.per_second();
            let behind = |seconds: f64| sample.lag.is_some_and(|lag| lag.count() > rate.per_second() * seconds);
            waiting += usize::from(behind(1.0));
            late += usize::from(behind(SATURATED_WORK_SECONDS));
            if let Some(busy) = sample.busy {
                reported = true;
                // More than one second a second is no single thread's work.
                share += busy.per_second().min(1.0);
                records += rate.per_second();
            }
        }
        let share = share.max(self.kept_from_work(settled && late == samples.len(), elapsed, lanes, samples.len()));
        self.records = self.records * keep + records * elapsed;
        self.busy = self.busy * keep + share * elapsed;
        if self.busy > 1e-3 {
            let measured = self.records / self.busy;
            let loaded = lanes > 0.0 && share / lanes >= MEANINGFUL_BUSY;
            self.known = match self.known {
                Some(known) if !loaded => Some(known.max(measured)),
                _ => Some(measured),
            }
            .filter(|&known| known > 0.0)
            .or(self.known);
        } else if !reported && settled && lanes > 0.0 && processed > 0.0 && waiting * 2 > samples.len() {
            // Nobody reports busy time (a foreign consumer). With records waiting nearly everywhere it works all the
            // time, so its throughput is its capacity.
            self.known = Some(processed / lanes);
        }
    }

    /// Lanes that are not idle for want of records, whatever they say of their work: with records waiting in every partition it
    /// is the limit of their processor time, or another thread that is short of it, which keeps them from it.
    fn kept_from_work(&mut self, all_wait: bool, elapsed: f64, lanes: f64, partitions: usize) -> f64 {
        // All of the time since the last measurement must have been so; of a longer gap nothing is known.
        let was = self.saturated >= SATURATED_AFTER_SECONDS;
        self.saturated = if all_wait && elapsed <= LONGEST_STEP_SECONDS { self.saturated + elapsed } else { 0.0 };
        if was && self.saturated > 0.0 { lanes.min(partitions as f64) } else { 0.0 }
    }
}

fn is_zero(rate: Rate) -> bool {
    rate.per_second() < 1e-9
}

/// An exponential average over uneven steps, by the implicit step: for the same numbers the same result on every machine
/// (`exp` is not), and never past the new value.
fn blend(old: Option<f64>, new: f64, elapsed: f64, time_constant: f64) -> f64 {
    old.map_or(new, |old| old + (new - old) * elapsed / (time_constant + elapsed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Messages;

    /// The capacity of a lane after two minutes in which two lanes each did 100 records a second in a fifth of their time.
    fn known(lag: [u64; 2], step: f64, settled: bool) -> f64 {
        let sample = |lag| Partition {
            lag: Some(Messages(lag)),
            processed: Rate::new(100.0),
            busy: Rate::new(0.2),
            ..Partition::default()
        };
        let mut capacity = Capacity::default();
        (0..24).for_each(|_| capacity.update(&lag.map(sample), step, 2.0, settled));
        capacity.known.unwrap()
    }

    #[test]
    fn what_a_lane_does_while_records_wait_everywhere_is_all_it_can_do() {
        assert!((known([50, 50], 5.0, true) - 500.0).abs() < 1e-6, "it rests four fifths of its time");
        let throttled = known([5_000, 5_000], 5.0, true);
        assert!((100.0..150.0).contains(&throttled), "it may not work more: {throttled}");
        assert!((known([400, 400], 5.0, true) - 500.0).abs() < 1e-6, "four seconds of work may only seem to wait");
        assert!((known([5_000, 50], 5.0, true) - 500.0).abs() < 1e-6, "one of them could do more");
        assert!(
            (known([5_000, 5_000], 5.0, false) - 500.0).abs() < 1e-6,
            "whose partitions move has other reasons to rest"
        );
        assert!((known([5_000, 5_000], 60.0, true) - 500.0).abs() < 1e-6, "what was in a gap, nobody knows");
    }
}
