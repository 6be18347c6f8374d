//! Worker pods and the processes in them.

use std::{fmt, fs};

use super::cluster::Cluster;
use crate::datapath::HarnessError;
use crate::generator::Random;
use crate::stack::Stack;

/// Most resident memory of one worker, in MiB.
const WORKER_LIMIT_MIB: u64 = 64;
/// Most resident memory of the operator, in MiB.
const OPERATOR_LIMIT_MIB: u64 = 40;

/// A worker of `enrich-orders` that is going to die without warning. On a cluster elsewhere its pod is deleted without grace,
/// which is the nearest thing a client can do.
pub(super) struct Victim {
    pod: String,
    pid: Option<i32>,
}

impl Victim {
    pub(super) fn choose(stack: &Stack, cluster: &Cluster<'_>, random: &mut Random) -> Result<Self, HarnessError> {
        let none = |what: &str| HarnessError::Process { name: "enrich-orders".into(), message: what.into() };
        let pods: Vec<(String, String)> =
            cluster.worker_pods()?.into_iter().filter(|(name, _)| name.contains("enrich-orders")).collect();
        let at = random.below(u32::try_from(pods.len()).unwrap_or(u32::MAX).max(1));
        let (pod, uid) = pods.get(at as usize).ok_or_else(|| none("no worker pod runs"))?;
        let pid = if stack.is_local() {
            Some(process_of(uid, "sluice-worker").ok_or_else(|| none("a worker pod has no process"))?)
        } else {
            None
        };
        Ok(Self { pod: pod.clone(), pid })
    }

    /// Its pod.
    pub(super) fn pod(&self) -> &str {
        &self.pod
    }

    /// Now.
    pub(super) fn kill(&self, cluster: &Cluster<'_>) -> Result<(), HarnessError> {
        let Some(pid) = self.pid else { return cluster.delete_pod_now(&self.pod) };
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
            .map_err(|error| HarnessError::Process { name: self.to_string(), message: error.to_string() })
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "pid {pid} in pod {}", self.pod),
            None => write!(f, "pod {}", self.pod),
        }
    }
}

/// Prints who was started again; whether nobody ended by itself, which would be a surprise even if nothing was lost by it. The
/// kubelet may end a container that a starved machine lets answer too late: that is told, and is not the container's fault.
pub(super) fn print_restarts(cluster: &Cluster<'_>, victim: &str) -> Result<bool, HarnessError> {
    let mut good = true;
    for found in cluster.restarts()? {
        let expected = u32::from(found.pod == victim);
        if found.count > 0 {
            let why = if found.count <= expected { "killed by the demo" } else { found.last.as_str() };
            println!("restarts  {}: {} ({why})", found.pod, found.count);
        }
        if found.count > expected {
            good &= found.was_ended();
            println!("{}", cluster.previous_log(&found.pod));
        }
    }
    Ok(good)
}

/// Prints what each worker and the operator have in memory; whether all stay below their limit.
pub(super) fn print_memory(stack: &Stack, cluster: &Cluster<'_>) -> Result<bool, HarnessError> {
    if !stack.is_local() {
        println!("memory    not seen: the workers run on other machines");
        return Ok(true);
    }
    let mut good = true;
    let mut line = |name: &str, uid: &str, program: &str, limit: u64| {
        let Some(pid) = process_of(uid, program) else { return };
        let (now, peak) = (status_mib(pid, "VmRSS:"), status_mib(pid, "VmHWM:"));
        good &= peak <= limit;
        println!("memory    {name}: {now} MiB now, {peak} MiB at most (limit {limit})");
    };
    for (pod, uid) in cluster.worker_pods()? {
        line(&pod, &uid, "sluice-worker", WORKER_LIMIT_MIB);
    }
    line("operator", &cluster.operator_uid()?, "sluice-operator", OPERATOR_LIMIT_MIB);
    Ok(good)
}

/// The process with this program name in the pod with this uid, by its control group.
fn process_of(pod_uid: &str, program: &str) -> Option<i32> {
    // The kernel keeps 15 characters of a program's name.
    let program = &program[..program.len().min(15)];
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        let group = fs::read_to_string(entry.path().join("cgroup")).ok()?;
        (name.trim_end() == program && group.contains(pod_uid)).then_some(pid)
    })
}

/// A line of /proc/PID/status, in MiB rounded up.
fn status_mib(pid: i32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = text.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).div_ceil(1024)
}
