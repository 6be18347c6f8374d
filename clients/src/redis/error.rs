//! What a failed Redis call means: one enum, one pure classifier.

use std::fmt;

use redis::{ErrorKind, RedisError, ServerError};
use thiserror::Error;

use super::settings::NodeAddress;
use super::slots::Slot;

/// Where a key is, according to a node that does not have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Slot of the key.
    pub slot: Slot,
    /// Who has it; none when the node names no host (then it is the host that was asked) and no port.
    pub address: Option<NodeAddress>,
}

/// A failed Redis call. The text of unknown errors is cut and never holds values that were sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RedisFault {
    /// The call never left: no connection, or not the connection it was meant for. Nothing happened on the server.
    #[error("not sent: {0}")]
    NotSent(NotSent),
    /// No answer in time, or the connection broke while waiting: the call may or may not have happened.
    #[error("outcome unknown: {0}")]
    UnknownOutcome(Lost),
    /// CLUSTERDOWN: the cluster does not serve this slot now.
    #[error("the cluster is down or does not serve the slot (CLUSTERDOWN)")]
    ClusterDown,
    /// LOADING: the server reads its dump.
    #[error("the server is loading its data set (LOADING)")]
    Loading,
    /// READONLY: the server became a replica.
    #[error("the server is a replica (READONLY)")]
    ReadOnly,
    /// MASTERDOWN: a replica without its master.
    #[error("the server is a replica without its master (MASTERDOWN)")]
    MasterDown,
    /// NOSCRIPT: the script is not in the server's cache.
    #[error("the script is not loaded (NOSCRIPT)")]
    NoScript,
    /// OOM: over maxmemory and nothing may be evicted.
    #[error("the server is over maxmemory (OOM): raise maxmemory or let keys expire")]
    OutOfMemory,
    /// MISCONF: the server cannot persist and refuses writes.
    #[error("the server refuses writes because it cannot persist (MISCONF)")]
    Misconfigured,
    /// NOREPLICAS: fewer good replicas than `min-replicas-to-write`.
    #[error("the server has too few replicas to accept writes (NOREPLICAS)")]
    TooFewReplicas,
    /// NOPERM: the ACL user may not.
    #[error("the user may not do this (NOPERM): {0}")]
    NoPermission(String),
    /// NOAUTH or WRONGPASS.
    #[error("user name or password refused (NOAUTH, WRONGPASS)")]
    Unauthenticated,
    /// BUSY: a script runs for too long.
    #[error("the server runs a slow script (BUSY)")]
    Busy,
    /// MOVED: the slot belongs to another node.
    #[error("slot {} belongs to another node (MOVED)", .0.slot)]
    Moved(Redirect),
    /// ASK: the key may already be on another node.
    #[error("slot {} is on its way to another node (ASK)", .0.slot)]
    Ask(Redirect),
    /// TRYAGAIN: keys of a slot in motion.
    #[error("keys of a slot in motion (TRYAGAIN)")]
    TryAgain,
    /// CROSSSLOT: keys of several slots where one is allowed.
    #[error("keys of several slots are refused (CROSSSLOT)")]
    CrossSlot,
    /// WRONGTYPE: the key holds another type.
    #[error("the key holds another type (WRONGTYPE)")]
    WrongType,
    /// The answer is not what the protocol promises.
    #[error("unexpected answer: {0}")]
    Malformed(&'static str),
    /// Any other error answer.
    #[error("the server answered: {0}")]
    Other(String),
}

/// Why a call never left.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotSent {
    /// Connecting failed; what the system said.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// Waiting before the next attempt to connect.
    #[error("waiting before the next attempt to connect")]
    BackingOff,
    /// The connection the call was meant for was replaced.
    #[error("the connection was replaced")]
    Replaced,
    /// No node is known for the slot.
    #[error("no node is known for the slot")]
    NoOwner,
    /// What the settings call a server of its own is a replica.
    #[error("{0} is a replica: name the address of its master, too")]
    Replica(String),
    /// No time is left.
    #[error("no time left before the deadline")]
    Deadline,
}

