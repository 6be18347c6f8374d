//! Steps and routes from the configuration → a program, or every mistake in them.

use std::collections::BTreeSet;

use sluice_crds::v1alpha1::{Expression, Format};
use sluice_crds::worker_config::{self as config, FieldPath, Routing};

use super::{Action, Limits, Lookup, Program, Route, Step};
use crate::cel::{Expr, RECORD_VARIABLES, reserved_name};
use crate::error::CompileError;
use crate::json::{PathConflict, PathTree};

/// Compiles an expression; mistakes go to `errors`.
pub(crate) fn compile_expression(
    path: impl Fn() -> String,
    expression: &Expression,
    known: &[&str],
    errors: &mut Vec<CompileError>,
) -> Option<Expr> {
    match Expr::compile(&expression.0, known) {
        Ok(expr) => Some(expr),
        Err(findings) => {
            errors.extend(findings.into_iter().map(|(position, message)| CompileError {
                path: path(),
                position,
                message,
            }));
            None
        }
    }
}

/// Reports names that come twice.
pub(crate) fn duplicate_names<'a>(list: &str, names: impl Iterator<Item = &'a str>, errors: &mut Vec<CompileError>) {
    let mut seen = BTreeSet::new();
    for (at, name) in names.enumerate() {
        if !seen.insert(name) {
            errors
                .push(error(format!("{list}[{at}] {name:?}"), "the name is taken: give each item its own".to_owned()));
        }
    }
}

fn error(path: String, message: String) -> CompileError {
    CompileError { path, position: None, message }
}

impl Program {
    /// Compiles steps and routing.
    ///
    /// # Errors
    /// Every mistake found, each with its place: syntax, unknown variables and functions, names taken or reserved,
    /// steps that the format does not allow.
    pub fn compile(
        format: Format,
        steps: &[config::Step],
        routing: &Routing,
        limits: Limits,
    ) -> Result<Self, Vec<CompileError>> {
        let mut compiler =
            Compiler { format, lookups: Vec::new(), group: BTreeSet::new(), uses_headers: false, errors: Vec::new() };
        duplicate_names("steps", steps.iter().map(|step| step.name.as_str()), &mut compiler.errors);
        let names = routing.routes.iter().map(|route| route.name.as_str());
        duplicate_names("routing.routes", names, &mut compiler.errors);
        let steps: Vec<Step> = steps.iter().enumerate().filter_map(|(at, step)| compiler.step(at, step)).collect();
        let routes: Vec<Route> =
            routing.routes.iter().enumerate().filter_map(|(at, route)| compiler.route(at, route)).collect();
        if !compiler.errors.is_empty() {
            return Err(compiler.errors);
        }
        Ok(Self {
            format,
            steps,
            lookups: compiler.lookups,
            match_: routing.match_,
            on_no_match: routing.on_no_match,
            routes,
            limits,
            uses_headers: compiler.uses_headers,
        })
    }
}

struct Compiler {
    format: Format,
    lookups: Vec<String>,
    /// Lookups of the group that is being collected.
    group: BTreeSet<String>,
    uses_headers: bool,
    errors: Vec<CompileError>,
}

impl Compiler {
    fn expression(&mut self, path: impl Fn() -> String, expression: &Expression) -> Option<Expr> {
        let known: Vec<&str> =
            RECORD_VARIABLES.iter().copied().chain(self.lookups.iter().map(String::as_str)).collect();
        let compiled = compile_expression(path, expression, &known, &mut self.errors);
        self.uses_headers |= compiled.as_ref().is_some_and(|compiled| compiled.uses("headers"));
        compiled
    }

