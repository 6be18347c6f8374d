//! `up` and `down`: the whole stack, under one lock.

use std::fs;
use std::path::Path;

use super::env;
use super::error::{AtPath, StackError};
use super::files;
use super::group::{self, Context};
use super::install::{self, Group};
use super::kafka::KafkaCluster;
use super::kube::{self, KubeCluster};
use super::layout::Layout;
use super::netns;
use super::progress::Progress;
use super::reap;
use super::redis::RedisCluster;

/// Installs what is missing and brings these groups up; other groups are left as they are. Moves this thread into the stack's
/// network namespace. `fresh` throws the old stack's data away first.
pub fn up(layout: &Layout, groups: &[Group], fresh: bool, progress: &Progress) -> Result<(), StackError> {
    netns::require_root()?;
    let _lock = lock(layout, progress)?;
    let programs = install::install(layout, groups, progress)?;
    // Without the namespace whatever is left runs in one that nobody can enter any more.
    if fresh || !netns::exists() {
        remove(layout, progress)?;
    }
    netns::ensure()?;
    netns::enter()?;
    netns::configure()?;
    claim(layout)?;
    reap::orphans(layout)?;
    let context = Context { layout, programs: &programs, progress };
    let outcomes: Vec<Result<(), StackError>> = std::thread::scope(|scope| {
        let context = &context;
        let threads: Vec<_> = groups.iter().map(|group| scope.spawn(move || bring_up(*group, context))).collect();
        threads.into_iter().map(join).collect()
    });
    outcomes.into_iter().collect::<Result<(), _>>()?;
    env::write_scripts(layout, &programs)
}

fn bring_up(group: Group, context: &Context<'_>) -> Result<(), StackError> {
    match group {
        Group::Kafka => group::bring_up::<KafkaCluster>(context),
        Group::Redis => group::bring_up::<RedisCluster>(context),
        Group::Kube => group::bring_up::<KubeCluster>(context),
    }
}

/// A thread's result; its panic goes on in this one.
fn join<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Ends every process of the stack and removes its data, its logs and its network namespace.
pub fn down(layout: &Layout, progress: &Progress) -> Result<(), StackError> {
    netns::require_root()?;
    let _lock = lock(layout, progress)?;
    remove(layout, progress)
}

fn remove(layout: &Layout, progress: &Progress) -> Result<(), StackError> {
    if layout.run().exists() {
        require_ours(layout.run())?;
        let step = progress.step("down", format!("removing the stack in {}", layout.run().display()));
        for group in Group::ALL {
            files::remove_file(&layout.description(group.name()))?;
        }
        reap::everything(layout)?;
        kube::reap(layout)?;
        empty(layout.run())?;
        step.done();
    }
    netns::remove()
}

/// Marks a folder as the stack's: `down` removes it with all it holds.
const MARK: &str = ".sluice-stack";

fn claim(layout: &Layout) -> Result<(), StackError> {
    if layout.run().exists() {
        return require_ours(layout.run());
    }
    files::write(
        &layout.run().join(MARK),
        "the local stack of Sluice lives here; `make stack-down` removes this folder\n",
    )
}

/// Removes the run folder, the mark last: killed half way, the rest is still known as ours.
fn empty(run: &Path) -> Result<(), StackError> {
    for entry in fs::read_dir(run).at(run)? {
        let path = entry.at(run)?.path();
        match path.file_name() {
            Some(name) if name == MARK => {}
            _ if path.is_dir() => files::remove_dir(&path)?,
            _ => files::remove_file(&path)?,
        }
    }
    files::remove_dir(run)
}

fn require_ours(run: &Path) -> Result<(), StackError> {
    let empty = fs::read_dir(run).at(run)?.next().is_none();
    if run.join(MARK).exists() {
        return Ok(());
    }
    if empty {
        return files::write(&run.join(MARK), "");
    }
    Err(StackError::Absent(format!(
        "{} holds something else: point SLUICE_STACK_DIR at a folder of its own",
        run.display()
    )))
}

/// One `up` or `down` at a time. The lock goes with the process, however it ends.
fn lock(layout: &Layout, progress: &Progress) -> Result<fs::File, StackError> {
    let path = layout.lock();
    files::make_dir(path.parent().unwrap_or(Path::new("/")))?;
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path).at(&path)?;
    if file.try_lock().is_err() {
        progress.line("lock", "another command is bringing the stack up or down: waiting for it");
        file.lock().at(&path)?;
    }
    Ok(file)
}
