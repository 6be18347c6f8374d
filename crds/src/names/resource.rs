//! Who a resource is, and every name Kafka and Redis know it by.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::newtypes::{
    GroupId, INTERNAL_KEY_PREFIX, INTERNAL_TOPIC_PREFIX, InstanceId, Namespace, NodeId, PartName, PodName, RedisUser,
    ResourceName, ResourceUid, ScramUser, TopicName, TransactionalIdPrefix,
};
use super::text::{NameError, NameProblem};

/// The kinds of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// `EventPipeline`.
    #[serde(rename = "eventpipeline")]
    EventPipeline,
    /// `CacheSync`.
    #[serde(rename = "cachesync")]
    CacheSync,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::EventPipeline, Self::CacheSync];

    /// Part of external names and label values.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EventPipeline => "eventpipeline",
            Self::CacheSync => "cachesync",
        }
    }

    /// Short name of the API; part of children's names.
    pub const fn short(self) -> &'static str {
        match self {
            Self::EventPipeline => "evp",
            Self::CacheSync => "csync",
        }
    }

    /// `kind` of the Kubernetes object.
    pub const fn api_kind(self) -> &'static str {
        match self {
            Self::EventPipeline => "EventPipeline",
            Self::CacheSync => "CacheSync",
        }
    }

    /// The kind an external name's part means.
    pub fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The kind an external name's part must mean.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let why = "must be \"eventpipeline\" or \"cachesync\"";
        let wrong = || NameError {
            what: "kind",
            value: text.chars().take(80).collect(),
            problem: NameProblem::Refused { why },
        };
        Self::of(text).ok_or_else(wrong)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One of the two users of a resource: a rotation fills the other slot, rolls the workers, then empties the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Slot {
    /// The first.
    #[serde(rename = "a")]
    A,
    /// The second.
    #[serde(rename = "b")]
    B,
}

impl Slot {
    /// Both.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// Last part of the user's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// Which resource of which installation: what every external name is made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId {
    /// The installation.
    pub instance: InstanceId,
    /// Namespace of the resource.
    pub namespace: Namespace,
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: ResourceName,
}

/// Last part of the processor's group.
const PROCESSOR: &str = "processor";
/// Last part of the applier's group.
const APPLIER: &str = "applier";

impl ResourceId {
    /// `sluice/<instance>/<namespace>/<kind>/<name>`.
    fn path(&self) -> String {
        format!("sluice/{}/{}/{}/{}", self.instance, self.namespace, self.kind, self.name)
    }

    /// `sluice.<instance>.<namespace>.<kind>.<name>.<last>`. Groups and topics have dots where users have slashes: a
    /// topic may hold no slash, and a group that is a valid label value can be named in an autoscaler's metric selector.
    fn dotted(&self, last: &str) -> String {
        format!("{INTERNAL_TOPIC_PREFIX}{}.{}.{}.{}.{last}", self.instance, self.namespace, self.kind, self.name)
    }

    /// Prefix of its transactional ids: `sluice/<instance>/<namespace>/<kind>/<name>/`.
    pub fn transactional_id_prefix(&self) -> TransactionalIdPrefix {
        TransactionalIdPrefix::derived(self.path() + "/")
    }

    /// Its SCRAM user in a slot: `sluice/<instance>/<namespace>/<kind>/<name>/a`.
    pub fn scram_user(&self, slot: Slot) -> ScramUser {
        ScramUser::derived(format!("{}/{}", self.path(), slot.as_str()))
    }

    /// Its Redis user: `sluice/<instance>/<namespace>/<kind>/<name>`. One is enough: a Redis user can have two passwords.
    pub fn redis_user(&self) -> RedisUser {
        RedisUser::derived(self.path())
    }

    /// The processor's group, unless the spec names one.
    pub fn processor_group(&self) -> GroupId {
        GroupId::derived(self.dotted(PROCESSOR))
    }

    /// The applier's group.
    pub fn applier_group(&self) -> GroupId {
        GroupId::derived(self.dotted(APPLIER))
    }

    /// The topic made for a route that names none.
    pub fn internal_topic(&self, route: &PartName) -> TopicName {
        TopicName::derived(self.dotted(route.as_str()))
    }

