//! What was decided, and why.

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;

use crate::sleep::Asleep;
use crate::units::{Messages, Rate, Replicas, Short};

/// Longest text of [`Decision::explain`].
pub const MAX_EXPLANATION_BYTES: usize = 768;

/// What to do, and every term of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Replicas the Deployment should ask for. Equal to those it asks for now: leave it alone.
    pub target: Replicas,
    /// Replicas that the load asks for now, within the bounds but before cool-downs and windows. Absent: not known.
    pub recommended: Option<Replicas>,
    /// Which way the target lies.
    pub action: Action,
    /// Why it moves, or why it does not.
    pub reason: Reason,
    /// What keeps the target from the recommendation, or the recommendation from the load.
    pub limit: Limit,
    /// The formula. Absent without a measurement or a capacity.
    pub terms: Option<Terms>,
    /// A partition that no number of replicas helps.
    pub partition_bound: Option<PartitionBound>,
    /// Partitions that stand still.
    pub stuck: Stuck,
    /// Scale-ups that did not help have frozen further ones until then.
    pub frozen_until: Option<Timestamp>,
    /// The shortest time between two changes now.
    pub cool_down: Duration,
    /// No replica runs, and none shall.
    pub asleep: Option<Asleep>,
}

/// The terms of the formula, in replicas where not said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// Records waiting in partitions that move.
    pub lag: Messages,
    /// How long the oldest of them waits.
    pub oldest: Duration,
    /// Records a second.
    pub arrival: Rate,
    /// Records that one replica processes in a second of work.
    pub capacity: Rate,
    /// For the arrivals at the planned utilisation.
    pub arrival_replicas: f64,
    /// Of these, the reserve that a backlog may use.
    pub reserve_replicas: f64,
    /// For the backlog within `catchUpSeconds`.
    pub catch_up_replicas: f64,
    /// For what piles up during the change itself.
    pub change_replicas: f64,
    /// By `lagThreshold`, if it is set.
    pub threshold_replicas: Option<Replicas>,
    /// Arrivals as a share of what the present members can do; above 1 the lag grows.
    pub utilization: f64,
}

/// Which way the target lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nowhere.
    Hold,
    /// More.
    Up,
    /// Fewer.
    Down,
    /// From none to some.
    Wake,
    /// From some to none.
    Sleep,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// One CamelCase word, for conditions and metric labels.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)* }
            }
        }
    };
}

words! {
    /// Why the target moves, or why it does not.
    Reason {
        /// The load fits.
        Steady,
        /// The arrivals need more than the upper utilisation.
        LoadAboveUtilization,
        /// The backlog would not be gone in time.
        Backlog,
        /// Less was needed all through the window.
        LoadBelowUtilization,
        /// Work arrived while asleep.
        WorkArrived,
        /// Asleep for so long that Kafka would soon forget the group's offsets: a member keeps them.
        KeepingOffsets,
        /// Nothing arrives and nothing waits: none runs.
        Asleep,
        /// Nothing arrived and nothing waited for long enough.
        Idle,
        /// The replicas were outside of the bounds of settings, schedules or partitions.
        OutOfBounds,
        /// Fewer would do, but not yet for long enough.
        InsideWindow,
        /// Fewer would do, but the lag is above its target.
        LagAboveTarget,
        /// The arrivals have just jumped: the next measurement tells how far, and one step is better than two.
        Confirming,
        /// The last change was too short ago.
        CoolingDown,
        /// The group rebalances.
        Rebalancing,
        /// The members are not the replicas yet.
        Settling,
        /// Whether the last scale-up helps is not known yet.
        AwaitingEffect,
        /// More replicas did not help the last time.
        Ineffective,
        /// Records wait, workers live, and nothing is processed.
        NoProgress,
        /// Nobody worked yet, so nobody knows what a replica can do.
        CapacityUnknown,
        /// Some partitions could not be measured: no reason to remove replicas.
        PartlyMeasured,
        /// Nothing could be measured.
        MetricsMissing,
        /// Nothing could be measured for too long: the fallback counts.
        FallbackApplied,
    }
}

