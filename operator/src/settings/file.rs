//! The settings file as an administrator writes it.
//!
//! ```yaml
//! instanceId: prod                        # in every external name; never changes
//! worker:
//!   image: registry.example/sluice-worker:1.0
//!   imagePullPolicy: IfNotPresent
//! connections:
//!   kafka:
//!   - name: main
//!     brokers: [kafka-0:9093, kafka-1:9093]
//!     tls: {caFile: /etc/sluice/kafka-main/ca.crt}
//!     admin: {mechanism: SCRAM-SHA-512, usernameFile: /etc/sluice/kafka-main/username, passwordFile: /etc/sluice/kafka-main/password}
//!     namespaces:
//!     - {name: shop, own: [order.], produce: [], consume: [customer.], groups: [], maxPartitions: 200}
//!   redis:
//!   - name: main
//!     mode: Cluster
//!     addresses: [redis-0:6379]
//!     tls: {caFile: /etc/sluice/redis-main/ca.crt}
//!     admin: {usernameFile: /etc/sluice/redis-main/username, passwordFile: /etc/sluice/redis-main/password}
//!     allowedSettings: [notify-keyspace-events]
//!     namespaces:
//!     - {name: shop, write: ["order:"], read: ["price:", "stock:"], settings: [notify-keyspace-events]}
//! lagMonitors:
//! - {connection: main, group: billing, topics: [order.created], namespaces: [shop]}
//! ```

use serde::{Deserialize, Serialize};
use sluice_crds::v1alpha1::RedisMode;
use sluice_crds::worker_config::SaslMechanism;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SettingsFile {
    /// Id of this installation, in every external name. Changing it orphans everything made under the old one.
    pub instance_id: String,
    /// What worker pods are made of.
    pub worker: WorkerFile,
    /// Servers that resources may use by name.
    #[serde(default)]
    pub connections: ConnectionsFile,
    /// Groups of other people's consumers whose lag is measured too.
    #[serde(default)]
    pub lag_monitors: Vec<LagMonitorFile>,
    /// After this many seconds a deletion gives up on Kafka or Redis that cannot be reached and lets the resource go,
    /// naming in an event what it left behind. 0 = as soon as a step fails.
    #[serde(default = "default_deletion_deadline_seconds")]
    pub deletion_deadline_seconds: u32,
}

fn default_deletion_deadline_seconds() -> u32 {
    300
}

/// What worker pods are made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkerFile {
    /// Image with `sluice-worker` as its entry point.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`. Absent: the cluster's default for the tag.
    #[serde(default)]
    pub image_pull_policy: Option<PullPolicy>,
    /// Names of Secrets in the resource's namespace to pull the image with.
    #[serde(default)]
    pub image_pull_secrets: Vec<String>,
    /// Time a worker has to finish or abort its transactions, in seconds.
    #[serde(default = "default_grace_seconds")]
    pub termination_grace_period_seconds: u32,
}

fn default_grace_seconds() -> u32 {
    30
}

/// When the image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// When the node has none.
    IfNotPresent,
    /// The node has it.
    Never,
}

impl PullPolicy {
    /// As Kubernetes writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// Servers that resources may use by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectionsFile {
    /// Kafka clusters.
    #[serde(default)]
    pub kafka: Vec<KafkaFile>,
    /// Redis databases.
    #[serde(default)]
    pub redis: Vec<RedisFile>,
}

/// One Kafka cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaFile {
    /// Name that `spec.kafka.connectionRef.name` refers to; `default` is used when there is none.
    pub name: String,
    /// Bootstrap addresses, `host:port`, as workers reach them too.
    pub brokers: Vec<String>,
    /// TLS. Absent: plaintext.
    #[serde(default)]
    pub tls: Option<TlsFile>,
    /// The operator's own credentials. Absent: none, for a Kafka without authentication: then no users and ACLs are made.
    #[serde(default)]
    pub admin: Option<KafkaAdminFile>,
    /// Resources on it that replace their workers at the same time, at most.
    #[serde(default = "default_max_roll_outs")]
    pub max_roll_outs: u16,
    /// What each namespace may do. A namespace that is not here may do nothing.
    #[serde(default)]
    pub namespaces: Vec<KafkaNamespaceFile>,
}

fn default_max_roll_outs() -> u16 {
    10
}

/// TLS towards servers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsFile {
    /// PEM file of the authorities to trust. Absent: the system's.
    #[serde(default)]
    pub ca_file: Option<String>,
}

/// The operator's own Kafka credentials.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaAdminFile {
    /// SASL mechanism. Absent: `SCRAM-SHA-512`.
    #[serde(default = "default_mechanism")]
    pub mechanism: SaslMechanism,
    /// File that holds the user name.
    pub username_file: String,
    /// File that holds the password.
    pub password_file: String,
}

fn default_mechanism() -> SaslMechanism {
    SaslMechanism::ScramSha512
}

/// What a namespace may do with a Kafka cluster. Lists hold name prefixes; an empty list allows nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaNamespaceFile {
    /// The namespace.
    pub name: String,
    /// Prefixes of topics it may create, configure, delete, produce to and consume.
    #[serde(default)]
    pub own: Vec<String>,
    /// Prefixes of further topics it may produce to.
    #[serde(default)]
    pub produce: Vec<String>,
    /// Prefixes of further topics it may consume.
    #[serde(default)]
    pub consume: Vec<String>,
    /// Prefixes of consumer groups it may name in `groupId`; the names we make ourselves are always allowed.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Most partitions that one topic of it may have. Absent: 100.
    #[serde(default = "default_max_partitions")]
    pub max_partitions: i32,
}

fn default_max_partitions() -> i32 {
    100
}

/// One Redis database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedisFile {
    /// Name that `spec.redis.connectionRef.name` refers to; `default` is used when there is none.
    pub name: String,
    /// How the servers form one database.
    pub mode: RedisMode,
    /// Addresses, `host:port`, as workers reach them too; of a cluster any nodes.
    pub addresses: Vec<String>,
    /// TLS. Absent: plaintext.
    #[serde(default)]
    pub tls: Option<TlsFile>,
    /// The operator's own credentials. Absent: none, for a Redis without ACLs: then no users are made.
    #[serde(default)]
    pub admin: Option<RedisAdminFile>,
    /// Server settings that resources may ask for.
    #[serde(default)]
    pub allowed_settings: Vec<String>,
    /// What each namespace may do. A namespace that is not here may do nothing.
    #[serde(default)]
    pub namespaces: Vec<RedisNamespaceFile>,
}

/// The operator's own Redis credentials.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedisAdminFile {
    /// File that holds the ACL user's name.
    pub username_file: String,
    /// File that holds its password.
    pub password_file: String,
}

/// What a namespace may do with a Redis database. Lists hold key prefixes; an empty list allows nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedisNamespaceFile {
    /// The namespace.
    pub name: String,
    /// Prefixes of keys its views may write.
    #[serde(default)]
    pub write: Vec<String>,
    /// Prefixes of further keys its lookups may read.
    #[serde(default)]
    pub read: Vec<String>,
    /// Settings of `allowedSettings` that it may ask for.
    #[serde(default)]
    pub settings: Vec<String>,
}

/// A consumer group that is not ours and whose lag is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LagMonitorFile {
    /// Name of the Kafka connection it is on.
    pub connection: String,
    /// The group.
    pub group: String,
    /// Topics of it that are looked at.
    pub topics: Vec<String>,
    /// Namespaces that may scale by its lag. Empty: it is measured and shown, and no namespace may ask for it.
    #[serde(default)]
    pub namespaces: Vec<String>,
}
