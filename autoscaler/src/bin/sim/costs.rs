//! What a change costs and how fast a worker is: the one place to put values measured on the real stack.

/// One cost and where it comes from.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// What it is.
    pub name: &'static str,
    /// Seconds, or records a second.
    pub value: f64,
    /// The unit.
    pub unit: &'static str,
    /// How it was measured, if it was.
    pub measured: Option<&'static str>,
}

/// Where the measured ones are from: workers with 15 % of a core each, everything on one machine of two cores.
const LIVE: Option<&str> = Some("median of [the live run](autoscaling/live.md)");

/// From the write of `/scale` to the first member of the new pod in the group.
pub const START_UP: Cost = Cost { name: "start of a worker", value: 6.1, unit: "s", measured: LIVE };
/// How long a partition that changes its owner stands still in a cooperative rebalance, until its first commit.
pub const REBALANCE: Cost = Cost { name: "pause of a partition that moves", value: 11.8, unit: "s", measured: LIVE };
/// What one worker does. The traces scale with it; it decides nothing.
pub const CAPACITY: Cost = Cost {
    name: "capacity of a replica",
    value: 1_000.0,
    unit: "records/s",
    measured: Some("a choice, not a measurement"),
};

/// All of them, for the report.
pub const ALL: [Cost; 3] = [START_UP, REBALANCE, CAPACITY];

/// A rebalance as slow as it gets with large state or a tired coordinator, for the trace of that name.
pub const SLOW_REBALANCE_SECONDS: f64 = 20.0;
/// Starts differ by up to this share, so that a jump is several rebalances as in life.
pub const START_UP_SPREAD: f64 = 0.25;
/// Threads a worker.
pub const LANES: u32 = 2;
/// How often our operator looks.
pub const SWEEP_SECONDS: u32 = 5;
/// How often the HPA controller looks (its default).
pub const HPA_SYNC_SECONDS: u32 = 15;
/// How old the lag of an HPA can be: a usual scrape interval before an adapter.
pub const SCRAPE_SECONDS: u32 = 15;
/// KEDA's default `pollingInterval`: it counts between 0 and 1 only; from 1 on the HPA asks KEDA, which asks Kafka.
pub const KEDA_POLL_SECONDS: u32 = 30;
/// KEDA's default `cooldownPeriod`, from the last activity to 0.
pub const KEDA_COOLDOWN_SECONDS: u32 = 300;
