//! What the settings file means. Pure: files it names come in already read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use sluice_crds::names::{GroupId, InstanceId, NameError, Namespace};
use sluice_crds::v1alpha1::RedisMode;
use sluice_crds::worker_config::SaslMechanism;

use super::file::{KafkaFile, PullPolicy, RedisFile, SettingsFile, TlsFile};
use super::monitors::{self, LagMonitor};
use super::policy::{KafkaPolicy, RedisPolicy};

/// Bounds of `worker.terminationGracePeriodSeconds`; the chart's schema has the same.
pub(super) const GRACE_PERIOD_SECONDS: (i64, i64) = (15, 3_600);
/// Bounds of `connections.kafka[].namespaces[].maxPartitions`; the chart's schema has the same.
pub(super) const MAX_PARTITIONS: (i64, i64) = (1, 10_000);
/// Most bytes of a certificate file: it is copied into a `ConfigMap` of every resource.
const MAX_CA_BYTES: usize = 256 * 1024;
/// Most connections of a sort, and most namespaces of a connection.
const MAX_ITEMS: usize = 1_000;

/// Name of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionName(Arc<str>);

impl ConnectionName {
    /// A name that a resource or the settings wrote; compared, never sent anywhere.
    pub fn new(name: impl AsRef<str>) -> Self {
        Self(Arc::from(name.as_ref()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ConnectionName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checked settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Id of this installation.
    pub instance: InstanceId,
    /// What worker pods are made of.
    pub worker: WorkerSettings,
    /// Kafka clusters by name.
    pub kafka: BTreeMap<ConnectionName, Arc<KafkaConnection>>,
    /// Redis databases by name.
    pub redis: BTreeMap<ConnectionName, Arc<RedisConnection>>,
    /// Connections that are in the file and cannot be used, with what is wrong: a file they need is missing. They keep
    /// nobody else from working.
    pub unusable: BTreeMap<Unusable, String>,
    /// Groups of others that are looked at, by group. Shared: each round of the sweeps takes them.
    pub lag_monitors: BTreeMap<GroupId, Arc<LagMonitor>>,
    /// How long a deletion tries, in seconds.
    pub deletion_deadline_seconds: u32,
}

/// A connection that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unusable {
    /// Of Kafka.
    Kafka(ConnectionName),
    /// Of Redis.
    Redis(ConnectionName),
}

impl Settings {
    /// Connections that have just become unusable stay as they were: credentials that worked still do, until a restart.
    #[must_use]
    pub fn keeping_usable(mut self, before: &Self) -> Self {
        for unusable in self.unusable.keys() {
            match unusable {
                Unusable::Kafka(name) => {
                    self.kafka.extend(before.kafka.get(name).map(|kept| (name.clone(), Arc::clone(kept))));
                }
                Unusable::Redis(name) => {
                    self.redis.extend(before.redis.get(name).map(|kept| (name.clone(), Arc::clone(kept))));
                }
            }
        }
        self
    }
}

/// What worker pods are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSettings {
    /// Image.
    pub image: String,
    /// When it is pulled.
    pub image_pull_policy: Option<PullPolicy>,
    /// Secrets to pull it with.
    pub image_pull_secrets: Vec<String>,
    /// Time to end, in seconds.
    pub termination_grace_period_seconds: u32,
}

/// One Kafka cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct KafkaConnection {
    /// Its name.
    pub name: ConnectionName,
    /// Bootstrap addresses.
    pub brokers: Vec<String>,
    /// TLS; none = plaintext.
    pub tls: Option<TlsMaterial>,
    /// The operator's own credentials and their mechanism; none = Kafka without authentication.
    pub admin: Option<(SaslMechanism, Credentials)>,
    /// Resources that replace their workers at the same time, at most; at least 1.
    pub max_roll_outs: usize,
    /// What each namespace may do.
    pub namespaces: BTreeMap<Namespace, KafkaPolicy>,
}

/// One Redis database.
#[derive(Clone, Debug, PartialEq)]
pub struct RedisConnection {
    /// Its name.
    pub name: ConnectionName,
    /// How the servers form one database.
    pub mode: RedisMode,
    /// Addresses.
    pub addresses: Vec<String>,
    /// TLS; none = plaintext.
    pub tls: Option<TlsMaterial>,
    /// The operator's own credentials; none = Redis without ACLs.
    pub admin: Option<Credentials>,
    /// What each namespace may do.
    pub namespaces: BTreeMap<Namespace, RedisPolicy>,
}

