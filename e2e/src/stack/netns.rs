//! The network namespace that holds the whole stack: nothing in it can reach out, nothing outside can be hit, ports never
//! clash. The node is the bridge `sluice0`; pods hang on the same bridge; service addresses are routed to it.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use nix::unistd::Uid;

use super::command::{bounded, run, succeeds};
use super::error::{AtPath, StackError};
use super::files;

/// The namespace, as `ip netns` names it: `SLUICE_STACK_NAME`, or `sluice`. Also the name of the pods' cgroup, so that stacks of
/// different names have nothing in common.
pub fn name() -> String {
    std::env::var("SLUICE_STACK_NAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "sluice".into())
}

fn file() -> PathBuf {
    Path::new("/run/netns").join(name())
}

/// The node's address: Kubernetes API, Kafka and Redis listen here, and pods reach them here.
pub const NODE: Ipv4Addr = Ipv4Addr::new(10, 44, 0, 1);
/// The network of node and pods.
pub const POD_NETWORK: &str = "10.44.0.0/24";
/// The network of Kubernetes services.
pub const SERVICE_NETWORK: &str = "10.96.0.0/24";
/// The service address of the Kubernetes API.
pub const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The bridge.
pub const BRIDGE: &str = "sluice0";

/// Says so early if this cannot work.
pub(crate) fn require_root() -> Result<(), StackError> {
    if Uid::effective().is_root() { Ok(()) } else { Err(StackError::NotRoot) }
}

/// Makes the namespace unless it is there. Needs root.
pub fn ensure() -> Result<(), StackError> {
    if exists() {
        if succeeds(bounded(10, "nsenter").arg(format!("--net={}", file().display())).arg("true")) {
            return Ok(());
        }
        // Killed between making the file and mounting the namespace on it.
        remove()?;
    }
    run(bounded(10, "ip").args(["netns", "add", &name()]))
}

/// Moves this thread, and every thread and process it starts from now on, into the namespace, and sets up its network.
pub fn enter() -> Result<(), StackError> {
    if is_inside() {
        return Ok(());
    }
    let path = file();
    let namespace = fs::File::open(&path).at(&path)?;
    setns(namespace, CloneFlags::CLONE_NEWNET)
        .map_err(|errno| StackError::System { call: format!("entering the network namespace {}", name()), errno })
}

/// Sets up bridge, addresses and routes; what is there stays. The calling thread must be inside.
pub(crate) fn configure() -> Result<(), StackError> {
    ip(&["link", "set", "lo", "up"])?;
    if !succeeds(bounded(10, "ip").args(["link", "show", BRIDGE])) {
        ip(&["link", "add", BRIDGE, "type", "bridge"])?;
    }
    ip(&["addr", "replace", &format!("{NODE}/24"), "dev", BRIDGE])?;
    ip(&["link", "set", BRIDGE, "up"])?;
    ip(&["route", "replace", SERVICE_NETWORK, "dev", BRIDGE])?;
    for (key, value) in [("ip_forward", "1"), ("ip_local_port_range", "32768 60999")] {
        let path = Path::new("/proc/sys/net/ipv4").join(key);
        fs::write(&path, value).at(&path)?;
    }
    Ok(())
}

/// Whether this thread is in the namespace.
pub fn is_inside() -> bool {
    let identity = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    identity(&file()).is_some_and(|wanted| identity(Path::new("/proc/thread-self/ns/net")) == Some(wanted))
}

/// Whether the namespace is there.
pub fn exists() -> bool {
    file().exists()
}

/// Removes the namespace's name; the namespace itself goes with its last process.
pub(crate) fn remove() -> Result<(), StackError> {
    if !succeeds(bounded(10, "ip").args(["netns", "del", &name()])) {
        files::remove_file(&file())?;
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> Result<(), StackError> {
    run(bounded(10, "ip").args(arguments))
}
