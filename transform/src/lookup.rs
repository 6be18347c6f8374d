//! Results of lookups: raw as Redis gave them, and prepared for expressions.

use sluice_crds::v1alpha1::LookupType;

use crate::json::Json;

/// What a key holds, as Redis gave it.
#[derive(Clone, PartialEq, Eq)]
pub enum LookupValue {
    /// No such key.
    Missing,
    /// A string.
    String(Vec<u8>),
    /// A hash; empty means that there is no such key.
    Hash(Vec<(Vec<u8>, Vec<u8>)>),
    /// A key of another type (Redis said `WRONGTYPE`).
    WrongType,
}

/// One key to read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LookupRequest {
    /// Index of the step.
    pub step: usize,
    /// The Redis key; it starts with the step's prefix.
    pub key: Vec<u8>,
    /// Decides the command: `GET` or `HGETALL`.
    pub lookup_type: LookupType,
}

/// A lookup's result in the form that expressions read: parsed once, shared by all records that need it.
///
/// It depends on the raw value and the [`LookupType`] alone, so a cache may keep it for all steps that read the key
/// as the same type.
pub struct PreparedLookup(Prepared);

pub(crate) enum Prepared {
    Missing,
    Text(String),
    Bytes(Vec<u8>),
    Json(Json),
    /// Sorted by field name.
    Hash(Vec<(String, Vec<u8>)>),
    Invalid(String),
}

/// Parses a raw result. Never fails: a value that is not what the step says is kept as such, and becomes a dead
/// letter with reason `LookupInvalid` for each record that needs it.
pub fn prepare_lookup(lookup_type: LookupType, value: LookupValue) -> PreparedLookup {
    PreparedLookup(match (lookup_type, value) {
        (_, LookupValue::Missing) => Prepared::Missing,
        (LookupType::Hash, LookupValue::Hash(fields)) => prepare_hash(fields),
        (LookupType::String, LookupValue::String(bytes)) => match String::from_utf8(bytes) {
            Ok(text) => Prepared::Text(text),
            Err(error) => Prepared::Bytes(error.into_bytes()),
        },
        (LookupType::Json, LookupValue::String(bytes)) => match Json::parse(bytes) {
            Ok(json) => Prepared::Json(json),
            Err(error) => Prepared::Invalid(format!("the key's value is not JSON: {error}")),
        },
        (LookupType::Hash, _) => Prepared::Invalid("the key is not a hash".to_owned()),
        (LookupType::String | LookupType::Json, _) => Prepared::Invalid("the key is not a string".to_owned()),
    })
}

/// Fields whose name is not UTF-8 are left out: no expression can name them.
fn prepare_hash(fields: Vec<(Vec<u8>, Vec<u8>)>) -> Prepared {
    if fields.is_empty() {
        return Prepared::Missing;
    }
    let mut named: Vec<(String, Vec<u8>)> =
        fields.into_iter().filter_map(|(name, value)| Some((String::from_utf8(name).ok()?, value))).collect();
    named.sort_by(|(one, _), (other, _)| one.cmp(other));
    Prepared::Hash(named)
}

impl PreparedLookup {
    pub(crate) fn prepared(&self) -> &Prepared {
        &self.0
    }

    /// True when there was no such key.
    pub fn is_missing(&self) -> bool {
        matches!(self.0, Prepared::Missing)
    }

    /// Bytes of memory it takes, for bounded caches.
    pub fn size(&self) -> usize {
        size_of::<Self>()
            + match &self.0 {
                Prepared::Missing => 0,
                Prepared::Text(text) | Prepared::Invalid(text) => text.capacity(),
                Prepared::Bytes(bytes) => bytes.capacity(),
                Prepared::Json(json) => json.size(),
                Prepared::Hash(fields) => fields
                    .iter()
                    .map(|(name, value)| name.capacity() + value.capacity() + size_of::<(String, Vec<u8>)>())
                    .sum(),
            }
    }
}

/// Contents stay out of logs.
impl std::fmt::Debug for PreparedLookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &self.0 {
            Prepared::Missing => "PreparedLookup(missing)",
            Prepared::Text(_) | Prepared::Bytes(_) => "PreparedLookup(string)",
            Prepared::Json(_) => "PreparedLookup(json)",
            Prepared::Hash(_) => "PreparedLookup(hash)",
            Prepared::Invalid(_) => "PreparedLookup(invalid)",
        })
    }
}

/// Contents stay out of logs.
impl std::fmt::Debug for LookupValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Missing => "LookupValue::Missing",
            Self::String(_) => "LookupValue::String(..)",
            Self::Hash(_) => "LookupValue::Hash(..)",
            Self::WrongType => "LookupValue::WrongType",
        })
    }
}
