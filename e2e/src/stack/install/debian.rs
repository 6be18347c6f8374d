//! Programs from the distribution's packages.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Group;
use crate::stack::command::{bounded, find, run, succeeds};
use crate::stack::error::{AtPath, StackError};
use crate::stack::files;
use crate::stack::progress::Progress;

/// A file that shows that a package is there, the package, and which group needs it (`None`: all).
const NEEDED: &[(&str, &str, Option<Group>)] = &[
    ("ip", "iproute2", None),
    ("setpriv", "util-linux", None),
    ("nft", "nftables", None),
    ("java", "default-jre-headless", Some(Group::Kafka)),
    ("mvn", "maven", Some(Group::Kafka)),
    ("redis-server", "redis-server", Some(Group::Redis)),
    ("redis-cli", "redis-tools", Some(Group::Redis)),
    ("containerd", "containerd", Some(Group::Kube)),
    ("runc", "runc", Some(Group::Kube)),
    ("/usr/lib/cni/bridge", "containernetworking-plugins", Some(Group::Kube)),
    ("buildah", "buildah", Some(Group::Kube)),
    ("conntrack", "conntrack", Some(Group::Kube)),
    ("mount", "mount", Some(Group::Kube)),
    ("gcc", "gcc", Some(Group::Kube)),
    ("/usr/include/stdio.h", "libc6-dev", Some(Group::Kube)),
];

/// Packages whose installation starts a service that we do not want to run: the stack starts its own.
const SERVICES: &[(&str, &str)] = &[("redis-server", "redis-server"), ("containerd", "containerd")];

const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs the packages that are missing; nothing is asked of the network when none is.
pub(super) fn install(groups: &[Group], progress: &Progress) -> Result<(), StackError> {
    let there = |name: &str| if name.starts_with('/') { Path::new(name).exists() } else { find(name).is_some() };
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(name, _, group)| group.is_none_or(|group| groups.contains(&group)) && !there(name))
        .map(|(_, package, _)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if find("apt-get").is_none() {
        let list = missing.join(" ");
        return Err(StackError::Absent(format!("this is no Debian: install what its packages {list} hold, by hand")));
    }
    let quiet = keep_services_down()?;
    let installed = progress.watch("install", format!("Debian packages {}", missing.join(" ")), || apt(&missing));
    drop(quiet);
    installed?;
    if Path::new("/run/systemd/system").is_dir() {
        for (_, service) in SERVICES.iter().filter(|(package, _)| missing.contains(package)) {
            run(bounded(60, "systemctl").args(["disable", "--now", service]))?;
        }
    }
    Ok(())
}

fn apt(packages: &[&str]) -> Result<(), StackError> {
    let install = || {
        let mut command = bounded(540, "apt-get");
        command.args(["install", "-y", "-q", "--no-install-recommends"]).args(packages);
        run(command.env("DEBIAN_FRONTEND", "noninteractive"))
    };
    // The package lists may be absent or old; fetching them first each time would cost everybody else half a minute.
    install().or_else(|_| {
        run(bounded(300, "apt-get").args(["update", "-q"]))?;
        install()
    })
}

/// While it lives, installing a package starts no service.
struct ServicesStayDown;

fn keep_services_down() -> Result<Option<ServicesStayDown>, StackError> {
    let path = Path::new(POLICY);
    if path.exists() {
        // Somebody has a policy already: theirs counts.
        return Ok(None);
    }
    files::write(path, "#!/bin/sh\nexit 101\n")?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).at(path)?;
    Ok(Some(ServicesStayDown))
}

impl Drop for ServicesStayDown {
    fn drop(&mut self) {
        // The file of a killed run is found by the next one and then counts as somebody's: it says "no service", as ours.
        let _ = files::remove_file(Path::new(POLICY));
    }
}

/// Whether a tool that no package gives in a fit version is there.
pub(super) fn require_tool(tool: &'static str, hint: &'static str) -> Result<(), StackError> {
    if succeeds(bounded(20, tool).arg("version")) {
        return Ok(());
    }
    Err(StackError::MissingTool { tool, hint })
}
