//! The load, the faults and the bounds. Chosen before any scaler was tuned, and the same for all.

use crate::costs;

/// Partitions of the topic, and so the most replicas. With two threads a worker and half its capacity each, more than
/// 6,000 records/s cannot be processed by any number of replicas: no trace without a fault asks for it.
pub const PARTITIONS: usize = 12;
/// Records should not wait longer.
pub const SLO_SECONDS: u32 = 30;

/// One trace.
#[derive(Clone, Copy, Debug)]
pub struct Trace {
    /// File name and row.
    pub name: &'static str,
    /// What happens, for the report.
    pub about: &'static str,
    /// How long, in seconds.
    pub length: u32,
    /// Records a second, by the second.
    pub rate: fn(u32) -> f64,
    /// What is wrong.
    pub fault: Fault,
    /// Replicas at the start.
    pub initial: u32,
    /// Fewest replicas, for those that can do 0.
    pub min: u32,
    /// Seconds that a partition stands still when it moves.
    pub rebalance: f64,
    /// Seconds from asking for a worker to its joining the group.
    pub start_up: f64,
    /// Its load changes: it counts for the sum of violations.
    pub changes: bool,
}

/// What is wrong, between two seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Partition 3 receives this share of all records.
    Skew(u32, u32, f64),
    /// Partition 5 cannot be processed.
    Poison(u32, u32),
    /// All workers together do at most so many records a second: they wait for Redis.
    SlowRedis(u32, u32, f64),
    /// No broker answers: producers keep their records, workers wait, lag cannot be measured.
    Outage(u32, u32),
}

const MINUTE: u32 = 60;

/// All traces.
pub const ALL: [Trace; 11] = [
    Trace { name: "constant", about: "3,000 records/s, nothing else", rate: |_| 3_000.0, initial: 3, ..BASE },
    Trace { name: "step", about: "800 → 4,000 → 800 records/s", rate: step, changes: true, ..BASE },
    Trace {
        name: "diurnal",
        about: "a day in four hours, 500 to 4,500 records/s",
        rate: diurnal,
        length: 240 * MINUTE,
        changes: true,
        ..BASE
    },
    Trace {
        name: "bursts",
        about: "1,000 records/s with a minute of 4,500 every eight",
        rate: bursts,
        length: 80 * MINUTE,
        initial: 2,
        changes: true,
        ..BASE
    },
    Trace {
        name: "rebalance cost",
        about: "the step, but a partition that moves stands still for 20 s",
        rate: step,
        rebalance: costs::SLOW_REBALANCE_SECONDS,
        changes: true,
        ..BASE
    },
    Trace {
        name: "sleep",
        about: "nothing, 3,000 records/s for 10 minutes, nothing, 200 for 5, nothing; 0 replicas allowed",
        rate: sleep,
        length: 80 * MINUTE,
        initial: 0,
        min: 0,
        changes: true,
        ..BASE
    },
    Trace {
        name: "skew",
        about: "3,000 records/s, one partition takes 14 % of them for half an hour",
        rate: |_| 3_000.0,
        fault: Fault::Skew(15 * MINUTE, 45 * MINUTE, 0.14),
        initial: 6,
        ..BASE
    },
    Trace {
        name: "hot key",
        about: "3,000 records/s, one partition takes 30 %, more than a worker thread can do",
        rate: |_| 3_000.0,
        fault: Fault::Skew(15 * MINUTE, 45 * MINUTE, 0.30),
        initial: 6,
        ..BASE
    },
    Trace {
        name: "poison",
        about: "2,000 records/s, one partition stands still for half an hour",
        rate: |_| 2_000.0,
        fault: Fault::Poison(15 * MINUTE, 45 * MINUTE),
        initial: 3,
        ..BASE
    },
    Trace {
        name: "slow Redis",
        about: "2,500 records/s, all workers together can do 1,500 for 20 minutes",
        rate: |_| 2_500.0,
        fault: Fault::SlowRedis(15 * MINUTE, 35 * MINUTE, 1_500.0),
        initial: 4,
        ..BASE
    },
    Trace {
        name: "broker outage",
        about: "3,000 records/s, no broker for three minutes",
        rate: |_| 3_000.0,
        fault: Fault::Outage(20 * MINUTE, 23 * MINUTE),
        initial: 6,
        ..BASE
    },
];

const BASE: Trace = Trace {
    name: "",
    about: "",
    length: 70 * MINUTE,
    rate: |_| 0.0,
    fault: Fault::None,
    initial: 1,
    min: 1,
    rebalance: costs::REBALANCE.value,
    start_up: costs::START_UP.value,
    changes: false,
};

fn step(second: u32) -> f64 {
    if (10 * MINUTE..40 * MINUTE).contains(&second) { 4_000.0 } else { 800.0 }
}

/// Two parabolas for a sine: night, day, night.
fn diurnal(second: u32) -> f64 {
    let phase = f64::from(second % (240 * MINUTE)) / f64::from(240 * MINUTE);
    let half = |x: f64| 4.0 * x * (1.0 - x);
    let wave = if phase < 0.5 { -half(phase * 2.0) } else { half(phase * 2.0 - 1.0) };
    2_500.0 + 2_000.0 * wave
}

fn bursts(second: u32) -> f64 {
    if second % (8 * MINUTE) >= 7 * MINUTE { 4_500.0 } else { 1_000.0 }
}

fn sleep(second: u32) -> f64 {
    match second / MINUTE {
        10..20 => 3_000.0,
        50..55 => 200.0,
        _ => 0.0,
    }
}

impl Fault {
    /// Share of the records that partition `index` receives.
    pub fn share(self, second: u32, index: usize) -> f64 {
        let even = 1.0 / PARTITIONS as f64;
        match self {
            Self::Skew(from, to, share) if (from..to).contains(&second) => {
                if index == 3 {
                    share
                } else {
                    (1.0 - share) / (PARTITIONS - 1) as f64
                }
            }
            _ => even,
        }
    }

    /// Whether partition `index` stands still.
    pub fn poisoned(self, second: u32, index: usize) -> bool {
        matches!(self, Self::Poison(from, to) if index == 5 && (from..to).contains(&second))
    }

    /// Whether a partition's waiting is nobody's fault: no scaler can help it, so it is not scored.
    pub fn excused(self, index: usize) -> bool {
        matches!(self, Self::Poison(..)) && index == 5
    }

    /// What all workers together can do.
    pub fn shared_limit(self, second: u32) -> Option<f64> {
        match self {
            Self::SlowRedis(from, to, limit) if (from..to).contains(&second) => Some(limit),
            _ => None,
        }
    }

    /// Whether no broker answers.
    pub fn outage(self, second: u32) -> bool {
        matches!(self, Self::Outage(from, to) if (from..to).contains(&second))
    }
}
