//! Container images: built with buildah, handed to the stack's containerd as archives. No registry takes part.

use std::path::Path;

use super::command::{bounded, run};
use super::error::StackError;
use super::files;

/// What to build.
#[derive(Debug, Clone, Copy)]
pub struct Build<'a> {
    /// Folder of the build.
    pub context: &'a Path,
    /// The Dockerfile.
    pub file: &'a Path,
    /// Stage to stop at; `None` means the last.
    pub target: Option<&'a str>,
    /// `NAME=VALUE` build arguments.
    pub arguments: &'a [String],
    /// Full name with tag, as `localhost/sluice-worker:dev`.
    pub tag: &'a str,
    /// Folder in which buildah works; images do not stay in it.
    pub storage: &'a Path,
}

/// Builds an image and writes it as an OCI archive.
pub fn build(build: &Build<'_>, archive: &Path) -> Result<(), StackError> {
    let mut command = buildah(build.storage, 1800);
    command.args(["build", "--isolation", "chroot", "--pull-never", "--layers=false", "--tag", build.tag, "--file"]);
    command.arg(build.file);
    if let Some(target) = build.target {
        command.args(["--target", target]);
    }
    for argument in build.arguments {
        command.args(["--build-arg", argument]);
    }
    run(command.arg(build.context))?;
    files::remove_file(archive)?;
    let pushed = run(buildah(build.storage, 600).arg("push").arg(build.tag).arg(format!(
        "oci-archive:{}:{}",
        archive.display(),
        build.tag
    )));
    // vfs keeps whole copies: what has been exported is not kept.
    let removed = run(buildah(build.storage, 120).args(["rmi", "--force", build.tag]));
    pushed.and(removed)
}

/// The `vfs` driver needs no kernel module and no mount rights.
fn buildah(storage: &Path, seconds: u32) -> std::process::Command {
    let mut command = bounded(seconds, "buildah");
    command.args(["--storage-driver", "vfs", "--root"]).arg(storage.join("root"));
    command.arg("--runroot").arg(storage.join("run"));
    command
}

/// Loads an archive into a containerd, where the kubelet finds it.
pub(crate) fn load(containerd: &Path, archive: &Path) -> Result<(), StackError> {
    let mut command = bounded(300, "ctr");
    command.arg("--address").arg(containerd).args(["--namespace", "k8s.io", "images", "import"]).arg(archive);
    run(&mut command)
}
