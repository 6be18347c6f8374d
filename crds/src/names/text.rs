//! The check behind every newtype, and its error.

/// Why a text is no name of its sort.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} {problem}")]
pub struct NameError {
    /// Sort of name, e.g. `topic name`.
    pub what: &'static str,
    /// The text, cut to 80 characters.
    pub value: String,
    /// What is wrong and what is right.
    pub problem: NameProblem,
}

impl NameError {
    /// Bounded category for metrics and events.
    pub const fn category(&self) -> &'static str {
        match self.problem {
            NameProblem::Empty => "NameEmpty",
            NameProblem::TooLong { .. } => "NameTooLong",
            NameProblem::Character { .. } => "NameCharacter",
            NameProblem::Edge { .. } => "NameEdge",
            NameProblem::Refused { .. } => "NameRefused",
        }
    }
}

/// What is wrong with a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameProblem {
    /// No characters at all.
    #[error("is empty")]
    Empty,
    /// Longer than its sort allows; lengths in bytes.
    #[error("is {length} bytes long: at most {max} are allowed")]
    TooLong {
        /// Length found.
        length: usize,
        /// Length allowed.
        max: usize,
    },
    /// A character its sort does not allow.
    #[error("holds {found:?}: {allowed}")]
    Character {
        /// First such character.
        found: char,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A wrong first or last character.
    #[error("{rule}")]
    Edge {
        /// What the edges must be.
        rule: &'static str,
    },
    /// Well-formed, but not to be used.
    #[error("{why}")]
    Refused {
        /// Why.
        why: &'static str,
    },
}

/// Length and character set of one sort of name.
pub(super) struct Shape {
    pub(super) what: &'static str,
    pub(super) max: usize,
    pub(super) allowed: fn(char) -> bool,
    pub(super) allowed_text: &'static str,
}

impl Shape {
    pub(super) fn check(&self, text: &str) -> Result<(), NameError> {
        if text.is_empty() {
            return Err(self.error(text, NameProblem::Empty));
        }
        if text.len() > self.max {
            return Err(self.error(text, NameProblem::TooLong { length: text.len(), max: self.max }));
        }
        match text.chars().find(|c| !(self.allowed)(*c)) {
            Some(found) => Err(self.error(text, NameProblem::Character { found, allowed: self.allowed_text })),
            None => Ok(()),
        }
    }

    pub(super) fn error(&self, text: &str, problem: NameProblem) -> NameError {
        NameError { what: self.what, value: text.chars().take(80).collect(), problem }
    }
}

/// RFC 1123 label: lower-case letters, digits and hyphens, a letter or digit at both ends.
pub(super) fn check_dns_label(what: &'static str, max: usize, text: &str) -> Result<(), NameError> {
    let shape = Shape {
        what,
        max,
        allowed: |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-',
        allowed_text: "only lower-case letters, digits and '-' are allowed",
    };
    shape.check(text)?;
    if text.starts_with('-') || text.ends_with('-') {
        return Err(shape.error(text, NameProblem::Edge { rule: "must start and end with a letter or digit" }));
    }
    Ok(())
}