    /// Whose user this is and in which slot; none when it is not one of ours.
    pub fn of_scram_user(user: &str) -> Option<(Self, Slot)> {
        let (path, last) = user.rsplit_once('/')?;
        let slot = Slot::ALL.into_iter().find(|slot| slot.as_str() == last)?;
        Some((Self::of_path(path)?, slot))
    }

    /// Whose Redis user this is; none when it is not one of ours.
    pub fn of_redis_user(user: &str) -> Option<Self> {
        Self::of_path(user)
    }

    /// Whose transactional id this is; none when it is not one of ours.
    pub fn of_transactional_id(id: &str) -> Option<Self> {
        let mut parts = id.rsplitn(3, '/');
        let lane = parts.next()?;
        let pod = parts.next()?;
        lane.parse::<u32>().ok()?;
        PodName::parse(pod).ok()?;
        Self::of_path(parts.next()?)
    }

    /// Whose default group this is; none when it is not one of ours.
    pub fn of_group(group: &str) -> Option<Self> {
        let (id, last) = Self::of_dotted(group)?;
        (last == PROCESSOR || last == APPLIER).then_some(id)
    }

    /// Whose internal topic this is and of which route; none when it is not one of ours.
    pub fn of_internal_topic(topic: &str) -> Option<(Self, PartName)> {
        let (id, last) = Self::of_dotted(topic)?;
        Some((id, PartName::parse(last).ok()?))
    }

    fn of_path(path: &str) -> Option<Self> {
        Self::of_parts(path.strip_prefix("sluice/")?.split('/'))
    }

    fn of_dotted(text: &str) -> Option<(Self, &str)> {
        let (id, last) = text.strip_prefix(INTERNAL_TOPIC_PREFIX)?.rsplit_once('.')?;
        Some((Self::of_parts(id.split('.'))?, last))
    }

    fn of_parts<'a>(mut parts: impl Iterator<Item = &'a str>) -> Option<Self> {
        let id = Self {
            instance: InstanceId::parse(parts.next()?).ok()?,
            namespace: Namespace::parse(parts.next()?).ok()?,
            kind: Kind::of(parts.next()?)?,
            name: ResourceName::parse(parts.next()?).ok()?,
        };
        parts.next().is_none().then_some(id)
    }
}

/// `<namespace>/<name>` with its kind, for messages to people.
impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.api_kind(), self.namespace, self.name)
    }
}

impl TransactionalIdPrefix {
    /// The id of one lane of one worker: `<prefix><pod>/<lane>`.
    pub fn id(&self, pod: &PodName, lane: u32) -> String {
        format!("{self}{pod}/{lane}")
    }
}

/// Keys of a resource's watermark records: one Hash a Redis shard, at a slot of that shard, field = partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WatermarkKeys {
    prefix: String,
}

impl WatermarkKeys {
    /// The records of the resource with this uid. The uid, not the name: a resource that is deleted and made again
    /// starts without records.
    pub fn new(instance: &InstanceId, uid: &ResourceUid) -> Self {
        Self { prefix: format!("{INTERNAL_KEY_PREFIX}{instance}/{uid}/") }
    }

    /// Key of the record on `node`, placed in the slot that the hash tag `tag` (non-empty, without braces) selects.
    pub fn key(&self, node: &NodeId, tag: &str) -> String {
        debug_assert!(!tag.is_empty() && !tag.contains(['{', '}']), "a tag with braces would select another slot");
        format!("{}{node}/{{{tag}}}", self.prefix)
    }

    /// What all its records' keys begin with, and no other key.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The node a record's key was made for; none when it is not one of this resource's.
    pub fn node_of(&self, key: &str) -> Option<NodeId> {
        let (node, tag) = key.strip_prefix(&self.prefix)?.split_once('/')?;
        tag.strip_prefix('{')?.strip_suffix('}').filter(|tag| !tag.is_empty())?;
        NodeId::parse(node).ok()
    }

    /// Redis ACL rule that opens its records and nothing else.
    pub fn read_write_rule(&self) -> String {
        format!("%RW~{}*", self.prefix)
    }
}
