//! Who may have what: topics, groups, Redis key prefixes and settings belong to one resource.
//!
//! In memory and pure: fed by the watches of both kinds, rebuilt at every start, asked in every reconcile. A resource
//! *asks* for what its valid spec names, so that nobody can squat on a name that its namespace may not have. It *holds*
//! what its workers may be writing: what it was granted, or after a start of the operator what its status remembers, until
//! it gives that up with those workers gone. Nobody is granted what another one holds, however old; among those that ask
//! and hold nothing yet, the oldest wins (ADR 0008). Settings are no writing: there the oldest wins at any time.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sluice_crds::conditions::{ConditionType, Finding, Reason};
use sluice_crds::names::Kind;

use crate::controller::validated::{RedisUse, ValidatedResource};

/// A resource among others: older ones first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claimant {
    /// Creation, seconds since 1970.
    pub created: i64,
    /// Uid: decides between equally old ones.
    pub uid: String,
    /// Kind.
    pub kind: Kind,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// What only one resource may have, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Exclusive {
    Topic { kafka: String, topic: String },
    Group { kafka: String, group: String },
}

/// What a resource asks for, or holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    exclusive: BTreeSet<Exclusive>,
    /// Redis and prefix.
    prefixes: BTreeSet<(String, String)>,
    /// Redis and setting → value.
    settings: BTreeMap<(String, String), String>,
}

impl Claims {
    /// Of a valid resource.
    pub fn of(resource: &ValidatedResource) -> Self {
        let kafka = resource.kafka.connection.name.to_string();
        let topics = resource.owned_topics.iter();
        let topics = topics.map(|topic| Exclusive::Topic { kafka: kafka.clone(), topic: topic.name.to_string() });
        let groups = resource.groups().into_iter();
        let groups = groups.map(|group| Exclusive::Group { kafka: kafka.clone(), group: group.to_string() });
        let scope = resource.redis.as_ref().map(RedisUse::scope).unwrap_or_default();
        let settings = resource.redis.iter().flat_map(|redis| &redis.settings);
        Self {
            exclusive: topics.chain(groups).collect(),
            prefixes: resource.written_prefixes().iter().map(|p| (scope.clone(), p.to_string())).collect(),
            settings: settings.map(|(name, value)| ((scope.clone(), name.clone()), value.clone())).collect(),
        }
    }

    /// What a status says that a resource has.
    pub fn remembered<'a>(
        kafka: &str,
        topics: impl Iterator<Item = &'a String>,
        redis: &str,
        prefixes: impl Iterator<Item = &'a String>,
    ) -> Self {
        let topic = |topic: &String| Exclusive::Topic { kafka: kafka.to_owned(), topic: topic.clone() };
        Self {
            exclusive: topics.map(topic).collect(),
            prefixes: prefixes.map(|prefix| (redis.to_owned(), prefix.clone())).collect(),
            ..Self::default()
        }
    }

    /// Of one consumer group.
    pub fn group(kafka: &str, group: &str) -> Self {
        let group = Exclusive::Group { kafka: kafka.to_owned(), group: group.to_owned() };
        Self { exclusive: [group].into(), ..Self::default() }
    }

    /// These and those; a setting has the value of these.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.exclusive.extend(other.exclusive);
        self.prefixes.extend(other.prefixes);
        for (key, value) in other.settings {
            self.settings.entry(key).or_insert(value);
        }
        self
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// True when every key with this prefix is below one of these.
    fn covers(&self, scope: &str, prefix: &str) -> bool {
        self.prefixes.iter().any(|(own, held)| own == scope && prefix.starts_with(held.as_str()))
    }
}

/// What another resource has that this one wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Which condition says so.
    pub condition: ConditionType,
    /// Its reason.
    pub reason: Reason,
    /// For people. Names the other resource only within the same namespace.
    pub message: String,
    /// True when the other one is deleted, and only its last workers are still there.
    pub passes: bool,
}

impl Conflict {
    /// As a finding.
    pub fn finding(&self) -> Finding {
        let finding = if self.passes { Finding::progressing } else { Finding::stalled };
        finding(self.condition, self.reason, self.message.clone())
    }
}

