//! Spec + settings → [`ValidatedResource`](super::validated::ValidatedResource). Pure; every failure of a spec is here.
//!
//! ```text
//! error.rs        what can be wrong and which condition says so
//! identity.rs     metadata → who the resource is
//! autoscaling.rs  how workers are scaled
//! access.rs       connections, policies, credentials
//! topics.rs       owned, consumed and produced topics
//! steps.rs        steps and routes → the worker's form of them
//! views.rs        views
//! expressions.rs  what must be known of an expression before it runs
//! ```
//! The kinds' own `validate.rs` put these together.

pub mod access;
pub mod autoscaling;
pub mod error;
pub mod expressions;
pub mod identity;
pub mod steps;
pub mod topics;
pub mod views;

use std::collections::BTreeSet;

pub use error::Invalid;

/// Everything `validate` may know besides the resource.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The operator's settings.
    pub settings: &'a crate::settings::Settings,
}

pub(super) fn contradiction(field: impl Into<String>, problem: impl Into<String>) -> Invalid {
    Invalid::Contradiction { field: field.into(), problem: problem.into() }
}

/// A number with its documented default and bounds. The API server checks them too, but not for objects that were
/// stored before the rule.
pub(super) fn bounded(field: &str, value: Option<i32>, default: i32, min: i32, max: i32) -> Result<i32, Invalid> {
    let value = value.unwrap_or(default);
    if (min..=max).contains(&value) {
        return Ok(value);
    }
    Err(Invalid::Bounds { field: field.to_owned(), value: value.into(), min: min.into(), max: max.into() })
}

pub(super) fn no_duplicates<'a>(field: &str, names: impl IntoIterator<Item = &'a str>) -> Result<(), Invalid> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(Invalid::Duplicate { field: field.to_owned(), name: name.to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
