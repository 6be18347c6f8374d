//! Views: records of a committed topic → mutations of Redis keys.
//!
//! Mutations converge: each replaces or deletes a whole key and depends on its record alone, so that replaying a topic
//! in order from any older offset ends in the same state.

use sluice_crds::v1alpha1::{Format, ViewType};
use sluice_crds::worker_config::View;

use crate::cel::{Expr, RECORD_VARIABLES, Scope, VIEW_KEY_VARIABLES, Value};
use crate::error::{CompileError, DeadLetter, Failure, Reason};
use crate::json::{Doc, Entry, Kind, Node, scan};
use crate::program::{compile_expression, duplicate_names};
use crate::record::RecordView;

/// The views of one topic, compiled.
#[derive(Debug)]
pub struct ViewProgram {
    format: Format,
    views: Vec<CompiledView>,
    uses_headers: bool,
}

#[derive(Debug)]
struct CompiledView {
    name: String,
    key: Expr,
    prefix: String,
    view_type: ViewType,
    when: Option<Expr>,
    ttl_ms: Option<i64>,
}

/// One change of one Redis key.
#[derive(Clone, PartialEq, Eq)]
pub struct Mutation {
    /// Index of the view.
    pub view: usize,
    /// The key.
    pub key: Vec<u8>,
    /// What happens to it.
    pub op: Op,
    /// When it ends, in milliseconds since 1970; none = never. Always none for [`Op::Delete`].
    pub expire_at_ms: Option<i64>,
}

/// What happens to a key.
#[derive(Clone, PartialEq, Eq)]
pub enum Op {
    /// It goes.
    Delete,
    /// It becomes this string.
    SetString(Vec<u8>),
    /// It becomes a hash of exactly these fields, in the order of the record; never empty.
    SetHash(Vec<(Vec<u8>, Vec<u8>)>),
}

impl Mutation {
    /// Bytes of key and data, for bounded batches.
    pub fn size(&self) -> usize {
        self.key.len()
            + match &self.op {
                Op::Delete => 0,
                Op::SetString(bytes) => bytes.len(),
                Op::SetHash(fields) => fields.iter().map(|(name, value)| name.len() + value.len()).sum(),
            }
    }
}

/// Contents stay out of logs.
impl std::fmt::Debug for Mutation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mutation({:?}, view {}, {} bytes)", self.op, self.view, self.size())
    }
}

/// Contents stay out of logs.
impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Delete => f.write_str("Delete"),
            Self::SetString(bytes) => write!(f, "SetString({} bytes)", bytes.len()),
            Self::SetHash(fields) => write!(f, "SetHash({} fields)", fields.len()),
        }
    }
}

/// A record that a view cannot take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("view {name:?}: {message}")]
pub struct ViewError {
    /// Index of the view.
    pub view: usize,
    /// Its name.
    pub name: String,
    /// Why, as a category.
    pub reason: Reason,
    /// Why, in words; bounded and without contents, as in [`DeadLetter::message`].
    pub message: String,
}

impl ViewProgram {
    /// Compiles the views of a topic. `path` is where the list is in the resource, such as `views` or
    /// `routing.routes[0] "read-model" views`.
    ///
    /// # Errors
    /// Every mistake found, each with its place.
    pub fn compile(path: &str, format: Format, views: &[View]) -> Result<Self, Vec<CompileError>> {
        let mut errors = Vec::new();
        duplicate_names(path, views.iter().map(|view| view.name.as_str()), &mut errors);
        let compiled: Vec<CompiledView> = views
            .iter()
            .enumerate()
            .filter_map(|(at, view)| compile_view(&format!("{path}[{at}] {:?}", view.name), format, view, &mut errors))
            .collect();
        if !errors.is_empty() {
            return Err(errors);
        }
        let uses_headers = compiled.iter().filter_map(|view| view.when.as_ref()).any(|when| when.uses("headers"));
        Ok(Self { format, views: compiled, uses_headers })
    }

    /// True when an expression names `headers`: otherwise records may come without them.
    pub fn uses_headers(&self) -> bool {
        self.uses_headers
    }

    /// What a record does to Redis at `now_ms` (milliseconds since 1970): one mutation for each view, in their order.
    /// `now_ms` only turns what has already expired into a deletion.
    ///
    /// # Errors
    /// The first view that cannot take the record; none of its mutations may be applied then.
    pub fn mutations(&self, record: &RecordView<'_>, now_ms: i64) -> Result<Vec<Mutation>, ViewError> {
        let mut tape = Vec::new();
        let value = self.value(record, &mut tape);
        let scope = match &value {
            Ok(value) => Scope::new(*record, *value, &[], &[]),
            Err(_) => Scope::new(*record, Value::Tombstone, &[], &[]),
        };
        self.views
            .iter()
            .enumerate()
            .map(|(at, view)| {
                let value = value.as_ref().map_err(Clone::clone);
                value.and_then(|value| view.mutation(at, &scope, *value, record, now_ms)).map_err(|failure| {
                    let DeadLetter { reason, message, .. } = failure.at("");
                    ViewError { view: at, name: view.name.clone(), reason, message }
                })
            })
            .collect()
    }

