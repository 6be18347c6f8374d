//! Keys, values, and what lies between them and Redis commands. Pure.

use redis::{Cmd, Value, cmd};

use crate::redis::error::RedisFault;
use crate::redis::node::Answer;

/// How the value of a key is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LookupKind {
    /// A string (also one that holds JSON): GET.
    String,
    /// A hash: HGETALL.
    Hash,
}

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupKey {
    /// The Redis key.
    pub key: Vec<u8>,
    /// How it is stored.
    pub kind: LookupKind,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupValue {
    /// There is no such key.
    Missing,
    /// A string's bytes.
    String(Vec<u8>),
    /// A hash's fields and values, in the server's order; never empty.
    Hash(Vec<(Vec<u8>, Vec<u8>)>),
    /// The key holds another type than was asked for.
    WrongType,
}

impl LookupKey {
    pub(super) fn command(&self) -> Cmd {
        let mut command = cmd(match self.kind {
            LookupKind::String => "GET",
            LookupKind::Hash => "HGETALL",
        });
        command.arg(self.key.as_slice());
        command
    }

    pub(super) fn value(&self, answer: Answer) -> Result<LookupValue, RedisFault> {
        match (self.kind, answer) {
            (_, Err(RedisFault::WrongType)) => Ok(LookupValue::WrongType),
            (_, Err(fault)) => Err(fault),
            (LookupKind::String, Ok(Value::Nil)) => Ok(LookupValue::Missing),
            (LookupKind::String, Ok(Value::BulkString(bytes))) => Ok(LookupValue::String(bytes)),
            (LookupKind::Hash, Ok(value)) => hash(value),
            (LookupKind::String, Ok(_)) => Err(RedisFault::Malformed("GET")),
        }
    }
}

fn hash(value: Value) -> Result<LookupValue, RedisFault> {
    let pairs = value.into_map_iter().map_err(|_| RedisFault::Malformed("HGETALL"))?;
    let fields = pairs
        .map(|pair| match pair {
            (Value::BulkString(field), Value::BulkString(value)) => Ok((field, value)),
            _ => Err(RedisFault::Malformed("HGETALL")),
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(if fields.is_empty() { LookupValue::Missing } else { LookupValue::Hash(fields) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: LookupKind, answer: Answer) -> Result<LookupValue, RedisFault> {
        LookupKey { key: b"k".to_vec(), kind }.value(answer)
    }

    #[test]
    fn answers_become_values() {
        let text = |text: &str| Value::BulkString(text.into());
        assert_eq!(read(LookupKind::String, Ok(Value::Nil)), Ok(LookupValue::Missing));
        assert_eq!(read(LookupKind::String, Ok(text(""))), Ok(LookupValue::String(Vec::new())));
        assert_eq!(read(LookupKind::Hash, Ok(Value::Array(vec![]))), Ok(LookupValue::Missing));
        let pair = Ok(LookupValue::Hash(vec![(b"a".to_vec(), b"1".to_vec())]));
        assert_eq!(read(LookupKind::Hash, Ok(Value::Array(vec![text("a"), text("1")]))), pair);
        assert_eq!(read(LookupKind::Hash, Ok(Value::Map(vec![(text("a"), text("1"))]))), pair);
        assert_eq!(read(LookupKind::Hash, Err(RedisFault::WrongType)), Ok(LookupValue::WrongType));
        assert_eq!(read(LookupKind::String, Err(RedisFault::Loading)), Err(RedisFault::Loading));
        assert!(matches!(read(LookupKind::String, Ok(Value::Int(1))), Err(RedisFault::Malformed(_))));
        assert!(matches!(read(LookupKind::Hash, Ok(Value::Int(1))), Err(RedisFault::Malformed(_))));
    }
}
