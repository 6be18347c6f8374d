//! Programs that run to an end, each with a time-out.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::error::StackError;

/// A command that is killed after `seconds`, and when this process is killed: `timeout` passes the signal on to everything
/// the program has started. A compiler or formatter of a killed run must not go on writing where the next run works.
pub(crate) fn bounded(seconds: u32, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "timeout", "--kill-after=5"]).arg(seconds.to_string());
    command.arg(program.as_ref()).stdin(Stdio::null());
    command
}

/// Runs it and hands back what it printed on standard output; on failure the error holds the end of both streams.
pub fn output(command: &mut Command) -> Result<String, StackError> {
    let program = name(command);
    let output = command.output().map_err(|source| StackError::Spawn { program: program.clone(), source })?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    let mut said = format!("{}\n{}", printed.trim_end(), String::from_utf8_lossy(&output.stderr).trim_end());
    let keep = said.len().saturating_sub(4000);
    let keep = (keep..=said.len()).find(|&index| said.is_char_boundary(index)).unwrap_or(0);
    said.drain(..keep);
    Err(StackError::Command { program, status: output.status, output: said.trim().to_owned() })
}

/// As [`output`], for its effect only.
pub(crate) fn run(command: &mut Command) -> Result<(), StackError> {
    output(command).map(drop)
}

/// Whether it runs and succeeds.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// The program behind `timeout`, for messages (arguments may be long, and never hold secrets).
fn name(command: &Command) -> String {
    if command.get_program() == "setpriv" {
        let mut shown: Vec<String> = command.get_args().skip(5).map(|arg| arg.to_string_lossy().into_owned()).collect();
        shown.truncate(6);
        return shown.join(" ");
    }
    command.get_program().to_string_lossy().into_owned()
}

/// Whether a program is on the PATH or in the administrator's folders.
pub(crate) fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(Into::into))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

const SHORTEST_REST: Duration = Duration::from_millis(50);
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Polls `check` until it answers or `timeout` is over. It rests twice as long as it asks: most checks start a process, and what
/// is waited for needs the processor more than the question.
pub fn wait_for<T>(timeout: Duration, mut check: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + timeout;
    loop {
        let asked = Instant::now();
        if let Some(found) = check() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep((asked.elapsed() * 2).clamp(SHORTEST_REST, LONGEST_REST));
    }
}
