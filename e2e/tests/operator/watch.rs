//! Every number of workers that a Deployment has asked for.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use sluice_e2e::stack::wait_for;

use super::{Operator, PATIENCE};

/// `kubectl get --watch` on a Deployment; it outlives the operator's process.
pub struct Watch {
    child: Child,
    folder: tempfile::TempDir,
    resource: String,
}

impl Watch {
    /// Watches the Deployment `evp-<pipeline>`.
    pub fn start(operator: &Operator<'_>, pipeline: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = File::create(folder.path().join("seen")).expect("a file");
        let path = r#"jsonpath={.spec.replicas}{"\n"}"#;
        let deployment = format!("evp-{pipeline}");
        let watch = ["-n", &operator.name, "get", "deployment", &deployment, "--watch", "-o", path];
        let child =
            operator.kube.kubectl().args(watch).stdout(file).stdin(Stdio::null()).spawn().expect("kubectl runs");
        let watch = Self { child, folder, resource: pipeline.to_owned() };
        wait_for(PATIENCE, || watch.last()).expect("a first look");
        watch
    }

    /// In order, without repetitions.
    pub fn seen(&self) -> Vec<String> {
        read(&self.file())
    }

    /// The last number.
    pub fn last(&self) -> Option<u32> {
        last(&self.file())
    }

    /// Where the numbers are, for [`last`].
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("seen")
    }

    /// Waits until the last number is this one.
    pub fn wait(&self, operator: &Operator<'_>, replicas: &str) {
        let there = wait_for(PATIENCE, || (self.seen().last()? == replicas).then_some(()));
        let status = || operator.get("evp", &self.resource).map(|mut found| found["status"].take());
        assert!(there.is_some(), "{replicas} wanted: {:?}\n{:#?}\n{}", self.seen(), status(), operator.log());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last number in a file of a watch; none while a line is being written.
pub fn last(file: &Path) -> Option<u32> {
    read(file).last()?.parse().ok()
}

fn read(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).expect("a file");
    // What has no end yet is no number.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut seen: Vec<String> = whole.lines().map(str::to_owned).collect();
    seen.dedup();
    seen
}
