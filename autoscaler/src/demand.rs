//! The formula: load and capacity → replicas.

use std::time::Duration;

use crate::decision::{PartitionBound, Terms};
use crate::estimate::Load;
use crate::settings::Settings;
use crate::units::{Messages, Rate, Replicas, ceil_u32};

/// What the formula needs besides the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances {
    /// Replicas that are asked for now.
    pub replicas: Replicas,
    /// Members that work now.
    pub members: u32,
    /// Threads a replica.
    pub lanes: u32,
    /// How long a rebalance stops a partition.
    pub rebalance: Duration,
    /// From asking for a replica to its first assignment.
    pub start_up: Duration,
}

/// What the load asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Demand {
    pub terms: Terms,
    /// Replicas that partitions can use, not yet bounded by the settings.
    pub wanted: Replicas,
    /// The replicas that work now are enough below the upper utilisation.
    pub fits: bool,
    /// Records wait beyond what the reserve works off.
    pub backlog: bool,
    /// No number of replicas helps one of the partitions.
    pub bound: Option<PartitionBound>,
}

/// The smallest number of replicas, at least `n`, of which the fullest has no more than an `n`th of the partitions:
/// between two such numbers a replica more only makes some idle. At most one each partition.
pub(crate) fn level(partitions: u32, n: Replicas) -> Replicas {
    let n = n.0.clamp(1, partitions);
    Replicas(partitions.div_ceil(partitions / n))
}

/// The largest number of replicas, at most `n`, that is such a level.
pub(crate) fn level_below(partitions: u32, n: Replicas) -> Replicas {
    let n = n.0.clamp(1, partitions);
    Replicas(partitions.div_ceil(partitions.div_ceil(n)))
}

/// Without a capacity only the messages count.
pub(crate) fn by_threshold(settings: &Settings, load: &Load) -> Option<Replicas> {
    settings.lag_threshold.map(|threshold| Replicas::ceil(load.lag / threshold.count()))
}

/// The demand, if the capacity of a replica is known.
pub(crate) fn demand(settings: &Settings, load: &Load, now: &Circumstances) -> Option<Demand> {
    let lane = load.lane_capacity.filter(|&capacity| capacity > 0.0)?;
    let capacity = lane * f64::from(now.lanes);
    let plan = Plan::new(settings, load, lane, now);
    let upper = settings.upper_utilization();
    let steady = plan.replicas(Shares::of(&plan, settings.utilization, false, 0.0), settings);
    let catching_up = plan.replicas(Shares::of(&plan, upper, true, plan.change), settings);
    // Beyond one partition a thread, a replica more gives the threads only more CPU, if that is what they lack. Only a
    // lag that does not shrink says so.
    let all_threads = level(load.partitions, Replicas(load.partitions.div_ceil(now.lanes))).max(now.replicas);
    let catching_up = if load.growing { catching_up } else { catching_up.min(all_threads) };
    let enough = plan.replicas(Shares::of(&plan, upper, true, 0.0), settings);
    let threshold = by_threshold(settings, load);
    let by_messages = threshold.map_or(Replicas::ZERO, |n| level(load.partitions, n));
    let wanted = steady.max(catching_up).max(by_messages);
    let fits = now.replicas >= enough && threshold.is_none_or(|n| now.replicas >= n);
    let working = now.members.max(1);
    let terms = Terms {
        lag: Messages::from_count(load.lag),
        oldest: load.oldest,
        arrival: Rate::new(load.arrival).unwrap_or_default(),
        capacity: Rate::new(capacity).unwrap_or_default(),
        arrival_replicas: load.arrival / settings.utilization / capacity,
        reserve_replicas: load.arrival * (1.0 / settings.utilization - 1.0 / upper) / capacity,
        catch_up_replicas: plan.catch_up.iter().sum::<f64>() / capacity,
        change_replicas: plan.change / capacity,
        threshold_replicas: threshold,
        utilization: load.arrival / (capacity * f64::from(working)),
    };
    Some(Demand {
        terms,
        wanted,
        fits,
        backlog: plan.catch_up.iter().any(|&rate| rate > 0.0),
        bound: plan.bound(settings),
    })
}

/// The formula, partition by partition, in records a second.
struct Plan<'a> {
    load: &'a Load,
    lane: f64,
    capacity: f64,
    /// Extra records a second so that each partition's backlog is gone in time.
    catch_up: Vec<f64>,
    /// The same for what piles up during a change, over all partitions.
    change: f64,
}

