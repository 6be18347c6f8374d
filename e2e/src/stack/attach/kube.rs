//! Kubernetes as a test sees it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Variables;
use crate::stack::error::StackError;
use crate::stack::install::Programs;
use crate::stack::kube::KubeCluster;
use crate::stack::layout::Layout;
use crate::stack::part::Part;

/// A Kubernetes cluster and its administrator.
#[derive(Debug)]
pub struct Kube {
    kubeconfig: PathBuf,
    local: Option<LocalKube>,
}

#[derive(Debug)]
struct LocalKube {
    layout: Layout,
    programs: Programs,
    cluster: KubeCluster,
}

impl Kube {
    pub(super) fn local(layout: &Layout, programs: &Programs, cluster: KubeCluster) -> Self {
        let kubeconfig = cluster.kubeconfig.clone();
        Self { kubeconfig, local: Some(LocalKube { layout: layout.clone(), programs: programs.clone(), cluster }) }
    }

    pub(super) fn existing(variables: &Variables<'_>) -> Option<Self> {
        variables.get("KUBECONFIG").map(|kubeconfig| Self { kubeconfig: kubeconfig.into(), local: None })
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// `kubectl` as the administrator; add its arguments.
    pub fn kubectl(&self) -> Command {
        self.tool("kubectl", |programs| &programs.kube)
    }

    /// `helm` as the administrator; add its arguments.
    pub fn helm(&self) -> Command {
        self.tool("helm", |programs| &programs.helm)
    }

    /// A component by its program's name: `etcd`, `containerd`, `apiserver`, `controller-manager`, `scheduler`, `kubelet`,
    /// `proxy`.
    pub fn component(&self, name: &str) -> Result<Part, StackError> {
        let local = self.require_local("handling one Kubernetes component")?;
        let full = format!("kube-{name}");
        let spec = local.cluster.parts.iter().find(|spec| spec.name == full);
        let spec = spec.ok_or(StackError::UnknownPart { name: full })?;
        Ok(Part::new(&local.layout, spec.clone()))
    }

    /// The API server's audit log, one JSON object a line.
    pub fn audit_log(&self) -> Result<&Path, StackError> {
        Ok(&self.require_local("reading the audit log")?.cluster.audit_log)
    }

    /// containerd's socket.
    pub fn containerd(&self) -> Result<&Path, StackError> {
        Ok(&self.require_local("loading an image")?.cluster.containerd)
    }

    fn tool(&self, name: &str, folder: impl Fn(&Programs) -> &PathBuf) -> Command {
        let mut command = match &self.local {
            Some(local) => Command::new(folder(&local.programs).join(name)),
            None => Command::new(name),
        };
        command.env("KUBECONFIG", &self.kubeconfig);
        if let Some(local) = &self.local {
            command.env("KUBECACHEDIR", local.layout.kubectl_cache());
        }
        command
    }

    fn require_local(&self, what: &'static str) -> Result<&LocalKube, StackError> {
        self.local.as_ref().ok_or(StackError::NotLocal(what))
    }
}
