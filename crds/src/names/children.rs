//! What Kubernetes knows a resource's children by.

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest, Sha256};

use super::resource::ResourceId;

/// Annotation of a child: hash of what was last applied. Equal and untouched by others means there is nothing to do.
pub const DESIRED_HASH_ANNOTATION: &str = "sluice.dev/desired-hash";
/// Annotation of a Deployment: hash of its pod template as it was applied. Another one replaces the pods.
pub const TEMPLATE_HASH_ANNOTATION: &str = "sluice.dev/template-hash";
/// Annotation of a resource: `"true"` keeps the operator from changing anything; status stays fresh.
pub const PAUSED_ANNOTATION: &str = "sluice.dev/paused";
/// Annotation of a resource: `Earliest` or `Latest` after its committed offsets were lost.
pub const RESET_OFFSETS_ANNOTATION: &str = "sluice.dev/reset-offsets";
/// Annotation of a resource that is being deleted: `"true"` gives up on Kafka and Redis and lets it go.
pub const FORCE_FINALIZE_ANNOTATION: &str = "sluice.dev/force-finalize";
/// When `release-finalizers` took our finalizer off: an operator that ran then leaves it off, the next one sets it again.
pub const RELEASED_ANNOTATION: &str = "sluice.dev/finalizer-released-at";
/// Finalizer of a resource with something outside the cluster to remove.
pub const FINALIZER: &str = "sluice.dev/cleanup";
/// Field manager of everything the operator applies.
pub const FIELD_MANAGER: &str = "sluice-operator";

/// Label: kind of the resource, `eventpipeline` or `cachesync`.
pub const KIND_LABEL: &str = "sluice.dev/kind";
/// Label: name of the resource.
pub const NAME_LABEL: &str = "sluice.dev/name";
/// Label of a worker pod: uid of its resource, which another resource of the same name does not share.
pub const UID_LABEL: &str = "sluice.dev/uid";
/// Label: id of the installation that made the child.
pub const INSTANCE_LABEL: &str = "sluice.dev/instance";
/// Label that every child carries; with [`MANAGED_BY`] the selector of every watch.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY_LABEL`].
pub const MANAGED_BY: &str = "sluice-operator";

/// SHA-256 of a child's content.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// Hash of the parts. Each is preceded by its length, so that moving bytes between parts changes the hash.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        Self(hasher.finalize().into())
    }

    /// Ten characters (50 bits) for names of objects.
    pub fn short(&self) -> String {
        self.text(10)
    }

    /// 26 characters (128 bits) for annotations.
    pub fn long(&self) -> String {
        self.text(26)
    }

    /// Lower-case base32 (RFC 4648 alphabet), the first `length` characters; 26 at most, where 128 of 130 bits are the hash's own.
    fn text(self, length: usize) -> String {
        const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let bit = |index: usize| usize::from(self.0[index / 8] >> (7 - index % 8) & 1);
        (0..length)
            .map(|at| char::from(ALPHABET[(0..5).fold(0, |value, offset| value << 1 | bit(at * 5 + offset))]))
            .collect()
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({})", self.short())
    }
}

impl ResourceId {
    /// Name of the worker Deployment and of its children with one of a kind: `<short kind>-<name>`, at most 46
    /// characters, so that a pod's name (17 more) is still a host name.
    pub fn child_name(&self) -> String {
        format!("{}-{}", self.kind.short(), self.name)
    }

    /// Name of an immutable `ConfigMap` or Secret with this content: `<short kind>-<name>-<hash>`, at most 57 characters.
    pub fn hashed_child_name(&self, content: &ContentHash) -> String {
        format!("{}-{}", self.child_name(), content.short())
    }

    /// Labels that select the worker pods. A Deployment's selector is immutable: these never change.
    pub fn selector_labels(&self) -> BTreeMap<String, String> {
        labels([
            ("app.kubernetes.io/name", "sluice-worker"),
            (KIND_LABEL, self.kind.as_str()),
            (NAME_LABEL, self.name.as_str()),
        ])
    }

    /// Labels of every child; the selector's among them.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut all = self.selector_labels();
        all.extend(labels([
            ("app.kubernetes.io/instance", &self.child_name()),
            ("app.kubernetes.io/component", "worker"),
            ("app.kubernetes.io/part-of", "sluice"),
            (MANAGED_BY_LABEL, MANAGED_BY),
            (INSTANCE_LABEL, self.instance.as_str()),
        ]));
        all
    }

    /// The selector as text, for `status.selector` and list calls.
    pub fn selector(&self) -> String {
        let pairs: Vec<String> = self.selector_labels().iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(",")
    }
}

fn labels<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
