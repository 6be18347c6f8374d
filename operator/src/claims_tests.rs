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
    for (older, younger, conflicts) in [("order:", "order:{", true), ("order:{", "order:", true), ("a:", "b:", false)] {
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

/// Two resources that hold these, by their status, and ask for the same or for other things.
fn index(known: &[(&Claimant, Claims, Claims)]) -> ClaimIndex {
    let mut index = ClaimIndex::default();
    for (who, holds, asks) in known {
        index.remember(who, holds.clone());
        index.insert(who, asks.clone());
    }
    index
}

fn refused(verdict: &Verdict) -> &Conflict {
    let Verdict::Refused(conflict) = verdict else { panic!("{verdict:?}") };
    conflict
}

#[test]
fn what_is_held_is_not_taken_by_an_edit_of_an_older_one() {
    let (old, young) = (claimant(1, "shop", "old"), claimant(2, "shop", "young"));
    for (theirs, other, reason) in [
        (topic("t"), topic("u"), Reason::TopicConflict),
        (Claims::group("main", "g"), Claims::default(), Reason::GroupConflict),
        (prefix("main", "p:x"), prefix("main", "q:"), Reason::KeyPrefixConflict),
    ] {
        let wish = if reason == Reason::KeyPrefixConflict { prefix("main", "p:") } else { theirs.clone() };
        let mut index = index(&[(&young, Claims::default(), theirs.clone()), (&old, Claims::default(), other.clone())]);
        assert_eq!((index.decide(&young), index.decide(&old)), (Verdict::Granted, Verdict::Granted));
        index.insert(&old, wish.clone());
        let verdict = index.decide(&old);
        assert_eq!(refused(&verdict).reason, reason);
        assert!(refused(&verdict).message.contains("\"young\"") && !refused(&verdict).passes, "{verdict:?}");
        assert_eq!(index.decide(&young), Verdict::Granted, "its holder goes on");
        assert!(index.is_shared(&young, &wish));
        // The older one still holds what its workers write, though it asks for something else.
        let third = claimant(3, "shop", "third");
        index.insert(&third, other.clone());
        assert_eq!(matches!(index.decide(&third), Verdict::Refused(_)), other != Claims::default());
        // Given up, the next one has it.
        assert!(index.keep(&young, Claims::default()).contains(&old), "who waited is told");
        index.insert(&young, Claims::default());
        assert_eq!(index.decide(&old), Verdict::Granted);
    }
}

#[test]
fn what_status_remembers_is_held_after_a_start() {
    let (old, young) = (claimant(1, "shop", "old"), claimant(2, "shop", "young"));
    let mut index = index(&[(&old, Claims::default(), topic("t")), (&young, topic("t"), topic("t"))]);
    assert_eq!(refused(&index.decide(&old)).reason, Reason::TopicConflict);
    assert_eq!(index.decide(&young), Verdict::Granted);
    index.remember(&young, Claims::default());
    assert!(index.holds(&young, &topic("t")), "later the index knows better than a status");
}

#[test]
fn an_invalid_spec_asks_for_nothing_and_holds_what_it_has() {
    let (one, other) = (claimant(1, "shop", "one"), claimant(2, "shop", "other"));
    let mut index = index(&[(&one, Claims::default(), prefix("main", "p:"))]);
    assert_eq!(index.decide(&one), Verdict::Granted);
    index.insert(&one, Claims::default());
    index.insert(&other, prefix("main", "p:x"));
    assert_eq!(refused(&index.decide(&other)).reason, Reason::KeyPrefixConflict);
}

#[test]
fn of_two_that_both_were_writing_at_a_start_the_younger_loses() {
    let (old, young) = (claimant(1, "shop", "old"), claimant(2, "shop", "young"));
    for both in [topic("t"), Claims::group("main", "g"), prefix("main", "p:")] {
        let mut index = index(&[(&old, both.clone(), both.clone()), (&young, both.clone(), both.clone())]);
        assert_eq!(index.decide(&old), Verdict::Granted);
        assert!(matches!(index.decide(&young), Verdict::Lost(_)));
        index.keep(&young, Claims::default());
        assert!(matches!(index.decide(&young), Verdict::Refused(_)), "its workers are gone");
        // One whose spec is refused may be about to stop: nobody loses to it.
        index.insert(&old, Claims::default());
        index.keep(&young, both);
        assert_eq!(index.decide(&young), Verdict::Granted);
    }
}

#[test]
fn a_prefix_that_is_being_given_up_is_no_conflict_for_its_owner_and_one_for_the_others() {
    let (b, c) = (claimant(2, "shop", "b"), claimant(3, "shop", "c"));
    let mut index = index(&[
        (&b, prefix("main", "old:"), prefix("main", "new:")),
        (&c, Claims::default(), prefix("main", "old:x")),
    ]);
    assert_eq!(index.decide(&b), Verdict::Granted);
    refused(&index.decide(&c));
    assert_eq!(index.keep(&b, prefix("main", "new:")), [c.clone()].into(), "the one that waited is told");
    assert_eq!(index.decide(&c), Verdict::Granted);
    index.remove(&b);
    index.remove(&c);
    assert!(index.prefixes.is_empty());
}

#[test]
fn a_deleted_one_holds_until_its_workers_are_gone() {
    let (gone, next) = (claimant(1, "shop", "gone"), claimant(2, "shop", "next"));
    let mut index = index(&[(&gone, Claims::default(), topic("t")), (&next, Claims::default(), topic("t"))]);
    assert_eq!(index.decide(&gone), Verdict::Granted);
    assert_eq!(index.end(&gone), (true, [next.clone()].into()));
    assert_eq!(index.end(&gone), (false, BTreeSet::new()), "looked at once");
    assert_eq!(index.claimants().collect::<Vec<_>>(), [&next]);
    assert!(refused(&index.decide(&next)).passes);
    assert_eq!(index.keep(&gone, Claims::default()), BTreeSet::new(), "a reconcile that was under way when it went");
    refused(&index.decide(&next));
    assert_eq!(index.remove(&gone), [next.clone()].into());
    assert_eq!(index.decide(&next), Verdict::Granted);
}

#[test]
fn what_is_given_up_leaves_nothing_behind() {
    let mut index = ClaimIndex::default();
    let one = claimant(1, "shop", "one");
    index.insert(&one, topic("t"));
    index.insert(&one, prefix("main", "p:"));
    assert!(index.exclusive.is_empty());
    index.remove(&one);
    assert!(index.prefixes.is_empty() && index.entries.is_empty());
}
