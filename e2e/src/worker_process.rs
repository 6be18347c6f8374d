//! One `sluice-worker` as a process of the test: started from a `WorkerConfig`, killed, frozen, told to end.
//!
//! The process dies with the thread that started it, so a test that is killed leaves none behind.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use sluice_crds::worker_config::WorkerConfig;

use crate::datapath::{HarnessError, wait_for};
use crate::stack::island::Island;
use crate::stack::process::{ProcessId, ProcessState};

/// Names the binary; without it, the one built beside the test is used.
pub const BINARY_VARIABLE: &str = "SLUICE_WORKER_BIN";

/// A running worker.
#[derive(Debug)]
pub struct WorkerProcess {
    pod: String,
    child: Child,
    id: ProcessId,
    admin: SocketAddr,
    log: PathBuf,
}

/// What a process has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time together, in microseconds.
    pub cpu_us: u64,
    /// Largest resident memory so far, in bytes.
    pub peak_bytes: u64,
}

/// How a worker is started.
#[derive(Debug, Clone, Copy)]
pub struct WorkerSpec<'a> {
    /// Name of the pod.
    pub pod: &'a str,
    /// The configuration; its admin address is replaced by a free one.
    pub config: &'a WorkerConfig,
    /// Where configuration and log are written.
    pub folder: &'a Path,
    /// More environment, e.g. `SLUICE_FAILPOINT`.
    pub env: &'a [(&'a str, &'a str)],
    /// The network it runs in; `None`: the caller's.
    pub island: Option<&'a Island>,
}