/// What becomes of what a resource asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has all of it from now on.
    Granted,
    /// Another one has some of it. What this one held it still holds.
    Refused(Conflict),
    /// An older one has, and rightly, some of what this one held: its workers must end.
    Lost(Conflict),
}

#[derive(Debug, Default)]
struct Entry {
    asks: Claims,
    holds: Claims,
    /// Deleted: it holds until its last worker is gone.
    ended: bool,
}

/// All claims.
#[derive(Debug, Default)]
pub struct ClaimIndex {
    entries: HashMap<Claimant, Entry>,
    /// Who asks for it or holds it.
    exclusive: BTreeMap<Exclusive, BTreeSet<Claimant>>,
    prefixes: BTreeMap<String, BTreeSet<(String, Claimant)>>,
    settings: BTreeMap<(String, String), BTreeSet<Claimant>>,
}

impl ClaimIndex {
    /// Notes what a resource asks for, and returns the others that may now win or lose something.
    pub fn insert(&mut self, claimant: &Claimant, asks: Claims) -> BTreeSet<Claimant> {
        self.change(claimant, |entry| entry.asks = asks)
    }

    /// Notes what a resource holds by its status, if nothing is known of it yet: later the index knows better.
    pub fn remember(&mut self, claimant: &Claimant, holds: Claims) {
        if !self.entries.contains_key(claimant) {
            self.change(claimant, |entry| entry.holds = holds);
        }
    }

    /// Decides about what a resource asks for. What is granted is held from now on.
    pub fn decide(&mut self, claimant: &Claimant) -> Verdict {
        if let Some(conflict) = self.lost(claimant) {
            return Verdict::Lost(conflict);
        }
        if let Some(conflict) = self.conflict(claimant) {
            return Verdict::Refused(conflict);
        }
        self.change(claimant, |entry| {
            let held = std::mem::take(&mut entry.holds);
            entry.holds = entry.asks.clone().and(held);
        });
        Verdict::Granted
    }

    /// The resource holds this and no more; returns the others that may now win something.
    pub fn keep(&mut self, claimant: &Claimant, holds: Claims) -> BTreeSet<Claimant> {
        // Gone meanwhile: what it left is not this caller's to say.
        if self.entries.get(claimant).is_none_or(|entry| entry.ended) {
            return BTreeSet::new();
        }
        self.change(claimant, |entry| entry.holds = holds)
    }

    /// The resource is gone. True when it held something: its workers may still be there, and who finds that they are not
    /// calls [`Self::remove`].
    pub fn end(&mut self, claimant: &Claimant) -> (bool, BTreeSet<Claimant>) {
        match self.entries.get(claimant) {
            Some(entry) if entry.ended => (false, BTreeSet::new()),
            Some(entry) if !entry.holds.is_empty() => {
                let affected = self.change(claimant, |entry| {
                    entry.asks = Claims::default();
                    entry.ended = true;
                });
                (true, affected)
            }
            _ => (false, self.remove(claimant)),
        }
    }

    /// Forgets a resource, and returns the others that may now win something.
    pub fn remove(&mut self, claimant: &Claimant) -> BTreeSet<Claimant> {
        let affected = self.change(claimant, |entry| *entry = Entry::default());
        self.entries.remove(claimant);
        affected
    }

    /// True when another resource, older or younger, has or asks for any of this: it does not go with this resource.
    pub fn is_shared(&self, claimant: &Claimant, what: &Claims) -> bool {
        !self.rivals(claimant, what).is_empty()
    }

    /// True when the resource has or asks for all of the exclusive names in `what`.
    pub fn holds(&self, claimant: &Claimant, what: &Claims) -> bool {
        let has = |entry: &Entry, name| entry.asks.exclusive.contains(name) || entry.holds.exclusive.contains(name);
        self.entries.get(claimant).is_some_and(|entry| what.exclusive.iter().all(|name| has(entry, name)))
    }

    /// Everybody in the index that is not deleted.
    pub fn claimants(&self) -> impl Iterator<Item = &Claimant> {
        self.entries.iter().filter(|(_, entry)| !entry.ended).map(|(claimant, _)| claimant)
    }