    fn step(&mut self, at: usize, step: &config::Step) -> Option<Step> {
        let path = format!("steps[{at}] {:?}", step.name);
        if !matches!(step.action, config::Action::Lookup { .. }) {
            self.group.clear();
        }
        let action = match &step.action {
            config::Action::Filter { keep_when } => {
                Action::Filter(self.expression(|| format!("{path} filter.keepWhen"), keep_when)?)
            }
            config::Action::Lookup { key, key_prefix, lookup_type, on_miss } => {
                let expression = self.expression(|| format!("{path} lookup.key"), key);
                let starts_group = expression
                    .as_ref()
                    .is_some_and(|expression| expression.variables().iter().any(|name| self.group.contains(name)));
                let slot = self.bind(&path, &step.name, starts_group);
                Action::Lookup(Lookup {
                    key: expression?,
                    prefix: key_prefix.clone(),
                    kind: *lookup_type,
                    on_miss: *on_miss,
                    slot,
                    starts_group,
                })
            }
            config::Action::Set { fields } => self.set(&path, fields)?,
            config::Action::Remove { fields } => Action::Remove(self.fields(&format!("{path} remove"), fields)),
            config::Action::Mask { fields, method } => {
                Action::Mask(self.fields(&format!("{path} mask"), fields), *method)
            }
        };
        Some(Step { name: step.name.clone(), action })
    }

    /// Makes a lookup's name a variable of what follows.
    fn bind(&mut self, path: &str, name: &str, starts_group: bool) -> usize {
        if let Some(why) = reserved_name(name) {
            self.errors.push(error(path.to_owned(), format!("a lookup cannot be named {name:?}: it {why}")));
        } else if !is_identifier(name) {
            let message = format!("a lookup cannot be named {name:?}: use letters, digits and _, no digit first");
            self.errors.push(error(path.to_owned(), message));
        }
        if starts_group {
            self.group.clear();
        }
        self.group.insert(name.to_owned());
        self.lookups.push(name.to_owned());
        self.lookups.len() - 1
    }

    fn needs_json(&mut self, path: &str) {
        if self.format != Format::Json {
            self.errors.push(error(path.to_owned(), "needs source.format Json: raw values have no fields".to_owned()));
        }
    }

    fn set(&mut self, path: &str, fields: &[config::SetField]) -> Option<Action> {
        self.needs_json(path);
        let mut tree = PathTree::new();
        let mut compiled = Vec::new();
        for (at, field) in fields.iter().enumerate() {
            if let Err(conflict) = tree.insert(field.field.members(), at) {
                let name = field.field.members().join(".");
                let message = match conflict {
                    PathConflict::Same => format!("{name:?} is set twice in one step: use another step"),
                    PathConflict::Inside => {
                        format!("{name:?} and a field inside it are set in one step: use another step")
                    }
                };
                self.errors.push(error(format!("{path} set[{at}].field"), message));
            }
            let expression = self.expression(|| format!("{path} set[{at}].expression"), &field.expression);
            compiled.extend(expression.map(|expression| (field.field.clone(), expression)));
        }
        (compiled.len() == fields.len()).then_some(Action::Set { fields: compiled, tree })
    }

    fn fields(&mut self, path: &str, fields: &[FieldPath]) -> PathTree<()> {
        self.needs_json(path);
        let mut tree = PathTree::new();
        for (at, field) in fields.iter().enumerate() {
            if let Err(conflict) = tree.insert(field.members(), ()) {
                let name = field.members().join(".");
                let message = match conflict {
                    PathConflict::Same => format!("{name:?} is listed twice"),
                    PathConflict::Inside => format!("{name:?} and a field inside it are both listed: keep the outer"),
                };
                self.errors.push(error(format!("{path}.fields[{at}]"), message));
            }
        }
        tree
    }

    fn route(&mut self, at: usize, route: &config::Route) -> Option<Route> {
        let path = format!("routing.routes[{at}] {:?}", route.name);
        let when = route.when.as_ref().map(|when| self.expression(|| format!("{path} when"), when));
        let key = route.key.as_ref().map(|key| self.expression(|| format!("{path} key"), key));
        Some(Route {
            name: route.name.clone(),
            when: transpose(when)?,
            key: transpose(key)?,
            has_views: route.has_views,
            compacted: route.compacted,
        })
    }
}

/// An expression that is there must have compiled.
#[allow(clippy::option_option)]
fn transpose(expression: Option<Option<Expr>>) -> Option<Option<Expr>> {
    match expression {
        None => Some(None),
        Some(compiled) => compiled.map(Some),
    }
}

fn is_identifier(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|other| other.is_ascii_alphanumeric() || other == '_')
}
