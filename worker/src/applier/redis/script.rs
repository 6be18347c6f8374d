//! The script call: [`Apply`] → command, answer → [`Outcome`]. Pure.

use redis::{Cmd, Script, Value, cmd};
use sluice_clients::redis::{Answer, RedisFault, Slot};

use crate::applier::engine::{Apply, Outcome};
use crate::applier::mutation::{Mutation, Op};

const APPLY: &str = include_str!("apply.lua");
const ADOPT: &str = include_str!("adopt.lua");
/// Longest error text kept.
const MAX_ERROR: usize = 200;

/// The scripts with their hashes.
#[derive(Debug)]
pub struct Scripts {
    pub(super) apply: Script,
    pub(super) adopt: Script,
}

/// How a script is named in a call: by hash, or with its text, which also loads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// EVALSHA.
    Hash,
    /// EVAL.
    Text,
}

impl Default for Scripts {
    fn default() -> Self {
        // Redis wants the `#!` in the very first line.
        Self { apply: Script::new(APPLY), adopt: Script::new(ADOPT) }
    }
}

impl Scripts {
    /// The call for a batch. `field` is the partition's field in the hash.
    pub fn apply_command(&self, by: By, apply: &Apply, field: &str) -> Cmd {
        let mut command = call(by, &self.apply, APPLY);
        command.arg(1).arg(&apply.handle.key).arg(&apply.handle.header).arg(field);
        command.arg(&apply.expected).arg(&apply.next).arg(apply.from);
        for mutation in apply.batch.iter() {
            append(&mut command, mutation);
        }
        command
    }

    /// The call that makes a hash at `key`; see the script for the arguments.
    pub(super) fn adopt_command(&self, by: By, key: &str, arguments: &[&str]) -> Cmd {
        let mut command = call(by, &self.adopt, ADOPT);
        command.arg(1).arg(key).arg(arguments);
        command
    }
}

fn call(by: By, script: &Script, text: &str) -> Cmd {
    let mut command = match by {
        By::Hash => cmd("EVALSHA"),
        By::Text => cmd("EVAL"),
    };
    match by {
        By::Hash => command.arg(script.get_hash()),
        By::Text => command.arg(text),
    };
    command
}

fn append(command: &mut Cmd, mutation: &Mutation) {
    let (slot, key) = (mutation.slot.number(), mutation.key.as_slice());
    match &mutation.op {
        Op::Delete => {
            command.arg(b"D").arg(slot).arg(key);
        }
        Op::Set { value, expire_at_ms: None } => {
            command.arg(b"S").arg(slot).arg(key).arg(value.as_slice());
        }
        Op::Set { value, expire_at_ms: Some(at) } => {
            command.arg(b"P").arg(slot).arg(key).arg(value.as_slice()).arg(*at);
        }
        Op::SetHash { fields, expire_at_ms } => {
            command.arg(b"H").arg(slot).arg(key);
            match expire_at_ms {
                Some(at) => command.arg(*at),
                None => command.arg(b""),
            };
            command.arg(fields.len() * 2);
            for (field, value) in fields {
                command.arg(field.as_slice()).arg(value.as_slice());
            }
        }
    }
}

/// Reads the answer of [`Scripts::apply_command`].
pub fn read_outcome(answer: Answer) -> Outcome {
    let malformed = || Outcome::Fault(RedisFault::Malformed("answer of the apply script"));
    let parts = match answer {
        Ok(Value::Array(parts)) => parts,
        Ok(_) => return malformed(),
        Err(fault) => return Outcome::Fault(fault),
    };
    match &parts[..] {
        [Value::Int(0)] => Outcome::Refused,
        [Value::Int(1), text] => match text_of(text).map(|text| (behind(&text), text)) {
            Some((_, text)) if text.is_empty() => Outcome::Applied { behind: Vec::new(), text: None },
            Some((Some(behind), text)) => Outcome::Applied { behind, text: Some(text) },
            _ => malformed(),
        },
        [Value::Int(2), Value::Int(item), error] => match (usize::try_from(*item), text_of(error)) {
            (Ok(item), Some(mut error)) => {
                error.truncate(
                    (0..=MAX_ERROR.min(error.len())).rev().find(|at| error.is_char_boundary(*at)).unwrap_or(0),
                );
                Outcome::Failed { item, error }
            }
            _ => malformed(),
        },
        _ => malformed(),
    }
}

/// The slots that the script appended to a record.
fn behind(record: &str) -> Option<Vec<Slot>> {
    let (_, note) = record.rsplit_once(" !")?;
    let (_, slots) = note.split_once(':')?;
    slots.split(',').map(|slot| Slot::new(slot.parse().ok()?)).collect()
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn answers_are_read() {
        let read = |parts: Vec<Value>| read_outcome(Ok(Value::Array(parts)));
        assert_eq!(read(vec![Value::Int(0)]), Outcome::Refused);
        let applied = Outcome::Applied { behind: vec![], text: None };
        assert_eq!(read(vec![Value::Int(1), text("")]), applied);
        let slots = vec![Slot::new(7).expect("in range"), Slot::new(3).expect("in range")];
        let left = Outcome::Applied { behind: slots, text: Some("1 x 1 2 3 9:0-5 !4:7,3".to_owned()) };
        assert_eq!(read(vec![Value::Int(1), text("1 x 1 2 3 9:0-5 !4:7,3")]), left);
        let failed = Outcome::Failed { item: 4, error: "ERR x".to_owned() };
        assert_eq!(read(vec![Value::Int(2), Value::Int(4), text("ERR x")]), failed);
        assert_eq!(read_outcome(Err(RedisFault::OutOfMemory)), Outcome::Fault(RedisFault::OutOfMemory));
        for wrong in [
            vec![],
            vec![Value::Int(1)],
            vec![Value::Int(1), text("no note")],
            vec![Value::Int(2), Value::Int(-1), text("")],
        ] {
            assert!(matches!(read(wrong), Outcome::Fault(RedisFault::Malformed(_))));
        }
    }

    #[test]
    fn scripts_begin_with_the_flag_that_lets_them_touch_several_slots() {
        for text in [APPLY, ADOPT] {
            assert!(text.starts_with("#!lua flags=allow-cross-slot-keys\n"));
        }
    }
}
