//! What is running, for a person.

use std::path::PathBuf;

use super::env::Described;
use super::error::StackError;
use super::install::Programs;
use super::layout::Layout;
use super::part::Part;
use super::process::{ProcessId, ProcessState};

/// One part of the shared stack as it is now.
#[derive(Debug, Clone)]
pub struct PartStatus {
    /// Its name.
    pub name: String,
    /// Its process, if alive.
    pub process: Option<ProcessId>,
    /// Whether it answers.
    pub ready: bool,
    /// `ready`, `not ready`, `frozen` or `dead`.
    pub state: &'static str,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Its log.
    pub log: PathBuf,
}

/// All parts of the shared stack.
pub fn parts(layout: &Layout) -> Result<Vec<Part>, StackError> {
    let described = Described::load(layout, &Programs::locate(layout))?;
    let kafka = described.kafka.map(|cluster| cluster.parts);
    let redis = described.redis.map(|cluster| cluster.parts);
    let kube = described.kube.map(|cluster| cluster.parts);
    let specs = [kafka, redis, kube].into_iter().flatten().flatten();
    Ok(specs.map(|spec| Part::new(layout, spec)).collect())
}

/// How they are. The calling thread must be in the stack's network namespace, or nothing is ready.
pub fn status(layout: &Layout) -> Result<Vec<PartStatus>, StackError> {
    Ok(parts(layout)?.iter().map(part_status).collect())
}

fn part_status(part: &Part) -> PartStatus {
    let process = part.process();
    let ready = part.is_ready();
    PartStatus {
        name: part.name().to_owned(),
        process,
        ready,
        state: match part.state() {
            ProcessState::Dead => "dead",
            ProcessState::Frozen => "frozen",
            ProcessState::Running if ready => "ready",
            ProcessState::Running => "not ready",
        },
        resident_bytes: process.map_or(0, ProcessId::resident_bytes),
        log: part.log().to_owned(),
    }
}
