//! Watermark records: what a shard says it holds of a partition. Pure.
//!
//! All records of a resource on one shard are one Hash. Its field `@` is the header ([`Header`]), every other field is
//! a partition, written `<topic>:<partition>`, with a [`Record`]:
//!
//! ```text
//! 1 <topic id> <epoch> <version> <unix ms> <offset>:<slots>;<offset>:<slots>[ !<offset>:<slot>,<slot>]
//! ```
//!
//! `<offset>:<slots>` says that every record below the offset is in the data of these slots. Slots that are not named
//! are not proven to hold anything. The script itself appends the part after `!`: slots it could not write stay behind
//! at that offset.

use std::fmt::{self, Write};

use sluice_clients::redis::{Slot, SlotSet};
use sluice_crds::report::TopicId;
use thiserror::Error;

/// Field of the header.
pub const HEADER_FIELD: &str = "@";
/// Longest record or header read, in bytes.
const MAX_TEXT: usize = 256 * 1024;
/// Most offsets a record tells apart; more are folded into the lowest, which claims less than is true.
const MAX_OFFSETS: usize = 32;

/// Why a text is not a record or header. Never ignored: something else, or something newer, wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// Longer than anything written.
    #[error("longer than {MAX_TEXT} bytes")]
    TooLong,
    /// Written by a version that this worker does not know.
    #[error("layout {0:?} is not known to this worker: run the newer one")]
    Layout(String),
    /// Not what is written.
    #[error("not a watermark record")]
    Malformed,
}

/// Which slots are at which offset: disjoint sets, offsets descending, none below 1, none empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage(Vec<(i64, SlotSet)>);

impl Coverage {
    /// From any sets; where two name a slot, the lower offset counts. Sets at 0 claim nothing and are left out.
    pub fn new(sets: impl IntoIterator<Item = (i64, SlotSet)>) -> Self {
        let mut sets: Vec<_> = sets.into_iter().collect();
        sets.sort_by_key(|(offset, _)| *offset);
        let mut taken = SlotSet::default();
        let mut lines: Vec<(i64, SlotSet)> = Vec::new();
        for (offset, slots) in sets {
            let free = slots.difference(&taken);
            taken = taken.union(&slots);
            match lines.last_mut() {
                Some((last, all)) if *last == offset => *all = all.union(&free),
                _ => lines.push((offset, free)),
            }
        }
        lines.retain(|(offset, slots)| *offset > 0 && !slots.is_empty());
        while lines.len() > MAX_OFFSETS {
            let (_, slots) = lines.remove(1);
            lines[0].1 = lines[0].1.union(&slots);
        }
        lines.reverse();
        Self(lines)
    }

    /// The sets, offsets descending.
    pub fn sets(&self) -> &[(i64, SlotSet)] {
        &self.0
    }

    /// Every slot named.
    pub fn named(&self) -> SlotSet {
        self.0.iter().fold(SlotSet::default(), |all, (_, slots)| all.union(slots))
    }

    fn parse(text: &str) -> Option<Self> {
        if text == "-" {
            return Some(Self::default());
        }
        let mut sets = Vec::new();
        for part in text.split(';') {
            let (offset, slots) = part.split_once(':')?;
            sets.push((unsigned(offset)?.try_into().ok()?, SlotSet::parse(slots)?));
        }
        let count: u32 = sets.iter().map(|(_, slots)| slots.len()).sum();
        let coverage = Self::new(sets.iter().cloned());
        // Only the one written form: nothing folded, nothing dropped, nothing named twice.
        (coverage.0 == sets && coverage.named().len() == count).then_some(coverage)
    }

    /// With these slots at `offset` instead, if they were named higher.
    fn behind(self, offset: i64, slots: &SlotSet) -> Self {
        Self::new(self.0.into_iter().chain([(offset, slots.clone())]))
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_char('-');
        }
        for (index, (offset, slots)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ";" };
            write!(f, "{separator}{offset}:{slots}")?;
        }
        Ok(())
    }
}

