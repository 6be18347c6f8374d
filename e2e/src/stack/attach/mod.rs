//! Handles for tests, demo and benchmarks: where everything is, and a grip on each part.
//!
//! [`Stack::attach`] takes the built-in stack, or an existing cluster named by the environment variables of
//! [`env`](super::env). On an existing cluster nothing can be killed or frozen: those calls say so.

mod kafka;
mod kube;
mod owned;
mod redis;
mod require;

use std::path::{Path, PathBuf};

pub use kafka::Kafka;
pub use kube::Kube;
pub use owned::{OwnedKafka, OwnedRedis};
pub use redis::Redis;
pub use require::{require, require_local};

use super::env::{self, Described};
use super::error::StackError;
use super::image;
use super::install::{Group, Programs};
use super::kafka::KafkaOptions;
use super::layout::Layout;
use super::netns;
use super::part::{Part, PartSpec};
use super::redis::RedisOptions;

/// A running stack.
#[derive(Debug)]
pub struct Stack {
    kafka: Option<Kafka>,
    redis: Option<Redis>,
    kube: Option<Kube>,
    local: Option<Local>,
}

/// What only the built-in stack has.
#[derive(Debug, Clone)]
struct Local {
    layout: Layout,
    programs: Programs,
}

impl Stack {
    /// The stack this process is to use. The built-in one needs the process to run inside its network namespace, which
    /// `stack exec` arranges.
    pub fn attach() -> Result<Self, StackError> {
        let variables = Variables(&|name| std::env::var(name).ok());
        if let Some(existing) = Self::existing(&variables)? {
            return Ok(existing);
        }
        let layout = Layout::from_env();
        let programs = Programs::locate(&layout);
        let described = Described::load(&layout, &programs)?;
        if described.is_empty() {
            return Err(StackError::Absent("the stack is not up; run `make stack`".into()));
        }
        if !netns::is_inside() {
            let name = netns::name();
            let hint = "start this with `stack exec -- …`";
            return Err(StackError::Absent(format!(
                "the stack is up, but this process is outside its network namespace {name:?}: {hint}"
            )));
        }
        Ok(Self {
            kafka: described.kafka.map(|cluster| Kafka::local(&layout, &programs, cluster)).transpose()?,
            redis: described.redis.map(|cluster| Redis::local(&layout, cluster)).transpose()?,
            kube: described.kube.map(|cluster| Kube::local(&layout, &programs, cluster)),
            local: Some(Local { layout, programs }),
        })
    }

    /// An existing cluster, if the variables name one. `KUBECONFIG` alone does not: people have it set for other reasons.
    fn existing(variables: &Variables<'_>) -> Result<Option<Self>, StackError> {
        let kafka = Kafka::existing(variables)?;
        let redis = Redis::existing(variables)?;
        if variables.get(env::MARKER).is_some() || (kafka.is_none() && redis.is_none()) {
            return Ok(None);
        }
        Ok(Some(Self { kafka, redis, kube: Kube::existing(variables), local: None }))
    }

    /// Whether this is the built-in stack, whose parts can be killed.
    pub fn is_local(&self) -> bool {
        self.local.is_some()
    }

    /// Kafka.
    pub fn kafka(&self) -> Result<&Kafka, StackError> {
        self.kafka.as_ref().ok_or_else(|| absent(Group::Kafka, "KAFKA_BROKERS"))
    }

    /// Redis.
    pub fn redis(&self) -> Result<&Redis, StackError> {
        self.redis.as_ref().ok_or_else(|| absent(Group::Redis, "REDIS_ADDRESSES"))
    }

    /// Kubernetes.
    pub fn kube(&self) -> Result<&Kube, StackError> {
        self.kube.as_ref().ok_or_else(|| absent(Group::Kube, "KUBECONFIG"))
    }

    /// Builds an image and loads it where the node's kubelet finds it (`imagePullPolicy: Never`); hands back the archive.
    pub fn build_image(
        &self,
        context: &Path,
        file: &Path,
        target: Option<&str>,
        arguments: &[String],
        tag: &str,
    ) -> Result<PathBuf, StackError> {
        let local = self.local("building an image")?;
        let archive = local.layout.group("images").join(format!("{}.tar", tag.replace(['/', ':'], "_")));
        super::files::make_dir(&local.layout.group("images"))?;
        let storage = local.layout.image_storage();
        image::build(&image::Build { context, file, target, arguments, tag, storage: &storage }, &archive)?;
        self.load_image(&archive)?;
        Ok(archive)
    }

