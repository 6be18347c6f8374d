//! What a topic holds.

use std::collections::BTreeMap;

use crate::generator::{ID_HEADER, RecordId};

/// One committed record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Timestamp in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// The id that the generator put into the headers.
    pub fn id(&self) -> Option<RecordId> {
        std::str::from_utf8(self.header(ID_HEADER)?).ok()?.parse().ok()
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_slice())
    }
}

/// Everything a `read_committed` reader sees of a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicDump {
    /// Name.
    pub topic: String,
    /// Records, by partition and offset.
    pub records: Vec<Record>,
    /// The offset after the last one of each partition; transaction markers count.
    pub ends: BTreeMap<i32, i64>,
}

impl TopicDump {
    /// Makes a dump; sorts the records.
    pub fn new(topic: impl Into<String>, mut records: Vec<Record>, ends: BTreeMap<i32, i64>) -> Self {
        records.sort_by_key(|record| (record.partition, record.offset));
        Self { topic: topic.into(), records, ends }
    }
}
