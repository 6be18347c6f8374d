//! Kafka and Redis of a test's own, beside the shared ones: they end with their handle, and if the test is killed, with the
//! next `stack up`.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Deref;
use std::path::PathBuf;

use super::{Kafka, Redis};
use crate::stack::error::StackError;
use crate::stack::files;
use crate::stack::install::{Group, Programs};
use crate::stack::kafka::{self, KafkaOptions};
use crate::stack::layout::Layout;
use crate::stack::netns;
use crate::stack::part::{Part, PartSpec};
use crate::stack::redis::{self, RedisOptions};

/// Processes and data that go when this is dropped.
#[derive(Debug)]
struct Owned {
    parts: Vec<Part>,
    folder: PathBuf,
    _ports: Ports,
}

/// A range of ports that nobody else takes while this lives: it listens on the last of them, which the kernel gives to one
/// process only and takes back when that dies.
#[derive(Debug)]
struct Ports {
    base: u16,
    _reservation: TcpListener,
}

impl Ports {
    /// A range whose ports, and those 10000 and 20000 above, are free; all below those that clients get.
    fn reserve() -> Result<Self, StackError> {
        (0..80).find_map(|index| Self::try_reserve(11_000 + 20 * index)).ok_or_else(|| {
            StackError::Absent("no free ports for another Kafka or Redis: end some, or `make stack-down`".into())
        })
    }

    fn try_reserve(base: u16) -> Option<Self> {
        let reservation = TcpListener::bind((Ipv4Addr::LOCALHOST, base + 19)).ok()?;
        let free = |port: u16| TcpListener::bind((netns::NODE, port)).is_ok();
        let all_free = (0..6).all(|node| [0, 10_000, 20_000].iter().all(|offset| free(base + offset + node)));
        all_free.then_some(Self { base, _reservation: reservation })
    }
}

impl Owned {
    /// An empty folder for something of this name; what an earlier owner left in it goes.
    fn claim(layout: &Layout, name: &str) -> Result<PathBuf, StackError> {
        let taken = Group::ALL.iter().any(|group| name == group.name());
        if taken || name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(StackError::UnknownPart {
                name: format!("{name} (choose a name of letters, digits and dashes)"),
            });
        }
        let folder = layout.owned(name);
        files::remove_dir(&folder)?;
        Ok(folder)
    }

    fn start(layout: &Layout, folder: PathBuf, reserved: Ports, specs: &[PartSpec]) -> Result<Self, StackError> {
        let parts: Vec<Part> = specs.iter().map(|spec| Part::new(layout, spec.clone())).collect();
        // Made first, so that whatever was started ends when something fails.
        let owned = Self { parts, folder, _ports: reserved };
        for part in &owned.parts {
            part.kill9()?;
            part.record_owner(&owned.folder)?;
            part.start()?;
        }
        owned.parts.iter().try_for_each(Part::wait_ready)?;
        Ok(owned)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // Nobody could act on a failure here; the next `stack up` tries again.
        for part in &self.parts {
            let _ = part.kill9().and_then(|()| part.forget());
            // A failed test is read by its log.
            if !std::thread::panicking() {
                let _ = files::remove_file(part.log());
            }
        }
        let _ = files::remove_dir(&self.folder);
    }
}

/// A Kafka of the caller's own.
#[derive(Debug)]
pub struct OwnedKafka {
    handle: Kafka,
    _owned: Owned,
}

impl OwnedKafka {
    pub(super) fn start(layout: &Layout, programs: &Programs, options: &KafkaOptions) -> Result<Self, StackError> {
        let folder = Owned::claim(layout, &options.name)?;
        let ports = Ports::reserve()?;
        let cluster =
            kafka::create(&folder, &programs.kafka, &KafkaOptions { base_port: ports.base, ..options.clone() })?;
        let owned = Owned::start(layout, folder, ports, &cluster.parts)?;
        kafka::settle(&cluster)?;
        Ok(Self { handle: Kafka::local(layout, programs, cluster)?, _owned: owned })
    }
}

impl Deref for OwnedKafka {
    type Target = Kafka;

    fn deref(&self) -> &Kafka {
        &self.handle
    }
}

/// A Redis of the caller's own.
#[derive(Debug)]
pub struct OwnedRedis {
    handle: Redis,
    _owned: Owned,
}

impl OwnedRedis {
    pub(super) fn start(layout: &Layout, options: &RedisOptions) -> Result<Self, StackError> {
        let folder = Owned::claim(layout, &options.name)?;
        let ports = Ports::reserve()?;
        let cluster = redis::create(&folder, &RedisOptions { base_port: ports.base, ..options.clone() })?;
        let owned = Owned::start(layout, folder, ports, &cluster.parts)?;
        redis::form(&cluster)?;
        Ok(Self { handle: Redis::local(layout, cluster)?, _owned: owned })
    }
}

impl Deref for OwnedRedis {
    type Target = Redis;

    fn deref(&self) -> &Redis {
        &self.handle
    }
}
