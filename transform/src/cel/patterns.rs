//! Regular expressions that are written in an expression, compiled with it.
//!
//! The crate compiles the pattern of `matches` at each call, which costs more than all the rest of a record, and finds
//! a broken one only then.

use cel::common::ast::{Expr, LiteralValue, SourceInfo};
use cel::common::types::{CelString, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{ExecutionError, IdedExpr};
use regex::Regex;

use super::check::{Finding, position};
use super::rewrite::{call, each_child, node};
use super::values::{bool_val, opaque_val};

/// Function that matches with a compiled pattern. No expression can write the name.
pub(super) const MATCHES: &str = "@sluice_matches";

static PATTERN: Type = Type::new_unspecified_type("pattern");

/// A compiled pattern, as a value that only [`MATCHES`] gets.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Regex);

opaque_val!(Pattern, PATTERN, {});

/// Index of the pattern that a variable stands for. No expression can write such a name.
pub(super) fn index(variable: &str) -> Option<usize> {
    variable.strip_prefix("@pattern")?.parse().ok()
}

/// Replaces `text.matches("pattern")` by a call with the compiled pattern; gives the patterns.
pub(super) fn take_patterns(expr: &mut IdedExpr, info: &SourceInfo) -> Result<Vec<Pattern>, Vec<Finding>> {
    let (mut patterns, mut findings) = (Vec::new(), Vec::new());
    take(expr, info, &mut patterns, &mut findings);
    if findings.is_empty() { Ok(patterns) } else { Err(findings) }
}

fn take(expr: &mut IdedExpr, info: &SourceInfo, patterns: &mut Vec<Pattern>, findings: &mut Vec<Finding>) {
    each_child(&mut expr.expr, &mut |child| take(child, info, patterns, findings));
    let Expr::Call(found) = &mut expr.expr else { return };
    if found.func_name != "matches" {
        return;
    }
    let Some(literal) = found.args.last() else { return };
    let Expr::Literal(LiteralValue::String(text)) = &literal.expr else { return };
    match Regex::new(text.inner()) {
        Err(error) => {
            let message: String = error.to_string().lines().last().unwrap_or_default().chars().take(200).collect();
            findings.push((position(info, literal), format!("not a regular expression: {message}")));
        }
        Ok(regex) => {
            let target = found.target.take().map_or_else(|| found.args.remove(0), |target| *target);
            let pattern = node(Expr::Ident(format!("@pattern{}", patterns.len())));
            patterns.push(Pattern(regex));
            expr.expr = call(MATCHES, vec![target, pattern]);
        }
    }
}

/// [`MATCHES`].
#[allow(clippy::needless_pass_by_value)]
pub(super) fn matches<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [text, pattern] = args.as_slice() else {
        return Err(ExecutionError::invalid_argument_count(2, args.len()));
    };
    match (text.downcast_ref::<CelString<'_>>(), pattern.downcast_ref::<Pattern>()) {
        (Some(text), Some(Pattern(regex))) => Ok(bool_val(regex.is_match(text.inner()))),
        _ => Err(ExecutionError::no_such_overload("matches", vec![text.get_type().name().to_owned()])),
    }
}
