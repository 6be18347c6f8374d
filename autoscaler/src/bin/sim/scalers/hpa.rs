//! The HPA controller's algorithm for an external metric with `AverageValue`, as Kubernetes 1.33 and later has it
//! (`GetExternalPerPodMetricReplicas`, `stabilizeRecommendationWithBehaviors`, `convertDesiredReplicasWithBehaviorRate`),
//! written from its description: 15 s sync, tolerance 0.1, default behaviour up (100 % or 4 pods in 15 s, the larger,
//! no window) and down (100 % in 15 s, a window of 300 s by default).

use std::collections::VecDeque;

use super::Scaler;
use crate::costs;
use crate::world::World;

/// What a user sets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HpaTuning {
    /// Records of lag a replica.
    pub average_value: u32,
    /// `behavior.scaleDown.stabilizationWindowSeconds`.
    pub window: u32,
}

const TOLERANCE: f64 = 0.1;
const POLICY_SECONDS: u32 = 15;
const POLICY_PODS: u32 = 4;

/// One HPA.
pub struct Hpa {
    tuning: HpaTuning,
    min: u32,
    max: u32,
    recommendations: VecDeque<(u32, u32)>,
    /// (second, replicas before, replicas after)
    changes: VecDeque<(u32, u32, u32)>,
    scraped: Option<f64>,
}

impl Hpa {
    pub fn new(tuning: HpaTuning, min: u32, max: u32) -> Self {
        Self { tuning, min, max, recommendations: VecDeque::new(), changes: VecDeque::new(), scraped: None }
    }

    /// One sync with this metric.
    pub fn sync(&mut self, second: u32, current: u32, metric: f64) -> Option<u32> {
        if current == 0 {
            // Autoscaling is disabled while the target asks for no replicas.
            return None;
        }
        let desired = if current > self.max {
            self.max
        } else if current < self.min {
            self.min
        } else {
            let proposed = self.proposed(current, metric);
            let stable = self.stabilize(second, current, proposed);
            self.limit(second, current, stable)
        };
        if desired == current {
            return None;
        }
        self.changes.push_back((second, current, desired));
        Some(desired)
    }

    fn proposed(&self, current: u32, metric: f64) -> u32 {
        let target = f64::from(self.tuning.average_value);
        let ratio = metric / (target * f64::from(current));
        if (1.0 - TOLERANCE..=1.0 + TOLERANCE).contains(&ratio) { current } else { to_u32((metric / target).ceil()) }
    }

    fn stabilize(&mut self, second: u32, current: u32, proposed: u32) -> u32 {
        let window = self.tuning.window;
        self.recommendations.retain(|&(at, _)| second - at < window.max(1));
        let highest = self.recommendations.iter().map(|&(_, n)| n).fold(proposed, u32::max);
        self.recommendations.push_back((second, proposed));
        // No window upwards: at least what is proposed now; downwards at most the highest of the window.
        current.max(proposed).min(highest)
    }

    fn limit(&mut self, second: u32, current: u32, desired: u32) -> u32 {
        self.changes.retain(|&(at, ..)| second - at < POLICY_SECONDS);
        let mut start = i64::from(current);
        for &(_, before, after) in &self.changes {
            start += i64::from(before) - i64::from(after);
        }
        let start = u32::try_from(start.max(0)).unwrap_or_default();
        if desired > current {
            let most = (start + POLICY_PODS).max(start * 2).max(current);
            desired.min(self.max).min(most)
        } else {
            // 100 % in 15 s: nothing but the minimum is a limit.
            desired.max(self.min)
        }
    }
}

impl Scaler for Hpa {
    fn tick(&mut self, second: u32, world: &World<'_>) -> Option<u32> {
        if second.is_multiple_of(costs::SCRAPE_SECONDS) {
            let lag = || world.partitions.iter().map(crate::world::Partition::naive_lag).sum();
            self.scraped = world.reachable(second).then(lag);
        }
        // The scrape and the sync do not fall together.
        if second % costs::HPA_SYNC_SECONDS != costs::HPA_SYNC_SECONDS / 2 {
            return None;
        }
        // Without the metric the controller leaves the replicas alone.
        let metric = self.scraped?;
        self.sync(second, world.replicas(), metric)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "clamped to the range of u32 first")]
pub fn to_u32(value: f64) -> u32 {
    value.clamp(0.0, f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hpa(window: u32) -> Hpa {
        Hpa::new(HpaTuning { average_value: 100, window }, 1, 20)
    }

    #[test]
    fn within_the_tolerance_nothing_moves() {
        let mut hpa = hpa(300);
        for metric in [361.0, 400.0, 440.0] {
            assert_eq!(hpa.sync(0, 4, metric), None, "{metric}");
        }
        assert_eq!(hpa.sync(15, 4, 441.0), Some(5));
    }

    #[test]
    fn up_by_four_or_double_in_fifteen_seconds() {
        let mut hpa = hpa(300);
        assert_eq!(hpa.sync(0, 1, 2_000.0), Some(5));
        assert_eq!(hpa.sync(5, 5, 2_000.0), None); // 1 at the start of the period, and 5 of it are used
        assert_eq!(hpa.sync(15, 5, 2_000.0), Some(10));
        assert_eq!(hpa.sync(30, 10, 2_500.0), Some(20));
    }

    #[test]
    fn down_to_the_highest_of_the_window() {
        let mut hpa = hpa(60);
        assert_eq!(hpa.sync(0, 5, 500.0), None);
        assert_eq!(hpa.sync(15, 5, 300.0), None);
        assert_eq!(hpa.sync(60, 5, 100.0), Some(3));
        assert_eq!(hpa.sync(75, 3, 0.0), Some(1));
    }

    #[test]
    fn asleep_it_is_disabled() {
        assert_eq!(hpa(300).sync(0, 0, 1e9), None);
    }
}
