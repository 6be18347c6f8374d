//! Where the stack keeps its files.

use std::path::{Path, PathBuf};

use super::env::MARKER;
use super::netns;

/// The two folders of the stack. The cache holds what was built or fetched, keyed by version, and outlives every stack; the
/// run folder holds one running stack.
#[derive(Debug, Clone)]
pub struct Layout {
    cache: PathBuf,
    run: PathBuf,
}

impl Layout {
    /// From `SLUICE_CACHE` (default: `sluice` in the user's cache folder) and `SLUICE_STACK_DIR` (default: inside `stack exec`
    /// that stack's, else `run` in the cache, or `run-NAME` with `SLUICE_STACK_NAME`).
    pub fn from_env() -> Self {
        let cache = path_var("SLUICE_CACHE").unwrap_or_else(|| {
            let base = path_var("XDG_CACHE_HOME").or_else(|| path_var("HOME").map(|home| home.join(".cache")));
            base.unwrap_or_else(|| PathBuf::from("/var/cache")).join("sluice")
        });
        let run = path_var("SLUICE_STACK_DIR").or_else(|| path_var(MARKER)).unwrap_or_else(|| match netns::name() {
            name if name == "sluice" => cache.join("run"),
            name => cache.join(format!("run-{name}")),
        });
        Self { cache, run }
    }

    /// The folder of built and fetched programs.
    pub fn artifacts(&self) -> PathBuf {
        self.cache.join("stack")
    }

    /// The folder of the running stack.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// The records of running processes, one file each.
    pub fn parts(&self) -> PathBuf {
        self.run.join("parts")
    }

    /// The logs, one file for each part.
    pub fn logs(&self) -> PathBuf {
        self.run.join("logs")
    }

    /// The programs put on the PATH by `stack exec`.
    pub fn bin(&self) -> PathBuf {
        self.run.join("bin")
    }

    /// What kubectl and helm remember of the API server: every stack has the same address, and other kinds.
    pub fn kubectl_cache(&self) -> PathBuf {
        self.run.join("kubectl-cache")
    }

    /// Where images are built.
    pub fn image_storage(&self) -> PathBuf {
        self.artifacts().join("buildah")
    }

    /// The data of parts that a test or a benchmark started for itself.
    pub fn owned(&self, name: &str) -> PathBuf {
        self.run.join("owned").join(name)
    }

    /// The data and configuration of one group of parts.
    pub fn group(&self, group: &str) -> PathBuf {
        self.run.join(group)
    }

    /// The description of one group, written when it has come up completely for the first time.
    pub fn description(&self, group: &str) -> PathBuf {
        self.run.join(format!("{group}.json"))
    }

    /// Held while a stack is brought up or down.
    pub fn lock(&self) -> PathBuf {
        self.cache.join(format!("{}.lock", netns::name()))
    }
}

fn path_var(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
