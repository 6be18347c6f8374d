//! I5 and I6: what readers saw while faults went on.

use std::collections::BTreeMap;

use super::fault::FaultLog;
use super::fold::{Folded, Timeline, Version};
use super::report::Report;
use super::view::Held;
use super::violation::Violation;

/// One read of one key. Reads of one key follow each other: the next begins after this one ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The Redis key.
    pub key: String,
    /// When the read began and ended, in milliseconds since 1970 by the sampler's clock.
    pub from_ms: i64,
    /// See `from_ms`.
    pub until_ms: i64,
    /// What was there.
    pub held: Option<Held>,
}

/// What the reads so far prove about a key.
#[derive(Clone, Copy)]
struct Floor {
    /// Index of the oldest version that all reads since the last fault allow.
    version: usize,
    /// When the last read ended.
    at_ms: i64,
}

/// Checks I5 for every sample, and I6 for those outside the faults that excuse older values.
pub fn check_samples(folded: &Folded, samples: &[Sample], faults: &FaultLog, slack_ms: i64) -> Report {
    let mut report = Report::default();
    let mut floors: BTreeMap<&str, Floor> = BTreeMap::new();
    let nothing = Timeline { partition: -1, versions: Vec::new() };
    for sample in samples {
        let timeline = folded.keys.get(&sample.key).unwrap_or(&nothing);
        if let Some(held) = &sample.held
            && !timeline.versions.iter().any(|version| version.state.as_ref() == Some(held))
        {
            let (key, found) = (sample.key.clone(), held.to_string());
            report.found(Violation::Uncommitted { key, found, at_ms: sample.until_ms });
            continue;
        }
        let floor = floors.get(sample.key.as_str()).copied();
        let floor = floor.filter(|floor| !faults.separates(floor.at_ms, sample.until_ms));
        if faults.excuses(sample.from_ms, sample.until_ms) {
            floors.remove(sample.key.as_str());
            continue;
        }
        match next_floor(timeline, floor.map(|floor| floor.version), sample, slack_ms) {
            Next::At(version) => {
                floors.insert(&sample.key, Floor { version, at_ms: sample.until_ms });
            }
            Next::Unknown => {}
            Next::Backwards(after) => {
                let found = sample.held.as_ref().map_or_else(|| "nothing".into(), ToString::to_string);
                report.found(Violation::Backwards { key: sample.key.clone(), found, at_ms: sample.until_ms, after });
            }
        }
    }
    report.count("samples", samples.len());
    report.count("samples with a value", samples.iter().filter(|sample| sample.held.is_some()).count());
    report
}

enum Next {
    /// The read shows this version or a later one.
    At(usize),
    /// The read shows nothing, and nothing was seen before.
    Unknown,
    /// The read shows something older than this offset.
    Backwards(i64),
}

/// The oldest version, not older than the floor, that explains the read.
fn next_floor(timeline: &Timeline, floor: Option<usize>, sample: &Sample, slack_ms: i64) -> Next {
    let from = floor.unwrap_or(0);
    let explains = |version: &Version| match &sample.held {
        Some(held) => version.state.as_ref() == Some(held),
        None => {
            version.state.is_none()
                || version.expires_at_ms.is_some_and(|at| at <= sample.until_ms.saturating_add(slack_ms))
        }
    };
    match timeline.versions.iter().skip(from).position(explains) {
        // Without a floor, absence is explained by the time before the first record as well.
        Some(_) | None if floor.is_none() && sample.held.is_none() => Next::Unknown,
        Some(further) => Next::At(from + further),
        None => Next::Backwards(timeline.versions[from].offset),
    }
}
