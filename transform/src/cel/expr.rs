//! A compiled expression, and what its result may be.

use std::collections::BTreeSet;

use cel::common::ast::{Expr as Ast, LiteralValue, operators as op};
use cel::common::types::{CelBool, CelBytes, CelDouble, CelInt, CelMap, CelNull, CelString, CelUInt, Kind as TypeKind};
use cel::common::value::Val;
use cel::{Context, IdedExpr};

use super::check::{Finding, check};
use super::env::env;
use super::failure::failure;
use super::parse;
use super::paths::{Path, take_paths};
use super::patterns::{Pattern, take_patterns};
use super::rewrite::rewrite;
use super::scope::{Evaluation, Scope};
use super::values::{BigNumber, with_raw_text};
use crate::error::{Failure, Reason};
use crate::json::{MAX_DEPTH, write_double, write_string};

/// Longest expression, in bytes.
const MAX_SOURCE: usize = 2048 * 4;

/// An expression, ready to run.
#[derive(Debug)]
pub(crate) struct Expr {
    source: String,
    /// As written, and with its paths taken out.
    written: IdedExpr,
    fast: IdedExpr,
    paths: Vec<Path>,
    patterns: Vec<Pattern>,
    variables: BTreeSet<String>,
    /// Variable and members, when the expression is only a path: its text is then copied as it is.
    path: Option<(String, Vec<String>)>,
    /// What is known of the result's beginning when it is a string.
    prefix: Option<String>,
}

impl Expr {
    /// Parses and checks. `known` are the variables it may name.
    pub(crate) fn compile(source: &str, known: &[&str]) -> Result<Self, Vec<Finding>> {
        let refuse = |message: &str| Err(vec![(None, message.to_owned())]);
        if source.trim().is_empty() {
            return refuse("the expression is empty");
        }
        if source.len() > MAX_SOURCE {
            return refuse("the expression is longer than 2048 characters");
        }
        parse::on_large_stack(|| Self::compile_here(source, known))
    }

    fn compile_here(source: &str, known: &[&str]) -> Result<Self, Vec<Finding>> {
        let (mut ast, info) = parse::parse(source)?;
        let checked = check(&ast, &info, known);
        if !checked.findings.is_empty() {
            return Err(checked.findings);
        }
        let path = path(&ast);
        let prefix = prefix(&ast).map(str::to_owned);
        let patterns = take_patterns(&mut ast, &info)?;
        rewrite(&mut ast);
        let mut fast = ast.clone();
        let paths = take_paths(&mut fast);
        let source = source.to_owned();
        Ok(Self { source, written: ast, fast, paths, patterns, variables: checked.variables, path, prefix })
    }

    pub(crate) fn variables(&self) -> &BTreeSet<String> {
        &self.variables
    }

    pub(crate) fn uses(&self, variable: &str) -> bool {
        self.variables.contains(variable)
    }

    pub(crate) fn literal_prefix(&self) -> Option<&str> {
        self.prefix.as_deref()
    }

    /// The texts before and after the whole record key, when the expression joins just these for records of `topic`.
    pub(crate) fn around_key(&self, topic: &str) -> Option<(String, String)> {
        let (mut before, mut after) = (String::new(), None);
        around_key(&self.written, topic, &mut before, &mut after).then_some(())?;
        Some((before, after?))
    }

    fn evaluate<R>(
        &self,
        scope: &Scope<'_>,
        use_result: impl FnOnce(&dyn Val) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        let evaluation = Evaluation::new(scope, &self.paths, &self.patterns);
        let context = context(&evaluation);
        let result = cel::Value::resolve_val(&self.fast, &context);
        evaluation.check_budget()?;
        if let Ok(value) = result {
            return use_result(value.as_ref());
        }
        // What a path misses is only told by the expression as it was written.
        let evaluation = Evaluation::new(scope, &[], &self.patterns);
        let context = self::context(&evaluation);
        let result = cel::Value::resolve_val(&self.written, &context);
        evaluation.check_budget()?;
        match result {
            Ok(value) => use_result(value.as_ref()),
            Err(error) => Err(failure(&error, &self.source)),
        }
    }

