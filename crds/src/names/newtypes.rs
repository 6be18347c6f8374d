//! Newtypes for every name that travels: whoever holds one knows that it was checked.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::text::{NameError, NameProblem, Shape, check_dns_label};

/// A checked text: `parse`, `as_str`, `Display`, `FromStr`, and serde that checks on reading.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks a text.
            pub fn parse(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                $check(&text)?;
                Ok(Self(text))
            }

            /// A text built from checked parts; the tests of derived names prove that it would pass.
            #[allow(dead_code, reason = "only some sorts of names are derived")]
            pub(super) fn derived(text: String) -> Self {
                debug_assert_eq!($check(&text), Ok(()));
                Self(text)
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

name_type!(
    /// `metadata.name` of a resource: an RFC 1123 label of at most 40 characters, so that every child's name, its pods'
    /// included, stays within 63.
    ResourceName,
    check_resource_name
);
name_type!(
    /// A Kubernetes namespace: an RFC 1123 label of at most 63 characters.
    Namespace,
    check_namespace
);
name_type!(
    /// Id of one Sluice installation, in every external name: an RFC 1123 label of at most 20 characters.
    InstanceId,
    check_instance_id
);
name_type!(
    /// Name of a route or view: an RFC 1123 label of at most 40 characters.
    PartName,
    check_part_name
);
name_type!(
    /// `metadata.uid` of a resource: letters, digits and hyphens, at most 63.
    ResourceUid,
    check_uid
);
name_type!(
    /// Name of a worker pod: an RFC 1123 subdomain of at most 253 characters.
    PodName,
    check_pod_name
);
name_type!(
    /// Name of a Kafka topic: 1-249 of `a-z A-Z 0-9 . _ -`, neither `.` nor `..`.
    TopicName,
    check_topic_name
);
name_type!(
    /// A consumer group: 1-249 printable ASCII characters without space and `*` (a literal ACL on `*` would open every group).
    GroupId,
    check_group_id
);
name_type!(
    /// First part of the transactional ids of a resource. Ends in `/`: with the PREFIXED ACL on it no other resource's
    /// ids can begin so, since no Kubernetes name holds a `/`.
    TransactionalIdPrefix,
    check_transactional_id_prefix
);
name_type!(
    /// A Kafka SCRAM user: 1-255 printable ASCII characters without space, `,` and `=` (which RFC 5802 would escape).
    ScramUser,
    check_scram_user
);
name_type!(
    /// A Redis ACL user: 1-255 printable ASCII characters without space.
    RedisUser,
    check_redis_user
);
name_type!(
    /// Literal beginning of Redis keys: 1-256 printable ASCII characters, none that a glob, an ACL rule or a
    /// configuration line reads as something else (`* ? [ ] \ ~ % ( ) " '` and space), and not within `sluice/`, where
    /// the watermark records are.
    KeyPrefix,
    check_key_prefix
);
name_type!(
    /// A Redis node as its records name it: letters, digits and hyphens, at most 64 (a cluster node's id is 40 hex digits).
    NodeId,
    check_node_id
);

/// Longest `metadata.name`.
pub const RESOURCE_NAME_MAX: usize = 40;
/// First part of every topic that is made for a route without one; users' own topics may not begin so.
pub const INTERNAL_TOPIC_PREFIX: &str = "sluice.";
/// First part of every Redis key that is ours and not a view's.
pub const INTERNAL_KEY_PREFIX: &str = "sluice/";

fn check_resource_name(text: &str) -> Result<(), NameError> {
    check_dns_label("resource name", RESOURCE_NAME_MAX, text)
}

fn check_namespace(text: &str) -> Result<(), NameError> {
    check_dns_label("namespace", 63, text)
}

fn check_instance_id(text: &str) -> Result<(), NameError> {
    check_dns_label("instance id", 20, text)
}

fn check_part_name(text: &str) -> Result<(), NameError> {
    check_dns_label("name", 40, text)
}

fn hyphenated(what: &'static str, max: usize) -> Shape {
    Shape {
        what,
        max,
        allowed: |c| c.is_ascii_alphanumeric() || c == '-',
        allowed_text: "only letters, digits and '-' are allowed",
    }
}

fn check_uid(text: &str) -> Result<(), NameError> {
    hyphenated("uid", 63).check(text)
}

fn check_node_id(text: &str) -> Result<(), NameError> {
    hyphenated("node id", 64).check(text)
}

fn check_pod_name(text: &str) -> Result<(), NameError> {
    let shape = Shape {
        what: "pod name",
        max: 253,
        allowed: |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.',
        allowed_text: "only lower-case letters, digits, '-' and '.' are allowed",
    };
    shape.check(text)
}

fn check_topic_name(text: &str) -> Result<(), NameError> {
    let shape = Shape {
        what: "topic name",
        max: 249,
        allowed: |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'),
        allowed_text: "only letters, digits, '.', '_' and '-' are allowed",
    };
    shape.check(text)?;
    if text == "." || text == ".." {
        return Err(shape.error(text, NameProblem::Refused { why: "is not a name Kafka takes" }));
    }
    Ok(())
}

fn check_group_id(text: &str) -> Result<(), NameError> {
    let shape = Shape {
        what: "group id",
        max: 249,
        allowed: |c| c.is_ascii_graphic() && c != '*',
        allowed_text: "only printable ASCII characters without space and '*' are allowed",
    };
    shape.check(text)
}

fn check_transactional_id_prefix(text: &str) -> Result<(), NameError> {
    let shape = Shape {
        what: "transactional id prefix",
        max: 249,
        allowed: |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/'),
        allowed_text: "only letters, digits, '.', '_', '-' and '/' are allowed",
    };
    shape.check(text)?;
    if !text.ends_with('/') {
        return Err(shape.error(text, NameProblem::Edge { rule: "must end in '/', or it would be a prefix of others" }));
    }
    if text.starts_with('/') || text.contains("//") {
        return Err(shape.error(text, NameProblem::Edge { rule: "must not have an empty part" }));
    }
    Ok(())
}

fn check_scram_user(text: &str) -> Result<(), NameError> {
    let shape = Shape {
        what: "Kafka user",
        max: 255,
        allowed: |c| c.is_ascii_graphic() && c != ',' && c != '=',
        allowed_text: "only printable ASCII characters without space, ',' and '=' are allowed",
    };
    shape.check(text)
}

fn check_redis_user(text: &str) -> Result<(), NameError> {
    let shape = Shape {
        what: "Redis user",
        max: 255,
        allowed: |c| c.is_ascii_graphic(),
        allowed_text: "only printable ASCII characters without space are allowed",
    };
    shape.check(text)
}

fn check_key_prefix(text: &str) -> Result<(), NameError> {
    let shape = Shape {
        what: "key prefix",
        max: 256,
        allowed: |c| c.is_ascii_graphic() && !r#"*?[]\~%()"'"#.contains(c),
        allowed_text: r#"only printable ASCII characters without space and without * ? [ ] \ ~ % ( ) " ' are allowed"#,
    };
    shape.check(text)?;
    if text.starts_with(INTERNAL_KEY_PREFIX) || INTERNAL_KEY_PREFIX.starts_with(text) {
        let why = "overlaps \"sluice/\", where the watermark records are: choose another beginning";
        return Err(shape.error(text, NameProblem::Refused { why }));
    }
    Ok(())
}

impl TopicName {
    /// True for Kafka's own topics (`__consumer_offsets`, `__transaction_state`, …): reading them is rarely meant,
    /// owning them never.
    pub fn is_kafka_internal(&self) -> bool {
        self.0.starts_with("__")
    }

    /// True for names made for routes without a topic.
    pub fn is_sluice_internal(&self) -> bool {
        self.0.starts_with(INTERNAL_TOPIC_PREFIX)
    }
}

impl KeyPrefix {
    /// True when some key can begin with both: one of them begins with the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0) || other.0.starts_with(&self.0)
    }

    /// True when every key that begins with `self` is one a policy for `allowed` covers.
    pub fn within(&self, allowed: &str) -> bool {
        self.0.starts_with(allowed)
    }

    /// Redis ACL rule for reading keys with this prefix, as `ACL SETUSER` takes it. Nothing needs escaping: whatever a
    /// glob reads as something else was refused by [`KeyPrefix::parse`].
    pub fn read_rule(&self) -> String {
        format!("%R~{}*", self.0)
    }

    /// Redis ACL rule for reading and writing keys with this prefix.
    pub fn read_write_rule(&self) -> String {
        format!("%RW~{}*", self.0)
    }
}

impl ScramUser {
    /// The principal that Kafka's ACLs name this user by.
    pub fn principal(&self) -> Principal {
        Principal(format!("User:{}", self.0))
    }
}

/// A Kafka principal, `User:<name>`; only made from a user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal(String);

impl Principal {
    /// The text, `User:<name>`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The user a principal names; none for other principal types and for the wildcard `User:*`.
    pub fn user_of(text: &str) -> Option<ScramUser> {
        let user = text.strip_prefix("User:")?;
        if user == "*" { None } else { ScramUser::parse(user).ok() }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
