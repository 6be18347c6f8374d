//! IO: what goes with a resource outside of Kubernetes, and what is left when it cannot.
//!
//! Status and spec are what a tenant may write; the operator deletes with rights of its own. So every item is held against
//! the policy of the namespace and the claims of other resources, and what does not pass is left and named.

use std::collections::BTreeSet;
use std::sync::Arc;

use sluice_clients::kafka::admin::{AdminError, GroupDeletion};
use sluice_crds::names::{GroupId, ResourceId, ResourceUid, TopicName};
use sluice_crds::v1alpha1::{DeletionAction, Ownership};

use super::super::context::Context;
use super::super::kafka::rights::watermark_prefix_of;
use super::super::kafka::{change, observe};
use super::super::kind::SluiceKind;
use super::super::redis_keys;
use crate::claims::{Claimant, Claims};
use crate::connections::{KafkaClient, RedisClient};
use crate::settings::{ConnectionName, KafkaConnection, RedisConnection, Settings};
use crate::sweep::orphans;

/// Something that was to go and has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// What.
    pub(super) what: String,
    /// Why.
    pub(super) why: String,
    /// True when it is worth trying again.
    pub(super) again: bool,
}

impl Left {
    fn later(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.into(), again: true }
    }

    fn kept(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.into(), again: false }
    }
}

/// What a deletion knows.
pub(super) struct Outside<'a, K> {
    pub(super) ctx: &'a Context,
    pub(super) settings: &'a Arc<Settings>,
    pub(super) object: &'a K,
    pub(super) who: Claimant,
    pub(super) id: ResourceId,
    pub(super) uid: ResourceUid,
}

/// Whether somebody is in the groups.
enum Members {
    None,
    Some,
    Unknown(String),
}