/// Why an outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Lost {
    /// No answer within the time-out.
    #[error("no answer in time")]
    TimedOut,
    /// The connection broke.
    #[error("the connection broke")]
    Disconnected,
}

impl RedisFault {
    /// Bounded name for metrics and events.
    pub fn category(&self) -> &'static str {
        match self {
            Self::NotSent(_) => "NotSent",
            Self::UnknownOutcome(_) => "UnknownOutcome",
            Self::ClusterDown => "ClusterDown",
            Self::Loading => "Loading",
            Self::ReadOnly => "ReadOnly",
            Self::MasterDown => "MasterDown",
            Self::NoScript => "NoScript",
            Self::OutOfMemory => "OutOfMemory",
            Self::Misconfigured => "Misconfigured",
            Self::TooFewReplicas => "TooFewReplicas",
            Self::NoPermission(_) => "NoPermission",
            Self::Unauthenticated => "Unauthenticated",
            Self::Busy => "Busy",
            Self::Moved(_) => "Moved",
            Self::Ask(_) => "Ask",
            Self::TryAgain => "TryAgain",
            Self::CrossSlot => "CrossSlot",
            Self::WrongType => "WrongType",
            Self::Malformed(_) => "Malformed",
            Self::Other(_) => "Other",
        }
    }

    /// Whether the fault says that the slot map, or the role of a node, is not what was thought.
    pub fn is_topology(&self) -> bool {
        matches!(
            self,
            Self::Moved(_) | Self::Ask(_) | Self::TryAgain | Self::ReadOnly | Self::MasterDown | Self::ClusterDown
        )
    }

    /// Whether the server, or the way to it, is unwell, so that asking it again at once makes no sense.
    pub fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::NotSent(_)
                | Self::UnknownOutcome(_)
                | Self::ClusterDown
                | Self::Loading
                | Self::MasterDown
                | Self::Busy
        )
    }

    /// Reads an error answer.
    pub fn of_answer(error: &ServerError) -> Self {
        Self::of_code(error.code(), error.details().unwrap_or_default())
    }

    /// Reads an error of a call that was sent.
    pub fn of_call(error: &RedisError) -> Self {
        if let ErrorKind::AuthenticationFailed = error.kind() {
            return Self::Unauthenticated;
        }
        if let Some(code) = error.code() {
            return Self::of_code(code, error.detail().unwrap_or_default());
        }
        if error.is_timeout() {
            return Self::UnknownOutcome(Lost::TimedOut);
        }
        match error.kind() {
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => Self::Malformed("not the expected type"),
            // Anything else happened between the socket and us, after the call may have left.
            _ => Self::UnknownOutcome(Lost::Disconnected),
        }
    }

    /// Reads an error of an attempt to connect.
    pub fn of_connect(error: &RedisError) -> Self {
        match Self::of_call(error) {
            Self::UnknownOutcome(Lost::TimedOut) => Self::NotSent(NotSent::Connect("timed out".to_owned())),
            Self::UnknownOutcome(_) | Self::Malformed(_) => Self::NotSent(NotSent::Connect(cut(&error.to_string()))),
            answered => answered,
        }
    }

    /// Reads an error's first word and the rest.
    pub fn of_code(code: &str, rest: &str) -> Self {
        match code {
            "CLUSTERDOWN" => Self::ClusterDown,
            "LOADING" => Self::Loading,
            "READONLY" => Self::ReadOnly,
            "MASTERDOWN" => Self::MasterDown,
            "NOSCRIPT" => Self::NoScript,
            "OOM" => Self::OutOfMemory,
            "MISCONF" => Self::Misconfigured,
            "NOREPLICAS" => Self::TooFewReplicas,
            "NOPERM" => Self::NoPermission(cut(rest)),
            "NOAUTH" | "WRONGPASS" => Self::Unauthenticated,
            "BUSY" => Self::Busy,
            "MOVED" => redirect(rest).map_or(Self::Malformed("MOVED without a slot"), Self::Moved),
            "ASK" => redirect(rest).map_or(Self::Malformed("ASK without a slot"), Self::Ask),
            "TRYAGAIN" => Self::TryAgain,
            "CROSSSLOT" => Self::CrossSlot,
            "WRONGTYPE" => Self::WrongType,
            _ => Self::Other(cut(&format!("{code} {rest}"))),
        }
    }
}