    /// Changes an entry and the lists that it is in; who shares something with it before or after, when that changed.
    fn change(&mut self, claimant: &Claimant, change: impl FnOnce(&mut Entry)) -> BTreeSet<Claimant> {
        let mut entry = self.entries.remove(claimant).unwrap_or_default();
        let was = (entry.asks.clone(), entry.holds.clone());
        change(&mut entry);
        let is_same = was == (entry.asks.clone(), entry.holds.clone());
        let (before, after) = (was.0.and(was.1), entry.asks.clone().and(entry.holds.clone()));
        self.entries.insert(claimant.clone(), entry);
        if is_same {
            return BTreeSet::new();
        }
        let mut affected = self.rivals(claimant, &before);
        for claim in &before.exclusive {
            shrink(&mut self.exclusive, claim, claimant);
        }
        for (scope, prefix) in &before.prefixes {
            shrink(&mut self.prefixes, scope, &(prefix.clone(), claimant.clone()));
        }
        for key in before.settings.keys() {
            shrink(&mut self.settings, key, claimant);
        }
        for claim in &after.exclusive {
            self.exclusive.entry(claim.clone()).or_default().insert(claimant.clone());
        }
        for (scope, prefix) in &after.prefixes {
            self.prefixes.entry(scope.clone()).or_default().insert((prefix.clone(), claimant.clone()));
        }
        for key in after.settings.keys() {
            self.settings.entry(key.clone()).or_default().insert(claimant.clone());
        }
        affected.extend(self.rivals(claimant, &after));
        affected
    }

    /// What an older resource holds and asks for of what this one holds and asks for: both were writing at a start.
    fn lost(&self, claimant: &Claimant) -> Option<Conflict> {
        let own = self.entries.get(claimant)?;
        let rightly = |other: &Claimant, has: &dyn Fn(&Claims) -> bool| {
            other < claimant && self.entries.get(other).is_some_and(|entry| has(&entry.holds) && has(&entry.asks))
        };
        let exclusive = own.holds.exclusive.intersection(&own.asks.exclusive).find_map(|claim| {
            let all = self.exclusive.get(claim)?;
            let other = all.iter().find(|other| rightly(other, &|claims| claims.exclusive.contains(claim)))?;
            Some(self.about(claimant, other, claim))
        });
        exclusive.or_else(|| {
            own.holds.prefixes.iter().find_map(|(scope, prefix)| {
                let mut overlapping = self.overlapping(scope, prefix);
                let (theirs, other) = overlapping.find(|(theirs, other)| {
                    rightly(other, &|claims| claims.prefixes.contains(&(scope.clone(), theirs.clone())))
                })?;
                Some(self.about_keys(claimant, other, prefix, theirs))
            })
        })
    }

    /// The first thing that keeps a resource from having all that it asks for.
    fn conflict(&self, claimant: &Claimant) -> Option<Conflict> {
        let own = self.entries.get(claimant)?;
        self.exclusive_conflict(claimant, own)
            .or_else(|| self.prefix_conflict(claimant, own))
            .or_else(|| self.setting_conflict(claimant, own))
    }

    /// Whether another one comes before this one, which does not hold the thing itself.
    fn is_before(&self, other: &Claimant, claimant: &Claimant, has: impl Fn(&Claims) -> bool) -> bool {
        let Some(entry) = self.entries.get(other).filter(|_| other != claimant) else { return false };
        has(&entry.holds) || (other < claimant && has(&entry.asks))
    }

    fn exclusive_conflict(&self, claimant: &Claimant, own: &Entry) -> Option<Conflict> {
        own.asks.exclusive.difference(&own.holds.exclusive).find_map(|claim| {
            let all = self.exclusive.get(claim)?;
            let other = all.iter().find(|other| self.is_before(other, claimant, |c| c.exclusive.contains(claim)))?;
            Some(self.about(claimant, other, claim))
        })
    }

