//! What must become of one record, known when it is made.

use serde_json::Value;

/// A way out of the pipeline under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Route {
    /// Totals above the limit.
    Review,
    /// Everything else; has the view, so tombstones go here.
    Enriched,
}

impl Route {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Review, Self::Enriched];

    /// Its name in the pipeline.
    pub fn name(self) -> &'static str {
        match self {
            Self::Review => "review",
            Self::Enriched => "enriched",
        }
    }
}

/// Why a record becomes a dead letter: the value of the header `sluice-error-reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A lookup found nothing.
    LookupMiss,
    /// The value is not JSON.
    InvalidJson,
    /// An expression reads a field that is not there.
    MissingField,
    /// An expression failed otherwise: a text that is no number.
    ExpressionError,
}

impl Reason {
    /// As the header has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::LookupMiss => "LookupMiss",
            Self::InvalidJson => "InvalidJson",
            Self::MissingField => "MissingField",
            Self::ExpressionError => "ExpressionError",
        }
    }
}

/// What must become of one record.
#[derive(Debug, Clone, PartialEq)]
pub enum Expected {
    /// One record on one route, with this value; members in this order.
    Output {
        /// The route.
        route: Route,
        /// The value.
        value: Value,
    },
    /// It passes all steps and goes, without a value, to every route that has a view.
    Tombstone,
    /// It is done; nothing is written.
    Filtered,
    /// It goes to the dead-letter topic with its own bytes.
    DeadLetter(Reason),
}

impl Expected {
    /// A short name of the outcome, for counting.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Output { route, .. } => route.name(),
            Self::Tombstone => "tombstone",
            Self::Filtered => "filtered",
            Self::DeadLetter(reason) => reason.name(),
        }
    }
}