    /// The result as a condition.
    pub(crate) fn condition(&self, scope: &Scope<'_>) -> Result<bool, Failure> {
        self.evaluate(scope, |value| match value.downcast_ref::<CelBool>() {
            Some(condition) => Ok(*condition.inner()),
            None => Err(wrong_result(value, "a bool")),
        })
    }

    /// The result as a Redis key: a string, or bytes.
    pub(crate) fn redis_key(&self, scope: &Scope<'_>) -> Result<Vec<u8>, Failure> {
        self.evaluate(scope, |value| {
            if let Some(text) = value.downcast_ref::<CelString<'_>>() {
                Ok(text.inner().as_bytes().to_vec())
            } else if let Some(bytes) = value.downcast_ref::<CelBytes<'_>>() {
                Ok(bytes.inner().to_vec())
            } else {
                Err(wrong_result(value, "a string"))
            }
        })
    }

    /// The result as the key of a record: strings and bytes as they are, ints and bools as text, null as no key.
    pub(crate) fn record_key(&self, scope: &Scope<'_>) -> Result<Option<Vec<u8>>, Failure> {
        self.evaluate(scope, |value| {
            Ok(Some(if let Some(text) = value.downcast_ref::<CelString<'_>>() {
                text.inner().as_bytes().to_vec()
            } else if let Some(bytes) = value.downcast_ref::<CelBytes<'_>>() {
                bytes.inner().to_vec()
            } else if let Some(number) = value.downcast_ref::<CelInt>() {
                number.inner().to_string().into_bytes()
            } else if let Some(number) = value.downcast_ref::<CelUInt>() {
                number.inner().to_string().into_bytes()
            } else if let Some(number) = value.downcast_ref::<BigNumber>() {
                number.text().as_bytes().to_vec()
            } else if let Some(condition) = value.downcast_ref::<CelBool>() {
                condition.inner().to_string().into_bytes()
            } else if value.downcast_ref::<CelNull>().is_some() {
                return Ok(None);
            } else {
                return Err(wrong_result(value, "a string, bytes, an int, a bool or null"));
            }))
        })
    }

    /// Appends the result as JSON text. What is only copied from the record or a lookup keeps its text.
    pub(crate) fn write_json(&self, scope: &Scope<'_>, out: &mut String) -> Result<(), Failure> {
        if let Some((variable, members)) = &self.path
            && let Some(doc) = scope.doc(variable)
            && let Some(node) = members.iter().try_fold(doc.root(), |node, name| node.get(name))
        {
            out.push_str(node.raw());
            return Ok(());
        }
        self.evaluate(scope, |value| write_value(value, out, 0))
    }
}

fn context<'p, 'v>(evaluation: &'v Evaluation<'_>) -> Context<'p, 'v> {
    let mut context = Context::with_env(env().clone());
    context.set_variable_resolver(evaluation);
    context
}

fn wrong_result(value: &dyn Val, want: &str) -> Failure {
    Failure::new(Reason::TypeError, format!("the expression gives {}, not {want}", value.get_type().name()))
}

fn write_value(value: &dyn Val, out: &mut String, depth: usize) -> Result<(), Failure> {
    if let Some(text) = value.downcast_ref::<CelString<'_>>() {
        write_string(out, text.inner());
    } else if let Some(number) = value.downcast_ref::<CelInt>() {
        out.push_str(&number.inner().to_string());
    } else if let Some(number) = value.downcast_ref::<CelDouble>() {
        if !number.inner().is_finite() {
            return Err(Failure::new(Reason::ExpressionError, "NaN and infinity have no place in JSON"));
        }
        write_double(out, *number.inner());
    } else if let Some(condition) = value.downcast_ref::<CelBool>() {
        out.push_str(if *condition.inner() { "true" } else { "false" });
    } else if value.downcast_ref::<CelNull>().is_some() {
        out.push_str("null");
    } else if let Some(number) = value.downcast_ref::<CelUInt>() {
        out.push_str(&number.inner().to_string());
    } else if let Some(number) = value.downcast_ref::<BigNumber>() {
        out.push_str(number.text());
    } else {
        return write_container(value, out, depth);
    }
    Ok(())
}

