//! Who may have what: topics, groups, Redis key prefixes and settings belong to one resource, the oldest that asks.
//!
//! In memory and pure: fed by the watches of both kinds, rebuilt at every start, asked in every reconcile. Only what a
//! valid spec asks for counts, so nobody can squat on a name that its namespace may not have. A resource whose spec
//! becomes invalid keeps what it had: its workers still run.

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

/// What a resource asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    exclusive: BTreeSet<Exclusive>,
    /// Redis and prefix.
    prefixes: BTreeSet<(String, String)>,
    /// Of an earlier spec, and not given up yet.
    still: BTreeSet<(String, String)>,
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
            still: BTreeSet::new(),
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
}

impl Claims {
    /// Of one consumer group.
    pub fn group(kafka: &str, group: &str) -> Self {
        let group = Exclusive::Group { kafka: kafka.to_owned(), group: group.to_owned() };
        Self { exclusive: [group].into(), ..Self::default() }
    }

    /// These, and prefixes that the resource does not ask for any more but still has: its workers write there until they
    /// have stopped, and its keys may be deleted then. Nobody else may have them before; for itself they are no conflict.
    #[must_use]
    pub fn and_still<'a>(mut self, redis: &str, prefixes: impl Iterator<Item = &'a String>) -> Self {
        let still = prefixes.map(|prefix| (redis.to_owned(), prefix.clone()));
        self.still = still.filter(|prefix| !self.prefixes.contains(prefix)).collect();
        self
    }

    fn all_prefixes(&self) -> impl Iterator<Item = &(String, String)> {
        self.prefixes.iter().chain(&self.still)
    }
}

/// What an older resource has that this one wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Which condition says so.
    pub condition: ConditionType,
    /// Its reason.
    pub reason: Reason,
    /// For people. Names the other resource only within the same namespace.
    pub message: String,
}

impl Conflict {
    /// As a finding.
    pub fn finding(&self) -> Finding {
        Finding::stalled(self.condition, self.reason, self.message.clone())
    }
}

/// All claims.
#[derive(Debug, Default)]
pub struct ClaimIndex {
    claims: HashMap<Claimant, Claims>,
    exclusive: BTreeMap<Exclusive, BTreeSet<Claimant>>,
    prefixes: BTreeMap<String, BTreeSet<(String, Claimant)>>,
    settings: BTreeMap<(String, String), BTreeSet<Claimant>>,
}

impl ClaimIndex {
    /// Notes what a resource asks for, and returns the others that may now win or lose something.
    pub fn insert(&mut self, claimant: &Claimant, claims: Claims) -> BTreeSet<Claimant> {
        if self.claims.get(claimant) == Some(&claims) {
            return BTreeSet::new();
        }
        let mut affected = self.remove(claimant);
        for claim in &claims.exclusive {
            self.exclusive.entry(claim.clone()).or_default().insert(claimant.clone());
        }
        for (scope, prefix) in claims.all_prefixes() {
            self.prefixes.entry(scope.clone()).or_default().insert((prefix.clone(), claimant.clone()));
        }
        for key in claims.settings.keys() {
            self.settings.entry(key.clone()).or_default().insert(claimant.clone());
        }
        affected.extend(self.rivals(claimant, &claims));
        self.claims.insert(claimant.clone(), claims);
        affected
    }

    /// Forgets a resource, and returns the others that may now win something.
    pub fn remove(&mut self, claimant: &Claimant) -> BTreeSet<Claimant> {
        let Some(claims) = self.claims.remove(claimant) else { return BTreeSet::new() };
        let affected = self.rivals(claimant, &claims);
        for claim in &claims.exclusive {
            shrink(&mut self.exclusive, claim, claimant);
        }
        for (scope, prefix) in claims.all_prefixes() {
            shrink(&mut self.prefixes, scope, &(prefix.clone(), claimant.clone()));
        }
        for key in claims.settings.keys() {
            shrink(&mut self.settings, key, claimant);
        }
        affected
    }

    /// True when the resource has claims in the index.
    pub fn knows(&self, claimant: &Claimant) -> bool {
        self.claims.contains_key(claimant)
    }

    /// True when another resource, older or younger, asks for any of this: it does not go with this resource.
    pub fn is_shared(&self, claimant: &Claimant, what: &Claims) -> bool {
        !self.rivals(claimant, what).is_empty()
    }

    /// True when the resource asks for all of the exclusive names in `what`.
    pub fn holds(&self, claimant: &Claimant, what: &Claims) -> bool {
        self.claims.get(claimant).is_some_and(|claims| claims.exclusive.is_superset(&what.exclusive))
    }

    /// Everybody in the index.
    pub fn claimants(&self) -> impl Iterator<Item = &Claimant> {
        self.claims.keys()
    }