    fn value<'s>(&self, record: &RecordView<'s>, tape: &'s mut Vec<Entry>) -> Result<Value<'s>, Failure> {
        match (record.value, self.format) {
            (None, _) => Ok(Value::Tombstone),
            (Some(bytes), Format::Raw) => Ok(Value::Raw(bytes)),
            (Some(bytes), Format::Json) => match scan(bytes, tape) {
                Ok(text) => Ok(Value::Json(Doc { text, tape })),
                Err(error) => Err(Failure::new(Reason::InvalidJson, format!("the value is not JSON: {error}"))),
            },
        }
    }
}

fn compile_view(path: &str, format: Format, view: &View, errors: &mut Vec<CompileError>) -> Option<CompiledView> {
    if format == Format::Raw && view.view_type == ViewType::Hash {
        let message = "a Hash needs format Json: raw values have no fields".to_owned();
        errors.push(CompileError { path: path.to_owned(), position: None, message });
    }
    let key = compile_expression(|| format!("{path} key"), &view.key, &VIEW_KEY_VARIABLES, errors);
    let when =
        view.when.as_ref().map(|when| compile_expression(|| format!("{path} when"), when, &RECORD_VARIABLES, errors));
    let when = match when {
        None => None,
        Some(compiled) => Some(compiled?),
    };
    Some(CompiledView {
        name: view.name.clone(),
        key: key?,
        prefix: view.key_prefix.clone(),
        view_type: view.view_type,
        when,
        ttl_ms: view.ttl_seconds.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000)),
    })
}

impl CompiledView {
    fn mutation(
        &self,
        at: usize,
        scope: &Scope<'_>,
        value: Value<'_>,
        record: &RecordView<'_>,
        now_ms: i64,
    ) -> Result<Mutation, Failure> {
        let key = self.key.redis_key(scope).map_err(|failure| failure.within("key"))?;
        if !key.starts_with(self.prefix.as_bytes()) {
            let message = format!("the key does not begin with {:?}", self.prefix);
            return Err(Failure::new(Reason::KeyOutsidePrefix, message));
        }
        let delete = |key| Ok(Mutation { view: at, key, op: Op::Delete, expire_at_ms: None });
        if matches!(value, Value::Tombstone) {
            return delete(key);
        }
        if let Some(when) = &self.when
            && !when.condition(scope).map_err(|failure| failure.within("when"))?
        {
            return delete(key);
        }
        let op = self.op(value)?;
        if op == Op::Delete {
            return delete(key);
        }
        let expire_at_ms = match self.ttl_ms {
            None => None,
            Some(_) if record.timestamp_ms < 0 => {
                let message = "ttlSeconds counts from the record's timestamp, and the record has none";
                return Err(Failure::new(Reason::NoTimestamp, message));
            }
            Some(ttl_ms) => Some(record.timestamp_ms.saturating_add(ttl_ms)),
        };
        if expire_at_ms.is_some_and(|at| at <= now_ms) {
            return delete(key);
        }
        Ok(Mutation { view: at, key, op, expire_at_ms })
    }

    fn op(&self, value: Value<'_>) -> Result<Op, Failure> {
        Ok(match (value, self.view_type) {
            (Value::Tombstone, _) => Op::Delete,
            (Value::Raw(bytes), _) => Op::SetString(bytes.to_vec()),
            (Value::Json(doc), ViewType::Json) => Op::SetString(doc.text.as_bytes().to_vec()),
            (Value::Json(doc), ViewType::String) => Op::SetString(redis_text(doc.root())),
            (Value::Json(doc), ViewType::Hash) => hash(doc.root())?,
        })
    }
}

/// Strings as they are, everything else as its JSON text.
fn redis_text(node: Node<'_>) -> Vec<u8> {
    match node.kind() {
        Kind::String | Kind::EscapedString => node.string().into_owned().into_bytes(),
        _ => node.raw().as_bytes().to_vec(),
    }
}

/// A member that is null has no field; no fields, no key.
fn hash(root: Node<'_>) -> Result<Op, Failure> {
    if root.kind() != Kind::Object {
        let message = format!("the value is {}, and a Hash needs an object", root.type_name());
        return Err(Failure::new(Reason::TypeError, message));
    }
    let fields: Vec<(Vec<u8>, Vec<u8>)> = root
        .members()
        .filter(|member| member.value.kind() != Kind::Null)
        .map(|member| (member.name.string().into_owned().into_bytes(), redis_text(member.value)))
        .collect();
    Ok(if fields.is_empty() { Op::Delete } else { Op::SetHash(fields) })
}
