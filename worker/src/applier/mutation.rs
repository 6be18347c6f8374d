//! What one record of a view topic does to Redis, and how a batch of records is folded. Pure.

use std::collections::HashSet;
use std::sync::Arc;

use sluice_clients::redis::Slot;

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// The key.
    pub key: Vec<u8>,
    /// Its slot.
    pub slot: Slot,
    /// What happens to it.
    pub op: Op,
}

/// What happens to a key. Every operation replaces all that was there, so repeating them in order from any older
/// offset ends in the same state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// The key goes away.
    Delete,
    /// The key becomes this string.
    Set {
        /// The string.
        value: Vec<u8>,
        /// End of its life in Unix milliseconds; at or before 0 it is deleted instead.
        expire_at_ms: Option<i64>,
    },
    /// The key becomes this hash; without fields it goes away.
    SetHash {
        /// Fields and values.
        fields: Vec<(Vec<u8>, Vec<u8>)>,
        /// As above.
        expire_at_ms: Option<i64>,
    },
}

impl Mutation {
    /// A mutation; a life that ended before 1970 and an empty hash are deletions, since Redis refuses both.
    pub fn new(key: Vec<u8>, op: Op) -> Self {
        let gone = match &op {
            Op::Delete => true,
            Op::Set { expire_at_ms, .. } => expire_at_ms.is_some_and(|at| at <= 0),
            Op::SetHash { fields, expire_at_ms } => fields.is_empty() || expire_at_ms.is_some_and(|at| at <= 0),
        };
        Self { slot: Slot::of_key(&key), key, op: if gone { Op::Delete } else { op } }
    }

    /// Bytes of key and values: what a script carries.
    pub fn bytes(&self) -> usize {
        self.key.len()
            + match &self.op {
                Op::Delete => 0,
                Op::Set { value, .. } => value.len(),
                Op::SetHash { fields, .. } => fields.iter().map(|(field, value)| field.len() + value.len()).sum(),
            }
    }
}

/// A record of the topic, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, Unix milliseconds.
    pub timestamp_ms: i64,
    /// Bytes it holds in memory, about.
    pub weight: usize,
    /// What it does, or why it cannot be applied.
    pub effect: Result<Vec<Mutation>, Poison>,
}

/// A record that can never be applied: its partition stops in front of it, visibly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poison {
    /// Bounded name for metrics.
    pub category: &'static str,
    /// What is wrong; holds no value of the record.
    pub message: String,
}

/// Mutations of one script: places in a window's records, in the order of their offsets, one for each key.
#[derive(Clone, Debug)]
pub struct Batch {
    records: Arc<Vec<Change>>,
    places: Vec<(usize, usize)>,
}

impl Batch {
    /// The mutations that `wanted` picks, of several for one key the last only.
    pub fn collapse(records: &Arc<Vec<Change>>, wanted: impl Fn(&Change, &Mutation) -> bool) -> Self {
        let mut seen: HashSet<&[u8]> = HashSet::new();
        let mut places = Vec::new();
        for (at, change) in records.iter().enumerate().rev() {
            let Ok(mutations) = &change.effect else { continue };
            for (index, mutation) in mutations.iter().enumerate().rev() {
                if wanted(change, mutation) && seen.insert(&mutation.key) {
                    places.push((at, index));
                }
            }
        }
        places.reverse();
        Self { records: records.clone(), places }
    }

    /// No mutations: only the record is written.
    pub fn empty() -> Self {
        Self { records: Arc::default(), places: Vec::new() }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The mutations.
    pub fn iter(&self) -> impl Iterator<Item = &Mutation> {
        self.places.iter().filter_map(|place| self.at(*place).map(|(_, mutation)| mutation))
    }

    /// Offset of the record that the `index`th mutation comes from.
    pub fn offset(&self, index: usize) -> Option<i64> {
        self.places.get(index).and_then(|place| self.at(*place)).map(|(change, _)| change.offset)
    }

    /// Newest timestamp of the records in it.
    pub fn newest_timestamp_ms(&self) -> Option<i64> {
        self.places.iter().filter_map(|place| self.at(*place)).map(|(change, _)| change.timestamp_ms).max()
    }

    fn at(&self, (record, mutation): (usize, usize)) -> Option<(&Change, &Mutation)> {
        let change = self.records.get(record)?;
        Some((change, change.effect.as_ref().ok()?.get(mutation)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str, value: &str) -> Mutation {
        Mutation::new(key.into(), Op::Set { value: value.into(), expire_at_ms: None })
    }

    fn change(offset: i64, mutations: Vec<Mutation>) -> Change {
        Change { offset, timestamp_ms: offset, weight: 1, effect: Ok(mutations) }
    }

    #[test]
    fn the_last_of_a_key_stays_in_the_order_of_offsets() {
        let delete = Mutation::new(b"b".to_vec(), Op::Delete);
        let records = Arc::new(vec![
            change(5, vec![set("a", "1"), set("b", "1")]),
            change(6, vec![set("c", "1"), delete.clone()]),
            change(9, vec![set("a", "2"), set("d", "1"), set("d", "2")]),
        ]);
        let batch = Batch::collapse(&records, |change, mutation| change.offset > 4 && mutation.key != b"c");
        let got: Vec<_> = batch.iter().cloned().collect();
        assert_eq!(got, [delete, set("a", "2"), set("d", "2")]);
        assert_eq!((batch.offset(0), batch.offset(2), batch.offset(3)), (Some(6), Some(9), None));
        assert_eq!(batch.newest_timestamp_ms(), Some(9));
    }

    #[test]
    fn what_redis_would_refuse_is_a_deletion() {
        for op in [
            Op::SetHash { fields: vec![], expire_at_ms: None },
            Op::Set { value: vec![], expire_at_ms: Some(0) },
            Op::SetHash { fields: vec![(vec![], vec![])], expire_at_ms: Some(-5) },
        ] {
            assert_eq!(Mutation::new(b"k".to_vec(), op).op, Op::Delete);
        }
    }
}
