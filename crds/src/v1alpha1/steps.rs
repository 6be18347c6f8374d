//! The steps a record goes through. Every dynamic leaf is one CEL expression.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::patterns::{FIELD_PATH, IDENTIFIER, KEY_PREFIX};

/// A CEL expression over `key, value, headers, topic, partition, offset, timestamp` and the lookups before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Expression(#[schemars(length(min = 1, max = 2048))] pub String);

/// One step: a name and exactly one action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "[has(self.filter), has(self.lookup), has(self.set), has(self.remove), has(self.mask)].exists_one(present, present)"
)
.message("a step needs exactly one of filter, lookup, set, remove, mask"))]
pub struct Step {
    /// Name, unique among the steps; the variable of a lookup's result.
    #[schemars(length(min = 1, max = 40), regex(pattern = IDENTIFIER))]
    #[x_kube(validation = Rule::new(
        "!(self in ['key', 'value', 'headers', 'topic', 'partition', 'offset', 'timestamp', 'true', 'false', 'null', 'in', \
         'as', 'break', 'const', 'continue', 'else', 'for', 'function', 'if', 'import', 'let', 'loop', 'package', \
         'namespace', 'return', 'var', 'void', 'while'])"
    )
    .message("the name of a step must not be a variable of the record or a reserved word of the expression language"))]
    pub name: String,
    /// Keep only records for which an expression is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// Read a Redis key and bind it to this step's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lookup: Option<Lookup>,
    /// Set fields of the value. All expressions see the record as it entered the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["field".into()]))]
    pub set: Option<Vec<SetField>>,
    /// Remove fields of the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove: Option<Remove>,
    /// Hide fields of the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<Mask>,
}

/// Keep only records for which `keepWhen` is true; the others are done (filtered), not dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    /// Must give a bool.
    pub keep_when: Expression,
}

/// Read one Redis key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lookup {
    /// Expression for the Redis key; must give a string.
    pub key: Expression,
    /// Prefix that the key always has. Needed when it cannot be read off the expression (`'price:' + …`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = KEY_PREFIX))]
    #[x_kube(validation = Rule::new("!self.startsWith('sluice/') && !'sluice/'.startsWith(self)")
        .message("keys below sluice/ are the applier's own records: choose another prefix"))]
    pub key_prefix: Option<String>,
    /// How the value is stored in Redis: `String` (bound as a string), `Json` (a string of JSON text, bound as the
    /// value it says) or `Hash` (bound as a map of strings).
    #[serde(rename = "type")]
    pub type_: LookupType,
    /// What a missing key means: `DeadLetter` (the record goes to the dead-letter topic with reason `LookupMiss`),
    /// `Continue` (the step's name is null) or `Discard` (the record is done, counted as filtered). Absent: `DeadLetter`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OnMiss")]
    pub on_miss: Option<OnMiss>,
}

/// How a looked-up value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum LookupType {
    /// A string, bound as a string.
    String,
    /// A string that holds JSON text, bound as the value it says.
    Json,
    /// A hash, bound as a map of strings.
    Hash,
}

/// What a missing key means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnMiss {
    /// The record goes to the dead-letter topic with reason `LookupMiss`.
    #[default]
    DeadLetter,
    /// The step's name is null.
    Continue,
    /// The record is done, counted as filtered.
    Discard,
}

/// One field to set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SetField {
    /// Path of the field, members separated by dots; missing objects on the way are made.
    #[schemars(length(min = 1, max = 256), regex(pattern = FIELD_PATH))]
    pub field: String,
    /// Its new value.
    pub expression: Expression,
}

/// Fields to remove; a field that is not there is no error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Remove {
    /// Paths, members separated by dots.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256), regex(pattern = FIELD_PATH)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub fields: Vec<String>,
}

/// Fields to hide; a field that is not there is no error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mask {
    /// Paths, members separated by dots.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256), regex(pattern = FIELD_PATH)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub fields: Vec<String>,
    /// How: `Redact` puts the string `***` in place of the value.
    pub method: MaskMethod,
}

/// How a field is hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MaskMethod {
    /// The value becomes the string `***`.
    Redact,
}
