//! Redis views: what a committed topic looks like in Redis.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Expression;
use super::patterns::{KEY_PREFIX, LABEL};

/// One Redis view of a topic. Each record of the topic becomes one key, or its removal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Name, unique among the views of the resource.
    #[schemars(length(min = 1, max = 40), regex(pattern = LABEL))]
    pub name: String,
    /// Expression for the Redis key; sees only `key` and `topic`, so that one Redis key always comes from one partition: keep
    /// the whole `key` in it. A part of it (`key.split(':')[0]`) must still be another one for each record key: which of two
    /// records of different partitions stays in one Redis key is not defined. A view of several topics names `topic`, too.
    pub key: Expression,
    /// Prefix that the key always has. Needed when it cannot be read off the expression (`'order:{' + key + '}'`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = KEY_PREFIX))]
    #[x_kube(validation = Rule::new("!self.startsWith('sluice/') && !'sluice/'.startsWith(self)")
        .message("keys below sluice/ are the applier's own records: choose another prefix"))]
    pub key_prefix: Option<String>,
    /// Redis type of the key: `String` (a JSON string's text, other JSON values as JSON text, raw values as they are),
    /// `Json` (a string with the record's value bytes as they are) or `Hash` (one field for each member of the JSON object).
    #[serde(rename = "type")]
    pub type_: ViewType,
    /// How a record changes the key: `Replace` (the key becomes exactly what the record says). Absent: `Replace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ViewOperation")]
    pub operation: Option<ViewOperation>,
    /// The key exists while this is true; false deletes it. Sees `key, value, headers, topic, partition, offset, timestamp`. Absent: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Expression>,
    /// Life of the key in seconds, counted from the record's timestamp: a replay never extends it. Absent: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 315_360_000))]
    pub ttl_seconds: Option<i64>,
}

/// Redis type of a view's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ViewType {
    /// A string: a JSON string's text, other JSON values as JSON text, raw values as they are.
    String,
    /// A string with the record's value bytes as they are.
    Json,
    /// A hash with one field for each member of the JSON object.
    Hash,
}

/// How a record changes its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ViewOperation {
    /// The key becomes exactly what the record says.
    #[default]
    Replace,
}
