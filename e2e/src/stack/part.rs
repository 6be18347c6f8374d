//! A part: one long-running program of the stack, described by data, started as a process of its own.
//!
//! A part is nobody's child: it survives the command that started it and is found again by its record, `pid start-time`,
//! which the process writes itself before it becomes the program. So there is no moment in which it runs unrecorded, wherever
//! the starter is killed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::command::{self, wait_for};
use super::error::{AtPath, StackError};
use super::files;
use super::layout::Layout;
use super::process::{ProcessId, ProcessState};
use super::ready::Ready;

/// Writes `pid start-time` to `$1` and becomes the rest of the arguments. `exec` keeps both.
const LAUNCH: &str = r#"record=$1; shift
read -r stat < /proc/$$/stat
start=$(set -- ${stat##*) }; echo "${20}")
echo "$$ $start" > "$record.tmp" && mv "$record.tmp" "$record" || exit 1
exec "$@""#;

/// How a part is started and when it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartSpec {
    /// Unique in the stack, as `kafka-1`.
    pub name: String,
    /// Program and arguments. They are world-readable in `/proc`, so they never hold a secret.
    pub argv: Vec<String>,
    /// Environment beside PATH and HOME.
    pub env: BTreeMap<String, String>,
    /// When it counts as ready.
    pub ready: Ready,
    /// How long it may take to get ready, in seconds.
    pub start_seconds: u64,
}

/// A part of the stack that can be started, killed, frozen and watched.
#[derive(Debug, Clone)]
pub struct Part {
    spec: PartSpec,
    record: PathBuf,
    log: PathBuf,
    directory: PathBuf,
}

impl Part {
    /// The part of this stack with this description.
    pub fn new(layout: &Layout, spec: PartSpec) -> Self {
        Self {
            record: layout.parts().join(format!("{}.pid", spec.name)),
            log: layout.logs().join(format!("{}.log", spec.name)),
            directory: layout.run().to_owned(),
            spec,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Where it logs.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its process, if one is alive.
    pub fn process(&self) -> Option<ProcessId> {
        let record = fs::read_to_string(&self.record).ok()?;
        ProcessId::parse(&record).filter(|process| process.is_alive())
    }

    /// Its state.
    pub fn state(&self) -> ProcessState {
        self.process().map_or(ProcessState::Dead, ProcessId::state)
    }

    /// Whether it runs and answers.
    pub fn is_ready(&self) -> bool {
        self.state() == ProcessState::Running && self.spec.ready.holds()
    }

    /// Starts the program; returns when the process is recorded, not when it is ready.
    pub fn start(&self) -> Result<(), StackError> {
        if self.process().is_some() {
            return Err(self.wrong_state("is already running"));
        }
        for path in [&self.record, &self.log] {
            path.parent().map_or(Ok(()), files::make_dir)?;
        }
        files::remove_file(&self.record)?;
        let log = fs::OpenOptions::new().append(true).create(true).open(&self.log).at(&self.log)?;
        let errors = log.try_clone().at(&self.log)?;
        let mut launcher = Command::new("setsid");
        launcher
            .args(["--fork", "sh", "-c", LAUNCH, "part"])
            .arg(&self.record)
            .args(&self.spec.argv)
            .env_clear()
            .env("PATH", path())
            .env("HOME", "/root")
            .envs(&self.spec.env)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        // Not `command::output`: it would wait until the part closes its output.
        let status = launcher
            .status()
            .map_err(|source| StackError::Spawn { program: format!("setsid … {}", self.spec.argv[0]), source })?;
        if !status.success() {
            let output = files::tail(&self.log, 20);
            return Err(StackError::Command { program: self.spec.argv[0].clone(), status, output });
        }
        let recorded = wait_for(Duration::from_secs(60), || self.record.exists().then_some(()));
        recorded.ok_or_else(|| self.timed_out("has not started", 60))
    }

    /// Waits until it answers.
    pub fn wait_ready(&self) -> Result<(), StackError> {
        let limit = self.spec.start_seconds;
        let ready = wait_for(Duration::from_secs(limit), || {
            if self.process().is_none() {
                return Some(false);
            }
            self.is_ready().then_some(true)
        });
        match ready {
            Some(true) => Ok(()),
            Some(false) => Err(self.timed_out("ended by itself", 0)),
            None => Err(self.timed_out("is not ready", limit)),
        }
    }

    /// Starts it and waits until it answers.
    pub fn start_and_wait(&self) -> Result<(), StackError> {
        self.start()?;
        self.wait_ready()
    }

    /// SIGKILL, and waits until the process is gone. Nothing is wrong with killing a part that is dead.
    pub fn kill9(&self) -> Result<(), StackError> {
        let Some(process) = self.process() else { return Ok(()) };
        process.signal(Signal::SIGKILL)?;
        let gone = wait_for(Duration::from_secs(20), || (!process.is_alive()).then_some(()));
        gone.ok_or_else(|| self.timed_out("is not dead by SIGKILL", 20))
    }

    /// SIGTERM; SIGKILL when it has not ended in `grace`.
    pub fn stop(&self, grace: Duration) -> Result<(), StackError> {
        let Some(process) = self.process() else { return Ok(()) };
        process.signal(Signal::SIGTERM)?;
        process.signal(Signal::SIGCONT)?;
        match wait_for(grace, || (!process.is_alive()).then_some(())) {
            Some(()) => Ok(()),
            None => self.kill9(),
        }
    }

    /// SIGSTOP: the process keeps its connections and says nothing more.
    pub fn freeze(&self) -> Result<(), StackError> {
        let process = self.process().ok_or_else(|| self.wrong_state("is not running, so it cannot be frozen"))?;
        process.signal(Signal::SIGSTOP)?;
        // The signal is delivered later than the call returns; a test that freezes means "from now on".
        let frozen = wait_for(Duration::from_secs(10), || (process.state() == ProcessState::Frozen).then_some(()));
        frozen.ok_or_else(|| self.timed_out("is not stopped by SIGSTOP", 10))
    }

    /// SIGCONT.
    pub fn thaw(&self) -> Result<(), StackError> {
        self.process().map_or(Ok(()), |process| process.signal(Signal::SIGCONT))
    }

    /// Notes who starts this part and where its data is, so that both can be ended when the owner was killed. Only for parts
    /// outside the shared stack.
    pub(crate) fn record_owner(&self, folder: &Path) -> Result<(), StackError> {
        let owner = ProcessId::own().map(ProcessId::record).unwrap_or_default();
        files::write(&self.record.with_extension("owner"), &format!("{owner}\n{}", folder.display()))
    }

    /// Forgets a part that is dead.
    pub(crate) fn forget(&self) -> Result<(), StackError> {
        files::remove_file(&self.record)?;
        files::remove_file(&self.record.with_extension("owner"))
    }

    fn wrong_state(&self, state: &'static str) -> StackError {
        StackError::PartState { name: self.spec.name.clone(), state }
    }

    fn timed_out(&self, state: &str, seconds: u64) -> StackError {
        let detail = format!("; the end of {}:{}", self.log.display(), files::tail(&self.log, 15));
        StackError::Timeout { what: format!("{} {state}", self.spec.name), seconds, detail }
    }
}

/// The caller's PATH and the administrator's folders, where `nft`, `ip` and `runc` are.
fn path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    format!("{own}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")
}

/// Makes the argv of a part: the program's full path, then its arguments.
pub(crate) fn argv<S: Into<String>>(
    program: &str,
    arguments: impl IntoIterator<Item = S>,
) -> Result<Vec<String>, StackError> {
    let path = if program.contains('/') { Some(program.into()) } else { command::find(program) };
    let path =
        path.ok_or_else(|| StackError::Absent(format!("{program:?} is not installed; run `make stack-install`")))?;
    Ok(std::iter::once(path.display().to_string()).chain(arguments.into_iter().map(Into::into)).collect())
}
