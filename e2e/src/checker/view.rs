//! I4: at rest, Redis holds what the view topic says and nothing else.

use std::collections::BTreeMap;
use std::fmt;

use super::fold::{Folded, Version};
use super::report::Report;
use super::violation::{Violation, show};

/// A Redis value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// A string.
    Text(Vec<u8>),
    /// A hash.
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    /// Another type, by its name; no view makes one.
    Other(String),
}

impl fmt::Display for Held {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(bytes) => write!(formatter, "{:?}", show(bytes)),
            Self::Hash(fields) => {
                let joined: Vec<u8> =
                    fields.iter().flat_map(|(name, value)| [&name[..], b"=", value, b" "].concat()).collect();
                write!(formatter, "hash {:?}", show(&joined))
            }
            Self::Other(kind) => write!(formatter, "a {kind}"),
        }
    }
}

/// What a key holds and when it expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its value.
    pub held: Held,
    /// When it expires, in milliseconds since 1970.
    pub expires_at_ms: Option<i64>,
}

/// Every key of a test's prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedisDump {
    /// By key.
    pub keys: BTreeMap<String, Entry>,
    /// The server's clock when the dump began, in milliseconds since 1970.
    pub from_ms: i64,
    /// The server's clock when it ended.
    pub until_ms: i64,
}

/// What a version allows a reader to see within a span of time.
pub(super) enum Allowed<'a> {
    /// The key must hold this.
    Present(&'a Held),
    /// The key must be absent, for this reason.
    Absent(&'static str),
    /// It expires within the span: both are right.
    Either(&'a Held),
}

pub(super) fn allowed(version: Option<&Version>, from_ms: i64, until_ms: i64, slack_ms: i64) -> Allowed<'_> {
    let Some(version) = version else { return Allowed::Absent("no record has written it yet") };
    let Some(state) = &version.state else { return Allowed::Absent("its last record deletes it") };
    match version.expires_at_ms {
        Some(at) if at + slack_ms < from_ms => Allowed::Absent("it has expired"),
        Some(at) if at - slack_ms <= until_ms => Allowed::Either(state),
        _ => Allowed::Present(state),
    }
}

/// Checks I4 over all keys of the view. `slack_ms` is how far apart clocks and expiry times may be.
pub fn check_view(folded: &Folded, dump: &RedisDump, slack_ms: i64) -> Report {
    let mut report = Report::default();
    for (key, timeline) in &folded.keys {
        let last = timeline.last();
        let found = dump.keys.get(key);
        let stale = |found: Option<&Entry>, expected: &Held| Violation::Stale {
            key: key.clone(),
            found: found.map_or_else(|| "nothing".into(), |entry| entry.held.to_string()),
            expected: expected.to_string(),
            offset: last.offset,
        };
        match (allowed(Some(last), dump.from_ms, dump.until_ms, slack_ms), found) {
            (Allowed::Absent(_) | Allowed::Either(_), None) => {}
            (Allowed::Absent(why), Some(entry)) => {
                report.found(Violation::GhostKey { key: key.clone(), found: entry.held.to_string(), why });
            }
            (Allowed::Present(expected), None) => report.found(stale(None, expected)),
            (Allowed::Present(expected) | Allowed::Either(expected), Some(entry)) => {
                if entry.held != *expected {
                    report.found(stale(Some(entry), expected));
                }
                if !near(entry.expires_at_ms, last.expires_at_ms, slack_ms) {
                    let (found, expected) = (entry.expires_at_ms, last.expires_at_ms);
                    report.found(Violation::WrongExpiry { key: key.clone(), found, expected });
                }
            }
        }
    }
    let strangers = dump.keys.iter().filter(|(key, _)| !folded.keys.contains_key(*key));
    for (key, entry) in strangers.filter(|(key, _)| folded.views.iter().any(|view| view.owns(key))) {
        let found = entry.held.to_string();
        report.found(Violation::GhostKey { key: key.clone(), found, why: "no record of the view topic names it" });
    }
    report.count("view keys", folded.keys.len());
    report.count("redis keys", dump.keys.len());
    report
}

fn near(found: Option<i64>, expected: Option<i64>, slack_ms: i64) -> bool {
    match (found, expected) {
        (None, None) => true,
        (Some(found), Some(expected)) => (found - expected).abs() <= slack_ms,
        _ => false,
    }
}
