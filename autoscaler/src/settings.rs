//! What the user wants, checked once, so that the decision cannot fail.

use std::time::Duration;

use crate::schedule::Schedule;
use crate::units::{Messages, Replicas};

/// Most schedules of one group.
const MAX_SCHEDULES: usize = 16;
const DAY_SECONDS: u32 = 86_400;

/// The settings as they are written, in the API's units. `Default` is the API's defaults.
#[derive(Clone, Debug)]
pub struct SettingsSpec {
    /// Fewest replicas; 0 lets the group sleep.
    pub min_replicas: u32,
    /// Most replicas, at least 1.
    pub max_replicas: u32,
    /// Records should not wait longer than this: 1 to 86,400.
    pub target_lag_seconds: u32,
    /// A backlog should be gone after this long: 1 to 86,400.
    pub catch_up_seconds: u32,
    /// Share of a replica's capacity that steady arrivals may use: 10 to 95.
    pub utilization_percent: u32,
    /// Also a replica for each so many records of lag, as a plain HPA does it; at least 1.
    pub lag_threshold: Option<u64>,
    /// Less must be wanted for so long before replicas are removed: 10 to 3,600.
    pub scale_down_window_seconds: u32,
    /// With `min_replicas: 0`, no record may have arrived or waited for so long before the group sleeps: 10 to 86,400.
    pub sleep_after_seconds: u32,
    /// Measurements may fail for so long before the fallback counts: 10 to 3,600.
    pub metrics_grace_seconds: u32,
    /// What then.
    pub fallback: Fallback,
    /// Floors and ceilings by the clock, at most 16.
    pub schedules: Vec<Schedule>,
}

impl Default for SettingsSpec {
    fn default() -> Self {
        Self {
            min_replicas: 1,
            max_replicas: 1,
            target_lag_seconds: 30,
            catch_up_seconds: 60,
            utilization_percent: 70,
            lag_threshold: None,
            scale_down_window_seconds: 120,
            sleep_after_seconds: 300,
            metrics_grace_seconds: 120,
            fallback: Fallback::Hold,
            schedules: Vec::new(),
        }
    }
}

/// What to do without measurements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fallback {
    /// Leave it as it is.
    #[default]
    Hold,
    /// So many, or as many as there are if that is more.
    CurrentIfHigher(Replicas),
    /// Exactly so many.
    Replicas(Replicas),
}

/// Why settings cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Outside of its range.
    #[error("{field} is {value}, not between {low} and {high}")]
    Range {
        /// The field of the API.
        field: &'static str,
        /// Its value.
        value: u64,
        /// Smallest allowed.
        low: u64,
        /// Largest allowed.
        high: u64,
    },
    /// The floor is above the ceiling.
    #[error("minReplicas {min} is above maxReplicas {max}")]
    Crossed {
        /// minReplicas.
        min: u32,
        /// maxReplicas.
        max: u32,
    },
    /// Too many schedules.
    #[error("{0} schedules: at most {MAX_SCHEDULES} are allowed")]
    Schedules(usize),
}

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(crate) min: Replicas,
    pub(crate) max: Replicas,
    pub(crate) target_lag: Duration,
    pub(crate) catch_up: Duration,
    /// Share of the capacity that a new number of replicas is planned with, 0.1 to 0.95.
    pub(crate) utilization: f64,
    pub(crate) lag_threshold: Option<Messages>,
    pub(crate) scale_down_window: Duration,
    pub(crate) sleep_after: Duration,
    pub(crate) metrics_grace: Duration,
    pub(crate) fallback: Fallback,
    pub(crate) schedules: Vec<Schedule>,
}

