//! The file a worker starts from: everything the operator resolved, nothing the worker has to look up in Kubernetes.
//!
//! JSON, versioned; unknown versions and unknown fields are refused, so that a worker never runs half of a
//! configuration it does not understand. Secrets are not in it: it names the files they are mounted at.

mod parse;

use serde::{Deserialize, Serialize};

use crate::v1alpha1::{Expression, Format, LookupType, MaskMethod, OnMiss, OnNoMatch, RedisMode, RouteMatch, ViewType};

pub use parse::{MAX_WORKER_CONFIG_BYTES, WorkerConfigError, parse};

/// Version of the file's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerConfigVersion {
    /// The first layout.
    #[serde(rename = "v1")]
    V1,
}

/// Everything one worker needs. At least one of `processor` and `applier` is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkerConfig {
    /// Layout of this file.
    pub version: WorkerConfigVersion,
    /// Whose worker this is.
    pub identity: Identity,
    /// Kafka and the credentials for it.
    pub kafka: KafkaEndpoint,
    /// Redis and the credentials for it. Needed by lookups and by the applier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisEndpoint>,
    /// Kafka → Kafka.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor: Option<ProcessorConfig>,
    /// Kafka → Redis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applier: Option<ApplierConfig>,
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    #[serde(default = "default_admin_listen")]
    pub admin_listen: String,
}

fn default_admin_listen() -> String {
    "0.0.0.0:8080".to_owned()
}

/// Whose worker this is. The pod's name comes from the environment (`POD_NAME`), since it differs between pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Identity {
    /// Id of the Sluice installation.
    pub instance: String,
    /// Namespace of the resource.
    pub namespace: String,
    /// `eventpipeline` or `cachesync`.
    pub kind: String,
    /// Name of the resource.
    pub name: String,
    /// Uid of the resource; names its watermark records in Redis.
    pub uid: String,
}

/// Kafka and the credentials for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaEndpoint {
    /// Bootstrap addresses, `host:port`.
    pub brokers: Vec<String>,
    /// TLS. Absent: plaintext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFiles>,
    /// SASL. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<SaslFiles>,
}

/// Files TLS needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsFiles {
    /// PEM file of the authorities to trust. Absent: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
}

/// Files SASL needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SaslFiles {
    /// Mechanism.
    pub mechanism: SaslMechanism,
    /// File that holds the user name.
    pub username_file: String,
    /// File that holds the password.
    pub password_file: String,
}

/// SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SaslMechanism {
    /// SCRAM-SHA-512 (RFC 5802 as Kafka uses it).
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// PLAIN (RFC 4616), for managed services; only under TLS.
    #[serde(rename = "PLAIN")]
    Plain,
}

/// Redis and the credentials for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedisEndpoint {
    /// How the servers form one database.
    pub mode: RedisMode,
    /// Addresses, `host:port`.
    pub addresses: Vec<String>,
    /// TLS. Absent: plaintext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFiles>,
    /// ACL user. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<RedisUserFiles>,
}

/// Files with a Redis ACL user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedisUserFiles {
    /// File that holds the user name.
    pub username_file: String,
    /// File that holds the password.
    pub password_file: String,
}

/// The transactional loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProcessorConfig {
    /// Consumer group; the operator committed its start offsets.
    pub group: String,
    /// `sluice/<instance>/<namespace>/<kind>/<name>/`; the worker adds `<pod>/<lane>`.
    pub transactional_id_prefix: String,
    /// Topics to consume.
    pub topics: Vec<TopicRef>,
    /// How values are read.
    pub format: Format,
    /// Steps, in order.
    pub steps: Vec<Step>,
    /// Where records go.
    pub routing: Routing,
    /// Dead-letter topic. Absent: a record that cannot be processed stalls its partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter_topic: Option<String>,
    /// Lanes: threads with a transactional producer each.
    pub lanes: u32,
    /// Longest time a record waits for its batch to close, in milliseconds.
    pub commit_interval_milliseconds: u32,
    /// Most source records in one transaction.
    pub max_batch_records: u32,
    /// Most source bytes (keys, values, headers) in one transaction.
    pub max_batch_bytes: u64,
    /// Largest record an output topic takes, in bytes; a larger result is a dead letter.
    pub max_record_bytes: u64,
    /// The lookup cache.
    pub lookup_cache: LookupCacheConfig,
}

/// The cache in front of Redis lookups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LookupCacheConfig {
    /// Most bytes of keys and values a lane keeps.
    pub max_bytes: u64,
    /// How long a value may be served, in milliseconds; 0 = no cache.
    pub ttl_milliseconds: u64,
}

