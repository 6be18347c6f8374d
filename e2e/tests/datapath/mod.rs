//! What the data-path tests share: the stack, the size of a trial, and the verdict. Each test binary uses its part.
#![allow(dead_code)]

use sluice_e2e::checker::Report;
use sluice_e2e::datapath::HarnessError;
use sluice_e2e::datapath::scenario::{Engines, Scenario};
use sluice_e2e::datapath::trial::Trial;
use sluice_e2e::generator::Profile;
use sluice_e2e::stack::{Group, Stack, require_local};

/// Partitions of every topic.
pub const PARTITIONS: u32 = 4;
/// Orders of a trial.
pub const ORDERS: usize = 3_000;
/// Orders a second: a trial's load lasts ten seconds, so that faults meet it at work.
pub const RATE: u32 = 300;

/// The stack, or `None` with a note when there is none.
pub fn stack() -> Option<Stack> {
    require_local(&[Group::Kafka, Group::Redis])
}

/// Seeds of a test: one in CI, `SLUICE_CAMPAIGN` of them in a campaign.
pub fn seeds() -> std::ops::RangeInclusive<u64> {
    let count = std::env::var("SLUICE_CAMPAIGN").ok().and_then(|count| count.parse().ok()).unwrap_or(1);
    1..=count
}

/// What the workers of a pipeline's trial run.
pub fn engines() -> Engines {
    if std::env::var("SLUICE_NO_VIEWS").is_ok() { Engines::Processor } else { Engines::Both }
}

/// A scenario on the shared Kafka and Redis.
pub fn scenario<'a>(stack: &'a Stack, name: &str) -> Scenario<'a> {
    let (kafka, redis) = (stack.kafka().expect("required"), stack.redis().expect("required"));
    Scenario::create(name, kafka, redis, PARTITIONS, engines()).or_fail()
}

/// A trial under load, without workers yet.
pub fn trial<'a>(scenario: &'a Scenario<'a>, seed: u64) -> Trial<'a> {
    let profile = Profile::mixed(seed, PARTITIONS);
    Trial::start(scenario, profile, ORDERS, RATE).unwrap_or_else(|error| panic!("{error}"))
}

/// A harness error as a failed test with the whole message.
pub trait OrFail<T> {
    /// The value.
    fn or_fail(self) -> T;
}

impl<T> OrFail<T> for Result<T, HarnessError> {
    fn or_fail(self) -> T {
        self.unwrap_or_else(|error| panic!("{error}"))
    }
}

/// Judges the trial; whatever is broken fails the test, and so does a verdict about too little.
pub fn acquit(trial: Trial<'_>) -> Report {
    let report = trial.verdict().or_fail();
    assert!(report.is_clean(), "{report}");
    assert!(report.checked("inputs") >= ORDERS as u64, "too little was looked at: {report}");
    println!("{report}");
    report
}
