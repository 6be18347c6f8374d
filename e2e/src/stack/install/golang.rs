//! Kubernetes, etcd and Helm, compiled from their Go modules: no binary release is needed, and versions and checksums are
//! pinned by `go.mod` and `go.sum`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::{Recipe, debian, required_version};
use crate::stack::command::{bounded, run};
use crate::stack::error::{AtPath, StackError};

macro_rules! module {
    ($name:literal, [$($file:literal),*]) => {
        vec![$(($file, include_str!(concat!("../../../go/", $name, "/", $file)))),*]
    };
}

/// Names of the multi-call binary.
const KUBE_COMMANDS: [&str; 6] =
    ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"];

/// Kubernetes: one binary under six names.
pub(super) fn kube() -> Recipe {
    let sources = module!("kube", ["go.mod", "go.sum", "main.go"]);
    let version = required_version(sources[0].1, "k8s.io/kubernetes");
    // Clients compare versions (Helm's kubeVersion), and a build from modules knows none.
    let minor = version.split('.').nth(1).unwrap_or_default();
    let stamps = [
        ("gitVersion", version.as_str()),
        ("gitMajor", "1"),
        ("gitMinor", minor),
        ("gitCommit", "0000000000000000000000000000000000000000"),
        ("gitTreeState", "clean"),
        ("buildDate", "1970-01-01T00:00:00Z"),
    ];
    let mut flags = vec!["-s".to_owned(), "-w".to_owned()];
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        flags.extend(stamps.iter().flat_map(|(name, value)| ["-X".to_owned(), format!("{package}.{name}={value}")]));
    }
    Recipe {
        name: "kube",
        sources,
        flags,
        expect: "compiling from Go modules; takes 10 minutes the first time",
        build: |sources, result, recipe| {
            compile(sources, &result.join("kube"), ".", recipe)?;
            KUBE_COMMANDS.iter().try_for_each(|name| symlink("kube", result.join(name)).at(result))
        },
        version,
    }
}

/// etcd.
pub(super) fn etcd() -> Recipe {
    let sources = module!("etcd", ["go.mod", "go.sum", "main.go"]);
    Recipe {
        name: "etcd",
        version: required_version(sources[0].1, "go.etcd.io/etcd/server/v3"),
        sources,
        flags: vec!["-s".into(), "-w".into()],
        expect: "compiling from Go modules; takes a minute the first time",
        build: |sources, result, recipe| compile(sources, &result.join("etcd"), ".", recipe),
    }
}

/// Helm.
pub(super) fn helm() -> Recipe {
    let sources = module!("helm", ["go.mod", "go.sum"]);
    Recipe {
        name: "helm",
        version: required_version(sources[0].1, "helm.sh/helm/v3"),
        sources,
        flags: vec!["-s".into(), "-w".into()],
        expect: "compiling from Go modules; takes two minutes the first time",
        build: |sources, result, recipe| compile(sources, &result.join("helm"), "helm.sh/helm/v3/cmd/helm", recipe),
    }
}

fn compile(sources: &Path, binary: &Path, package: &str, recipe: &Recipe) -> Result<(), StackError> {
    debian::require_tool("go", "install Go 1.25 or newer (the distribution's is too old) and put it on the PATH")?;
    let mut command = bounded(3600, "nice");
    command
        .args(["go", "build", "-p", "2", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags"])
        .arg(recipe.flags.join(" "))
        .arg("-o")
        .arg(binary)
        .arg(package)
        .env("CGO_ENABLED", "0")
        .current_dir(sources);
    run(&mut command)?;
    fs::metadata(binary).map(drop).at(binary)
}