/// A topic, and which incarnation of it the operator saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TopicRef {
    /// Name in Kafka.
    pub name: String,
    /// Topic id (base64url without padding, as Kafka prints it). A worker that meets another id stops.
    pub id: String,
}

/// One step: a name and one action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// Name; the variable of a lookup's result.
    pub name: String,
    /// What it does.
    pub action: Action,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Action {
    /// Keep only records for which the expression is true.
    #[serde(rename_all = "camelCase")]
    Filter {
        /// Must give a bool.
        keep_when: Expression,
    },
    /// Read one Redis key.
    #[serde(rename_all = "camelCase")]
    Lookup {
        /// Must give a string.
        key: Expression,
        /// Prefix the key must have; another key is a dead letter (the Redis user could not read it anyway).
        key_prefix: String,
        /// How the value is stored.
        lookup_type: LookupType,
        /// What a missing key means.
        on_miss: OnMiss,
    },
    /// Set fields, in order; all expressions see the record as it entered the step.
    Set {
        /// The fields.
        fields: Vec<SetField>,
    },
    /// Remove fields.
    Remove {
        /// Their paths.
        fields: Vec<FieldPath>,
    },
    /// Hide fields.
    Mask {
        /// Their paths.
        fields: Vec<FieldPath>,
        /// How.
        method: MaskMethod,
    },
}

/// Path of a field: at least one member, none empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldPath(Vec<String>);

/// A path with an empty member.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field path {path:?} has an empty member: write names separated by single dots")]
pub struct FieldPathError {
    /// The path.
    pub path: String,
}

impl From<FieldPathError> for String {
    fn from(error: FieldPathError) -> Self {
        error.to_string()
    }
}

impl FieldPath {
    /// The members, outermost first.
    pub fn members(&self) -> &[String] {
        &self.0
    }
}

impl TryFrom<String> for FieldPath {
    type Error = FieldPathError;

    fn try_from(text: String) -> Result<Self, FieldPathError> {
        let members: Vec<String> = text.split('.').map(str::to_owned).collect();
        if members.iter().any(String::is_empty) {
            return Err(FieldPathError { path: text });
        }
        Ok(Self(members))
    }
}

impl From<FieldPath> for String {
    fn from(path: FieldPath) -> Self {
        path.0.join(".")
    }
}

/// One field to set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetField {
    /// Where.
    pub field: FieldPath,
    /// What.
    pub expression: Expression,
}

/// Where records go after the steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Routing {
    /// First matching route, or all.
    #[serde(rename = "match")]
    pub match_: RouteMatch,
    /// A record that no route takes.
    pub on_no_match: OnNoMatch,
    /// In order.
    pub routes: Vec<Route>,
}

/// One way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// Name.
    pub name: String,
    /// Topic to produce to; internal topics have their real name here.
    pub topic: String,
    /// Takes the record when true. Absent: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Expression>,
    /// Key of the output. Absent: the source record's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Expression>,
    /// True when the topic has a view: tombstones bypass the steps and go to every such route.
    pub has_views: bool,
    /// True when the topic is compacted: a record without a key is a dead letter.
    pub compacted: bool,
}

/// The applier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApplierConfig {
    /// Consumer group; only carries lag and reports, never decides where applying starts.
    pub group: String,
    /// Epoch of the views: a watermark record with a higher one stops this applier.
    pub epoch: u64,
    /// Topics with their views.
    pub topics: Vec<ViewTopic>,
    /// Most mutations in one script call (the server is blocked for its duration).
    pub max_batch_items: u32,
    /// Most bytes of keys and values in one script call.
    pub max_batch_bytes: u64,
}

/// A topic with its views.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ViewTopic {
    /// The topic.
    pub topic: TopicRef,
    /// How values are read.
    pub format: Format,
    /// How long compaction leaves a tombstone in it at least (`delete.retention.ms`), in milliseconds. Absent: it is not
    /// compacted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tombstones_kept_milliseconds: Option<u64>,
    /// What it looks like in Redis.
    pub views: Vec<View>,
}

/// One view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct View {
    /// Name.
    pub name: String,
    /// Expression for the Redis key; sees only `key` and `topic`.
    pub key: Expression,
    /// Prefix every key has.
    pub key_prefix: String,
    /// Redis type.
    pub view_type: ViewType,
    /// The key exists while this is true. Absent: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Expression>,
    /// Life in seconds from the record's timestamp. Absent: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
}
