//! `sim`: traces of load against three ways to scale, scored. Writes `docs/autoscaling.md` and its plots.
//!
//! `sim [--check] [DOCS]`: writes into DOCS (`docs`), or with `--check` compares and fails if something differs.
//! `sim --explain TRACE`: our moves on one trace, each with its terms.
//!
//! ```text
//! costs.rs    what a change costs, and whether that was measured      traces.rs   the load, the faults, the bounds
//! world.rs    one consumer group on one topic, second by second       random.rs   seeded noise
//! scalers/    ours (the crate's `decide`), HPA on lag, KEDA           score.rs    a run and its score
//! study.rs    all runs: tuning of each, the table, the aims           report.rs   the text     plot.rs   the pictures
//! ```
//!
//! Only additions, multiplications and the like are used (no `exp`, no `sin`): the same numbers on every machine.
#![forbid(unsafe_code)]

mod costs;
mod plot;
mod random;
mod report;
mod scalers;
mod score;
mod study;
mod traces;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name] = arguments.as_slice()
        && flag == "--explain"
    {
        return explain(name);
    }
    let check = arguments.iter().any(|argument| argument == "--check");
    let docs = arguments.iter().find(|argument| !argument.starts_with("--")).map_or("docs", String::as_str);
    let study = study::run_all();
    println!("{}", report::headline(&study));
    let files = report::files(&study);
    let result = if check { differences(Path::new(docs), &files) } else { write(Path::new(docs), &files) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn explain(name: &str) -> ExitCode {
    let Some(trace) = traces::ALL.iter().find(|trace| trace.name == name) else {
        eprintln!("no trace {name:?}: {:?}", traces::ALL.map(|trace| trace.name));
        return ExitCode::FAILURE;
    };
    let tuning = scalers::OursTuning { explain: true, ..scalers::OursTuning::default() };
    let run = score::run(trace, scalers::Kind::Ours(tuning), study::SEED);
    println!("{:?}", run.score);
    ExitCode::SUCCESS
}

fn write(docs: &Path, files: &[(PathBuf, String)]) -> Result<(), String> {
    for (path, text) in files {
        let path = docs.join(path);
        let folder = path.parent().unwrap_or(docs);
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

fn differences(docs: &Path, files: &[(PathBuf, String)]) -> Result<(), String> {
    for (path, text) in files {
        let path = docs.join(path);
        match std::fs::read_to_string(&path) {
            Ok(found) if found == *text => {}
            Ok(_) => return Err(format!("{} is not what the simulator writes: run `make sim`", path.display())),
            Err(error) => return Err(format!("{}: {error}: run `make sim`", path.display())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The committed text and plots are those of this code.
    #[test]
    fn the_documentation_is_current() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let study = study::run_all();
        differences(&docs, &report::files(&study)).expect("generated files");
    }
}