/// What the partitions ask for, in records a second.
#[derive(Clone, Copy)]
struct Shares {
    sum: f64,
    /// Each cut at what one lane does: no number of replicas gives a partition more.
    lane_sum: f64,
    lane_max: f64,
}

impl Shares {
    fn of(plan: &Plan<'_>, utilization: f64, with_backlog: bool, change: f64) -> Self {
        let change = if plan.load.arrival > 0.0 { change / plan.load.arrival } else { 0.0 };
        let mut shares = Self { sum: 0.0, lane_sum: 0.0, lane_max: 0.0 };
        for (partition, catch_up) in plan.load.moving.iter().zip(&plan.catch_up) {
            let backlog = if with_backlog { *catch_up } else { 0.0 };
            let asked = partition.rate * (1.0 / utilization + change) + backlog;
            // One partition never needs more than one replica.
            shares.sum += asked.min(plan.capacity);
            let by_lane = asked.min(plan.lane);
            shares.lane_sum += by_lane;
            shares.lane_max = shares.lane_max.max(by_lane);
        }
        shares
    }
}

impl<'a> Plan<'a> {
    fn new(settings: &Settings, load: &'a Load, lane: f64, now: &Circumstances) -> Self {
        let capacity = lane * f64::from(now.lanes);
        let catch_up = settings.catch_up.as_secs_f64();
        let allowance = settings.allowance_seconds();
        let missing = (load.arrival - f64::from(now.members) * capacity).max(0.0);
        let piled_up =
            load.arrival * now.rebalance.as_secs_f64() + missing * (now.start_up + now.rebalance).as_secs_f64();
        Self {
            load,
            lane,
            capacity,
            catch_up: load.moving.iter().map(|p| (p.lag - p.rate * allowance).max(0.0) / catch_up).collect(),
            change: piled_up / catch_up,
        }
    }

    /// The fewest replicas of which the fullest can do its share.
    fn replicas(&self, shares: Shares, settings: &Settings) -> Replicas {
        let partitions = f64::from(self.load.partitions);
        let even = partitions * self.capacity / shares.sum.max(f64::MIN_POSITIVE);
        // The replica with the heaviest partition has average ones besides: max + (k-1) others, within its capacity.
        // A partition that fills its lane leaves the other lanes to the others.
        let others = (shares.lane_sum - shares.lane_max) / (partitions - 1.0).max(1.0);
        let spare = self.capacity - shares.lane_max * settings.upper_utilization();
        let uneven = 1.0 + spare.max(0.0) / others.max(f64::MIN_POSITIVE);
        let most_together = even.min(uneven).clamp(1.0, partitions);
        // Rounding errors must not cost a replica.
        let together = ceil_u32((most_together + 1e-6).floor()).clamp(1, self.load.partitions);
        Replicas(self.load.partitions.div_ceil(together))
    }

