//! One record through the steps, stopping where lookups are needed.

use std::borrow::Cow;
use std::sync::Arc;

use sluice_crds::v1alpha1::{Format, MaskMethod, OnMiss};
use sluice_crds::worker_config::FieldPath;

use super::{Action, Lookup, Outcome, Program};
use crate::cel::{Expr, Scope, Value};
use crate::error::{Failure, Reason, SOURCE};
use crate::json::{Doc, Entry, PathTree, Splices, scan};
use crate::lookup::{LookupRequest, Prepared, PreparedLookup};
use crate::record::RecordView;

/// How far a record is.
#[derive(Debug)]
pub enum Progress<'p, 'r> {
    /// It waits for Redis.
    NeedLookups(Pending<'p, 'r>),
    /// It is through.
    Done(Outcome<'r>),
}

/// A record that waits for Redis.
#[derive(Debug)]
pub struct Pending<'p, 'r> {
    run: Box<Run<'p, 'r>>,
    requests: Vec<LookupRequest>,
    /// The key of the lookup after the requested ones could not be made. It counts only if the requested ones let the
    /// record go on: steps fail in their order.
    broken: Option<Failure>,
}

/// A record on its way through the steps.
pub(super) struct Run<'p, 'r> {
    pub(super) program: &'p Program,
    pub(super) record: RecordView<'r>,
    /// The step to do next.
    step: usize,
    /// The value as text, when the format is JSON.
    text: Cow<'r, str>,
    /// Tape of `text`; stale after a change until somebody needs it.
    tape: Vec<Entry>,
    stale: bool,
    /// Results of lookups, by slot.
    lookups: Vec<Option<Arc<PreparedLookup>>>,
}

/// Contents stay out of logs.
impl std::fmt::Debug for Run<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("record", &self.record).field("step", &self.step).finish_non_exhaustive()
    }
}

impl Program {
    /// Starts a record. Pure: the same record and the same lookup results give the same outcome.
    pub fn start<'p, 'r>(&'p self, record: RecordView<'r>) -> Progress<'p, 'r> {
        let mut run = Run {
            program: self,
            record,
            step: 0,
            text: Cow::Borrowed(""),
            tape: Vec::new(),
            stale: false,
            lookups: vec![None; self.lookups.len()],
        };
        let Some(value) = record.value else {
            return Progress::Done(run.route_tombstone());
        };
        if self.format == Format::Json {
            match scan(value, &mut run.tape) {
                Ok(text) => run.text = Cow::Borrowed(text),
                Err(error) => {
                    let message = format!("the value is not JSON: {error}");
                    let failure = Failure::new(Reason::InvalidJson, message);
                    return Progress::Done(Outcome::DeadLetter(failure.at(SOURCE)));
                }
            }
        }
        run.advance()
    }
}

impl<'p, 'r> Pending<'p, 'r> {
    /// The keys to read, all independent of one another.
    pub fn requests(&self) -> &[LookupRequest] {
        &self.requests
    }

    /// The record that waits.
    pub fn record(&self) -> RecordView<'r> {
        self.run.record
    }

    /// Goes on with the results, one for each of [`Self::requests`], in that order, each made by
    /// [`prepare_lookup`](crate::prepare_lookup) with the request's type.
    ///
    /// # Panics
    /// When the number of results differs from the number of requests.
    pub fn resume(self, results: impl IntoIterator<Item = Arc<PreparedLookup>>) -> Progress<'p, 'r> {
        let Self { mut run, requests, broken } = self;
        let mut results = results.into_iter();
        for request in &requests {
            let result = results.next().expect("there should be a result for each request");
            if let Some(outcome) = run.accept(request.step, result) {
                return Progress::Done(outcome);
            }
        }
        assert!(results.next().is_none(), "there should be no more results than requests");
        run.step += requests.len();
        if let Some(failure) = broken {
            return Progress::Done(run.fail(failure));
        }
        run.advance()
    }
}

/// What doing a step led to.
enum Done<'r> {
    Next,
    Finished(Outcome<'r>),
}

impl<'p, 'r> Run<'p, 'r> {
    fn advance(mut self) -> Progress<'p, 'r> {
        let program = self.program;
        while let Some(step) = program.steps.get(self.step) {
            let done = match &step.action {
                Action::Lookup(_) => return self.request(),
                Action::Filter(keep_when) => self.filter(keep_when),
                Action::Set { fields, tree } => self.set(fields, tree),
                Action::Remove(tree) => self.edit(|splices, doc| {
                    splices.remove(tree, doc.root());
                    Ok(())
                }),
                Action::Mask(tree, MaskMethod::Redact) => self.edit(|splices, doc| {
                    splices.replace(tree, doc.root(), "\"***\"");
                    Ok(())
                }),
            };
            match done {
                Ok(Done::Next) => self.step += 1,
                Ok(Done::Finished(outcome)) => return Progress::Done(outcome),
                Err(failure) => return Progress::Done(self.fail(failure)),
            }
        }
        Progress::Done(self.route())
    }