    fn prefix_conflict(&self, claimant: &Claimant, own: &Entry) -> Option<Conflict> {
        own.asks.prefixes.iter().find_map(|(scope, prefix)| {
            let (theirs, other) = self.overlapping(scope, prefix).find(|(theirs, other)| {
                // Keys that both could write, and whether this one does so already.
                let common = if theirs.len() > prefix.len() { theirs } else { prefix };
                let has = |claims: &Claims| claims.prefixes.contains(&(scope.clone(), theirs.clone()));
                !own.holds.covers(scope, common) && self.is_before(other, claimant, has)
            })?;
            Some(self.about_keys(claimant, other, prefix, theirs))
        })
    }

    fn setting_conflict(&self, claimant: &Claimant, own: &Entry) -> Option<Conflict> {
        own.asks.settings.iter().find_map(|(key, value)| {
            let mut older = self.settings.get(key)?.iter().take_while(|other| *other < claimant);
            let other = older.find(|other| self.setting_of(other, key).is_some_and(|theirs| theirs != value))?;
            Some(Conflict {
                condition: ConditionType::CacheReady,
                reason: Reason::SettingConflict,
                message: format!(
                    "{} asks for another value of the Redis setting {:?}",
                    self.named(claimant, other),
                    key.1
                ),
                passes: self.is_ended(other),
            })
        })
    }

    fn setting_of(&self, claimant: &Claimant, key: &(String, String)) -> Option<&String> {
        let entry = self.entries.get(claimant)?;
        entry.asks.settings.get(key).or_else(|| entry.holds.settings.get(key))
    }

    /// Prefixes of a scope that share a key with `prefix`.
    fn overlapping<'a>(&'a self, scope: &str, prefix: &'a str) -> impl Iterator<Item = &'a (String, Claimant)> {
        let all = self.prefixes.get(scope).into_iter().flatten();
        all.filter(move |(other, _)| other.starts_with(prefix) || prefix.starts_with(other.as_str()))
    }

    fn rivals(&self, claimant: &Claimant, claims: &Claims) -> BTreeSet<Claimant> {
        let exclusive = claims.exclusive.iter().filter_map(|claim| self.exclusive.get(claim)).flatten();
        let prefixes = claims.prefixes.iter().flat_map(|(scope, p)| self.overlapping(scope, p)).map(|(_, by)| by);
        let settings = claims.settings.keys().filter_map(|key| self.settings.get(key)).flatten();
        exclusive.chain(prefixes).chain(settings).filter(|other| *other != claimant).cloned().collect()
    }

    fn is_ended(&self, claimant: &Claimant) -> bool {
        self.entries.get(claimant).is_some_and(|entry| entry.ended)
    }

    fn about(&self, claimant: &Claimant, other: &Claimant, claim: &Exclusive) -> Conflict {
        let (by, passes) = (self.named(claimant, other), self.is_ended(other));
        match claim {
            Exclusive::Topic { topic, .. } => Conflict {
                condition: ConditionType::TopicsReady,
                reason: Reason::TopicConflict,
                message: format!("the topic {topic:?} is owned by {by}: remove it from topics to only use it"),
                passes,
            },
            Exclusive::Group { group, .. } => Conflict {
                condition: ConditionType::AccessReady,
                reason: Reason::GroupConflict,
                message: format!(
                    "the consumer group {group:?} is used by {by}: make this resource anew with another source.groupId"
                ),
                passes,
            },
        }
    }

    fn about_keys(&self, claimant: &Claimant, other: &Claimant, prefix: &str, theirs: &str) -> Conflict {
        Conflict {
            condition: ConditionType::CacheReady,
            reason: Reason::KeyPrefixConflict,
            message: format!(
                "keys that begin with {prefix:?} could be written by {} too, which has those that begin with {theirs:?}: \
                 choose another prefix",
                self.named(claimant, other)
            ),
            passes: self.is_ended(other),
        }
    }

    /// The other resource in words that tell nothing across namespaces.
    fn named(&self, claimant: &Claimant, other: &Claimant) -> String {
        let name = if claimant.namespace == other.namespace {
            format!("the {} {:?}", other.kind.api_kind(), other.name)
        } else {
            "a resource of another namespace".to_owned()
        };
        if self.is_ended(other) { format!("{name} (deleted, its last workers are ending)") } else { name }
    }
}

fn shrink<K: Ord, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = map.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            map.remove(key);
        }
    }
}

#[cfg(test)]
#[path = "claims_tests.rs"]
mod tests;