impl WorkerProcess {
    /// Starts a worker; it is not ready yet.
    pub fn start(spec: &WorkerSpec<'_>) -> Result<Self, HarnessError> {
        let mut admin = free_address().map_err(|error| failed(spec.pod, error))?;
        if let Some(island) = spec.island {
            admin.set_ip(island.address().into());
        }
        let config = WorkerConfig { admin_listen: admin.to_string(), ..spec.config.clone() };
        let text = serde_json::to_vec_pretty(&config).map_err(|error| failed(spec.pod, error))?;
        let file = spec.folder.join(format!("{}.json", spec.pod));
        write_private(&file, &text)?;
        let log = spec.folder.join(format!("{}.log", spec.pod));
        let output = fs::OpenOptions::new().create(true).append(true).open(&log);
        let output = output.map_err(|source| HarnessError::File { path: log.clone(), source })?;
        let errors = output.try_clone().map_err(|source| HarnessError::File { path: log.clone(), source })?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .args(spec.island.iter().flat_map(|island| island.prefix()))
            .arg(binary()?)
            .arg("--config")
            .arg(&file)
            .env("POD_NAME", spec.pod)
            .envs(spec.env.iter().copied())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|error| failed(spec.pod, error))?;
        let id = i32::try_from(child.id()).ok().and_then(ProcessId::of);
        let id = id.ok_or_else(|| failed(spec.pod, "it has no process"))?;
        Ok(Self { pod: spec.pod.to_owned(), child, id, admin, log })
    }

    /// The pod's name.
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// Where it logs.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whether it is there and not frozen.
    pub fn is_running(&self) -> bool {
        self.id.state() == ProcessState::Running
    }

    /// Status and body of one of its admin endpoints (`/readyz`, `/metrics`).
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        http_get(self.admin, path).ok().flatten()
    }

    /// A metric's value, all label sets summed; none while it does not answer.
    pub fn metric(&self, name: &str) -> Option<u64> {
        let (_, text) = self.get("/metrics").filter(|(status, _)| *status == 200)?;
        let values = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        Some(values.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }

    /// Waits until `/readyz` answers 200; an error as soon as the process ends.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<(), HarnessError> {
        let mut said = String::new();
        let started = std::time::Instant::now();
        loop {
            if let Some(status) = self.exited()? {
                return Err(self.fault(&format!("ended by itself ({status})")));
            }
            match self.get("/readyz") {
                Some((200, _)) => return Ok(()),
                Some((status, body)) => said = format!("{status} {}", body.trim()),
                None => {}
            }
            if started.elapsed() > limit {
                return Err(self.fault(&format!("is not ready after {} s ({said})", limit.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill9(&mut self) -> Result<(), HarnessError> {
        // A frozen process is killed as well.
        self.id.signal(Signal::SIGKILL)?;
        self.wait_exit(Duration::from_secs(20)).map(drop)
    }

    /// SIGSTOP, and waits until it has stopped.
    pub fn freeze(&self) -> Result<(), HarnessError> {
        self.id.signal(Signal::SIGSTOP)?;
        wait_for(&format!("{} frozen", self.pod), Duration::from_secs(10), || {
            Ok((self.id.state() == ProcessState::Frozen).then_some(()))
        })
    }

    /// SIGCONT.
    pub fn thaw(&self) -> Result<(), HarnessError> {
        Ok(self.id.signal(Signal::SIGCONT)?)
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus, HarnessError> {
        self.id.signal(Signal::SIGTERM)?;
        self.wait_exit(limit)
    }

    /// Waits until it ends.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus, HarnessError> {
        let what = format!("{} ended", self.pod);
        wait_for(&what, limit, || self.exited())
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>, HarnessError> {
        self.child.try_wait().map_err(|error| failed(&self.pod, error))
    }

    /// What it has used so far; zeros once it is gone.
    pub fn usage(&self) -> Usage {
        usage_of(self.id.pid()).unwrap_or_default()
    }

    /// Processor time in microseconds by groups of threads (numbers in their names do not count), most first.
    pub fn threads(&self) -> Vec<(String, u64)> {
        threads_of(self.id.pid())
    }

    /// An error about this worker, with the end of its log.
    pub fn fault(&self, what: &str) -> HarnessError {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let end = lines[lines.len().saturating_sub(20)..].join("\n    ");
        failed(&self.pod, format!("{what}; the end of its log:\n    {end}"))
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        // Nobody could act on a failure here, and the process dies with its parent at the latest.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn failed(pod: &str, message: impl Into<Box<dyn std::error::Error>>) -> HarnessError {
    HarnessError::Process { name: format!("worker {pod}"), message: message.into().to_string() }
}

/// Writes a file that only its owner reads.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), HarnessError> {
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(bytes))
        .map_err(|source| HarnessError::File { path: path.to_owned(), source })
}

/// `SLUICE_WORKER_BIN`, or `sluice-worker` in the profile folder that this executable was built into.
fn binary() -> Result<PathBuf, HarnessError> {
    if let Some(path) = std::env::var_os(BINARY_VARIABLE) {
        return Ok(path.into());
    }
    let own = std::env::current_exe().map_err(|error| failed("-", error))?;
    let beside = own.ancestors().skip(1).take(2).map(|folder| folder.join("sluice-worker")).find(|path| path.is_file());
    beside.ok_or_else(|| {
        failed("-", format!("no sluice-worker beside {}: build it, or set {BINARY_VARIABLE}", own.display()))
    })
}

/// An address that was free a moment ago. Another process could take it; then the worker does not become ready and says why.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn http_get(address: SocketAddr, path: &str) -> std::io::Result<Option<(u16, String)>> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let status = text.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok(status.map(|status| (status, body)))
}

/// Clock ticks a second in `/proc`: fixed in Linux's interface to user space.
const TICKS: u64 = 100;

/// User and system time in microseconds, from a `stat` of a process or of a thread.
fn cpu_us(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // utime and stime, fields 14 and 15 counted from the pid.
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks * (1_000_000 / TICKS))
}

fn threads_of(pid: i32) -> Vec<(String, u64)> {
    let mut groups: BTreeMap<String, u64> = BTreeMap::new();
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    for task in tasks.flatten() {
        // A thread may end meanwhile.
        let Ok(stat) = fs::read_to_string(task.path().join("stat")) else { continue };
        let name = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')).map(|(name, _)| name);
        let (Some(name), Some(us)) = (name, cpu_us(&stat)) else { continue };
        let group = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
        *groups.entry(group.to_owned()).or_default() += us;
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, us)| std::cmp::Reverse(*us));
    groups
}

/// What a process has used so far.
pub fn usage_of(pid: i32) -> Option<Usage> {
    let cpu_us = cpu_us(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = peak.split_whitespace().next()?.parse().ok()?;
    Some(Usage { cpu_us, peak_bytes: kib * 1024 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_of_this_process_is_seen() {
        let own = usage_of(i32::try_from(std::process::id()).expect("a pid")).expect("this process is there");
        assert!(own.peak_bytes > 1 << 20);
        assert_eq!(usage_of(i32::MAX), None);
        assert!(!threads_of(i32::try_from(std::process::id()).expect("a pid")).is_empty());
    }
}