    /// The first thing that an older resource has.
    pub fn conflict(&self, claimant: &Claimant) -> Option<Conflict> {
        let claims = self.claims.get(claimant)?;
        self.exclusive_conflict(claimant, claims)
            .or_else(|| self.prefix_conflict(claimant, claims))
            .or_else(|| self.setting_conflict(claimant, claims))
    }

    fn exclusive_conflict(&self, claimant: &Claimant, claims: &Claims) -> Option<Conflict> {
        claims.exclusive.iter().find_map(|claim| {
            let oldest = self.exclusive.get(claim)?.first().filter(|oldest| *oldest < claimant)?;
            let by = named(claimant, oldest);
            Some(match claim {
                Exclusive::Topic { topic, .. } => Conflict {
                    condition: ConditionType::TopicsReady,
                    reason: Reason::TopicConflict,
                    message: format!("the topic {topic:?} is owned by {by}: remove it from topics to only use it"),
                },
                Exclusive::Group { group, .. } => Conflict {
                    condition: ConditionType::AccessReady,
                    reason: Reason::GroupConflict,
                    message: format!("the consumer group {group:?} is used by {by}: name another in source.groupId"),
                },
            })
        })
    }

    fn prefix_conflict(&self, claimant: &Claimant, claims: &Claims) -> Option<Conflict> {
        claims.prefixes.iter().find_map(|(scope, prefix)| {
            let (theirs, by) = self.overlapping(scope, prefix).find(|(_, by)| by < claimant)?;
            Some(Conflict {
                condition: ConditionType::CacheReady,
                reason: Reason::KeyPrefixConflict,
                message: format!(
                    "keys that begin with {prefix:?} could be written by {} too, which writes keys that begin with \
                     {theirs:?}: choose another prefix",
                    named(claimant, by)
                ),
            })
        })
    }

    fn setting_conflict(&self, claimant: &Claimant, claims: &Claims) -> Option<Conflict> {
        claims.settings.iter().find_map(|(key, value)| {
            let others = self.settings.get(key)?.iter().take_while(|other| *other < claimant);
            let other = others.into_iter().find(|other| self.setting_of(other, key) != Some(value))?;
            Some(Conflict {
                condition: ConditionType::CacheReady,
                reason: Reason::SettingConflict,
                message: format!("{} asks for another value of the Redis setting {:?}", named(claimant, other), key.1),
            })
        })
    }

    fn setting_of(&self, claimant: &Claimant, key: &(String, String)) -> Option<&String> {
        self.claims.get(claimant)?.settings.get(key)
    }

    /// Prefixes of a scope that share a key with `prefix`.
    fn overlapping<'a>(&'a self, scope: &str, prefix: &'a str) -> impl Iterator<Item = &'a (String, Claimant)> {
        let all = self.prefixes.get(scope).into_iter().flatten();
        all.filter(move |(other, _)| other.starts_with(prefix) || prefix.starts_with(other.as_str()))
    }

