//! Bringing one group of parts up, whatever state it was left in.
//!
//! A group is *described* (its description file exists) once it has come up completely. So after a crash there are two cases:
//! described, then what is dead is started again on its data; or not, then its remains are removed and it is made anew. The
//! same is done when repair fails or the description was written for other versions.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::StackError;
use super::files;
use super::install::{Group, Programs};
use super::kafka::{self, KafkaCluster, KafkaOptions};
use super::kube;
use super::layout::Layout;
use super::part::{Part, PartSpec};
use super::process::ProcessState;
use super::progress::Progress;
use super::reap;
use super::redis::{self, RedisCluster, RedisOptions};

/// Raised when the layout of a group's files changes, so that an older stack is made anew instead of misread.
const FORMAT: u32 = 1;

/// What bringing up needs to know.
pub(crate) struct Context<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) programs: &'a Programs,
    pub(crate) progress: &'a Progress,
}

/// A group: made from nothing, started, repaired.
pub(crate) trait Assembly: Serialize + DeserializeOwned + Sized {
    /// Which one.
    const GROUP: Group;
    /// What a description must match to be used.
    fn version(programs: &Programs) -> String;
    /// Writes certificates, configuration and empty data.
    fn lay_out(context: &Context<'_>) -> Result<Self, StackError>;
    /// Starts all parts for the first time and sets the group up.
    fn first_start(&self, context: &Context<'_>) -> Result<(), StackError>;
    /// Starts what is dead; all is well when it returns.
    fn repair(&self, context: &Context<'_>) -> Result<(), StackError>;
    /// Its parts.
    fn parts(&self) -> &[PartSpec];
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Described<T> {
    version: String,
    group: T,
}

/// Brings the group up: healthy already, repaired, or made anew.
pub(crate) fn bring_up<A: Assembly>(context: &Context<'_>) -> Result<(), StackError> {
    let name = A::GROUP.name();
    match load::<A>(context.layout, context.programs) {
        Ok(Some(group)) => match revive(&group, context) {
            Ok(()) => return Ok(()),
            Err(error) => context.progress.line(name, format!("cannot be repaired, starting anew: {error}")),
        },
        Ok(None) => {}
        Err(error) => context.progress.line(name, format!("starting anew: {error}")),
    }
    clear(context.layout, A::GROUP)?;
    let group = A::lay_out(context)?;
    context.progress.line(name, "configured");
    group.first_start(context)?;
    let description = Described { version: stamp::<A>(context.programs), group: &group };
    let text = serde_json::to_string_pretty(&description).expect("plain data is always writable as JSON");
    files::write(&context.layout.description(name), &text)?;
    context.progress.line(name, "up");
    Ok(())
}

fn revive<A: Assembly>(group: &A, context: &Context<'_>) -> Result<(), StackError> {
    let parts = group.parts().iter().map(|spec| Part::new(context.layout, spec.clone()));
    let (frozen, dead): (Vec<Part>, Vec<Part>) = parts
        .filter(|part| part.state() != ProcessState::Running)
        .partition(|part| part.state() == ProcessState::Frozen);
    let name = A::GROUP.name();
    for part in &frozen {
        context.progress.line(name, format!("{} was frozen, goes on", part.name()));
        part.thaw()?;
    }
    if !dead.is_empty() {
        let names: Vec<&str> = dead.iter().map(Part::name).collect();
        context.progress.line(name, format!("starting again: {}", names.join(" ")));
    }
    group.repair(context)?;
    context.progress.line(name, if dead.is_empty() && frozen.is_empty() { "is up" } else { "repaired" });
    Ok(())
}

/// Reads the description of a group that is up, if it was written for these versions.
pub(crate) fn load<A: Assembly>(layout: &Layout, programs: &Programs) -> Result<Option<A>, StackError> {
    let path = layout.description(A::GROUP.name());
    let Some(text) = files::read_optional(&path)? else { return Ok(None) };
    let described: Described<A> = serde_json::from_str(&text)
        .map_err(|error| StackError::Format { path: path.clone(), message: error.to_string() })?;
    if described.version != stamp::<A>(programs) {
        let message = format!("it was made with {:?}", described.version);
        return Err(StackError::Format { path, message });
    }
    Ok(Some(described.group))
}

fn stamp<A: Assembly>(programs: &Programs) -> String {
    format!("{FORMAT} {}", A::version(programs))
}

/// Ends every process of the group and removes its files.
pub(crate) fn clear(layout: &Layout, group: Group) -> Result<(), StackError> {
    // The description goes first: from here on the group is not up.
    files::remove_file(&layout.description(group.name()))?;
    reap::group(layout, group)?;
    if group == Group::Kube {
        kube::reap(layout)?;
    }
    files::remove_dir(&layout.group(group.name()))
}

/// Starts the parts that are dead, all at once, and waits until all of them answer.
pub(crate) fn start_all(context: &Context<'_>, group: Group, parts: &[PartSpec]) -> Result<(), StackError> {
    let parts: Vec<Part> = parts.iter().map(|spec| Part::new(context.layout, spec.clone())).collect();
    for part in &parts {
        if part.process().is_none() {
            part.start()?;
        }
    }
    for part in &parts {
        let was_ready = part.is_ready();
        part.wait_ready()?;
        if !was_ready {
            context.progress.line(group.name(), format!("{} is ready", part.name()));
        }
    }
    Ok(())
}

/// The last component of a path: a versioned folder of the cache.
pub(crate) fn file_name(path: &std::path::Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

impl Assembly for KafkaCluster {
    const GROUP: Group = Group::Kafka;

    fn version(programs: &Programs) -> String {
        file_name(&programs.kafka.folder)
    }

    fn lay_out(context: &Context<'_>) -> Result<Self, StackError> {
        kafka::create(&context.layout.group("kafka"), &context.programs.kafka, &KafkaOptions::shared())
    }

    fn first_start(&self, context: &Context<'_>) -> Result<(), StackError> {
        start_all(context, Self::GROUP, &self.parts)?;
        kafka::settle(self).map(drop)
    }

    fn repair(&self, context: &Context<'_>) -> Result<(), StackError> {
        start_all(context, Self::GROUP, &self.parts)?;
        for broker in kafka::settle(self)? {
            let text = format!("{broker} had lost the administrator's login: it was written again");
            context.progress.line(Self::GROUP.name(), text);
        }
        Ok(())
    }

    fn parts(&self) -> &[PartSpec] {
        &self.parts
    }
}

impl Assembly for RedisCluster {
    const GROUP: Group = Group::Redis;

    fn version(_: &Programs) -> String {
        "redis".into()
    }

    fn lay_out(context: &Context<'_>) -> Result<Self, StackError> {
        redis::create(&context.layout.group("redis"), &RedisOptions::shared())
    }

    fn first_start(&self, context: &Context<'_>) -> Result<(), StackError> {
        start_all(context, Self::GROUP, &self.parts)?;
        redis::form(self)
    }

    fn repair(&self, context: &Context<'_>) -> Result<(), StackError> {
        start_all(context, Self::GROUP, &self.parts)?;
        redis::wait_ok(self, std::time::Duration::from_secs(60))
    }

    fn parts(&self) -> &[PartSpec] {
        &self.parts
    }
}
