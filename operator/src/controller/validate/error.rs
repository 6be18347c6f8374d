//! Everything that can be wrong with a spec, and which condition says so.

use sluice_crds::conditions::{ConditionType, Reason};
use sluice_crds::names::NameError;

/// Why a spec cannot be carried out. A person has to change the spec or, for the last ones, the operator's settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A name that is none.
    #[error("{field}: {problem}")]
    Name {
        /// Where.
        field: String,
        /// What is wrong.
        problem: NameError,
    },
    /// The object lacks metadata that the API server always sets.
    #[error("the object has no {0}")]
    Metadata(&'static str),
    /// Two items of one name.
    #[error("{field} has two items named {name:?}: names must differ")]
    Duplicate {
        /// Where.
        field: String,
        /// The name.
        name: String,
    },
    /// A list that must hold something does not.
    #[error("{field} must not be empty")]
    Empty {
        /// Where.
        field: String,
    },
    /// A union with no member we know, or several.
    #[error("{field} must have exactly one of {members}; found {found}")]
    Union {
        /// Where.
        field: String,
        /// Members we know.
        members: &'static str,
        /// How many are set.
        found: usize,
    },
    /// A number out of bounds.
    #[error("{field} is {value}: {min} to {max} are allowed")]
    Bounds {
        /// Where.
        field: String,
        /// The value.
        value: i64,
        /// Least.
        min: i64,
        /// Most.
        max: i64,
    },
    /// Two parts of the spec that do not go together.
    #[error("{field}: {problem}")]
    Contradiction {
        /// Where.
        field: String,
        /// What and what to do.
        problem: String,
    },
    /// An expression or path that does not compile; the text has field and position.
    #[error("{0}")]
    Expression(String),
    /// A key expression that does not show its prefix.
    #[error("{field}: the key prefix cannot be read off {expression:?}: begin it with a quoted text or set keyPrefix")]
    NoKeyPrefix {
        /// Where.
        field: String,
        /// The expression.
        expression: String,
    },
    /// The operator's settings have no such connection.
    #[error("{field}: the operator has no {sort} connection {name:?}: set connectionRef.name to one that it has")]
    ConnectionUnknown {
        /// Where.
        field: &'static str,
        /// `kafka` or `redis`.
        sort: &'static str,
        /// Name asked for.
        name: String,
    },
    /// The operator's settings have it, but not all that it needs.
    #[error("the operator's {sort} connection {name:?} cannot be used: {problem}")]
    ConnectionUnusable {
        /// `kafka` or `redis`.
        sort: &'static str,
        /// Name asked for.
        name: String,
        /// What is missing.
        problem: String,
    },
    /// The connection's policy does not name this namespace.
    #[error(
        "the {sort} connection {connection:?} has no policy for namespace {namespace:?}: its administrator must add one"
    )]
    NamespaceNotAllowed {
        /// `kafka` or `redis`.
        sort: &'static str,
        /// Connection.
        connection: String,
        /// Namespace.
        namespace: String,
    },
    /// The policy of this namespace does not cover it.
    #[error(
        "{field}: the policy of this namespace on the {sort} connection {connection:?} does not let it {action} {name:?}: use a name it allows, or ask its administrator for it"
    )]
    NotAllowed {
        /// Where.
        field: String,
        /// `kafka` or `redis`.
        sort: &'static str,
        /// Connection.
        connection: String,
        /// `own the topic`, `write keys with the prefix`, …
        action: &'static str,
        /// The name refused.
        name: String,
    },
    /// More partitions than the policy allows.
    #[error(
        "{field} is {partitions}: the policy of this namespace allows {max} partitions a topic: ask for fewer, or ask the connection's administrator"
    )]
    TooManyPartitions {
        /// Where.
        field: String,
        /// Asked for.
        partitions: i32,
        /// Allowed.
        max: i32,
    },
    /// A Redis setting that is not in the connection's allow-list for this namespace.
    #[error(
        "redis.settings[{name}]: this setting is not in the allow-list of the connection for this namespace: leave it out, or ask the connection's administrator"
    )]
    SettingNotAllowed {
        /// Its name.
        name: String,
    },
}

impl Invalid {
    /// True when nothing is wrong with the spec but that the namespace may not.
    pub fn is_refused_by_policy(&self) -> bool {
        matches!(self, Self::NamespaceNotAllowed { .. } | Self::NotAllowed { .. })
    }

    /// Which condition says so.
    pub fn condition(&self) -> ConditionType {
        match self {
            Self::ConnectionUnknown { .. }
            | Self::ConnectionUnusable { .. }
            | Self::NamespaceNotAllowed { .. }
            | Self::NotAllowed { .. } => ConditionType::AccessReady,
            Self::TooManyPartitions { .. } => ConditionType::TopicsReady,
            Self::SettingNotAllowed { .. } => ConditionType::CacheReady,
            Self::Name { .. }
            | Self::Metadata(_)
            | Self::Duplicate { .. }
            | Self::Empty { .. }
            | Self::Union { .. }
            | Self::Bounds { .. }
            | Self::Contradiction { .. }
            | Self::Expression(_)
            | Self::NoKeyPrefix { .. } => ConditionType::WorkersReady,
        }
    }

    /// The condition's reason; also the bounded label of metrics and events.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Name { .. }
            | Self::Metadata(_)
            | Self::Duplicate { .. }
            | Self::Empty { .. }
            | Self::Union { .. }
            | Self::Bounds { .. }
            | Self::Contradiction { .. } => Reason::InvalidSpec,
            Self::Expression(_) | Self::NoKeyPrefix { .. } => Reason::InvalidExpression,
            Self::ConnectionUnknown { .. } => Reason::ConnectionUnknown,
            Self::ConnectionUnusable { .. } => Reason::ConnectionUnusable,
            Self::NamespaceNotAllowed { .. } | Self::NotAllowed { .. } | Self::TooManyPartitions { .. } => {
                Reason::NotAllowed
            }
            Self::SettingNotAllowed { .. } => Reason::SettingRefused,
        }
    }
}