    fn fail(&self, failure: Failure) -> Outcome<'r> {
        let name = self.program.steps.get(self.step).map_or(SOURCE, |step| step.name.as_str());
        Outcome::DeadLetter(failure.at(name))
    }

    /// The variables now, for some expressions. Only for those that name `value` a changed value is scanned again.
    pub(super) fn scope<'e>(&mut self, mut expressions: impl Iterator<Item = &'e Expr>) -> Result<Scope<'_>, Failure> {
        let is_named = expressions.any(|expression| expression.uses("value"));
        if is_named {
            self.refresh()?;
        }
        let value = match (self.record.value, self.program.format) {
            (None, _) => Value::Tombstone,
            (Some(_), _) if !is_named => Value::Tombstone,
            (Some(_), Format::Json) => Value::Json(Doc { text: &self.text, tape: &self.tape }),
            (Some(bytes), Format::Raw) => Value::Raw(bytes),
        };
        Ok(Scope::new(self.record, value, &self.program.lookups, &self.lookups))
    }

    /// Scans the text again if a step changed it.
    fn refresh(&mut self) -> Result<(), Failure> {
        if std::mem::take(&mut self.stale) {
            scan(self.text.as_bytes(), &mut self.tape).map_err(|error| {
                Failure::new(Reason::TypeError, format!("the steps made a value that is not taken: {error}"))
            })?;
        }
        Ok(())
    }

    fn filter(&mut self, keep_when: &Expr) -> Result<Done<'r>, Failure> {
        let keep = keep_when
            .condition(&self.scope(std::iter::once(keep_when))?)
            .map_err(|failure| failure.within("keepWhen"))?;
        Ok(if keep { Done::Next } else { Done::Finished(Outcome::Filtered { step: self.step }) })
    }

    fn set(&mut self, fields: &[(FieldPath, Expr)], tree: &PathTree<usize>) -> Result<Done<'r>, Failure> {
        let mut written = String::new();
        let mut ends = Vec::with_capacity(fields.len() + 1);
        ends.push(0);
        let scope = self.scope(fields.iter().map(|(_, expression)| expression))?;
        for (field, expression) in fields {
            expression
                .write_json(&scope, &mut written)
                .map_err(|failure| failure.within(format_args!("set {}", field.members().join("."))))?;
            ends.push(written.len());
        }
        // A part that is put into another may get nested deeper than we take.
        let deepens = (0..fields.len()).any(|at| written[ends[at]..].starts_with(['{', '[']));
        let done = self.edit(|splices, doc| {
            let text = |at: &usize| &written[ends[*at]..ends[*at + 1]];
            splices.set(tree, doc.root(), &text).map_err(|found| {
                let place = if found.path.is_empty() { "the value" } else { found.path.as_str() };
                Failure::new(Reason::TypeError, format!("{place} is {}, not an object", found.found))
            })
        })?;
        if deepens {
            self.refresh()?;
        }
        Ok(done)
    }

    fn edit(&mut self, change: impl FnOnce(&mut Splices, Doc<'_>) -> Result<(), Failure>) -> Result<Done<'r>, Failure> {
        self.refresh()?;
        let mut splices = Splices::default();
        change(&mut splices, Doc { text: &self.text, tape: &self.tape })?;
        if !splices.is_empty() {
            let text = splices.apply(&self.text);
            let limit = self.program.limits.max_record_bytes;
            if text.len() > limit && text.len() > self.text.len() {
                let message = format!("the value would have {} bytes, more than {limit}", text.len());
                return Err(Failure::new(Reason::TooLarge, message));
            }
            self.text = Cow::Owned(text);
            self.stale = true;
        }
        Ok(Done::Next)
    }

    /// Collects this lookup and those right after it that do not need its result.
    fn request(mut self) -> Progress<'p, 'r> {
        let mut requests = Vec::new();
        let mut broken = None;
        for (at, step) in self.program.steps.iter().enumerate().skip(self.step) {
            let Action::Lookup(lookup) = &step.action else { break };
            if lookup.starts_group && at > self.step {
                break;
            }
            match self.key(lookup) {
                Ok(key) => requests.push(LookupRequest { step: at, key, lookup_type: lookup.kind }),
                Err(failure) => {
                    broken = Some(failure);
                    break;
                }
            }
        }
        match broken {
            Some(failure) if requests.is_empty() => Progress::Done(self.fail(failure)),
            broken => Progress::NeedLookups(Pending { run: Box::new(self), requests, broken }),
        }
    }

    fn key(&mut self, lookup: &Lookup) -> Result<Vec<u8>, Failure> {
        let scope = self.scope(std::iter::once(&lookup.key))?;
        let key = lookup.key.redis_key(&scope).map_err(|failure| failure.within("lookup.key"))?;
        if !key.starts_with(lookup.prefix.as_bytes()) {
            let message = format!("the lookup's key does not begin with {:?}", lookup.prefix);
            return Err(Failure::new(Reason::KeyOutsidePrefix, message));
        }
        Ok(key)
    }

    /// Takes a lookup's result; gives an outcome if the record ends here.
    fn accept(&mut self, step: usize, result: Arc<PreparedLookup>) -> Option<Outcome<'r>> {
        let Some(Action::Lookup(lookup)) = self.program.steps.get(step).map(|step| &step.action) else { return None };
        let failure = match (result.prepared(), lookup.on_miss) {
            (Prepared::Missing, OnMiss::Discard) => return Some(Outcome::Discarded { step }),
            (Prepared::Missing, OnMiss::DeadLetter) => {
                Failure::new(Reason::LookupMiss, format!("there is no such key under {:?}", lookup.prefix))
            }
            (Prepared::Invalid(message), _) => Failure::new(Reason::LookupInvalid, message.clone()),
            _ => {
                self.lookups[lookup.slot] = Some(result);
                return None;
            }
        };
        Some(Outcome::DeadLetter(failure.at(&self.program.steps[step].name)))
    }

    /// The value as it goes out.
    pub(super) fn into_value(self) -> Option<Cow<'r, [u8]>> {
        let original = self.record.value?;
        Some(match self.text {
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            Cow::Borrowed(_) => Cow::Borrowed(original),
        })
    }

    /// Bytes of the value as it goes out.
    pub(super) fn value_len(&self) -> usize {
        match (&self.text, self.record.value) {
            (_, None) => 0,
            (Cow::Owned(text), _) => text.len(),
            (Cow::Borrowed(_), Some(original)) => original.len(),
        }
    }
}
