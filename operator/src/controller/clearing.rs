//! Which keys a new epoch finds that its views would not have written. Pure.
//!
//! A rebuild is: clear, then read the topic from its beginning. A view whose definition is another one, whatever changed in
//! it, is cleared: status has only a hash of it, and a replay overwrites a key of the old definition only if the new one
//! gives the same key and the topic still has the record. So a new `ttlSeconds` clears too; who cannot do without the keys
//! meanwhile adds a second view with another prefix. A view that is what it was is not cleared although it is read again:
//! all that it wrote it writes again.

use std::collections::BTreeMap;

use sluice_crds::v1alpha1::{DeletionAction, ViewStatus};

/// Keys to be cleared before an epoch begins: those with this prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ground {
    /// What they begin with.
    pub prefix: String,
    /// True where a view of the new epoch writes: it may not begin on what an old one left. Else they are only of no use
    /// to anybody, and may stay when they cannot be deleted.
    pub needed: bool,
}

/// Keys that the views of `before` wrote and those of `wanted` would not, by prefix. With `rebuild` no view is what it
/// was: Redis has been further than status knows.
///
/// A view that has another prefix under the same name leaves nothing behind. Of one that is not there any more, what another
/// view takes over goes in any case, and the rest as `removed` says.
pub fn ground(before: &[ViewStatus], wanted: &[ViewStatus], rebuild: bool, removed: DeletionAction) -> Vec<Ground> {
    let mut all: BTreeMap<&str, bool> = BTreeMap::new();
    for old in before.iter().filter(|old| rebuild || !wanted.contains(old)) {
        for new in wanted {
            if let Some(both) = common(&old.key_prefix, &new.key_prefix) {
                all.insert(both, true);
            }
        }
        if removed == DeletionAction::Delete || wanted.iter().any(|new| new.name == old.name) {
            all.entry(&old.key_prefix).or_insert(false);
        }
    }
    all.into_iter().map(|(prefix, needed)| Ground { prefix: prefix.to_owned(), needed }).collect()
}

/// What keys that begin with both begin with.
fn common<'a>(one: &'a str, other: &'a str) -> Option<&'a str> {
    match () {
        () if one.starts_with(other) => Some(one),
        () if other.starts_with(one) => Some(other),
        () => None,
    }
}

/// Marks every view whose keys may be on cleared ground as being of no definition: from now on status says that these keys
/// are not what any definition says, so that no spec, not even the one before, is taken for what Redis shows.
pub fn mark(views: &mut [ViewStatus], ground: &[Ground]) {
    for view in views {
        if ground.iter().any(|cleared| common(&cleared.prefix, &view.key_prefix).is_some()) {
            view.definition = None;
        }
    }
}

/// True when keys of these views were about to be cleared.
pub fn is_under_way(views: &[ViewStatus]) -> bool {
    views.iter().any(|view| view.definition.is_none())
}

#[cfg(test)]
mod tests {
    use DeletionAction::{Delete, Retain};

    use super::*;

    /// `name prefix definition`, separated by commas.
    fn views(text: &str) -> Vec<ViewStatus> {
        let view = |text: &str| {
            let words: Vec<&str> = text.split_whitespace().collect();
            ViewStatus {
                name: words[0].into(),
                key_prefix: words[1].into(),
                topic: "t".into(),
                definition: Some(words[2].into()),
            }
        };
        text.split(',').filter(|text| !text.is_empty()).map(view).collect()
    }

    fn found(before: &str, wanted: &str, removed: DeletionAction) -> Vec<(String, bool)> {
        let found = ground(&views(before), &views(wanted), false, removed);
        found.into_iter().map(|ground| (ground.prefix, ground.needed)).collect()
    }

    #[test]
    fn what_the_new_views_would_not_have_written_is_cleared_and_nothing_else() {
        for (before, wanted, removed, expected) in [
            // As it was; new; beside another that changed.
            ("a a: 1", "a a: 1", Delete, vec![]),
            ("", "a a: 1", Delete, vec![]),
            ("a a: 1,b b: 1", "a a: 1,b b: 2", Delete, vec![("b:", true)]),
            ("a a: 1", "a a: 1,b b: 1", Delete, vec![]),
            // Another key or type or life; another prefix: nobody reads the old one any more.
            ("a a: 1", "a a: 2", Retain, vec![("a:", true)]),
            ("a a: 1", "a b: 2", Retain, vec![("a:", false)]),
            ("a a: 1", "a a:x 2", Retain, vec![("a:", false), ("a:x", true)]),
            ("a a:x 1", "a a: 2", Retain, vec![("a:x", true)]),
            // Gone: as the policy says, but what another view takes over goes in any case.
            ("a a: 1", "", Retain, vec![]),
            ("a a: 1,b b: 1", "b b: 1", Retain, vec![]),
            ("a a: 1,b b: 1", "b b: 1", Delete, vec![("a:", false)]),
            ("a a: 1", "b a: 2", Retain, vec![("a:", true)]),
            ("a a: 1", "b a:x 2", Retain, vec![("a:x", true)]),
            ("a a: 1", "b a:x 2", Delete, vec![("a:", false), ("a:x", true)]),
            // Two that change places.
            ("a a: 1,b b: 1", "a b: 2,b a: 2", Retain, vec![("a:", true), ("b:", true)]),
        ] {
            let expected: Vec<(String, bool)> = expected.into_iter().map(|(p, n)| (p.to_owned(), n)).collect();
            assert_eq!(found(before, wanted, removed), expected, "{before} → {wanted}");
        }
    }

    #[test]
    fn a_redis_that_is_ahead_of_status_was_under_definitions_that_nobody_knows() {
        let same = views("a a: 1,b b: 1");
        let all: Vec<String> = ground(&same, &same, true, Retain).into_iter().map(|ground| ground.prefix).collect();
        assert_eq!(all, ["a:", "b:"]);
    }

    #[test]
    fn once_begun_no_definition_is_what_redis_shows_and_the_ground_stays_the_same() {
        let (mut before, wanted) = (views("a a: 1,b b: 1,c c: 1"), views("a a: 2,b b: 1"));
        let first = ground(&before, &wanted, false, Retain);
        assert!(!is_under_way(&before));
        mark(&mut before, &first);
        assert!(is_under_way(&before));
        let unmarked: Vec<&str> = before.iter().filter(|v| v.definition.is_some()).map(|v| v.name.as_str()).collect();
        assert_eq!(unmarked, ["b", "c"]);
        assert_eq!(ground(&before, &wanted, false, Retain), first, "a crash resumes it");
        // Back to the definition before: its keys are half gone.
        assert_eq!(ground(&before, &views("a a: 1,b b: 1,c c: 1"), false, Retain), first);
    }
}