/// `<slot> <host>:<port>`, where the host may be empty (Redis 7: "the node you asked").
fn redirect(rest: &str) -> Option<Redirect> {
    let (slot, address) = rest.split_once(' ')?;
    Some(Redirect { slot: Slot::new(slot.parse().ok()?)?, address: NodeAddress::parse(address.trim()).ok() })
}

/// Servers echo arguments in some errors: a short beginning is enough to know which error it is.
fn cut(text: &str) -> String {
    const MOST: usize = 200;
    let end = (0..=MOST.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_owned()
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Some(address) => write!(f, "slot {} at {address}", self.slot),
            None => write!(f, "slot {}", self.slot),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn every_answer_that_the_engines_handle_has_its_own_fault() {
        let table = [
            ("CLUSTERDOWN", "Hash slot not served", "ClusterDown"),
            ("LOADING", "Redis is loading the dataset in memory", "Loading"),
            ("READONLY", "You can't write against a read only replica.", "ReadOnly"),
            ("MASTERDOWN", "Link with MASTER is down", "MasterDown"),
            ("NOSCRIPT", "No matching script. Please use EVAL.", "NoScript"),
            ("OOM", "command not allowed when used memory > 'maxmemory'.", "OutOfMemory"),
            ("MISCONF", "Redis is configured to save RDB snapshots", "Misconfigured"),
            ("NOREPLICAS", "Not enough good replicas to write.", "TooFewReplicas"),
            ("NOPERM", "this user has no permissions", "NoPermission"),
            ("NOAUTH", "Authentication required.", "Unauthenticated"),
            ("WRONGPASS", "invalid username-password pair", "Unauthenticated"),
            ("BUSY", "Redis is busy running a script.", "Busy"),
            ("MOVED", "3999 127.0.0.1:6381", "Moved"),
            ("ASK", "3999 127.0.0.1:6381", "Ask"),
            ("TRYAGAIN", "Multiple keys request during rehashing of slot", "TryAgain"),
            ("CROSSSLOT", "Keys in request don't hash to the same slot", "CrossSlot"),
            ("WRONGTYPE", "Operation against a key holding the wrong kind of value", "WrongType"),
            ("MOVED", "nonsense", "Malformed"),
            ("ERR", "unknown command", "Other"),
        ];
        for (code, rest, category) in table {
            assert_eq!(RedisFault::of_code(code, rest).category(), category, "{code} {rest}");
        }
    }

    #[test]
    fn a_redirect_names_slot_and_node() {
        let RedisFault::Moved(to) = RedisFault::of_code("MOVED", "3999 [::1]:6381") else { panic!("not a redirect") };
        assert_eq!(to.to_string(), "slot 3999 at [::1]:6381");
        let RedisFault::Ask(to) = RedisFault::of_code("ASK", "1 :6381") else { panic!("not a redirect") };
        assert_eq!(to, Redirect { slot: Slot::new(1).expect("in range"), address: None });
    }

    #[test]
    fn a_broken_connection_leaves_the_outcome_open() {
        for (kind, lost) in [
            (io::ErrorKind::TimedOut, Lost::TimedOut),
            (io::ErrorKind::BrokenPipe, Lost::Disconnected),
            (io::ErrorKind::ConnectionReset, Lost::Disconnected),
            (io::ErrorKind::UnexpectedEof, Lost::Disconnected),
        ] {
            assert_eq!(RedisFault::of_call(&RedisError::from(io::Error::from(kind))), RedisFault::UnknownOutcome(lost));
        }
    }

    #[test]
    fn long_errors_are_cut_between_characters() {
        let RedisFault::Other(text) = RedisFault::of_code("ERR", &"ä".repeat(300)) else { panic!("known code") };
        assert!(text.len() <= 200);
    }
}
