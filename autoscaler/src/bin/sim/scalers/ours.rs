//! The crate's `decide`, fed as the operator feeds it: a sweep every five seconds, rates from differences of counters.

use std::num::NonZeroU32;
use std::time::Duration;

use jiff::Timestamp;
use sluice_autoscaler::{
    Group, Inputs, Measured, Missing, Partition, Phase, Replicas, Settings, SettingsSpec, State, decide,
};

use super::Scaler;
use crate::costs;
use crate::world::World;

/// What a user sets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OursTuning {
    /// `targetLagSeconds`.
    pub target: u32,
    /// `catchUpSeconds`.
    pub catch_up: u32,
    /// `utilizationPercent`.
    pub utilization: u32,
    /// `scaleDownWindowSeconds`.
    pub window: u32,
    /// Prints each move.
    pub explain: bool,
}

impl Default for OursTuning {
    fn default() -> Self {
        let spec = SettingsSpec::default();
        Self {
            target: spec.target_lag_seconds,
            catch_up: spec.catch_up_seconds,
            utilization: spec.utilization_percent,
            window: spec.scale_down_window_seconds,
            explain: false,
        }
    }
}

/// Arrived, processed, busy.
type Counters = (f64, f64, f64);

/// One pipeline.
pub struct Ours {
    settings: Settings,
    state: State,
    /// Arrived, processed and busy by partition, and when.
    before: Option<(u32, Vec<Counters>)>,
    /// Prints each move.
    explain: bool,
}

impl Ours {
    pub fn new(tuning: OursTuning, min: u32, max: u32) -> Self {
        let spec = SettingsSpec {
            min_replicas: min,
            max_replicas: max,
            target_lag_seconds: tuning.target,
            catch_up_seconds: tuning.catch_up,
            utilization_percent: tuning.utilization,
            scale_down_window_seconds: tuning.window,
            ..SettingsSpec::default()
        };
        Self {
            settings: Settings::new(spec).expect("valid settings"),
            state: State::default(),
            before: None,
            explain: tuning.explain,
        }
    }

    fn measure(&mut self, second: u32, world: &World<'_>) -> Measured {
        if !world.reachable(second) {
            return Measured::Missing(Missing::Unreachable);
        }
        let counters: Vec<_> = world.partitions.iter().map(|p| (p.arrived, p.processed, p.busy)).collect();
        let before = self.before.replace((second, counters.clone()));
        let Some((then, before)) = before else { return Measured::Missing(Missing::Stale) };
        let elapsed = f64::from(second - then);
        let rates = counters.iter().zip(before).zip(&world.partitions).map(|((now, before), partition)| {
            let rate = |now: f64, before: f64| (now - before) / elapsed;
            Partition::from_raw(
                i64::from(super::hpa::to_u32(partition.lag)),
                f64::from(partition.oldest(second)),
                rate(now.0, before.0),
                rate(now.1, before.1),
                rate(now.2, before.2),
            )
        });
        Measured::Partitions(rates.collect())
    }
}

impl Scaler for Ours {
    fn tick(&mut self, second: u32, world: &World<'_>) -> Option<u32> {
        if !second.is_multiple_of(costs::SWEEP_SECONDS) {
            return None;
        }
        let phase = match (world.reachable(second), world.rebalancing(second)) {
            (false, _) => Phase::Unknown,
            (true, true) => Phase::Rebalancing,
            (true, false) => Phase::Stable,
        };
        let inputs = Inputs {
            now: Timestamp::UNIX_EPOCH + Duration::from_secs(second.into()),
            replicas: Replicas(world.replicas()),
            group: Group { members: world.members(), phase },
            lanes: NonZeroU32::new(costs::LANES).unwrap_or(NonZeroU32::MIN),
            measured: self.measure(second, world),
            rebalance: None,
            offsets_kept: None,
        };
        let (state, decision) = decide(&self.settings, std::mem::take(&mut self.state), &inputs);
        self.state = state;
        if self.explain && decision.target != inputs.replicas {
            println!("{second:>6} s: {}", decision.explain());
        }
        (decision.target != inputs.replicas).then_some(decision.target.0)
    }
}
