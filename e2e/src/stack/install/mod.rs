//! The programs of the stack: what Debian packages, what is built from Go modules, what comes as jars.
//!
//! Everything built or fetched lies in the cache under a name that holds its version and a hash of its recipe, and appears
//! there complete or not at all: it is made under another name and renamed.

mod debian;
mod golang;
mod jars;
pub(crate) mod pause;

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::error::{AtPath, StackError};
use super::files;
use super::kafka::Jars;
use super::layout::Layout;
use super::process::ProcessId;
use super::progress::Progress;

/// The parts of the stack that can be had one without the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Three Kafka brokers.
    Kafka,
    /// A Redis Cluster of six nodes.
    Redis,
    /// A Kubernetes cluster of one node.
    Kube,
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Kafka, Self::Redis, Self::Kube];

    /// Name of its folder and description.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Redis => "redis",
            Self::Kube => "kube",
        }
    }
}

/// Where the installed programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// Kafka's jars.
    pub kafka: Jars,
    /// Folder with `kube-apiserver`, …, `kubectl`.
    pub kube: PathBuf,
    /// Folder with `etcd`.
    pub etcd: PathBuf,
    /// Folder with `helm`.
    pub helm: PathBuf,
    /// Image archive of the pause container.
    pub pause_image: PathBuf,
}

impl Programs {
    /// Where they are or will be, without looking.
    pub fn locate(layout: &Layout) -> Self {
        let folder = |recipe: &Recipe| recipe.folder(layout);
        Self {
            kafka: jars::locate(layout),
            kube: folder(&golang::kube()),
            etcd: folder(&golang::etcd()),
            helm: folder(&golang::helm()),
            pause_image: folder(&pause::recipe()).join("pause.tar"),
        }
    }
}

/// Installs and builds whatever these groups need and this machine lacks.
pub fn install(layout: &Layout, groups: &[Group], progress: &Progress) -> Result<Programs, StackError> {
    remove_unfinished(layout)?;
    debian::install(groups, progress)?;
    let mut recipes = Vec::new();
    if groups.contains(&Group::Kafka) {
        recipes.push(jars::recipe());
    }
    if groups.contains(&Group::Kube) {
        recipes.extend([pause::recipe(), golang::etcd(), golang::helm(), golang::kube()]);
    }
    for recipe in recipes {
        recipe.make(layout, progress)?;
    }
    // Only quicker with it: a machine that cannot make it has its brokers too.
    if groups.contains(&Group::Kafka)
        && let Err(error) = jars::classes().make(layout, progress)
    {
        progress.line("install", format!("brokers will start slowly, without an archive of their classes: {error}"));
    }
    Ok(Programs::locate(layout))
}

/// How one program is made.
pub(crate) struct Recipe {
    name: &'static str,
    version: String,
    /// Files of the build, by name: the recipe is the same if they are.
    sources: Vec<(&'static str, &'static str)>,
    /// Other text the result depends on.
    flags: Vec<String>,
    /// What to expect, for the progress line.
    expect: &'static str,
    /// Makes it: (folder with the sources, folder to fill, the recipe).
    build: fn(&Path, &Path, &Recipe) -> Result<(), StackError>,
}

impl Recipe {
    fn key(&self) -> String {
        let mut hash = Sha256::new();
        for (name, text) in &self.sources {
            hash.update([name.as_bytes(), b"\0", text.as_bytes(), b"\0"].concat());
        }
        for flag in &self.flags {
            hash.update([flag.as_bytes(), b"\0"].concat());
        }
        format!("{}-{}-{}", self.name, self.version, &files::hex(&hash.finalize())[..12])
    }

    fn folder(&self, layout: &Layout) -> PathBuf {
        layout.artifacts().join(self.key())
    }

    fn make(&self, layout: &Layout, progress: &Progress) -> Result<(), StackError> {
        let target = self.folder(layout);
        if target.is_dir() {
            return Ok(());
        }
        let work = layout.artifacts().join(format!("{WORK}{}-{}", self.key(), std::process::id()));
        files::remove_dir(&work)?;
        let (sources, result) = (work.join("sources"), work.join("result"));
        files::make_dir(&result)?;
        for (name, text) in &self.sources {
            files::write(&sources.join(name), text)?;
        }
        let title = format!("{} {}: {}", self.name, self.version, self.expect);
        let made = progress.watch("install", title, || (self.build)(&sources, &result, self));
        // Another stack may have made the same meanwhile: then theirs is as good.
        if made.is_ok() && !target.is_dir() {
            fs::rename(&result, &target).at(&target)?;
        }
        files::remove_dir(&work)?;
        made
    }
}

/// Start of the name of a folder in which something is being made; the end is the maker's pid.
const WORK: &str = ".making-";

/// Removes what makers left that were killed.
fn remove_unfinished(layout: &Layout) -> Result<(), StackError> {
    for entry in fs::read_dir(layout.artifacts()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name.strip_prefix(WORK).and_then(|rest| rest.rsplit('-').next()?.parse().ok());
        if maker.is_some_and(|pid| ProcessId::of(pid).is_none()) {
            files::remove_dir(&entry.path())?;
        }
    }
    Ok(())
}

/// The version that a Go module file requires of a module.
fn required_version(go_mod: &str, module: &str) -> String {
    let line = go_mod.lines().filter(|line| !line.contains("=>")).find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word == "require");
        (words.next() == Some(module)).then(|| words.next()).flatten()
    });
    line.unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_module_files() {
        for recipe in [golang::kube(), golang::etcd(), golang::helm(), jars::recipe()] {
            assert!(recipe.version.starts_with('v') || recipe.version.starts_with('4'), "{}", recipe.key());
        }
    }

    #[test]
    fn the_key_changes_with_sources_and_flags() {
        let changed = Recipe { flags: vec!["other".into()], ..pause::recipe() };
        assert_ne!(changed.key(), pause::recipe().key());
        let changed = Recipe { sources: vec![("pause.c", "")], ..pause::recipe() };
        assert_ne!(changed.key(), pause::recipe().key());
    }
}