impl Settings {
    /// Checks the settings.
    pub fn new(spec: SettingsSpec) -> Result<Self, SettingsError> {
        let seconds = |field, value: u32, low, high| {
            in_range(field, value.into(), low, high).map(|()| Duration::from_secs(value.into()))
        };
        in_range("maxReplicas", spec.max_replicas.into(), 1, 10_000)?;
        if spec.min_replicas > spec.max_replicas {
            return Err(SettingsError::Crossed { min: spec.min_replicas, max: spec.max_replicas });
        }
        in_range("utilizationPercent", spec.utilization_percent.into(), 10, 95)?;
        if let Some(threshold) = spec.lag_threshold {
            in_range("lagThreshold", threshold, 1, u64::MAX)?;
        }
        if spec.schedules.len() > MAX_SCHEDULES {
            return Err(SettingsError::Schedules(spec.schedules.len()));
        }
        let day = u64::from(DAY_SECONDS);
        Ok(Self {
            min: Replicas(spec.min_replicas),
            max: Replicas(spec.max_replicas),
            target_lag: seconds("targetLagSeconds", spec.target_lag_seconds, 1, day)?,
            catch_up: seconds("catchUpSeconds", spec.catch_up_seconds, 1, day)?,
            utilization: f64::from(spec.utilization_percent) / 100.0,
            lag_threshold: spec.lag_threshold.map(Messages),
            scale_down_window: seconds("scaleDownWindowSeconds", spec.scale_down_window_seconds, 10, 3_600)?,
            sleep_after: seconds("sleepAfterSeconds", spec.sleep_after_seconds, 10, day)?,
            metrics_grace: seconds("metricsGraceSeconds", spec.metrics_grace_seconds, 10, 3_600)?,
            fallback: spec.fallback,
            schedules: spec.schedules,
        })
    }

    /// Whether no replica at all may run, outside of schedules.
    pub fn may_sleep(&self) -> bool {
        self.min == Replicas::ZERO
    }

    /// The share of the capacity above which replicas are added: halfway from the planned one to all of it. Between
    /// the two nothing changes, or a load that lies on a step would flap.
    pub(crate) fn upper_utilization(&self) -> f64 {
        f64::midpoint(1.0, self.utilization)
    }

    /// Seconds of arrivals that may wait without being a backlog: the reserve of capacity works them off. At most half
    /// of the target, so that there is time to act; at most half of `catchUpSeconds`, which keeps a higher rate from
    /// ever wanting fewer replicas.
    pub(crate) fn allowance_seconds(&self) -> f64 {
        self.target_lag.min(self.catch_up).as_secs_f64() / 2.0
    }
}

fn in_range(field: &'static str, value: u64, low: u64, high: u64) -> Result<(), SettingsError> {
    if (low..=high).contains(&value) { Ok(()) } else { Err(SettingsError::Range { field, value, low, high }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert!(Settings::new(SettingsSpec::default()).is_ok());
    }

    #[test]
    fn every_range_is_checked() {
        let ok = SettingsSpec::default;
        let cases: [(SettingsSpec, &str); 12] = [
            (SettingsSpec { max_replicas: 0, min_replicas: 0, ..ok() }, "maxReplicas is 0"),
            (SettingsSpec { max_replicas: 10_001, ..ok() }, "maxReplicas"),
            (SettingsSpec { min_replicas: 2, ..ok() }, "minReplicas 2 is above maxReplicas 1"),
            (SettingsSpec { target_lag_seconds: 0, ..ok() }, "targetLagSeconds"),
            (SettingsSpec { catch_up_seconds: 86_401, ..ok() }, "catchUpSeconds"),
            (SettingsSpec { utilization_percent: 9, ..ok() }, "utilizationPercent"),
            (SettingsSpec { utilization_percent: 96, ..ok() }, "utilizationPercent"),
            (SettingsSpec { lag_threshold: Some(0), ..ok() }, "lagThreshold"),
            (SettingsSpec { scale_down_window_seconds: 9, ..ok() }, "scaleDownWindowSeconds"),
            (SettingsSpec { sleep_after_seconds: 0, ..ok() }, "sleepAfterSeconds"),
            (SettingsSpec { metrics_grace_seconds: u32::MAX, ..ok() }, "metricsGraceSeconds"),
            (SettingsSpec { schedules: vec![schedule(); 17], ..ok() }, "17 schedules"),
        ];
        for (spec, words) in cases {
            let error = Settings::new(spec).expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    fn schedule() -> Schedule {
        Schedule::new("0 8 * * *", Duration::from_secs(3600), "UTC", Some(Replicas(1)), None).expect("valid")
    }
}