words! {
    /// What limits the number of replicas.
    Limit {
        /// Nothing.
        Unlimited,
        /// `minReplicas`.
        MinReplicas,
        /// Kafka keeps the offsets of a group without members for too short a time to sleep.
        OffsetRetention,
        /// `maxReplicas`.
        MaxReplicas,
        /// A schedule's `minReplicas`.
        ScheduleFloor,
        /// A schedule's `maxReplicas`.
        ScheduleCeiling,
        /// The partitions: a replica more has nothing to do.
        Partitions,
        /// At most half of the replicas are removed at a time.
        StepDown,
        /// After a freeze, one level at a time.
        Probe,
    }
}

/// A partition that receives more than one lane can process: replicas do not help it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PartitionBound {
    /// Its index in the measurement.
    pub partition: usize,
    /// What it receives.
    pub rate: Rate,
    /// What one lane can do.
    pub lane_capacity: Rate,
    /// It alone is so heavy: a key is.
    pub hot: bool,
    /// With evenly spread keys, so many partitions would do.
    pub advised_partitions: u32,
}

impl PartitionBound {
    /// What to do about it, in one bounded sentence. Partitions are never added by themselves: that breaks the order
    /// of keyed records.
    pub fn advice(&self) -> String {
        let Self { partition, rate, lane_capacity, advised_partitions, .. } = self;
        let fact =
            format!("partition {partition} receives {rate} records/s, one worker thread processes {lane_capacity}");
        if self.hot {
            format!(
                "{fact}: more replicas cannot help; one key or few dominate it, spread them (more partitions alone will not)"
            )
        } else {
            format!(
                "{fact}: more replicas cannot help; use at least {advised_partitions} partitions or make the steps cheaper"
            )
        }
    }
}

/// Partitions whose consumer lives and that do not move although records wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stuck {
    /// How many.
    pub count: usize,
    /// The first eight, by their index in the measurement.
    pub first: Vec<usize>,
}

impl Decision {
    /// Everything in one line of at most [`MAX_EXPLANATION_BYTES`].
    pub fn explain(&self) -> String {
        let mut text = format!("{:?}, {}: {}", self.action, self.target, self.reason.as_str());
        // Writing to a String cannot fail.
        if let Some(terms) = &self.terms {
            let _ = write!(text, "; {terms}");
        }
        if let Some(recommended) = self.recommended {
            let _ = write!(text, " → {recommended}");
        }
        if self.limit != Limit::Unlimited {
            let _ = write!(text, ", limited by {}", self.limit.as_str());
        }
        if self.stuck.count > 0 {
            let _ = write!(text, "; {} partitions stand still, first {:?}", self.stuck.count, self.stuck.first);
        }
        if let Some(until) = self.frozen_until {
            let _ = write!(text, "; no more replicas before {until:.0}: the last ones did not help");
        }
        if let Some(Asleep { until }) = self.asleep {
            let _ = write!(text, "; at {until:.0} at the latest a replica starts, so that Kafka keeps the offsets");
        }
        if let Some(bound) = &self.partition_bound {
            let _ = write!(text, "; {}", bound.advice());
        }
        while text.len() > MAX_EXPLANATION_BYTES {
            text.pop();
        }
        text
    }
}

impl Terms {
    /// What they come to: replicas, not rounded. Backlog and change use the reserve first.
    pub fn needed(&self) -> f64 {
        self.arrival_replicas + (self.catch_up_replicas + self.change_replicas - self.reserve_replicas).max(0.0)
    }
}

impl std::fmt::Display for Terms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { arrival, capacity, lag, oldest, .. } = self;
        write!(
            f,
            "{arrival} records/s arrive, {capacity} a replica, {} wait up to {} s: arrivals {} (reserve {}), backlog {} + change {}",
            lag.0,
            oldest.as_secs(),
            Short(self.arrival_replicas),
            Short(self.reserve_replicas),
            Short(self.catch_up_replicas),
            Short(self.change_replicas),
        )?;
        if let Some(threshold) = self.threshold_replicas {
            write!(f, ", by lagThreshold {threshold}")?;
        }
        Ok(())
    }
}
