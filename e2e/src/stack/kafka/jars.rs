//! How Kafka's programs are run: from their jars, by a virtual machine that starts soon.

use std::path::PathBuf;

/// Kafka's jars.
#[derive(Debug, Clone)]
pub struct Jars {
    /// Their folder.
    pub folder: PathBuf,
    /// An archive of the classes that are loaded at every start, when there is one (`classes.sh`).
    pub classes: Option<PathBuf>,
}

/// For a process that is to start soon and stay small.
const QUICK: [&str; 3] = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"];

impl Jars {
    /// Flags of a process that is to start soon and stay small. An archive that another version of Java made is not used, and
    /// nothing is said of it: standard output belongs to the program.
    pub(super) fn quick(&self) -> Vec<String> {
        let archive = self.classes.iter().map(|file| format!("-XX:SharedArchiveFile={}", file.display()));
        QUICK.map(String::from).into_iter().chain(archive).chain(["-Xlog:disable".to_owned()]).collect()
    }

    /// The class path. An archive holds for this text only.
    pub(super) fn class_path(&self) -> String {
        format!("{}/*", self.folder.display())
    }
}