/// What TLS needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsMaterial {
    /// PEM of the authorities to trust; none = the system's. Public, but long: shared.
    pub ca_pem: Option<Arc<str>>,
}

/// A user and its password.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// User.
    pub username: String,
    /// Password.
    pub password: SecretString,
}

impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        self.username == other.username && self.password.expose_secret() == other.password.expose_secret()
    }
}

impl KafkaConnection {
    /// True when a client made for `other` serves this one as well.
    pub fn same_endpoint(&self, other: &Self) -> bool {
        self.brokers == other.brokers && self.tls == other.tls && self.admin == other.admin
    }
}

impl RedisConnection {
    /// True when a client made for `other` serves this one as well.
    pub fn same_endpoint(&self, other: &Self) -> bool {
        self.mode == other.mode
            && self.addresses == other.addresses
            && self.tls == other.tls
            && self.admin == other.admin
    }
}

/// Why settings cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// A name that is none.
    #[error("{field}: {problem}")]
    Name {
        /// Where.
        field: String,
        /// What is wrong.
        problem: NameError,
    },
    /// Two items of one name.
    #[error("{field} has two items named {name:?}: names must differ")]
    Duplicate {
        /// Where.
        field: String,
        /// The name.
        name: String,
    },
    /// A required text or list is empty.
    #[error("{field} must not be empty")]
    Empty {
        /// Where.
        field: String,
    },
    /// An address that is not `host:port`.
    #[error("{field}: {value:?} is not host:port")]
    Address {
        /// Where.
        field: String,
        /// The text.
        value: String,
    },
    /// A file that a connection needs.
    #[error("{field}: the file {path} is missing, empty or cannot be read: is its Secret there, with this key?")]
    File {
        /// Where.
        field: String,
        /// The file.
        path: String,
    },
    /// A password would travel in clear text.
    #[error("{field}: the mechanism PLAIN needs tls")]
    PlainWithoutTls {
        /// Where.
        field: String,
    },
    /// A connection that is not in the file.
    #[error("{field} is {name:?}: there is no such item of connections.kafka")]
    UnknownConnection {
        /// Where.
        field: String,
        /// The name.
        name: String,
    },
    /// A number or size out of bounds.
    #[error("{field} is {value}: {allowed}")]
    Bounds {
        /// Where.
        field: String,
        /// The value.
        value: i64,
        /// What is allowed.
        allowed: &'static str,
    },
}

/// The contents of files that the settings name, by path.
pub type Contents = BTreeMap<String, SecretString>;

impl SettingsFile {
    /// Every file the settings name.
    pub fn referenced_files(&self) -> BTreeSet<String> {
        let tls = |tls: &Option<TlsFile>| tls.as_ref().and_then(|tls| tls.ca_file.clone());
        let kafka = self.connections.kafka.iter().flat_map(|connection| {
            let admin = connection.admin.iter().flat_map(|a| [a.username_file.clone(), a.password_file.clone()]);
            tls(&connection.tls).into_iter().chain(admin).collect::<Vec<_>>()
        });
        let redis = self.connections.redis.iter().flat_map(|connection| {
            let admin = connection.admin.iter().flat_map(|a| [a.username_file.clone(), a.password_file.clone()]);
            tls(&connection.tls).into_iter().chain(admin).collect::<Vec<_>>()
        });
        kafka.chain(redis).collect()
    }

