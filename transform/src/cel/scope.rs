//! The variables of one record.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cel::common::types::{CelBytes, CelInt, CelString, CelTimestamp};
use cel::common::value::CowVal;
use cel::context::VariableResolver;

use super::paths::{self, Path};
use super::patterns::{self, Pattern};
use super::rewrite::FUEL;
use super::values::{Fields, MapVal, bool_val, node_val, null_val, text_or_bytes};
use crate::error::{Failure, Reason};
use crate::json::Doc;
use crate::lookup::{Prepared, PreparedLookup};
use crate::record::RecordView;

/// Most iterations of comprehensions in one evaluation.
const MAX_ITERATIONS: u32 = 100_000;

/// The value of a record as expressions see it now, after the steps before.
#[derive(Clone, Copy)]
pub(crate) enum Value<'s> {
    Tombstone,
    Json(Doc<'s>),
    Raw(&'s [u8]),
}

/// The variables of one record.
pub(crate) struct Scope<'s> {
    record: RecordView<'s>,
    value: Value<'s>,
    /// Names of the lookups, in step order; a name may be bound later, not now.
    names: &'s [String],
    lookups: &'s [Option<Arc<PreparedLookup>>],
}

/// One evaluation: the variables of the record, the paths of the expression, and what is left of the budget.
pub(super) struct Evaluation<'s> {
    scope: &'s Scope<'s>,
    paths: &'s [Path],
    patterns: &'s [Pattern],
    fuel: AtomicU32,
}

impl<'s> Scope<'s> {
    pub(crate) fn new(
        record: RecordView<'s>,
        value: Value<'s>,
        names: &'s [String],
        lookups: &'s [Option<Arc<PreparedLookup>>],
    ) -> Self {
        Self { record, value, names, lookups }
    }

    /// The JSON text that a variable is, for copies of its parts.
    pub(super) fn doc(&self, variable: &str) -> Option<Doc<'s>> {
        if variable == "value" {
            return match self.value {
                Value::Json(doc) => Some(doc),
                Value::Tombstone | Value::Raw(_) => None,
            };
        }
        match self.lookup(variable)? {
            Prepared::Json(json) => Some(json.doc()),
            _ => None,
        }
    }

    fn lookup(&self, variable: &str) -> Option<&'s Prepared> {
        let at = self.names.iter().position(|name| name == variable)?;
        self.lookups.get(at)?.as_deref().map(PreparedLookup::prepared)
    }

    fn timestamp(&self) -> Option<CelTimestamp> {
        let at = chrono::DateTime::from_timestamp_millis(self.record.timestamp_ms)?;
        (self.record.timestamp_ms >= 0 && chrono::Datelike::year(&at) <= 9999)
            .then(|| CelTimestamp::from(at.fixed_offset()))
    }

    fn variable<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        Some(match variable {
            "value" => match self.value {
                Value::Tombstone => null_val(),
                Value::Json(doc) => node_val(doc.root()),
                Value::Raw(bytes) => CowVal::owned(CelBytes::from(bytes)),
            },
            "key" => self.record.key.map_or_else(null_val, text_or_bytes),
            "headers" => CowVal::owned(MapVal::new(Fields::Headers(self.record.headers))),
            "topic" => CowVal::owned(CelString::from(self.record.topic)),
            "partition" => CowVal::owned(CelInt::from(i64::from(self.record.partition))),
            "offset" => CowVal::owned(CelInt::from(self.record.offset)),
            "timestamp" => self.timestamp().map_or_else(null_val, CowVal::owned),
            other => match self.lookup(other)? {
                Prepared::Missing | Prepared::Invalid(_) => null_val(),
                Prepared::Text(text) => CowVal::owned(CelString::from(text.as_str())),
                Prepared::Bytes(bytes) => CowVal::owned(CelBytes::from(bytes.as_slice())),
                Prepared::Json(json) => node_val(json.doc().root()),
                Prepared::Hash(fields) => CowVal::owned(MapVal::new(Fields::Hash(fields))),
            },
        })
    }

    /// What a path leads to: there exactly when reading it member by member would not fail.
    fn path<'b>(&'b self, path: &Path) -> Option<CowVal<'b, 'b>> {
        if let Some(doc) = self.doc(&path.variable) {
            return path.members.iter().try_fold(doc.root(), |node, name| node.get(name)).map(node_val);
        }
        let [name] = path.members.as_slice() else { return None };
        let fields = match (path.variable.as_str(), self.lookup(&path.variable)) {
            ("headers", _) => Fields::Headers(self.record.headers),
            (_, Some(Prepared::Hash(fields))) => Fields::Hash(fields),
            _ => return None,
        };
        MapVal::new(fields).find(name)
    }
}

impl<'s> Evaluation<'s> {
    pub(super) fn new(scope: &'s Scope<'s>, paths: &'s [Path], patterns: &'s [Pattern]) -> Self {
        Self { scope, paths, patterns, fuel: AtomicU32::new(MAX_ITERATIONS) }
    }

    /// Fails when the budget is spent, whatever the expression made of it.
    pub(super) fn check_budget(&self) -> Result<(), Failure> {
        if self.fuel.load(Ordering::Relaxed) > 0 {
            return Ok(());
        }
        let message = format!("the expression takes more than {MAX_ITERATIONS} iterations");
        Err(Failure::new(Reason::ExpressionError, message))
    }

    fn burn(&self) -> bool {
        let left = self.fuel.load(Ordering::Relaxed).saturating_sub(1);
        self.fuel.store(left, Ordering::Relaxed);
        left > 0
    }
}

impl VariableResolver for Evaluation<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        if let Some(path) = paths::index(variable) {
            return self.scope.path(self.paths.get(path)?);
        }
        if let Some(pattern) = patterns::index(variable) {
            return self.patterns.get(pattern).map(|pattern| CowVal::Borrowed(pattern));
        }
        if variable == FUEL {
            return self.burn().then(|| bool_val(true));
        }
        self.scope.variable(variable)
    }
}
