//! KEDA's Kafka scaler: total lag, cut at `partitions * lagThreshold` (unless idle consumers are allowed, which only
//! wastes replicas here), served to an HPA with `AverageValue: lagThreshold`; with `ensureEvenDistributionOfPartitions`
//! raised to the next divisor of the partitions. Between 0 and 1 its own loop decides: active while the lag is above
//! `activationLagThreshold`, asleep after `cooldownPeriod` without.

use super::Scaler;
use super::hpa::{Hpa, HpaTuning, to_u32};
use crate::costs;
use crate::traces::PARTITIONS;
use crate::world::{Partition, World};

/// What a user sets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KedaTuning {
    /// `lagThreshold` and the HPA's window.
    pub hpa: HpaTuning,
    /// `activationLagThreshold`.
    pub activation: u32,
    /// `ensureEvenDistributionOfPartitions`.
    pub even: bool,
}

/// One `ScaledObject`.
pub struct Keda {
    tuning: KedaTuning,
    hpa: Hpa,
    min: u32,
    active_at: u32,
}

impl Keda {
    pub fn new(tuning: KedaTuning, min: u32, max: u32) -> Self {
        Self { tuning, hpa: Hpa::new(tuning.hpa, min.max(1), max), min, active_at: 0 }
    }

    fn metric(&self, lag: f64) -> f64 {
        let threshold = f64::from(self.tuning.hpa.average_value);
        let partitions = PARTITIONS as f64;
        let mut lag = lag.floor();
        if self.tuning.even {
            let factor = (1..=PARTITIONS).filter(|n| PARTITIONS.is_multiple_of(*n)).map(|n| n as f64);
            lag = factor.clone().find(|factor| factor * threshold >= lag).unwrap_or(partitions) * threshold;
        }
        if f64::from(to_u32(lag / threshold)) > partitions { partitions * threshold } else { lag }
    }
}

impl Scaler for Keda {
    fn tick(&mut self, second: u32, world: &World<'_>) -> Option<u32> {
        if !world.reachable(second) {
            // The scaler fails: neither the HPA nor the loop acts.
            return None;
        }
        let lag: f64 = world.partitions.iter().map(Partition::naive_lag).sum();
        if second.is_multiple_of(costs::KEDA_POLL_SECONDS) {
            let active = lag > f64::from(self.tuning.activation);
            if active {
                self.active_at = second;
            }
            if active && world.replicas() == 0 {
                return Some(self.min.max(1));
            }
            let cooled = second - self.active_at >= costs::KEDA_COOLDOWN_SECONDS;
            if !active && self.min == 0 && world.replicas() > 0 && cooled {
                return Some(0);
            }
        }
        if second % costs::HPA_SYNC_SECONDS != costs::HPA_SYNC_SECONDS / 2 {
            return None;
        }
        let metric = self.metric(lag);
        self.hpa.sync(second, world.replicas(), metric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keda(even: bool) -> Keda {
        Keda::new(KedaTuning { hpa: HpaTuning { average_value: 100, window: 300 }, activation: 0, even }, 0, 12)
    }

    #[test]
    fn the_lag_is_cut_at_the_partitions() {
        let cases =
            [(0.0, 0.0), (50.0, 50.0), (1_200.0, 1_200.0), (1_299.0, 1_299.0), (1_300.0, 1_200.0), (1e9, 1_200.0)];
        for (lag, metric) in cases {
            assert!((keda(false).metric(lag) - metric).abs() < 1e-9, "{lag}");
        }
    }

    #[test]
    fn even_distribution_takes_divisors() {
        for (lag, replicas) in [(0.0, 1.0), (401.0, 6.0), (601.0, 12.0), (1e9, 12.0)] {
            assert!((keda(true).metric(lag) - replicas * 100.0).abs() < 1e-9, "{lag}");
        }
    }
}
