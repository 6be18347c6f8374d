//! What a view topic says about each Redis key, at each offset: written from the documented rules, not from the worker's code.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::record::{Record, TopicDump};
use super::view::Held;

/// How a record's value becomes a Redis value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewKind {
    /// A string: a JSON string's text, other JSON as it is written.
    Text,
    /// A string: the value's bytes.
    Json,
    /// A hash: strings as they are, null absent, everything else as it is written.
    Hash,
}

/// One view.
#[derive(Debug, Clone)]
pub struct ViewSpec {
    /// The Redis key is `before + record key + after`.
    pub before: String,
    /// See `before`.
    pub after: String,
    /// How values are stored.
    pub kind: ViewKind,
    /// Life from the record's timestamp, in milliseconds.
    pub ttl_ms: Option<i64>,
    /// The key exists while this is true. `None`: always.
    pub when: Option<fn(&Record) -> bool>,
}

impl ViewSpec {
    /// The Redis key of a record key.
    pub fn redis_key(&self, key: &[u8]) -> String {
        format!("{}{}{}", self.before, String::from_utf8_lossy(key), self.after)
    }

    /// Whether a Redis key looks like one of this view's.
    pub fn owns(&self, redis_key: &str) -> bool {
        redis_key.starts_with(&self.before) && redis_key.ends_with(&self.after)
    }

    fn state(&self, record: &Record) -> Option<Held> {
        let value = record.value.as_deref()?;
        if self.when.is_some_and(|when| !when(record)) {
            return None;
        }
        Some(match self.kind {
            ViewKind::Json => Held::Text(value.to_vec()),
            ViewKind::Text => Held::Text(match serde_json::from_slice::<String>(value) {
                Ok(text) => text.into_bytes(),
                Err(_) => value.to_vec(),
            }),
            ViewKind::Hash => Held::Hash(hash(value)?),
        })
    }
}

/// The fields of an object; `None` when there are none: Redis has no empty hash.
fn hash(value: &[u8]) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
    let members: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(value).ok()?;
    let fields: BTreeMap<Vec<u8>, Vec<u8>> = members
        .into_iter()
        .filter(|(_, raw)| raw.get() != "null")
        .map(|(name, raw)| {
            let text = serde_json::from_str::<String>(raw.get()).unwrap_or_else(|_| raw.get().to_owned());
            (name.into_bytes(), text.into_bytes())
        })
        .collect();
    (!fields.is_empty()).then_some(fields)
}

/// A key's state from one record on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Offset of the record.
    pub offset: i64,
    /// What the key holds; `None` = it is deleted.
    pub state: Option<Held>,
    /// When it expires, in milliseconds since 1970.
    pub expires_at_ms: Option<i64>,
}

/// Everything a view topic says about one Redis key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    /// The one partition it comes from.
    pub partition: i32,
    /// In the order of offsets; never empty.
    pub versions: Vec<Version>,
}

impl Timeline {
    /// The newest version below an offset.
    pub fn before(&self, offset: i64) -> Option<&Version> {
        let index = self.versions.partition_point(|version| version.offset < offset);
        index.checked_sub(1).map(|index| &self.versions[index])
    }

    /// The newest version.
    ///
    /// # Panics
    /// Never for a timeline made by [`fold`]: it is made with its first version.
    pub fn last(&self) -> &Version {
        self.versions.last().expect("a timeline is made with its first version")
    }
}

/// What a view topic says.
#[derive(Debug, Clone, Default)]
pub struct Folded {
    /// By Redis key.
    pub keys: BTreeMap<String, Timeline>,
    /// The views, for telling whose a key is.
    pub views: Vec<ViewSpec>,
    /// End of each partition.
    pub ends: BTreeMap<i32, i64>,
}

/// Folds a topic into its views.
///
/// # Panics
/// When one Redis key comes from two partitions: such a topic has no well-defined view.
pub fn fold(topic: &TopicDump, views: &[ViewSpec]) -> Folded {
    let mut keys: BTreeMap<String, Timeline> = BTreeMap::new();
    for record in &topic.records {
        let Some(key) = record.key.as_deref() else { continue };
        for view in views {
            let state = view.state(record);
            let expires_at_ms = view.ttl_ms.filter(|_| state.is_some()).map(|ttl| record.timestamp_ms + ttl);
            let timeline = keys
                .entry(view.redis_key(key))
                .or_insert_with(|| Timeline { partition: record.partition, versions: Vec::new() });
            assert_eq!(timeline.partition, record.partition, "a key comes from one partition");
            timeline.versions.push(Version { offset: record.offset, state, expires_at_ms });
        }
    }
    Folded { keys, views: views.to_vec(), ends: topic.ends.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(kind: ViewKind) -> ViewSpec {
        ViewSpec { before: "t:order:{".into(), after: "}".into(), kind, ttl_ms: Some(1_000), when: None }
    }

    fn record(offset: i64, value: Option<&str>) -> Record {
        let value = value.map(|text| text.as_bytes().to_vec());
        Record { partition: 0, offset, timestamp_ms: 5_000 + offset, key: Some(b"a".to_vec()), value, headers: vec![] }
    }

    #[test]
    fn a_hash_keeps_numbers_as_they_were_written_and_drops_null() {
        let text = r#"{"s":"x","n":1.50,"b":true,"z":null,"o":{"a":1}}"#;
        let topic = TopicDump::new("t", vec![record(0, Some(text))], [(0, 1)].into());
        let folded = fold(&topic, &[view(ViewKind::Hash)]);
        let Some(Held::Hash(fields)) = &folded.keys["t:order:{a}"].last().state else { panic!("a hash") };
        let wanted: [(&[u8], &[u8]); 4] = [(b"b", b"true"), (b"n", b"1.50"), (b"o", b"{\"a\":1}"), (b"s", b"x")];
        assert_eq!(fields.iter().map(|(name, value)| (&name[..], &value[..])).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_timeline_knows_its_state_at_each_offset() {
        let records = vec![record(0, Some("1")), record(4, None), record(7, Some("\"x\""))];
        let folded = fold(&TopicDump::new("t", records, [(0, 9)].into()), &[view(ViewKind::Text)]);
        let timeline = &folded.keys["t:order:{a}"];
        assert_eq!(timeline.before(0), None);
        assert_eq!(timeline.before(1).and_then(|version| version.state.clone()), Some(Held::Text(b"1".to_vec())));
        assert_eq!(timeline.before(5).map(|version| &version.state), Some(&None));
        assert_eq!(timeline.last().state, Some(Held::Text(b"x".to_vec())));
        assert_eq!(timeline.last().expires_at_ms, Some(6_007));
    }
}