impl<K: SluiceKind> Outside<'_, K> {
    /// Goes once through everything that is asked for: Redis keys, then groups, then topics, each only after the one before
    /// it. In the `last` attempt each is tried whatever became of the others. Users and ACLs go too, if they can now; what
    /// is left of those is the sweep's.
    pub(super) async fn remove(&self, last: bool) -> Vec<Left> {
        let asked = self.asked();
        let kafka = self.kafka();
        match self.members(&kafka).await {
            Members::None => {}
            Members::Unknown(_) if last || asked.is_empty() => {}
            Members::Unknown(why) => return all(asked, &why),
            // Whoever is there may be writing: nothing is taken from under it.
            Members::Some if asked.is_empty() => {}
            Members::Some => return all(asked, "the consumer groups still have members"),
        }
        let mut left = Vec::new();
        let goes_on = |left: &[Left]| last || left.iter().all(|left| !left.again);
        left.extend(self.keys().await);
        if goes_on(&left) {
            left.extend(self.consumer_groups(&kafka).await);
        }
        if goes_on(&left) {
            left.extend(self.topics(&kafka).await);
        }
        if goes_on(&left) {
            self.users(&kafka).await;
        }
        left
    }

    /// Everything that is to go, in words.
    pub(super) fn asked(&self) -> Vec<String> {
        let policy = self.object.deletion_policy();
        let mut asked = Vec::new();
        if policy.redis_keys == DeletionAction::Delete {
            asked.extend(self.prefixes().into_iter().map(|prefix| format!("redis keys {prefix}*")));
        }
        if policy.consumer_group == DeletionAction::Delete {
            asked.extend(self.groups().into_iter().map(|group| format!("consumer group {group}")));
        }
        if policy.topics == DeletionAction::Delete {
            asked.extend(self.created().into_iter().map(|(topic, _)| format!("topic {topic}")));
        }
        asked
    }

    async fn members(&self, kafka: &Result<Arc<KafkaClient>, String>) -> Members {
        let kafka = match kafka {
            Ok(kafka) => kafka,
            Err(why) => return Members::Unknown(why.clone()),
        };
        let groups = self.groups();
        match change::groups_are_empty(kafka, &groups.iter().collect()).await {
            Ok(true) => Members::None,
            Ok(false) => Members::Some,
            Err(error) => Members::Unknown(error.to_string()),
        }
    }

    /// Prefixes of keys of the views that status names: those were this resource's, whatever its spec says now.
    fn prefixes(&self) -> Vec<&str> {
        let views = self.object.status().map(|status| status.views.as_slice()).unwrap_or_default();
        views.iter().map(|view| view.key_prefix.as_str()).collect()
    }

    /// Keys of the views, then the records of how far they were.
    async fn keys(&self) -> Vec<Left> {
        let prefixes = self.prefixes();
        if self.object.deletion_policy().redis_keys != DeletionAction::Delete || prefixes.is_empty() {
            return Vec::new();
        }
        let named = |prefix: &str| format!("redis keys {prefix}*");
        if self.object.redis().inline.is_some() {
            let why = "the operator does not go to inline addresses";
            return prefixes.into_iter().map(|prefix| Left::kept(named(prefix), why)).collect();
        }
        let (connection, redis) = match self.redis() {
            Ok(there) => there,
            Err(why) => return all(prefixes.into_iter().map(named).collect(), &why),
        };
        let watermarks = watermark_prefix_of(&self.settings.instance, &self.uid);
        let (mut left, until) = (Vec::new(), redis_keys::turn());
        for prefix in prefixes.into_iter().chain([watermarks.as_str()]) {
            let ours = prefix == watermarks;
            let kept = redis_keys::kept(self.ctx, &self.who, &self.id.namespace, connection, prefix);
            if let Some(why) = kept.filter(|_| !ours) {
                left.push(Left::kept(named(prefix), why.why()));
                continue;
            }
            match redis_keys::delete(&self.ctx.key_sweeps, self.uid.as_str(), &redis, prefix, until).await {
                Ok(true) => {}
                Ok(false) => left.push(Left::later(named(prefix), "there are many, and they are being deleted")),
                Err(error) => left.push(Left::later(named(prefix), error.to_string())),
            }
        }
        left
    }

    /// Groups of the resource: those that are ours by name, and the one that the spec names if it is this resource's alone.
    fn groups(&self) -> BTreeSet<GroupId> {
        let named = self.object.group_id().and_then(|group| GroupId::parse(group).ok());
        let named = named.filter(|group| self.has_group(group));
        [Some(self.id.processor_group()), Some(self.id.applier_group()), named].into_iter().flatten().collect()
    }

    /// True when the namespace may use the group, this resource does, and no other one.
    fn has_group(&self, group: &GroupId) -> bool {
        let Ok(connection) = self.kafka_connection() else { return false };
        let what = Claims::group(connection.name.as_str(), group.as_str());
        let claims = self.ctx.claims.lock();
        connection.namespaces.get(&self.id.namespace).is_some_and(|policy| policy.may_use_group(group.as_str()))
            && claims.holds(&self.who, &what)
            && !claims.is_shared(&self.who, &what)
    }

    async fn consumer_groups(&self, kafka: &Result<Arc<KafkaClient>, String>) -> Vec<Left> {
        if self.object.deletion_policy().consumer_group != DeletionAction::Delete {
            return Vec::new();
        }
        let groups = self.groups();
        let done = match kafka {
            Ok(kafka) => delete_groups(kafka, &groups).await.map_err(|error| error.to_string()),
            Err(why) => Err(why.clone()),
        };
        let Err(why) = done else { return Vec::new() };
        groups.into_iter().map(|group| Left::later(format!("consumer group {group}"), why.clone())).collect()
    }

    /// Topics that were created for this resource, with their ids.
    fn created(&self) -> Vec<(TopicName, &str)> {
        let statuses = self.object.status().map(|status| status.topics.as_slice()).unwrap_or_default();
        let created = statuses.iter().filter(|status| status.ownership == Ownership::Created);
        created
            .filter_map(|status| Some((TopicName::parse(status.name.clone()).ok()?, status.id.as_deref()?)))
            .collect()
    }

    /// Topics that were created here and still are the same ones.
    async fn topics(&self, kafka: &Result<Arc<KafkaClient>, String>) -> Vec<Left> {
        if self.object.deletion_policy().topics != DeletionAction::Delete {
            return Vec::new();
        }
        let named = |topic: &TopicName| format!("topic {topic}");
        let (kafka, connection) = match (kafka, self.kafka_connection()) {
            (Ok(kafka), Ok(connection)) => (kafka, connection),
            (Err(why), _) => return all(self.created().iter().map(|(topic, _)| named(topic)).collect(), why),
            (_, Err(why)) => return all(self.created().iter().map(|(topic, _)| named(topic)).collect(), why),
        };
        let (mut left, mut ours) = (Vec::new(), Vec::new());
        for (topic, id) in self.created() {
            match self.topic_is_kept(connection, &topic) {
                Some(why) => left.push(Left::kept(named(&topic), why)),
                None => ours.push((topic, id)),
            }
        }
        if let Err(error) = delete_topics(kafka, &ours).await {
            left.extend(ours.iter().map(|(topic, _)| Left::later(named(topic), error.to_string())));
        }
        left
    }

    fn topic_is_kept(&self, connection: &KafkaConnection, topic: &TopicName) -> Option<&'static str> {
        let internal = ResourceId::of_internal_topic(topic.as_str()).is_some_and(|(id, _)| id == self.id);
        let policy = connection.namespaces.get(&self.id.namespace);
        if !internal && !policy.is_some_and(|policy| policy.may_own(topic.as_str())) {
            return Some("the namespace may not own it");
        }
        let name = topic.to_string();
        let what = Claims::remembered(connection.name.as_str(), std::iter::once(&name), "", std::iter::empty());
        self.ctx.claims.lock().is_shared(&self.who, &what).then_some("another resource owns it")
    }

    /// Its users, with their rights. One that cannot be removed now is an orphan from now on, and goes with a sweep.
    async fn users(&self, kafka: &Result<Arc<KafkaClient>, String>) {
        if let Ok(kafka) = kafka
            && let Err(error) = orphans::remove_kafka_resource(kafka, &self.id).await
        {
            tracing::info!(user = %self.id.redis_user(), %error, "its kafka users are left to the sweep");
        }
        if let Ok((_, redis)) = self.redis() {
            let user = BTreeSet::from([self.id.redis_user().to_string()]);
            if let Err(error) = orphans::remove_redis_users(&redis, &user).await {
                tracing::info!(user = %self.id.redis_user(), %error, "its redis user is left to the sweep");
            }
        }
    }

    fn kafka_connection(&self) -> Result<&Arc<KafkaConnection>, &'static str> {
        let reference = self.object.kafka().connection_ref.as_ref();
        let name = reference.map_or("default", |reference| reference.name.as_str());
        let found = self.settings.kafka.get(&ConnectionName::new(name));
        found.ok_or("the operator's settings do not have its kafka connection")
    }

    fn kafka(&self) -> Result<Arc<KafkaClient>, String> {
        self.ctx.connections.kafka(self.kafka_connection()?).map_err(|error| format!("kafka client: {error}"))
    }

    fn redis(&self) -> Result<(&Arc<RedisConnection>, Arc<RedisClient>), String> {
        let spec = self.object.redis();
        if spec.inline.is_some() {
            return Err("the operator does not go to inline addresses".to_owned());
        }
        let name = spec.connection_ref.as_ref().map_or("default", |reference| reference.name.as_str());
        let connection = self.settings.redis.get(&ConnectionName::new(name));
        let connection = connection.ok_or("the operator's settings do not have its redis connection")?;
        let client = self.ctx.connections.redis(connection).map_err(|error| format!("redis client: {error}"))?;
        Ok((connection, client))
    }
}