fn write_container(value: &dyn Val, out: &mut String, depth: usize) -> Result<(), Failure> {
    if depth >= MAX_DEPTH {
        return Err(Failure::new(Reason::TypeError, "the result is nested deeper than 128 levels"));
    }
    let copied = with_raw_text(value, |text| text.inspect(|text| out.push_str(text)).is_some());
    if copied {
        return Ok(());
    }
    match value.get_type().kind() {
        TypeKind::List => write_list(value, out, depth),
        TypeKind::Map => write_map(value, out, depth),
        _ => Err(Failure::new(
            Reason::TypeError,
            format!("a value of type {} has no form in JSON: make it a string", value.get_type().name()),
        )),
    }
}

fn write_list(value: &dyn Val, out: &mut String, depth: usize) -> Result<(), Failure> {
    let Some(list) = value.as_iterable() else { return Err(wrong_result(value, "a list")) };
    let mut elements = list.iter();
    out.push('[');
    let mut first = true;
    while let Some(element) = elements.next() {
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        write_value(element, out, depth + 1)?;
    }
    out.push(']');
    Ok(())
}

/// Members sorted by name: the crate's maps have no order, and the same record must give the same bytes each time.
fn write_map(value: &dyn Val, out: &mut String, depth: usize) -> Result<(), Failure> {
    let mut members: Vec<(String, Box<dyn Val + '_>)> = Vec::new();
    if let Some(map) = value.downcast_ref::<CelMap<'_>>() {
        for (key, member) in map.inner() {
            members.push((member_name(key.inner())?, member.clone_as_boxed()));
        }
    } else {
        let (Some(map), Some(indexer)) = (value.as_iterable(), value.as_indexer()) else {
            return Err(wrong_result(value, "a map"));
        };
        let mut keys = map.iter();
        while let Some(key) = keys.next() {
            let member = indexer.get(key).map_err(|error| failure(&error, ""))?;
            members.push((member_name(key)?, member.into_owned()));
        }
    }
    members.sort_by(|(one, _), (other, _)| one.cmp(other));
    if members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(Failure::new(Reason::ExpressionError, "a map repeats a key"));
    }
    out.push('{');
    for (at, (name, member)) in members.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write_string(out, name);
        out.push(':');
        write_value(member.as_ref(), out, depth + 1)?;
    }
    out.push('}');
    Ok(())
}

fn member_name(key: &dyn Val) -> Result<String, Failure> {
    match key.downcast_ref::<CelString<'_>>() {
        Some(name) => Ok(name.inner().to_owned()),
        None => Err(Failure::new(Reason::TypeError, "keys of a map must be strings to become JSON")),
    }
}

/// The variable and members of an expression that is only `variable.member.member`.
fn path(expr: &IdedExpr) -> Option<(String, Vec<String>)> {
    match &expr.expr {
        Ast::Ident(name) => Some((name.clone(), Vec::new())),
        Ast::Select(select) if !select.test => {
            let (variable, mut members) = path(&select.operand)?;
            members.push(select.field.clone());
            Some((variable, members))
        }
        _ => None,
    }
}

/// Collects the terms of a chain of `+`; false when one is neither a literal, nor the topic, nor the key, or when the key
/// is there twice.
fn around_key(expr: &IdedExpr, topic: &str, before: &mut String, after: &mut Option<String>) -> bool {
    let text = match &expr.expr {
        Ast::Literal(LiteralValue::String(text)) => text.inner(),
        Ast::Ident(name) if name == "topic" => topic,
        Ast::Ident(name) if name == "key" => return after.replace(String::new()).is_none(),
        Ast::Call(call) if call.func_name == op::ADD && call.args.len() == 2 => {
            return call.args.iter().all(|term| around_key(term, topic, before, after));
        }
        _ => return false,
    };
    after.as_mut().unwrap_or(before).push_str(text);
    true
}

/// The literal that a chain of `+` begins with.
fn prefix(expr: &IdedExpr) -> Option<&str> {
    match &expr.expr {
        Ast::Literal(LiteralValue::String(text)) => Some(text.inner()),
        Ast::Call(call) if call.func_name == op::ADD && call.args.len() == 2 => prefix(&call.args[0]),
        _ => None,
    }
}
