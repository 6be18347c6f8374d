//! What outlives a killed containerd or kubelet: shims, the processes of pods, their mounts and cgroups. All of it is
//! recognised by the stack's own socket, folder and cgroup, so nobody else's containers are touched.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

use super::config::{CONTAINERD_SOCKET, cgroup, cni_network};
use crate::stack::error::{AtPath, StackError};
use crate::stack::files;
use crate::stack::install::Group;
use crate::stack::layout::Layout;
use crate::stack::process::{self, ProcessId};
use crate::stack::reap::kill_all;

const CGROUPS: &str = "/sys/fs/cgroup";

/// Ends all of it. containerd and kubelet must be dead already, or they would start containers again.
pub(crate) fn reap(layout: &Layout) -> Result<(), StackError> {
    let group = layout.group(Group::Kube.name());
    let socket = group.join(CONTAINERD_SOCKET);
    let shims = process::with_argument(&socket.display().to_string());
    kill_all(&shims)?;
    let folders = cgroup_folders();
    thaw(&folders);
    kill_all(&processes_in(&folders))?;
    remove_cgroups(&folders);
    unmount_below(layout.run())?;
    remove_shim_sockets(&group);
    remove_network_results()
}

/// Makes the pods' cgroup in every hierarchy (v1) or the unified one (v2): the kubelet wants it to be there.
pub(super) fn make_cgroup() -> Result<(), StackError> {
    for hierarchy in hierarchies() {
        let folder = hierarchy.join(cgroup());
        files::make_dir(&folder)?;
        // A new cpuset (v1) is empty and takes no process until it is told its CPUs and memory nodes.
        for name in ["cpuset.cpus", "cpuset.mems"] {
            let (parent, own) = (hierarchy.join(name), folder.join(name));
            if parent.exists() && own.exists() {
                let value = files::read(&parent)?;
                fs::write(&own, value.trim()).at(&own)?;
            }
        }
    }
    Ok(())
}

/// The roots of the cgroup hierarchies.
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(CGROUPS);
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let folders = entries.filter_map(|entry| Some(entry.ok()?.path()));
    // Links (`cpu` to `cpu,cpuacct`) lead to a hierarchy that is listed itself.
    folders.filter(|path| !path.is_symlink() && path.join("cgroup.procs").exists()).collect()
}

/// Every cgroup of the stack, children before parents.
fn cgroup_folders() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> =
        hierarchies().into_iter().map(|root| root.join(cgroup())).filter(|path| path.is_dir()).collect();
    while let Some(folder) = open.pop() {
        let children = fs::read_dir(&folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        open.extend(children.filter(|path| path.is_dir()));
        found.push(folder);
    }
    found.reverse();
    found
}

/// A frozen process does not even die.
fn thaw(folders: &[PathBuf]) {
    for folder in folders {
        for (file, value) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
            let file = folder.join(file);
            if file.exists() {
                let _ = fs::write(file, value);
            }
        }
    }
}

fn processes_in(folders: &[PathBuf]) -> Vec<ProcessId> {
    let texts = folders.iter().filter_map(|folder| fs::read_to_string(folder.join("cgroup.procs")).ok());
    let pids: BTreeSet<i32> =
        texts.flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>()).collect();
    pids.into_iter().filter_map(ProcessId::of).collect()
}

/// An empty cgroup that cannot be removed (a zombie nobody has collected is still in it) does no harm.
fn remove_cgroups(folders: &[PathBuf]) {
    for folder in folders {
        let _ = fs::remove_dir(folder);
    }
}

/// Container file systems, volumes and pod networks, innermost first.
fn unmount_below(folder: &Path) -> Result<(), StackError> {
    let table = files::read(Path::new("/proc/self/mountinfo"))?;
    let mut points: Vec<PathBuf> =
        table.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| PathBuf::from(unescape(point))).collect();
    points.retain(|point| point.starts_with(folder) && point != folder);
    for point in points.iter().rev() {
        umount2(point, MntFlags::MNT_DETACH)
            .map_err(|errno| StackError::System { call: format!("unmounting {}", point.display()), errno })?;
    }
    Ok(())
}

/// `\040` for a space and so on.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
}

/// Shims listen on sockets in a folder shared by all containerds of the machine; each bundle names its own.
fn remove_shim_sockets(group: &Path) {
    let bundles = group.join("containerd/state/io.containerd.runtime.v2.task/k8s.io");
    for bundle in fs::read_dir(bundles).into_iter().flatten().flatten() {
        if let Ok(address) = fs::read_to_string(bundle.path().join("address")) {
            let _ = fs::remove_file(address.trim_start_matches("unix://"));
        }
    }
}

/// CNI notes what it did for each container in a folder of the machine.
fn remove_network_results() -> Result<(), StackError> {
    let folder = Path::new("/var/lib/cni/results");
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for path in entries.flatten().map(|entry| entry.path()) {
        let own = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&cni_network()));
        if own {
            files::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
    }
}
