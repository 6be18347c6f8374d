//! Kubernetes of one node: etcd, API server, controller manager, scheduler, containerd, kubelet and kube-proxy as processes of
//! this machine; pods are real containers on the bridge of the stack's network namespace.
//!
//! [`credentials`] makes certificates and kubeconfigs, [`config`] the configuration texts, [`parts`] the command lines,
//! [`reap`](self::reap()) ends what a killed containerd leaves: shims, containers, mounts, cgroups.

mod config;
mod credentials;
mod parts;
mod reap;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::command::{bounded, run};
use super::error::StackError;
use super::files;
use super::group::{Assembly, Context, start_all};
use super::image;
use super::install::{Group, Programs};
use super::part::PartSpec;

pub(crate) use reap::reap;

/// Name of the only node.
pub const NODE_NAME: &str = "node1";

/// A cluster that was laid out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeCluster {
    /// In the order they are started.
    pub parts: Vec<PartSpec>,
    /// Cluster administrator's.
    pub kubeconfig: PathBuf,
    /// containerd's socket.
    pub containerd: PathBuf,
    /// The API server's audit log: one JSON object a line, level Metadata, stage `ResponseComplete` (or `Panic`).
    pub audit_log: PathBuf,
}

/// Where the files of the group are.
struct Paths {
    root: PathBuf,
    pki: PathBuf,
}

impl Paths {
    fn file(&self, name: &str) -> String {
        self.root.join(name).display().to_string()
    }

    fn pki(&self, name: &str) -> String {
        self.pki.join(name).display().to_string()
    }
}

impl Assembly for KubeCluster {
    const GROUP: Group = Group::Kube;

    fn version(programs: &Programs) -> String {
        [&programs.kube, &programs.etcd].map(|path| super::group::file_name(path)).join(" ")
    }

    fn lay_out(context: &Context<'_>) -> Result<Self, StackError> {
        let root = context.layout.group(Group::Kube.name());
        let paths = Paths { pki: root.join("pki"), root };
        for folder in ["cni", "volume-plugins", "pod-logs"] {
            files::make_dir(&paths.root.join(folder))?;
        }
        credentials::create(&paths)?;
        config::write(&paths)?;
        Ok(Self {
            parts: parts::all(&paths, context.programs)?,
            kubeconfig: paths.root.join("admin.kubeconfig"),
            containerd: paths.root.join(config::CONTAINERD_SOCKET),
            audit_log: paths.root.join("audit.log"),
        })
    }

    fn first_start(&self, context: &Context<'_>) -> Result<(), StackError> {
        self.start(context)
    }

    fn repair(&self, context: &Context<'_>) -> Result<(), StackError> {
        self.start(context)
    }

    fn parts(&self) -> &[PartSpec] {
        &self.parts
    }
}

impl KubeCluster {
    /// Starts what is not running, each part after those it needs, until the node takes pods.
    fn start(&self, context: &Context<'_>) -> Result<(), StackError> {
        reap::make_cgroup()?;
        let [storage, api, rest] = parts::STAGES.map(|count| count as usize);
        let (first, others) = self.parts.split_at(storage);
        let (second, third) = others.split_at(api);
        debug_assert_eq!(third.len(), rest, "every part belongs to a stage");
        start_all(context, Group::Kube, first)?;
        image::load(&self.containerd, &context.programs.pause_image)?;
        start_all(context, Group::Kube, second)?;
        start_all(context, Group::Kube, third)?;
        let node = format!("node/{NODE_NAME}");
        self.kubectl(context, &["wait", "--for=create", &node, "--timeout=180s"])?;
        self.kubectl(context, &["wait", "--for=condition=Ready", &node, "--timeout=180s"])?;
        self.kubectl(context, &["wait", "--for=create", "serviceaccount/default", "--timeout=180s"])
    }

    fn kubectl(&self, context: &Context<'_>, arguments: &[&str]) -> Result<(), StackError> {
        let mut command = bounded(200, context.programs.kube.join("kubectl"));
        command.env("KUBECACHEDIR", context.layout.kubectl_cache());
        run(command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments))
    }
}
