//! `stack`: the local stack from the command line. `make stack`, `make stack-down` and the tests use the same library.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand, ValueEnum};
use sluice_e2e::stack::{self, Group, Layout, Programs, Progress, Stack, StackError, netns};

#[derive(Parser)]
#[command(name = "stack", about = "A real Kubernetes, Kafka and Redis on this machine")]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Install what is missing and bring the stack up; repairs one that is up already
    Up {
        /// Throw the data of an earlier stack away first
        #[arg(long)]
        fresh: bool,
        /// Only these groups
        #[arg(long, value_delimiter = ',')]
        only: Vec<GroupName>,
    },
    /// End every process of the stack and remove its data
    Down {
        /// Print nothing but errors
        #[arg(long)]
        quiet: bool,
    },
    /// Install and build what the stack needs, without starting it
    Install,
    /// Run a command in the stack's network, told by environment variables where everything is
    Exec {
        /// The command and its arguments
        #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Show every part with its state and memory; fails unless all are ready
    Status,
    /// Print resources, events and the ends of logs, without secrets
    Dump,
    /// Container images of the stack's node
    #[command(subcommand)]
    Image(ImageAction),
    /// Print those environment variables, as shell code
    Env,
}

#[derive(Subcommand)]
enum ImageAction {
    /// Build an image with buildah and load it
    Build {
        /// Dockerfile
        #[arg(long, default_value = "Dockerfile")]
        file: PathBuf,
        /// Stage
        #[arg(long)]
        target: Option<String>,
        /// NAME=VALUE
        #[arg(long)]
        build_arg: Vec<String>,
        /// Full name with tag
        #[arg(long)]
        tag: String,
        /// Folder of the build
        context: PathBuf,
    },
    /// Load an OCI or Docker archive
    Load {
        /// The archive
        archive: PathBuf,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum GroupName {
    Kafka,
    Redis,
    Kube,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stack: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(action: Action) -> Result<(), StackError> {
    let layout = Layout::from_env();
    let progress = Progress::start();
    match action {
        Action::Up { fresh, only } => {
            stack::up(&layout, &chosen(&only), fresh, &progress)?;
            progress.line("stack", "up");
            Ok(())
        }
        Action::Down { quiet } => stack::down(&layout, &if quiet { Progress::silent() } else { progress }),
        Action::Install => stack::install(&layout, &Group::ALL, &progress).map(drop),
        Action::Exec { command } => exec(&layout, &command),
        Action::Status => status(&layout),
        Action::Dump => dump(&layout),
        Action::Image(action) => image(&action),
        Action::Env => print_variables(&layout),
    }
}

fn chosen(only: &[GroupName]) -> Vec<Group> {
    if only.is_empty() {
        return Group::ALL.to_vec();
    }
    let group = |name: &GroupName| match name {
        GroupName::Kafka => Group::Kafka,
        GroupName::Redis => Group::Redis,
        GroupName::Kube => Group::Kube,
    };
    only.iter().map(group).collect()
}

/// Becomes the command: signals, exit code and terminal are its own.
fn exec(layout: &Layout, command: &[OsString]) -> Result<(), StackError> {
    let variables = stack::env::variables(layout, &Programs::locate(layout))?;
    netns::enter()?;
    let (program, arguments) = command.split_first().expect("clap requires at least one word");
    let path = variables.get("PATH").cloned().unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
    let error = Command::new(found.map_or_else(|| program.clone(), Into::into)).args(arguments).envs(variables).exec();
    Err(StackError::Spawn { program: program.to_string_lossy().into_owned(), source: error })
}

fn status(layout: &Layout) -> Result<(), StackError> {
    if netns::exists() {
        netns::enter()?;
    }
    let parts = stack::status(layout)?;
    if parts.is_empty() {
        return Err(StackError::Absent("the stack is not up; run `make stack`".into()));
    }
    println!("{:<24} {:>8} {:<10} {:>9}  LOG", "PART", "PID", "STATE", "RSS");
    for part in &parts {
        let pid = part.process.map_or("-".into(), |process| process.pid().to_string());
        let mib = part.resident_bytes / (1 << 20);
        println!("{:<24} {pid:>8} {:<10} {:>9}  {}", part.name, part.state, format!("{mib} MiB"), part.log.display());
    }
    let total: u64 = parts.iter().map(|part| part.resident_bytes).sum();
    println!("{:<24} {:>8} {:<10} {:>9}", "total", "", "", format!("{} MiB", total / (1 << 20)));
    match parts.iter().filter(|part| !part.ready).count() {
        0 => Ok(()),
        count => Err(StackError::Absent(format!("{count} parts are not ready; `make stack` repairs"))),
    }
}

fn dump(layout: &Layout) -> Result<(), StackError> {
    netns::enter()?;
    println!("{}", stack::dump(layout, &stack::parts(layout)?)?);
    Ok(())
}

fn image(action: &ImageAction) -> Result<(), StackError> {
    netns::enter()?;
    let stack = Stack::attach()?;
    match action {
        ImageAction::Build { file, target, build_arg, tag, context } => {
            stack.build_image(context, file, target.as_deref(), build_arg, tag).map(drop)
        }
        ImageAction::Load { archive } => stack.load_image(archive),
    }
}

fn print_variables(layout: &Layout) -> Result<(), StackError> {
    for (name, value) in stack::env::variables(layout, &Programs::locate(layout))? {
        println!("export {name}='{}'", value.replace('\'', r"'\''"));
    }
    Ok(())
}