    fn rivals(&self, claimant: &Claimant, claims: &Claims) -> BTreeSet<Claimant> {
        let exclusive = claims.exclusive.iter().filter_map(|claim| self.exclusive.get(claim)).flatten();
        let prefixes = claims.all_prefixes().flat_map(|(scope, p)| self.overlapping(scope, p)).map(|(_, by)| by);
        let settings = claims.settings.keys().filter_map(|key| self.settings.get(key)).flatten();
        exclusive.chain(prefixes).chain(settings).filter(|other| *other != claimant).cloned().collect()
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

/// The other resource in words that tell nothing across namespaces.
fn named(claimant: &Claimant, other: &Claimant) -> String {
    if claimant.namespace == other.namespace {
        format!("the older {} {:?}", other.kind.api_kind(), other.name)
    } else {
        "another, older resource".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimant(created: i64, namespace: &str, name: &str) -> Claimant {
        let (namespace, uid) = (namespace.to_owned(), format!("{namespace}-{name}"));
        Claimant { created, uid, kind: Kind::EventPipeline, namespace, name: name.to_owned() }
    }

    fn topic(name: &str) -> Claims {
        let claim = Exclusive::Topic { kafka: "main".to_owned(), topic: name.to_owned() };
        Claims { exclusive: [claim].into(), ..Claims::default() }
    }

    fn prefix(redis: &str, prefix: &str) -> Claims {
        Claims { prefixes: [(redis.to_owned(), prefix.to_owned())].into(), ..Claims::default() }
    }

    fn setting(value: &str) -> Claims {
        let key = ("main".to_owned(), "notify-keyspace-events".to_owned());
        Claims { settings: [(key, value.to_owned())].into(), ..Claims::default() }
    }

    #[test]
    fn the_oldest_has_a_topic_whoever_came_first_into_the_index() {
        let (old, young) = (claimant(1, "shop", "old"), claimant(2, "shop", "young"));
        let mut index = ClaimIndex::default();
        index.insert(&young, topic("t"));
        assert_eq!(index.conflict(&young), None);
        assert_eq!(index.insert(&old, topic("t")), [young.clone()].into(), "the younger must be told");
        assert_eq!(index.conflict(&old), None);
        let conflict = index.conflict(&young).unwrap();
        assert_eq!(conflict.reason, Reason::TopicConflict);
        assert!(conflict.message.contains("\"old\""), "{}", conflict.message);
        assert_eq!(index.remove(&old), [young.clone()].into());
        assert_eq!(index.conflict(&young), None);
    }

    #[test]
    fn another_namespace_is_not_named() {
        let mut index = ClaimIndex::default();
        index.insert(&claimant(1, "secret-project", "hidden"), topic("t"));
        let young = claimant(2, "shop", "young");
        index.insert(&young, topic("t"));
        let message = index.conflict(&young).unwrap().message;
        assert!(!message.contains("hidden") && !message.contains("secret-project"), "{message}");
    }

    #[test]
    fn equally_old_ones_are_told_apart_by_uid() {
        let (a, b) = (claimant(1, "shop", "a"), claimant(1, "shop", "b"));
        let mut index = ClaimIndex::default();
        index.insert(&b, topic("t"));
        index.insert(&a, topic("t"));
        assert_eq!(index.conflict(&a), None);
        assert!(index.conflict(&b).is_some());
    }

    #[test]
    fn prefixes_that_share_a_key_conflict_in_both_directions_and_only_on_one_redis() {
        for (older, younger, conflicts) in
            [("order:", "order:{", true), ("order:{", "order:", true), ("a:", "b:", false)]
        {
            let mut index = ClaimIndex::default();
            index.insert(&claimant(1, "shop", "old"), prefix("main", older));
            let young = claimant(2, "shop", "young");
            index.insert(&young, prefix("main", younger));
            assert_eq!(index.conflict(&young).is_some(), conflicts, "{older} {younger}");
            index.insert(&young, prefix("other", younger));
            assert_eq!(index.conflict(&young), None);
        }
    }

    #[test]
    fn equal_settings_are_shared_and_others_conflict() {
        let mut index = ClaimIndex::default();
        index.insert(&claimant(1, "shop", "old"), setting("KEA"));
        let young = claimant(2, "shop", "young");
        index.insert(&young, setting("KEA"));
        assert_eq!(index.conflict(&young), None);
        index.insert(&young, setting("Kx"));
        assert_eq!(index.conflict(&young).unwrap().reason, Reason::SettingConflict);
    }

    #[test]
    fn what_another_asks_for_is_shared_and_only_a_claimant_holds() {
        let (old, young) = (claimant(1, "shop", "old"), claimant(2, "else", "young"));
        let mut index = ClaimIndex::default();
        let both = |text: &str| Claims { prefixes: prefix("main", text).prefixes, ..Claims::group("main", "g") };
        index.insert(&old, both("order:"));
        assert!(index.holds(&old, &Claims::group("main", "g")) && !index.holds(&young, &Claims::group("main", "g")));
        assert!(!index.is_shared(&old, &Claims::group("main", "g")));
        index.insert(&young, both("order:{"));
        assert!(index.is_shared(&old, &Claims::group("main", "g")), "also with a younger one");
        assert!(index.is_shared(&old, &prefix("main", "order:")) && !index.is_shared(&old, &prefix("other", "order:")));
    }

    #[test]
    fn a_prefix_that_is_being_given_up_is_no_conflict_for_its_owner_and_one_for_the_others() {
        let (a, b, c) = (claimant(1, "shop", "a"), claimant(2, "shop", "b"), claimant(3, "shop", "c"));
        let (old, mut index) = ("old:".to_owned(), ClaimIndex::default());
        index.insert(&a, prefix("main", "old:"));
        index.insert(&b, prefix("main", "new:").and_still("main", std::iter::once(&old)));
        index.insert(&c, prefix("main", "old:x"));
        assert_eq!(index.conflict(&b), None);
        index.remove(&a);
        assert!(index.conflict(&c).is_some());
        assert_eq!(index.insert(&b, prefix("main", "new:")), [c.clone()].into(), "the one that waited is told");
        assert_eq!(index.conflict(&c), None);
        index.remove(&b);
        index.remove(&c);
        assert!(index.prefixes.is_empty());
    }

    #[test]
    fn what_is_given_up_leaves_nothing_behind() {
        let mut index = ClaimIndex::default();
        let one = claimant(1, "shop", "one");
        index.insert(&one, topic("t"));
        index.insert(&one, prefix("main", "p:"));
        assert!(index.exclusive.is_empty());
        index.remove(&one);
        assert!(index.prefixes.is_empty() && index.claims.is_empty());
    }
}