    /// A partition that receives more than one lane can do stays behind for ever.
    fn bound(&self, settings: &Settings) -> Option<PartitionBound> {
        let limit = self.lane * settings.upper_utilization();
        let hottest = self.load.moving.iter().max_by(|a, b| a.rate.total_cmp(&b.rate))?;
        if hottest.rate <= limit {
            return None;
        }
        let mean = self.load.arrival / f64::from(self.load.partitions);
        Some(PartitionBound {
            partition: hottest.index,
            rate: Rate::new(hottest.rate)?,
            lane_capacity: Rate::new(self.lane)?,
            hot: hottest.rate > 2.0 * mean && self.load.partitions > 1,
            advised_partitions: ceil_u32(self.load.arrival / (self.lane * settings.utilization))
                .max(self.load.partitions + 1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::PartitionLoad;
    use crate::settings::SettingsSpec;

    fn load(partitions: u32, rate: f64, lag: f64) -> Load {
        let part =
            |index| PartitionLoad { index, rate: rate / f64::from(partitions), lag: lag / f64::from(partitions) };
        Load {
            partitions,
            moving: (0..partitions as usize).map(part).collect(),
            arrival: rate,
            lag,
            lane_capacity: Some(500.0),
            complete: true,
            growing: true,
            ..Load::default()
        }
    }

    fn now(replicas: u32) -> Circumstances {
        let seconds = Duration::from_secs;
        Circumstances {
            replicas: Replicas(replicas),
            members: replicas,
            lanes: 2,
            rebalance: seconds(3),
            start_up: seconds(12),
        }
    }

    fn settings() -> Settings {
        Settings::new(SettingsSpec { max_replicas: 100, ..SettingsSpec::default() }).expect("valid")
    }

    fn wanted(load: &Load, replicas: u32) -> u32 {
        demand(&settings(), load, &now(replicas)).expect("the capacity is known").wanted.0
    }

    #[test]
    fn levels_are_the_numbers_that_change_the_fullest() {
        let levels: Vec<u32> = (1..=13).map(|n| level(12, Replicas(n)).0).collect();
        assert_eq!(levels, [1, 2, 3, 4, 6, 6, 12, 12, 12, 12, 12, 12, 12]);
        let below: Vec<u32> = (0..=13).map(|n| level_below(12, Replicas(n)).0).collect();
        assert_eq!(below, [1, 1, 2, 3, 4, 4, 6, 6, 6, 6, 6, 6, 12, 12]);
        for (partitions, n) in [(1, 1), (7, 3), (97, 50), (100_000, 3)] {
            let level = level(partitions, Replicas(n));
            assert!(level.0 >= n && level.0 <= partitions);
            assert!(partitions.div_ceil(level.0) <= partitions / n);
        }
    }

    #[test]
    fn arrivals_are_planned_with_the_utilization() {
        // 1,000 records/s a replica, 70 %: 2,000 arrive → 2.9 → 3; the reserve of the fullest is that of all.
        assert_eq!(wanted(&load(12, 2_000.0, 0.0), 3), 3);
        assert_eq!(wanted(&load(12, 600.0, 0.0), 1), 1);
        assert_eq!(wanted(&load(12, 0.0, 0.0), 1), 1);
    }

    #[test]
    fn a_backlog_is_worked_off_in_time() {
        // 60,000 records in 60 s are 1,000/s.
        assert_eq!(wanted(&load(12, 0.0, 60_000.0), 1), 1);
        assert_eq!(wanted(&load(12, 0.0, 61_000.0), 1), 2);
        // As much as 15 s of arrivals is no backlog.
        assert_eq!(wanted(&load(12, 600.0, 9_000.0), 1), 1);
        // The reserve of the utilisation works off a part: 4,000/s want 5.7 replicas in any case, of which 1 is reserve.
        assert_eq!(wanted(&load(12, 4_000.0, 60_000.0), 6), 6);
        assert_eq!(wanted(&load(12, 4_000.0, 120_000.0), 6), 6);
        assert_eq!(wanted(&load(12, 4_000.0, 180_000.0), 6), 12);
        // Six replicas of two threads have one partition a thread: enough while the lag shrinks.
        assert_eq!(wanted(&Load { growing: false, ..load(12, 4_000.0, 180_000.0) }, 6), 6);
    }

    #[test]
    fn a_heavy_partition_gets_room() {
        // 1,380 records/s in all fit 2 replicas, but one partition has 450 of them.
        let mut uneven = load(12, 1_380.0, 0.0);
        assert_eq!(wanted(&uneven, 2), 2);
        for partition in &mut uneven.moving {
            partition.rate = if partition.index == 3 { 450.0 } else { 84.5 };
        }
        assert_eq!(wanted(&uneven, 2), 3);
    }

    #[test]
    fn a_partition_beyond_one_lane_is_reported_and_does_not_buy_replicas() {
        let mut hot = load(12, 2_000.0, 0.0);
        for partition in &mut hot.moving {
            partition.rate = if partition.index == 7 { 900.0 } else { 100.0 };
            partition.lag = if partition.index == 7 { 1e6 } else { 0.0 };
        }
        let demand = demand(&settings(), &hot, &now(3)).expect("known");
        let bound = demand.bound.expect("bound");
        assert_eq!((bound.partition, bound.hot), (7, true));
        assert!(bound.advised_partitions > 12);
        assert!(demand.wanted <= Replicas(4), "{:?}", demand.wanted);
    }

    #[test]
    fn without_a_capacity_there_is_no_demand() {
        let unknown = Load { lane_capacity: None, ..load(12, 1e6, 1e9) };
        assert!(demand(&settings(), &unknown, &now(1)).is_none());
    }
}
