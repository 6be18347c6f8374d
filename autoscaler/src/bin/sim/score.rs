//! A run and its score.

use crate::scalers::Kind;
use crate::traces::{PARTITIONS, SLO_SECONDS, Trace};
use crate::world::World;

/// Two changes in opposite directions this close are a flap.
const FLAP_SECONDS: u32 = 600;
/// The plots have a point every so many seconds.
pub const SAMPLE_SECONDS: u32 = 20;

/// What a run cost and how well it did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Seconds in which some record waited longer than the SLO.
    pub violations: u32,
    /// Pods times seconds.
    pub replica_seconds: u32,
    /// Rebalances of the group.
    pub rebalances: u32,
    /// Changes that undid one of the last ten minutes.
    pub flaps: u32,
}

impl std::ops::AddAssign for Score {
    fn add_assign(&mut self, other: Self) {
        self.violations += other.violations;
        self.replica_seconds += other.replica_seconds;
        self.rebalances += other.rebalances;
        self.flaps += other.flaps;
    }
}

/// One point of a plot.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Pods.
    pub replicas: u32,
    /// Longest wait, in seconds.
    pub lag_seconds: u32,
}

/// A run.
pub struct Run {
    /// The score.
    pub score: Score,
    /// Every [`SAMPLE_SECONDS`].
    pub samples: Vec<Sample>,
}

/// Runs a trace.
pub fn run(trace: &Trace, kind: Kind, seed: u64) -> Run {
    let mut world = World::new(trace, trace.initial.max(kind.fewest(trace.min)), seed);
    let mut scaler = kind.build(trace.min, u32::try_from(PARTITIONS).unwrap_or(u32::MAX));
    let (mut score, mut samples) = (Score::default(), Vec::new());
    let mut last: Option<(u32, bool)> = None;
    for second in 0..trace.length {
        world.step(second);
        let scored = world.partitions.iter().enumerate().filter(|(index, _)| !trace.fault.excused(*index));
        let oldest = scored.map(|(_, partition)| partition.oldest(second)).max().unwrap_or(0);
        score.violations += u32::from(oldest > SLO_SECONDS);
        score.replica_seconds += world.replicas();
        if second.is_multiple_of(SAMPLE_SECONDS) {
            samples.push(Sample { replicas: world.replicas(), lag_seconds: oldest });
        }
        if let Some(replicas) = scaler.tick(second, &world) {
            let up = replicas > world.replicas();
            score.flaps += u32::from(last.is_some_and(|(at, was_up)| was_up != up && second - at < FLAP_SECONDS));
            last = Some((second, up));
            world.scale(second, replicas);
        }
    }
    score.rebalances = world.rebalances;
    Run { score, samples }
}
