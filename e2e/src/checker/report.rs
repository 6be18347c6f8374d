//! What a check found.

use std::collections::BTreeMap;
use std::fmt;

use super::violation::Violation;

/// What one or more checks found, and how much they looked at: a check of nothing is not a proof.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// How many things of each kind were looked at.
    pub checked: BTreeMap<&'static str, u64>,
}

impl Report {
    pub(super) fn found(&mut self, violation: Violation) {
        self.violations.push(violation);
    }

    pub(super) fn count(&mut self, what: &'static str, number: usize) {
        *self.checked.entry(what).or_default() += number as u64;
    }

    /// Adds what another check found.
    pub fn merge(&mut self, other: Self) {
        self.violations.extend(other.violations);
        for (what, number) in other.checked {
            *self.checked.entry(what).or_default() += number;
        }
    }

    /// Whether nothing is broken.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// How many things of this kind were looked at.
    pub fn checked(&self, what: &str) -> u64 {
        self.checked.get(what).copied().unwrap_or(0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 20;
        let checked: Vec<String> = self.checked.iter().map(|(what, number)| format!("{number} {what}")).collect();
        writeln!(formatter, "{} violations; checked {}", self.violations.len(), checked.join(", "))?;
        self.violations.iter().take(SHOWN).try_for_each(|violation| writeln!(formatter, "  {violation}"))?;
        let hidden = self.violations.len().saturating_sub(SHOWN);
        if hidden > 0 { writeln!(formatter, "  … and {hidden} more") } else { Ok(()) }
    }
}