/// All of it, for one reason.
fn all(what: Vec<String>, why: &str) -> Vec<Left> {
    what.into_iter().map(|what| Left::later(what, why)).collect()
}

async fn delete_groups(kafka: &KafkaClient, groups: &BTreeSet<GroupId>) -> Result<(), AdminError> {
    let names: Vec<String> = groups.iter().map(ToString::to_string).collect();
    let done = kafka.call(|admin| async move { admin.delete_groups(&names).await }).await?;
    for outcome in done.into_values() {
        match outcome? {
            GroupDeletion::Deleted | GroupDeletion::NotFound => {}
            GroupDeletion::NotEmpty => return Err(AdminError::Incomplete("delete groups (one has members)")),
        }
    }
    Ok(())
}

/// Deletes those that still have the id they were created with.
async fn delete_topics(kafka: &KafkaClient, ours: &[(TopicName, &str)]) -> Result<(), AdminError> {
    let there = observe::topics(kafka, &ours.iter().map(|(name, _)| name).collect()).await?;
    let same = |(name, id): &&(TopicName, &str)| there.get(name).is_some_and(|observed| observed.id == *id);
    let names: Vec<String> = ours.iter().filter(same).map(|(name, _)| name.to_string()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let done = kafka.call(|admin| async move { admin.delete_topics(&names).await }).await?;
    done.into_values().try_for_each(|outcome| outcome.map(drop))
}