    /// Checks everything. `contents` holds the files of [`SettingsFile::referenced_files`] that could be read. A connection
    /// whose files are not all there is put aside as [`Settings::unusable`]; any other mistake refuses the whole.
    pub fn check(&self, contents: &Contents) -> Result<Settings, InvalidSettings> {
        let instance = InstanceId::parse(self.instance_id.clone()).map_err(|e| name_error("instanceId", e))?;
        not_empty("worker.image", &self.worker.image)?;
        let (least, most) = GRACE_PERIOD_SECONDS;
        bounded(
            "worker.terminationGracePeriodSeconds",
            self.worker.termination_grace_period_seconds.into(),
            least,
            most,
        )?;
        bounded("connections.kafka", self.connections.kafka.len() as i64, 0, MAX_ITEMS as i64)?;
        bounded("connections.redis", self.connections.redis.len() as i64, 0, MAX_ITEMS as i64)?;
        let mut unusable = BTreeMap::new();
        let mut kafka = BTreeMap::new();
        for connection in &self.connections.kafka {
            match check_kafka(connection, contents) {
                Ok(checked) => insert("connections.kafka", &mut kafka, checked.name.clone(), Arc::new(checked))?,
                Err(problem @ InvalidSettings::File { .. }) => {
                    unusable.insert(Unusable::Kafka(ConnectionName::new(&connection.name)), problem.to_string());
                }
                Err(problem) => return Err(problem),
            }
        }
        let mut redis = BTreeMap::new();
        for connection in &self.connections.redis {
            match check_redis(connection, contents) {
                Ok(checked) => insert("connections.redis", &mut redis, checked.name.clone(), Arc::new(checked))?,
                Err(problem @ InvalidSettings::File { .. }) => {
                    unusable.insert(Unusable::Redis(ConnectionName::new(&connection.name)), problem.to_string());
                }
                Err(problem) => return Err(problem),
            }
        }
        Ok(Settings {
            instance,
            worker: WorkerSettings {
                image: self.worker.image.clone(),
                image_pull_policy: self.worker.image_pull_policy,
                image_pull_secrets: self.worker.image_pull_secrets.clone(),
                termination_grace_period_seconds: self.worker.termination_grace_period_seconds,
            },
            kafka,
            redis,
            unusable,
            lag_monitors: monitors::check(&self.lag_monitors, &self.connections.kafka)?,
            deletion_deadline_seconds: self.deletion_deadline_seconds,
        })
    }
}

fn check_kafka(file: &KafkaFile, contents: &Contents) -> Result<KafkaConnection, InvalidSettings> {
    let field = format!("connections.kafka[{}]", file.name);
    not_empty("connections.kafka[].name", &file.name)?;
    addresses(&format!("{field}.brokers"), &file.brokers)?;
    let admin = match &file.admin {
        None => None,
        Some(admin) if admin.mechanism == SaslMechanism::Plain && file.tls.is_none() => {
            return Err(InvalidSettings::PlainWithoutTls { field: format!("{field}.admin") });
        }
        Some(admin) => {
            let credentials = credentials(&field, &admin.username_file, &admin.password_file, contents)?;
            Some((admin.mechanism, credentials))
        }
    };
    let mut namespaces = BTreeMap::new();
    for namespace in &file.namespaces {
        let at = format!("{field}.namespaces[{}]", namespace.name);
        let name = Namespace::parse(namespace.name.clone()).map_err(|e| name_error(&at, e))?;
        for (list, prefixes) in [
            ("own", &namespace.own),
            ("produce", &namespace.produce),
            ("consume", &namespace.consume),
            ("groups", &namespace.groups),
        ] {
            no_empty_prefix(&format!("{at}.{list}"), prefixes)?;
        }
        bounded(&format!("{at}.maxPartitions"), namespace.max_partitions.into(), MAX_PARTITIONS.0, MAX_PARTITIONS.1)?;
        let policy = KafkaPolicy {
            own: namespace.own.clone(),
            produce: namespace.produce.clone(),
            consume: namespace.consume.clone(),
            groups: namespace.groups.clone(),
            max_partitions: namespace.max_partitions,
        };
        insert(&format!("{field}.namespaces"), &mut namespaces, name, policy)?;
    }
    let tls = tls(&format!("{field}.tls"), file.tls.as_ref(), contents)?;
    Ok(KafkaConnection {
        name: ConnectionName::new(&file.name),
        brokers: file.brokers.clone(),
        tls,
        admin,
        max_roll_outs: usize::from(file.max_roll_outs.max(1)),
        namespaces,
    })
}

