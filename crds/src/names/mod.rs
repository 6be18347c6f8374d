//! Names: newtypes that are parsed once at the edge, and everything derived from who a resource is.
//!
//! ```text
//! text.rs      the check behind every newtype and its typed error
//! newtypes.rs  ResourceName, Namespace, InstanceId, TopicName, GroupId, KeyPrefix, …
//! resource.rs  Kind, ResourceId and what Kafka and Redis know it by: users, groups, transactional ids, internal topics, watermark keys
//! children.rs  what Kubernetes knows it by: child names, content hashes, labels, annotations
//! ```
//!
//! External names carry the installation and the kind, so that two kinds, two namespaces or two Kubernetes clusters on
//! one Kafka never share a name. Every derived name can be read back (`ResourceId::of_…`), which is both how a sweep
//! finds what vanished resources left behind and the proof that two resources never share one.

mod children;
mod newtypes;
mod resource;
mod text;

pub use children::*;
pub use newtypes::*;
pub use resource::*;
pub use text::{NameError, NameProblem};