/// What a shard says about a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which incarnation of the topic the offsets belong to.
    pub topic_id: TopicId,
    /// Epoch of the views.
    pub epoch: u64,
    /// Grows with each write, so that no two texts of a record are equal.
    pub version: u64,
    /// When all that it names was last known to go forward, by the writer's clock; 0 = deletions may have been missed since its
    /// epoch began. For people and for the age of a record, never for order.
    pub wall_ms: u64,
    /// What is held.
    pub coverage: Coverage,
}

impl Record {
    /// Reads what [`Self::text`] and the script wrote.
    pub fn parse(text: &str) -> Result<Self, RecordError> {
        let words = words(text)?;
        let (fields, behind) = match words[..] {
            [ref fields @ .., last] if last.starts_with('!') => (fields, Some(&last[1..])),
            ref fields => (fields, None),
        };
        let [_, topic_id, epoch, version, wall_ms, coverage] = fields[..] else { return Err(RecordError::Malformed) };
        let parsed = || {
            let coverage = Coverage::parse(coverage)?;
            let coverage = match behind {
                None => coverage,
                Some(behind) => {
                    let (offset, slots) = read_behind(behind)?;
                    coverage.behind(offset, &slots)
                }
            };
            Some(Self {
                topic_id: TopicId::parse(topic_id)?,
                epoch: unsigned(epoch)?,
                version: unsigned(version)?,
                wall_ms: unsigned(wall_ms)?,
                coverage,
            })
        };
        parsed().ok_or(RecordError::Malformed)
    }

    /// As the record that follows this one, without these slots; none when it names none of them.
    #[must_use]
    pub fn without(self, slots: &SlotSet) -> Option<Self> {
        if self.coverage.named().intersection(slots).is_empty() {
            return None;
        }
        let sets = self.coverage.0.iter().map(|(offset, named)| (*offset, named.difference(slots)));
        Some(Self { coverage: Coverage::new(sets), version: self.version + 1, ..self })
    }

    /// The text, without a part after `!`.
    pub fn text(&self) -> String {
        format!("1 {} {} {} {} {}", self.topic_id, self.epoch, self.version, self.wall_ms, self.coverage)
    }
}

/// Who wrote the records of a hash, and along which line of replication: what makes a copy of it tell the truth.
///
/// A promoted replica holds the hash under its old master's name, and `INFO replication` of that replica names the
/// replication id the hash was written under. A hash that came with a migrated slot was written under another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Grows each time the hash is adopted; of two copies the higher one is the later one.
    pub era: u64,
    /// `master_replid` of the server it was adopted on.
    pub replication_id: String,
}

impl Header {
    /// Reads what [`Self::text`] wrote.
    pub fn parse(text: &str) -> Result<Self, RecordError> {
        let words = words(text)?;
        let [_, era, replication_id] = words[..] else { return Err(RecordError::Malformed) };
        let good = !replication_id.is_empty() && replication_id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        match unsigned(era) {
            Some(era) if good => Ok(Self { era, replication_id: replication_id.to_owned() }),
            _ => Err(RecordError::Malformed),
        }
    }

    /// The text.
    pub fn text(&self) -> String {
        format!("1 {} {}", self.era, self.replication_id)
    }
}

fn words(text: &str) -> Result<Vec<&str>, RecordError> {
    if text.len() > MAX_TEXT {
        return Err(RecordError::TooLong);
    }
    let words: Vec<&str> = text.split(' ').collect();
    match words[0] {
        "1" => Ok(words),
        layout if layout.len() <= 8 && unsigned(layout).is_some() => Err(RecordError::Layout(layout.to_owned())),
        _ => Err(RecordError::Malformed),
    }
}

/// `<offset>:<slot>,<slot>`, the slots in any order: the script writes them as it meets them.
fn read_behind(text: &str) -> Option<(i64, SlotSet)> {
    let (offset, slots) = text.split_once(':')?;
    let slots: Option<SlotSet> = slots.split(',').map(|slot| Slot::new(unsigned(slot)?.try_into().ok()?)).collect();
    Some((unsigned(offset)?.try_into().ok()?, slots?))
}