fn check_redis(file: &RedisFile, contents: &Contents) -> Result<RedisConnection, InvalidSettings> {
    let field = format!("connections.redis[{}]", file.name);
    not_empty("connections.redis[].name", &file.name)?;
    addresses(&format!("{field}.addresses"), &file.addresses)?;
    let admin = match &file.admin {
        None => None,
        Some(admin) => Some(credentials(&field, &admin.username_file, &admin.password_file, contents)?),
    };
    let mut namespaces = BTreeMap::new();
    for namespace in &file.namespaces {
        let at = format!("{field}.namespaces[{}]", namespace.name);
        let name = Namespace::parse(namespace.name.clone()).map_err(|e| name_error(&at, e))?;
        no_empty_prefix(&format!("{at}.write"), &namespace.write)?;
        no_empty_prefix(&format!("{at}.read"), &namespace.read)?;
        let allowed = |setting: &&String| file.allowed_settings.contains(*setting);
        let policy = RedisPolicy {
            write: namespace.write.clone(),
            read: namespace.read.clone(),
            settings: namespace.settings.iter().filter(allowed).cloned().collect(),
        };
        insert(&format!("{field}.namespaces"), &mut namespaces, name, policy)?;
    }
    let tls = tls(&format!("{field}.tls"), file.tls.as_ref(), contents)?;
    let (name, addresses) = (ConnectionName::new(&file.name), file.addresses.clone());
    Ok(RedisConnection { name, mode: file.mode, addresses, tls, admin, namespaces })
}

pub(super) fn name_error(field: &str, problem: NameError) -> InvalidSettings {
    InvalidSettings::Name { field: field.to_owned(), problem }
}

pub(super) fn not_empty(field: &str, text: &str) -> Result<(), InvalidSettings> {
    if text.trim().is_empty() { Err(InvalidSettings::Empty { field: field.to_owned() }) } else { Ok(()) }
}

/// An empty prefix would allow everything; who wants that lists first characters and knows what they do.
fn no_empty_prefix(field: &str, prefixes: &[String]) -> Result<(), InvalidSettings> {
    prefixes.iter().try_for_each(|prefix| not_empty(field, prefix))
}

fn bounded(field: &str, value: i64, min: i64, max: i64) -> Result<(), InvalidSettings> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let allowed = match (min, max) {
        (15, 3600) => "15 to 3600 are allowed",
        (1, 10_000) => "1 to 10000 are allowed",
        _ => "at most 1000 are allowed",
    };
    Err(InvalidSettings::Bounds { field: field.to_owned(), value, allowed })
}

fn addresses(field: &str, addresses: &[String]) -> Result<(), InvalidSettings> {
    if addresses.is_empty() {
        return Err(InvalidSettings::Empty { field: field.to_owned() });
    }
    for address in addresses {
        let good = address.rsplit_once(':').is_some_and(|(host, port)| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']' | ':');
            !host.is_empty() && host.chars().all(plain) && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if !good {
            return Err(InvalidSettings::Address { field: field.to_owned(), value: address.clone() });
        }
    }
    Ok(())
}

fn content<'a>(field: &str, path: &str, contents: &'a Contents) -> Result<&'a str, InvalidSettings> {
    let text = contents.get(path).map_or("", |content| content.expose_secret().trim());
    if text.is_empty() {
        return Err(InvalidSettings::File { field: field.to_owned(), path: path.to_owned() });
    }
    Ok(text)
}

fn credentials(field: &str, user: &str, password: &str, contents: &Contents) -> Result<Credentials, InvalidSettings> {
    Ok(Credentials {
        username: content(field, user, contents)?.to_owned(),
        password: SecretString::from(content(field, password, contents)?),
    })
}

fn tls(field: &str, file: Option<&TlsFile>, contents: &Contents) -> Result<Option<TlsMaterial>, InvalidSettings> {
    let Some(file) = file else { return Ok(None) };
    let Some(path) = &file.ca_file else { return Ok(Some(TlsMaterial::default())) };
    let pem = content(field, path, contents)?;
    if pem.len() > MAX_CA_BYTES {
        let allowed = "at most 262144 bytes are allowed";
        return Err(InvalidSettings::Bounds { field: format!("{field}.caFile"), value: pem.len() as i64, allowed });
    }
    Ok(Some(TlsMaterial { ca_pem: Some(Arc::from(pem)) }))
}

pub(super) fn insert<K: Ord + std::fmt::Display, V>(
    field: &str,
    map: &mut BTreeMap<K, V>,
    key: K,
    value: V,
) -> Result<(), InvalidSettings> {
    let name = key.to_string();
    match map.insert(key, value) {
        None => Ok(()),
        Some(_) => Err(InvalidSettings::Duplicate { field: field.to_owned(), name }),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
