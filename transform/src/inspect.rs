//! What an expression says about itself, for those who resolve resources.

use std::collections::BTreeSet;

use sluice_crds::v1alpha1::Expression;

use crate::cel::{Expr, VIEW_KEY_VARIABLES};
use crate::error::CompileError;

/// The text that every result of a string expression begins with, if it can be read off it: the literal that a chain
/// of `+` begins with (`'price:' + value.sku`), or the literal that the expression is. `known` are the variables it
/// may name; an expression that does not compile has no prefix.
pub fn literal_prefix(expression: &Expression, known: &[&str]) -> Option<String> {
    Expr::compile(&expression.0, known).ok()?.literal_prefix().map(str::to_owned)
}

/// How the key of a view depends on the record it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyForm {
    /// Not at all: all records of the topic have this key.
    Same,
    /// The whole record key between two texts: no two record keys of the topic give one.
    Whole {
        /// Text before the key.
        before: String,
        /// Text after it.
        after: String,
    },
    /// By some function of the record key: whether two of them can give one is not known.
    Derived,
}

/// The form of a view's key expression for records of `topic`; none if it does not compile.
pub fn key_form(expression: &Expression, topic: &str) -> Option<KeyForm> {
    let expr = Expr::compile(&expression.0, &VIEW_KEY_VARIABLES).ok()?;
    Some(match expr.around_key(topic) {
        _ if !expr.uses("key") => KeyForm::Same,
        Some((before, after)) => KeyForm::Whole { before, after },
        None => KeyForm::Derived,
    })
}

/// The variables that an expression names, of those `known`. Variables of comprehensions do not count.
///
/// # Errors
/// What [`crate::Program::compile`] would say; the path is empty.
pub fn variables(expression: &Expression, known: &[&str]) -> Result<BTreeSet<String>, Vec<CompileError>> {
    match Expr::compile(&expression.0, known) {
        Ok(expr) => Ok(expr.variables().clone()),
        Err(findings) => Err(findings
            .into_iter()
            .map(|(position, message)| CompileError { path: String::new(), position, message })
            .collect()),
    }
}
