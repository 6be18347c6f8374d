//! `docs/autoscaling/live.md`.

use std::fmt::Write as _;

use super::costs::{Times, lateness, pauses, start_ups};
use super::tracer::Moment;
use crate::bench::Machine;

/// A part of the load.
#[derive(Debug, Clone, PartialEq)]
pub struct Phase {
    /// What happens.
    pub about: String,
    /// When it began, in seconds since the run began.
    pub from: f64,
    /// When it ended.
    pub until: f64,
}

/// A change of the number of workers, in the operator's words.
#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    /// When, in seconds since the run began.
    pub at: f64,
    /// Why.
    pub note: String,
}

/// Everything about one run.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// The load, in order.
    pub phases: Vec<Phase>,
    /// What the group did.
    pub moments: Vec<Moment>,
    /// What the operator did.
    pub moves: Vec<Move>,
    /// `targetLagSeconds`.
    pub target: f64,
    /// Settings that matter.
    pub settings: String,
    /// What the judge said, a line each.
    pub verdict: Vec<String>,
}

/// The whole page.
pub fn render(run: &Run, machine: Machine) -> String {
    let Machine { cores, load } = machine;
    let mut text = format!(
        "<!-- Written by `make scaling`. Do not edit. -->\n# Autoscaling, live\n\n\
         Real workers on a real cluster under a load that changes: brokers, Kubernetes, Redis, workers and measurement share {cores} cores\n\
         of one machine (load average {load:.1} at the beginning). {}\n\n## Load and workers\n\n\
         | load | from s | until s | workers asked for | largest lag, offsets | longest wait of a record, s | seconds over the target of {} s |\n\
         |---|---:|---:|---|---:|---:|---:|\n",
        run.settings, run.target
    );
    let late = lateness(&run.moments);
    for phase in &run.phases {
        let within: Vec<&Moment> =
            run.moments.iter().filter(|moment| (phase.from..phase.until).contains(&moment.at)).collect();
        let mut workers: Vec<String> = within.iter().map(|moment| moment.desired.to_string()).collect();
        workers.dedup();
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.0} | {} | {} | {:.1} | {} |",
            phase.about,
            phase.from,
            phase.until,
            workers.join(" → "),
            within.iter().map(|moment| moment.lag()).max().unwrap_or(0),
            late.worst(phase.from, phase.until),
            late.violated(phase.from, phase.until, run.target)
        );
    }
    text.push_str("\n## Every move, as the operator explains it\n\n| s | why |\n|---:|---|\n");
    for Move { at, note } in &run.moves {
        let _ = writeln!(text, "| {at:.0} | {} |", note.replace('|', "\\\\|"));
    }
    let (moved, kept) = pauses(&run.moments);
    text.push_str("\n## What a change costs\n\nSeen five times a second, so a time is up to 0.4 s off.\n\n| | count | median s | longest s |\n|---|---:|---:|---:|\n");
    row(&mut text, "from the write of `/scale` to the first new member", &start_ups(&run.moments));
    row(&mut text, "pause of a partition that went to another member", &moved);
    row(&mut text, "for comparison: between two commits of a partition that stayed", &kept);
    text.push_str("\n## The judge\n\n");
    for line in &run.verdict {
        let _ = writeln!(text, "- {line}");
    }
    text
}

fn row(text: &mut String, what: &str, times: &Times) {
    let shown = |time: Option<f64>| time.map_or_else(|| "–".to_owned(), |time| format!("{time:.1}"));
    let _ = writeln!(text, "| {what} | {} | {} | {} |", times.count(), shown(times.median()), shown(times.longest()));
}
