//! What goes wrong: at compile time with a place in the resource, at run time with a bounded reason.

use std::fmt;

/// Longest message of a dead letter, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 512;

/// A place in an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// A mistake in a resource that only compiling its expressions shows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct CompileError {
    /// Where in the resource, such as `steps[3] "totals" set[0].expression`.
    pub path: String,
    /// Where in the expression, if it is one and the place is known.
    pub position: Option<Position>,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path)?;
        if let Some(Position { line, column }) = self.position {
            write!(f, ", line {line}, column {column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Why a record cannot be processed. Bounded: it is a header value, a metric label and a filter for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The value is not JSON, or not the strict kind we take (the crate's front page says which).
    InvalidJson,
    /// An expression reads a field, an index or a header that is not there.
    MissingField,
    /// An expression or a step met a value of another type than it can use.
    TypeError,
    /// An expression failed otherwise: division by zero, overflow, a text that is no number.
    ExpressionError,
    /// A lookup found nothing, and the step says that this is an error.
    LookupMiss,
    /// A lookup found something that is not what the step says it is.
    LookupInvalid,
    /// A Redis key does not start with the prefix it was granted.
    KeyOutsidePrefix,
    /// No route takes the record, and the routing says that this is an error.
    NoRoute,
    /// A record without a key would go to a compacted topic.
    NullKey,
    /// The result is larger than the output topic takes.
    TooLarge,
    /// A view with a life needs the record's timestamp, and there is none.
    NoTimestamp,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 11] = [
        Self::InvalidJson,
        Self::MissingField,
        Self::TypeError,
        Self::ExpressionError,
        Self::LookupMiss,
        Self::LookupInvalid,
        Self::KeyOutsidePrefix,
        Self::NoRoute,
        Self::NullKey,
        Self::TooLarge,
        Self::NoTimestamp,
    ];

    /// The name, as in the `sluice-error-reason` header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "InvalidJson",
            Self::MissingField => "MissingField",
            Self::TypeError => "TypeError",
            Self::ExpressionError => "ExpressionError",
            Self::LookupMiss => "LookupMiss",
            Self::LookupInvalid => "LookupInvalid",
            Self::KeyOutsidePrefix => "KeyOutsidePrefix",
            Self::NoRoute => "NoRoute",
            Self::NullKey => "NullKey",
            Self::TooLarge => "TooLarge",
            Self::NoTimestamp => "NoTimestamp",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A record that cannot be processed, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Name of the step, or [`SOURCE`] or [`ROUTING`].
    pub step: String,
    /// Why, as a category.
    pub reason: Reason,
    /// Why, in words: names of fields and types, never contents of the record. At most [`MAX_MESSAGE_BYTES`] bytes.
    pub message: String,
}

/// [`DeadLetter::step`] of records that fail before the first step.
pub const SOURCE: &str = "source";
/// [`DeadLetter::step`] of records that fail in the routing.
pub const ROUTING: &str = "routing";

/// A failure without its place yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// Puts words in front of the message.
    pub(crate) fn within(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    pub(crate) fn at(self, step: &str) -> DeadLetter {
        DeadLetter { step: step.to_owned(), reason: self.reason, message: bounded(self.message) }
    }
}

/// Cuts a message to [`MAX_MESSAGE_BYTES`], at a character.
pub(crate) fn bounded(mut message: String) -> String {
    if message.len() > MAX_MESSAGE_BYTES {
        let mut end = MAX_MESSAGE_BYTES - 3;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push_str("...");
    }
    message
}
