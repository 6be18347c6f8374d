//! Processes known by pid *and* start time, so that a pid given to somebody else meanwhile is never touched.

use std::fs;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::StackError;

/// One process of this machine since its last boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessId {
    pid: i32,
    /// Clock ticks after boot, field 22 of `/proc/PID/stat`.
    start: u64,
}

/// What `/proc` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessState {
    /// It runs or sleeps.
    Running,
    /// It is stopped by a signal.
    Frozen,
    /// It is gone, or a zombie that nobody has collected.
    Dead,
}

impl ProcessId {
    /// From `pid start`, as a part's record holds it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        Some(Self { pid: words.next()?.parse().ok()?, start: words.next()?.parse().ok()? })
    }

    /// The process that has this pid now.
    pub fn of(pid: i32) -> Option<Self> {
        stat(pid).map(|(_, start)| Self { pid, start })
    }

    /// This process.
    pub fn own() -> Option<Self> {
        i32::try_from(std::process::id()).ok().and_then(Self::of)
    }

    /// The pid alone.
    pub fn pid(self) -> i32 {
        self.pid
    }

    /// As a part's record holds it.
    pub fn record(self) -> String {
        format!("{} {}", self.pid, self.start)
    }

    /// Its state now.
    pub fn state(self) -> ProcessState {
        match stat(self.pid) {
            Some((state, start)) if start == self.start => match state {
                'Z' | 'X' => ProcessState::Dead,
                'T' => ProcessState::Frozen,
                _ => ProcessState::Running,
            },
            _ => ProcessState::Dead,
        }
    }

    /// Whether it is there, running or frozen.
    pub fn is_alive(self) -> bool {
        self.state() != ProcessState::Dead
    }

    /// Sends a signal; a process that is gone is not an error.
    pub fn signal(self, signal: Signal) -> Result<(), StackError> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(StackError::System { call: format!("kill({}, {signal})", self.pid), errno }),
        }
    }

    /// Resident memory in bytes, 0 when it is gone.
    pub fn resident_bytes(self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
    }
}

/// Every process of this machine whose command line holds `needle`.
pub(crate) fn with_argument(needle: &str) -> Vec<ProcessId> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|&byte| byte == 0).any(|argument| argument == needle.as_bytes())
        })
        .filter_map(ProcessId::of)
        .collect()
}

/// State letter and start time. The command name may hold spaces and brackets: fields start after the last `)`.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_itself_and_not_a_reused_pid() {
        let own = ProcessId::own().expect("this process is there");
        assert_eq!(own.state(), ProcessState::Running);
        assert_eq!(ProcessId::parse(&own.record()), Some(own));
        let other = ProcessId { start: own.start + 1, ..own };
        assert_eq!(other.state(), ProcessState::Dead);
        assert!(own.resident_bytes() > 0);
    }

    #[test]
    fn a_record_cut_short_is_no_process() {
        assert_eq!(ProcessId::parse(""), None);
        assert_eq!(ProcessId::parse("17"), None);
        assert_eq!(ProcessId::parse("17 x"), None);
    }
}
