//! Steps and routing, compiled once and run for each record.
//!
//! ```text
//! compile.rs  steps and routes from the configuration → a Program, or every mistake in them
//! run.rs      one record through the steps, stopping where lookups are needed
//! routing.rs  the record after the steps → routes and keys
//! ```

mod compile;
mod routing;
mod run;

use std::borrow::Cow;

use sluice_crds::v1alpha1::{Format, LookupType, MaskMethod, OnMiss, OnNoMatch, RouteMatch};
use sluice_crds::worker_config::FieldPath;

use crate::cel::Expr;
use crate::error::DeadLetter;
use crate::json::PathTree;

pub(crate) use compile::{compile_expression, duplicate_names};
pub use run::{Pending, Progress};

/// Bounds of what a program may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of an output's key and value together. Headers pass unchanged and are the caller's to count.
    pub max_record_bytes: usize,
}

/// Steps and routing, compiled. Immutable and shared by all lanes.
#[derive(Debug)]
pub struct Program {
    format: Format,
    steps: Vec<Step>,
    /// Names of the lookups, by slot.
    lookups: Vec<String>,
    match_: RouteMatch,
    on_no_match: OnNoMatch,
    routes: Vec<Route>,
    limits: Limits,
    uses_headers: bool,
}

#[derive(Debug)]
struct Step {
    name: String,
    action: Action,
}

#[derive(Debug)]
enum Action {
    Filter(Expr),
    Lookup(Lookup),
    Set { fields: Vec<(FieldPath, Expr)>, tree: PathTree<usize> },
    Remove(PathTree<()>),
    Mask(PathTree<()>, MaskMethod),
}

#[derive(Debug)]
struct Lookup {
    key: Expr,
    prefix: String,
    kind: LookupType,
    on_miss: OnMiss,
    slot: usize,
    /// The key needs the result of a lookup right before it, so it is asked for after that one.
    starts_group: bool,
}

#[derive(Debug)]
struct Route {
    name: String,
    when: Option<Expr>,
    key: Option<Expr>,
    has_views: bool,
    compacted: bool,
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<'r> {
    /// A filter did not keep it.
    Filtered {
        /// Index of the step.
        step: usize,
    },
    /// A lookup missed and its step discards such records.
    Discarded {
        /// Index of the step.
        step: usize,
    },
    /// No route takes it, and such records are discarded.
    NoRoute,
    /// It cannot be processed.
    DeadLetter(DeadLetter),
    /// It goes out.
    Outputs(Outputs<'r>),
}

/// What goes out: one value to one or more routes. Headers and timestamp are those of the source record.
#[derive(Clone, PartialEq, Eq)]
pub struct Outputs<'r> {
    /// The value, borrowed from the source record when no step changed it; none = tombstone.
    pub value: Option<Cow<'r, [u8]>>,
    /// Where it goes, in the order of the routes; never empty.
    pub routes: Vec<RoutedKey<'r>>,
}

/// A route and the key of the output.
#[derive(Clone, PartialEq, Eq)]
pub struct RoutedKey<'r> {
    /// Index of the route.
    pub route: usize,
    /// The key, borrowed from the source record when the route has no key expression.
    pub key: Option<Cow<'r, [u8]>>,
}

/// Contents stay out of logs.
impl std::fmt::Debug for Outputs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = self.value.as_ref().map(|value| value.len());
        f.debug_struct("Outputs").field("value_bytes", &value).field("routes", &self.routes).finish()
    }
}

/// Contents stay out of logs.
impl std::fmt::Debug for RoutedKey<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = self.key.as_ref().map(|key| key.len());
        f.debug_struct("RoutedKey").field("route", &self.route).field("key_bytes", &key).finish()
    }
}

impl Program {
    /// True when an expression names `headers`: otherwise records may come without them.
    pub fn uses_headers(&self) -> bool {
        self.uses_headers
    }

    /// True when a step looks up.
    pub fn has_lookups(&self) -> bool {
        !self.lookups.is_empty()
    }

    /// Name of a step, for metrics.
    pub fn step_name(&self, step: usize) -> Option<&str> {
        self.steps.get(step).map(|step| step.name.as_str())
    }

    /// Name of a route, for metrics.
    pub fn route_name(&self, route: usize) -> Option<&str> {
        self.routes.get(route).map(|route| route.name.as_str())
    }
}
