//! Which Kafka and which Redis a resource uses, and with whose credentials.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::patterns::{HOST_PORT, REDIS_SETTING, SUBDOMAIN};

/// A name in the same namespace, or of a connection in the operator's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct NameRef {
    /// Name of the object referred to.
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN))]
    pub name: String,
}

/// Kafka of a resource: a connection of the operator. There are no addresses here: the operator makes topics, commits start
/// offsets and watches lag, which it can only do where it has credentials of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "(has(self.connectionRef) ? self.connectionRef.name : 'default') \
     == (has(oldSelf.connectionRef) ? oldSelf.connectionRef.name : 'default')"
)
.message("connectionRef cannot be changed (absent means default): topics, users and offsets would stay behind on the old \
          servers; make a new resource and delete this one"))]
pub struct Kafka {
    /// Connection named in the operator's settings; unchangeable. Absent: the connection `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_ref: Option<NameRef>,
    /// Whose credentials the workers use.
    #[serde(default)]
    pub access: Access,
}

/// Redis of a resource: a named connection, or inline addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.connectionRef) && has(self.inline))")
        .message("connectionRef and inline exclude each other: name a connection or give addresses"),
    validation = Rule::new("!has(self.inline) || self.access.mode == 'Provided'")
        .message("inline addresses need access.mode Provided: the operator never sends its credentials to an address from a resource"),
    validation = Rule::new(
        "(has(self.inline) ? '' : has(self.connectionRef) ? self.connectionRef.name : 'default') \
         == (has(oldSelf.inline) ? '' : has(oldSelf.connectionRef) ? oldSelf.connectionRef.name : 'default')"
    )
    .message("connectionRef cannot be changed (absent means default), nor put in place of inline: keys and users would stay \
              behind on the old servers; make a new resource and delete this one"),
    validation = Rule::new("!has(self.inline) || !has(self.settings) || self.settings.size() == 0")
        .message("settings need a connection: the operator changes no server it has no credentials of its own for")
)]
pub struct Redis {
    /// Connection named in the operator's settings; unchangeable. Neither this nor `inline` means the connection `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_ref: Option<NameRef>,
    /// Addresses given here instead of a connection; needs `access.mode: Provided`. The operator never goes there, so it
    /// cannot delete keys there either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline: Option<InlineRedis>,
    /// Whose credentials the workers use.
    #[serde(default)]
    pub access: Access,
    /// Server settings (`CONFIG SET`) this resource needs, from the connection's allow-list. Equal values are shared;
    /// a resource that asks for another value than an older one gets a condition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub settings: Vec<RedisSetting>,
}

/// One Redis server setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedisSetting {
    /// Name of the parameter, e.g. `notify-keyspace-events`.
    #[schemars(length(min = 1, max = 64), regex(pattern = REDIS_SETTING))]
    pub name: String,
    /// Value, as `CONFIG SET` takes it.
    #[schemars(length(max = 256))]
    pub value: String,
}

/// Redis addresses that are not a named connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct InlineRedis {
    /// How the servers form one database: `Cluster` (Redis Cluster, slots over several masters) or `Standalone` (one server).
    pub mode: RedisMode,
    /// Addresses, `host:port`; for a cluster any nodes of it.
    #[schemars(length(min = 1, max = 16), inner(length(min = 3, max = 255), regex(pattern = HOST_PORT)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub addresses: Vec<String>,
    /// TLS towards the servers. Absent: plaintext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// How Redis servers form one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RedisMode {
    /// Redis Cluster: slots over several masters.
    Cluster,
    /// One server.
    Standalone,
}

/// TLS towards servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Secret in this namespace whose key `ca.crt` holds the certificate authorities to trust. Absent: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<NameRef>,
}

/// Whose credentials the workers use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.mode == 'Provided') == has(self.secretRef)")
    .message("mode Provided needs secretRef, and secretRef needs mode Provided"))]
pub struct Access {
    /// `Generated`: the operator makes a user with the least rights the spec needs. `Provided`: `secretRef` names them.
    #[serde(default)]
    pub mode: AccessMode,
    /// Secret in this namespace with the keys `username` and `password`; mounted into the workers, never read by the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<NameRef>,
}

/// Who makes the credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AccessMode {
    /// The operator makes and owns a user.
    #[default]
    Generated,
    /// A Secret of the namespace holds them.
    Provided,
}
