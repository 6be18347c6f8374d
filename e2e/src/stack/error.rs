//! The one error of the stack library.

use std::path::{Path, PathBuf};

/// Why the stack could not do what was asked. Messages name the thing, what was seen, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// A file or folder of the stack could not be read or written.
    #[error("{path:?}: {source}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of the stack does not hold what this version writes.
    #[error("{path:?} is not readable by this version: {message}; start anew with `stack up --fresh`")]
    Format {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        message: String,
    },
    /// A program could not be started at all.
    #[error("could not run {program:?}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program ran and failed.
    #[error("{program:?} failed ({status}): {output}")]
    Command {
        /// The program.
        program: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The end of what it printed.
        output: String,
    },
    /// A program that must be installed by hand is missing.
    #[error("{tool:?} is missing and not installed by the stack: {hint}")]
    MissingTool {
        /// The program.
        tool: &'static str,
        /// How to get it.
        hint: &'static str,
    },
    /// A condition did not come true in time.
    #[error("{what} after {seconds} s{detail}")]
    Timeout {
        /// What was waited for, as "X is not Y".
        what: String,
        /// How long, in seconds.
        seconds: u64,
        /// More about it (the end of a log), starting with a separator; may be empty.
        detail: String,
    },
    /// A part was asked for that the stack has not got.
    #[error("the stack has no part {name:?}")]
    UnknownPart {
        /// The name asked for.
        name: String,
    },
    /// A part is in a state in which the call makes no sense.
    #[error("part {name:?} {state}")]
    PartState {
        /// The part.
        name: String,
        /// Its state, as "is already running".
        state: &'static str,
    },
    /// A certificate could not be made.
    #[error("could not make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A system call failed.
    #[error("{call}: {errno}")]
    System {
        /// What was attempted.
        call: String,
        /// What the system said.
        errno: nix::errno::Errno,
    },
    /// The Kubernetes API refused or did not answer.
    #[error("kubernetes API: {0}")]
    Kube(#[from] Box<kube::Error>),
    /// The stack, or the part of it that is needed, is not there.
    #[error("{0}")]
    Absent(String),
    /// This is only possible on the built-in stack.
    #[error("{0} is only possible on the built-in stack, not on an existing cluster")]
    NotLocal(&'static str),
    /// The built-in stack needs Linux and root.
    #[error(
        "the built-in stack needs root (network namespace, containers); to use an existing cluster set KUBECONFIG, KAFKA_* and REDIS_*"
    )]
    NotRoot,
}

/// Attaches the path to an IO result.
pub(crate) trait AtPath<T> {
    /// Turns the error into [`StackError::File`].
    fn at(self, path: &Path) -> Result<T, StackError>;
}

impl<T> AtPath<T> for std::io::Result<T> {
    fn at(self, path: &Path) -> Result<T, StackError> {
        self.map_err(|source| StackError::File { path: path.to_owned(), source })
    }
}
