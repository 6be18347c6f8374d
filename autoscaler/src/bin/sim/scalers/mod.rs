//! The three ways to scale.

mod hpa;
mod keda;
mod ours;

pub use hpa::{Hpa, HpaTuning};
pub use keda::{Keda, KedaTuning};
pub use ours::{Ours, OursTuning};

use crate::world::World;

/// Something that writes the replicas.
pub trait Scaler {
    /// Asked once a second; the replicas to write, if it wants to.
    fn tick(&mut self, second: u32, world: &World<'_>) -> Option<u32>;
}

/// What a scaler is and how it is tuned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// The crate's `decide`.
    Ours(OursTuning),
    /// autoscaling/v2 on the lag as an external metric.
    Hpa(HpaTuning),
    /// KEDA's Kafka scaler, which is an HPA and a switch between 0 and 1.
    Keda(KedaTuning),
}

impl Kind {
    /// Ready for a trace.
    pub fn build(self, min: u32, max: u32) -> Box<dyn Scaler> {
        match self {
            Self::Ours(tuning) => Box::new(Ours::new(tuning, min, max)),
            Self::Hpa(tuning) => Box::new(Hpa::new(tuning, self.fewest(min), max)),
            Self::Keda(tuning) => Box::new(Keda::new(tuning, min, max)),
        }
    }

    /// The fewest replicas it can be set to: an HPA is switched off at 0.
    pub fn fewest(self, min: u32) -> u32 {
        if matches!(self, Self::Hpa(_)) { min.max(1) } else { min }
    }

    /// Its tuning in words.
    pub fn describe(self) -> String {
        match self {
            Self::Ours(t) => format!(
                "targetLagSeconds {}, catchUpSeconds {}, utilizationPercent {}, scaleDownWindowSeconds {}",
                t.target, t.catch_up, t.utilization, t.window
            ),
            Self::Hpa(t) => format!("AverageValue {}, scaleDown window {} s", t.average_value, t.window),
            Self::Keda(t) => format!(
                "lagThreshold {}, scaleDown window {} s, activationLagThreshold {}{}",
                t.hpa.average_value,
                t.hpa.window,
                t.activation,
                if t.even { ", ensureEvenDistributionOfPartitions" } else { "" }
            ),
        }
    }
}