    /// Loads an OCI archive where the node's kubelet finds it.
    pub fn load_image(&self, archive: &Path) -> Result<(), StackError> {
        image::load(self.kube()?.containerd()?, archive)
    }

    /// Starts a Kafka cluster of the caller's own; it ends when the handle is dropped.
    pub fn start_kafka(&self, options: &KafkaOptions) -> Result<OwnedKafka, StackError> {
        let local = self.local("starting another Kafka")?;
        OwnedKafka::start(&local.layout, &local.programs, options)
    }

    /// Starts a Redis of the caller's own; it ends when the handle is dropped.
    pub fn start_redis(&self, options: &RedisOptions) -> Result<OwnedRedis, StackError> {
        let local = self.local("starting another Redis")?;
        OwnedRedis::start(&local.layout, options)
    }

    fn local(&self, what: &'static str) -> Result<&Local, StackError> {
        self.local.as_ref().ok_or(StackError::NotLocal(what))
    }
}

fn absent(group: Group, variable: &str) -> StackError {
    StackError::Absent(format!("{} is not up; run `make stack`, or set {variable} for an existing one", group.name()))
}

/// The part with this number (from 1) of a group on this machine.
fn numbered(
    layout: Option<&Layout>,
    parts: &[PartSpec],
    number: usize,
    what: &'static str,
) -> Result<Part, StackError> {
    let layout = layout.ok_or(StackError::NotLocal(what))?;
    let spec = number.checked_sub(1).and_then(|index| parts.get(index));
    let spec = spec.ok_or_else(|| StackError::UnknownPart { name: format!("number {number} of {}", parts.len()) })?;
    Ok(Part::new(layout, spec.clone()))
}

/// The environment, as an argument.
struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    /// A variable that is set and not empty.
    fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    /// A password from `NAME`, or from the file that `NAME_FILE` names.
    fn password(&self, name: &str) -> Result<secrecy::SecretString, StackError> {
        match self.get(&format!("{name}_FILE")) {
            Some(file) => super::files::read_secret(Path::new(&file)),
            None => Ok(self.get(name).unwrap_or_default().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::kafka::Security;
    use crate::stack::redis::Mode;
    use secrecy::ExposeSecret;

    fn existing(set: &[(&str, &str)]) -> Result<Option<Stack>, StackError> {
        let get = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Stack::existing(&Variables(&get))
    }

    #[test]
    fn variables_name_an_existing_cluster() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "kafka-password\n").expect("written");
        let path = file.path().display().to_string();
        let set = [
            ("KUBECONFIG", "/k"),
            ("KAFKA_BROKERS", "a:1,b:2"),
            ("KAFKA_SASL_USERNAME", "u"),
            ("KAFKA_SASL_PASSWORD_FILE", &path),
            ("REDIS_ADDRESSES", "r:1, s:2"),
            ("REDIS_PASSWORD", "redis-password"),
            ("REDIS_CA_FILE", "/ca"),
        ];
        let stack = existing(&set).expect("readable").expect("named");
        assert!(!stack.is_local());
        let kafka = stack.kafka().expect("named");
        assert_eq!((kafka.bootstrap(), kafka.username(), kafka.security()), ("a:1,b:2", "u", Security::SaslSsl));
        assert_eq!(kafka.password().expose_secret(), "kafka-password");
        assert!(matches!(kafka.broker(1), Err(StackError::NotLocal(_))), "nothing of theirs is killed");
        let redis = stack.redis().expect("named");
        assert_eq!(
            (redis.addresses(), redis.mode(), redis.tls()),
            (&["r:1".into(), "s:2".into()][..], Mode::Cluster, true)
        );
        assert_eq!((redis.username(), redis.password().expose_secret()), ("default", "redis-password"));
        assert_eq!(stack.kube().expect("named").kubeconfig(), Path::new("/k"));
    }

    #[test]
    fn the_built_in_stack_and_a_kubeconfig_alone_are_not_existing_clusters() {
        let marked = [(env::MARKER, "/run"), ("KAFKA_BROKERS", "a:1")];
        assert!(existing(&marked).expect("readable").is_none());
        assert!(existing(&[("KUBECONFIG", "/k")]).expect("readable").is_none());
        assert!(existing(&[("KAFKA_BROKERS", "")]).expect("readable").is_none());
        let absent = [("REDIS_ADDRESSES", "r:1"), ("REDIS_PASSWORD_FILE", "/absent/file")];
        assert!(matches!(existing(&absent), Err(StackError::File { .. })));
    }
}
