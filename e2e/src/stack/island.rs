//! A network of a process's own, joined to the stack's by one link that can be cut for single ports. Only what runs on the island
//! notices: tests beside it go on. It is gone with its handle, and with the process that holds it at the latest.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use super::command::{bounded, run, succeeds};
use super::error::{AtPath, StackError};

/// Links of this number of islands can be there at once.
const LINKS: u32 = 1 << 14;

/// A network namespace without a name, and a link to the calling thread's.
#[derive(Debug)]
pub struct Island {
    namespace: fs::File,
    address: Ipv4Addr,
}

impl Island {
    /// Makes one that reaches everything on the stack's node. The calling thread must be inside the stack's network.
    pub fn new() -> Result<Self, StackError> {
        let namespace = new_namespace()?;
        let mut island = Self { namespace, address: Ipv4Addr::UNSPECIFIED };
        let place = island.path().display().to_string();
        // Islands of tests that run beside this one have other numbers, or the name is taken and the next one is tried.
        let first = std::process::id();
        let link = (first..first + LINKS).map(|number| number % LINKS).find(|number| {
            let add = ["link", "add", &name(*number), "type", "veth", "peer", "name", "up0", "netns", &place];
            succeeds(bounded(10, "ip").args(add))
        });
        let link = link.ok_or_else(|| StackError::Absent(format!("no link to a network of its own ({place})")))?;
        let (outside, inside) = addresses(link);
        island.address = inside;
        let ip = |arguments: &[&str]| run(bounded(10, "ip").args(arguments));
        ip(&["addr", "add", &format!("{outside}/30"), "dev", &name(link)])?;
        ip(&["link", "set", &name(link), "up"])?;
        island.ip(&["link", "set", "lo", "up"])?;
        island.ip(&["addr", "add", &format!("{inside}/30"), "dev", "up0"])?;
        island.ip(&["link", "set", "up0", "up"])?;
        island.ip(&["route", "add", "default", "via", &outside.to_string()])?;
        Ok(island)
    }

    /// What runs on it is reached here.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The words before a command that make it run here.
    pub fn prefix(&self) -> [String; 2] {
        ["nsenter".to_owned(), format!("--net={}", self.path().display())]
    }

    /// Drops every packet to and from these ports, silently, until the cut is dropped.
    pub fn cut(&self, ports: &[u16]) -> Result<Cut<'_>, StackError> {
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        let ports = ports.join(", ");
        let rules = format!(
            "table inet cut {{ chain out {{ type filter hook output priority 0; tcp dport {{ {ports} }} drop; }}; \
             chain in {{ type filter hook input priority 0; tcp sport {{ {ports} }} drop; }}; }}"
        );
        run(self.inside("nft").arg(rules))?;
        Ok(Cut { island: self })
    }

    fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd()).into()
    }

    fn inside(&self, program: &str) -> Command {
        let [enter, place] = self.prefix();
        let mut command = bounded(10, enter);
        command.arg(place).arg(program);
        command
    }

    fn ip(&self, arguments: &[&str]) -> Result<(), StackError> {
        run(self.inside("ip").args(arguments))
    }
}

/// Ports that cannot be reached from an island.
#[derive(Debug)]
pub struct Cut<'a> {
    island: &'a Island,
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        // A cut that cannot be healed shows in whatever the test waits for next.
        let _ = run(self.island.inside("nft").args(["delete", "table", "inet", "cut"]));
    }
}

/// Made by a thread that ends in it; the file keeps it.
fn new_namespace() -> Result<fs::File, StackError> {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| StackError::System { call: "making a network namespace".into(), errno })?;
        let path = std::path::Path::new("/proc/thread-self/ns/net");
        fs::File::open(path).at(path)
    };
    std::thread::spawn(make).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn name(link: u32) -> String {
    format!("island{link}")
}

/// Both ends of a link: networks of four addresses in 10.45.0.0/16, one after the other.
fn addresses(link: u32) -> (Ipv4Addr, Ipv4Addr) {
    let network = u32::from(Ipv4Addr::new(10, 45, 0, 0)) + 4 * (link % LINKS);
    (Ipv4Addr::from(network + 1), Ipv4Addr::from(network + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_have_networks_of_their_own() {
        assert_eq!(addresses(0), (Ipv4Addr::new(10, 45, 0, 1), Ipv4Addr::new(10, 45, 0, 2)));
        assert_eq!(addresses(LINKS - 1), (Ipv4Addr::new(10, 45, 255, 253), Ipv4Addr::new(10, 45, 255, 254)));
        assert!(name(LINKS - 1).len() < 16, "the kernel takes no longer name");
    }
}