fn unsigned(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluice_crds::report::record_epoch;

    use super::*;

    fn slots(text: &str) -> SlotSet {
        SlotSet::parse(text).expect("slots")
    }

    fn record(sets: &[(i64, &str)]) -> Record {
        Record {
            topic_id: TopicId::parse("7Wc2m-Qd_kOZr4hV0nH3xA").expect("id"),
            epoch: 1_763_700_000,
            version: 7,
            wall_ms: 1_763_700_000_123,
            coverage: Coverage::new(sets.iter().map(|(offset, text)| (*offset, slots(text)))),
        }
    }

    #[test]
    fn comes_back_as_it_was() {
        for sets in [&[][..], &[(5, "0-5460")], &[(900, "0-99,200-5460"), (17, "100-199")]] {
            assert_eq!(Record::parse(&record(sets).text()), Ok(record(sets)));
            // The operator reads only this of a record.
            assert_eq!(record_epoch(&record(sets).text()), Some(record(sets).epoch));
        }
        let header = Header { era: 3, replication_id: "ab12".repeat(10) };
        assert_eq!(record_epoch(&header.text()), None);
        assert_eq!(Header::parse(&header.text()), Ok(header));
    }

    #[test]
    fn slots_that_the_script_left_behind_keep_the_old_offset() {
        let text = format!("{} !100:7,3,4", record(&[(200, "0-9")]).text());
        assert_eq!(Record::parse(&text), Ok(record(&[(200, "0-2,5-6,8-9"), (100, "3-4,7")])));
        let text = format!("{} !0:3", record(&[(200, "0-9")]).text());
        assert_eq!(Record::parse(&text), Ok(record(&[(200, "0-2,4-9")])), "at 0 nothing is held");
    }

    #[test]
    fn slots_can_be_taken_out() {
        let two = record(&[(900, "0-99"), (17, "100-199")]);
        assert_eq!(two.clone().without(&slots("200-300")), None);
        let without = Record { version: 8, ..record(&[(900, "0-49"), (17, "102-199")]) };
        assert_eq!(two.without(&slots("50-101")), Some(without));
    }

    #[test]
    fn other_texts_are_refused() {
        let good = record(&[(5, "0-5460")]).text();
        for (from, to) in [
            ("1 7", "01 7"),
            ("1 7", "x 7"),
            ("5:0-5460", "5:0-5460;5:6000"),
            ("5:0-5460", "5:0-10;6:20"),
            ("5:0-5460", "6:0-10;5:10"),
            ("5:0-5460", "+5:0"),
            ("5:0-5460", "0:1"),
            ("5:0-5460", ""),
            ("5:0-5460", "5:0 6:1"),
            ("5:0-5460", "5:0 !5"),
            ("5:0-5460", "5:0 !4:16384"),
            ("7Wc2m", "7Wc2/"),
            (" 7 ", " -7 "),
        ] {
            let text = good.replacen(from, to, 1);
            assert_ne!(text, good, "{from:?} is not in the text");
            assert!(Record::parse(&text).is_err(), "{text:?} was read");
        }
        assert_eq!(Record::parse("2 whatever"), Err(RecordError::Layout("2".to_owned())));
        assert_eq!(Record::parse(&"1".repeat(MAX_TEXT + 1)), Err(RecordError::TooLong));
        for wrong in ["", "1 2", "1 x ab", "1 1 a/b", "1 1 ab c"] {
            assert!(Header::parse(wrong).is_err(), "{wrong:?} was read");
        }
    }

    proptest! {
        /// Folding and overlaps may only claim less, never more.
        #[test]
        fn coverage_never_claims_more_than_it_was_given(
            sets in proptest::collection::vec((0_i64..500, 0_u16..600, 0_u16..40), 0..60)
        ) {
            let sets: Vec<_> = sets
                .into_iter()
                .filter_map(|(offset, first, length)| Some((offset, SlotSet::from_ranges([(first, first + length)])?)))
                .collect();
            let coverage = Coverage::new(sets.clone());
            prop_assert!(coverage.sets().len() <= MAX_OFFSETS);
            for (claimed, slots) in coverage.sets() {
                for slot in slots.iter() {
                    let lowest = sets.iter().filter(|(_, set)| set.contains(slot)).map(|(offset, _)| *offset).min();
                    prop_assert!(lowest.is_some_and(|lowest| *claimed <= lowest));
                }
            }
            prop_assert_eq!(Coverage::parse(&coverage.to_string()), Some(coverage));
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".{0,80}") {
            let _ = (Record::parse(&text), Header::parse(&text));
        }
    }
}
