//! The record after the steps → routes and keys.

use std::borrow::Cow;

use sluice_crds::v1alpha1::{OnNoMatch, RouteMatch};

use super::run::Run;
use super::{Outcome, Outputs, Route, RoutedKey};
use crate::cel::Scope;
use crate::error::{Failure, ROUTING, Reason};
use crate::record::RecordView;

impl<'r> Run<'_, 'r> {
    /// A tombstone bypasses the steps and goes to every route with a view, whatever its `when` says: what was there
    /// must go. Without such a route it follows the routing, where `value` is null.
    pub(super) fn route_tombstone(mut self) -> Outcome<'r> {
        let program = self.program;
        if !program.routes.iter().any(|route| route.has_views) {
            return self.route();
        }
        let keys = self.keys(|_, route| Ok(route.has_views), RouteMatch::All);
        self.finish(keys)
    }

    /// Sends the record to the first or to all matching routes.
    pub(super) fn route(mut self) -> Outcome<'r> {
        let takes = |scope: &Scope<'_>, route: &Route| match &route.when {
            None => Ok(true),
            Some(when) => {
                when.condition(scope).map_err(|failure| failure.within(format_args!("route {:?} when", route.name)))
            }
        };
        let keys = self.keys(takes, self.program.match_);
        self.finish(keys)
    }

    fn keys(
        &mut self,
        takes: impl Fn(&Scope<'_>, &Route) -> Result<bool, Failure>,
        match_: RouteMatch,
    ) -> Result<Vec<RoutedKey<'r>>, Failure> {
        let (program, record, value_len) = (self.program, self.record, self.value_len());
        let scope = self.scope(program.routes.iter().flat_map(|route| route.when.iter().chain(&route.key)))?;
        let mut keys = Vec::with_capacity(1);
        for (at, route) in program.routes.iter().enumerate() {
            if !takes(&scope, route)? {
                continue;
            }
            let key = key(&scope, route, record)
                .map_err(|failure| failure.within(format_args!("route {:?} key", route.name)))?;
            let size = value_len + key.as_ref().map_or(0, |key| key.len());
            if size > program.limits.max_record_bytes {
                let limit = program.limits.max_record_bytes;
                let message = format!("route {:?}: key and value have {size} bytes, more than {limit}", route.name);
                return Err(Failure::new(Reason::TooLarge, message));
            }
            keys.push(RoutedKey { route: at, key });
            if match_ == RouteMatch::First {
                break;
            }
        }
        Ok(keys)
    }

    fn finish(self, keys: Result<Vec<RoutedKey<'r>>, Failure>) -> Outcome<'r> {
        match keys {
            Err(failure) => Outcome::DeadLetter(failure.at(ROUTING)),
            Ok(routes) if routes.is_empty() => match self.program.on_no_match {
                OnNoMatch::Discard => Outcome::NoRoute,
                OnNoMatch::DeadLetter => {
                    Outcome::DeadLetter(Failure::new(Reason::NoRoute, "no route takes the record").at(ROUTING))
                }
            },
            Ok(routes) => Outcome::Outputs(Outputs { value: self.into_value(), routes }),
        }
    }
}

fn key<'r>(scope: &Scope<'_>, route: &Route, record: RecordView<'r>) -> Result<Option<Cow<'r, [u8]>>, Failure> {
    let key = match &route.key {
        None => record.key.map(Cow::Borrowed),
        Some(key) => key.record_key(scope)?.map(Cow::Owned),
    };
    if key.is_none() && route.compacted {
        return Err(Failure::new(Reason::NullKey, "a compacted topic takes no record without a key"));
    }
    Ok(key)
}
