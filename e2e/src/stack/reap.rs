//! Ending what an earlier stack left behind, and nothing else: processes by recorded pid and start time.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::command::wait_for;
use super::error::{AtPath, StackError};
use super::files;
use super::install::Group;
use super::layout::Layout;
use super::process::ProcessId;

/// One recorded process.
struct Record {
    path: PathBuf,
    part: String,
    process: Option<ProcessId>,
    /// Whoever started a part outside the shared stack.
    owner: Option<ProcessId>,
    owned: bool,
    /// Its data, if it is outside the shared stack.
    folder: Option<PathBuf>,
}

/// Ends the parts of one group of the shared stack.
pub(crate) fn group(layout: &Layout, group: Group) -> Result<(), StackError> {
    let prefix = format!("{}-", group.name());
    let of_group = |record: &Record| !record.owned && record.part.starts_with(&prefix);
    end(&records(layout)?.into_iter().filter(of_group).collect::<Vec<_>>())
}

/// Ends the parts whose owner (a test, a benchmark) was killed before it could end them, and removes their data.
pub(crate) fn orphans(layout: &Layout) -> Result<(), StackError> {
    let orphaned = |record: &Record| record.owned && !record.owner.is_some_and(ProcessId::is_alive);
    let orphans: Vec<Record> = records(layout)?.into_iter().filter(orphaned).collect();
    for folder in orphans.iter().filter_map(|record| record.folder.as_ref()) {
        kill_all(&orphans.iter().filter_map(|record| record.process).collect::<Vec<_>>())?;
        if folder.starts_with(layout.run()) {
            files::remove_dir(folder)?;
        }
    }
    end(&orphans)
}

/// Ends every recorded part.
pub(crate) fn everything(layout: &Layout) -> Result<(), StackError> {
    end(&records(layout)?)
}

/// SIGKILL to each of these that is alive, and waits until all are gone.
pub(crate) fn kill_all(processes: &[ProcessId]) -> Result<(), StackError> {
    for process in processes {
        process.signal(Signal::SIGKILL)?;
    }
    let gone =
        wait_for(Duration::from_secs(30), || (!processes.iter().any(|process| process.is_alive())).then_some(()));
    gone.ok_or_else(|| {
        let alive: Vec<String> =
            processes.iter().filter(|process| process.is_alive()).map(|process| process.pid().to_string()).collect();
        let what = format!("processes {} are not dead by SIGKILL", alive.join(" "));
        StackError::Timeout { what, seconds: 30, detail: String::new() }
    })
}

fn records(layout: &Layout) -> Result<Vec<Record>, StackError> {
    let folder = layout.parts();
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.at(&folder)?,
    };
    let mut records = Vec::new();
    for entry in entries {
        let path = entry.at(&folder)?.path();
        if path.extension().is_some_and(|extension| extension == "pid") {
            records.push(read_record(path)?);
        }
    }
    Ok(records)
}

fn read_record(path: PathBuf) -> Result<Record, StackError> {
    let process = files::read_optional(&path)?.as_deref().and_then(ProcessId::parse);
    let owner = files::read_optional(&path.with_extension("owner"))?;
    Ok(Record {
        part: path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default(),
        process,
        owned: owner.is_some(),
        owner: owner.as_deref().and_then(|text| ProcessId::parse(text.lines().next()?)),
        folder: owner.as_deref().and_then(|text| text.lines().nth(1)).map(PathBuf::from),
        path,
    })
}

fn end(records: &[Record]) -> Result<(), StackError> {
    let alive: Vec<ProcessId> =
        records.iter().filter_map(|record| record.process).filter(|process| process.is_alive()).collect();
    kill_all(&alive)?;
    records.iter().try_for_each(|record| forget(&record.path))
}

fn forget(path: &Path) -> Result<(), StackError> {
    files::remove_file(path)?;
    files::remove_file(&path.with_extension("owner"))
}
