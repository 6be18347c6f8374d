//! What a worker tells the operator, through Kafka: a short versioned text in the metadata of each offset commit.
//!
//! `sluice1 s=1763700000000 n=1234 b=56789 t=1763700012345 …`: a version word, then `key=value` pairs separated by one
//! space, values unsigned decimal (`i` alone is a topic id). The operator's lag sweep reads it with the offsets. Anybody who may commit to the
//! group can write anything there, so it is parsed as hostile input: bounded length, digits only, unknown keys skipped
//! (a newer worker may say more), known keys at most once.

use std::fmt::Write;

/// Longest text written or parsed, in bytes. Brokers take 4,096 by default (`offset.metadata.max.bytes`).
pub const MAX_REPORT_BYTES: usize = 512;
const VERSION: &str = "sluice1";

/// A topic id as Kafka prints it: 16 bytes in base64url without padding.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TopicId([u8; 22]);

impl TopicId {
    /// Reads exactly 22 characters of the base64url alphabet.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 22] = text.as_bytes().try_into().ok()?;
        bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')).then_some(Self(bytes))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // ASCII: `parse` lets nothing else in.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl std::fmt::Display for TopicId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::fmt::Debug for TopicId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one worker did on one partition. Counters count from `since`, so two reports with the same `since` can be
/// subtracted; another `since` means another owner or a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionReport {
    /// Unix milliseconds at which the counters began.
    pub since: u64,
    /// Unix milliseconds of this report.
    pub at: u64,
    /// Source records processed.
    pub records: u64,
    /// Microseconds spent on them.
    pub busy_micros: u64,
    /// Timestamp of the last record processed, Unix milliseconds; none yet = absent.
    pub last_timestamp: Option<u64>,
    /// Records sent to the dead-letter topic.
    pub dead_letters: u64,
    /// Id of the topic that the committed offset belongs to: a re-created topic is noticed by it.
    pub topic_id: Option<TopicId>,
    /// Processor: why the partition stands still at the committed offset until a person changes something; absent = it does
    /// not.
    pub stall: Option<Stall>,
    /// Applier: smallest offset that every shard's watermark has passed.
    pub watermark: Option<u64>,
    /// Applier: epoch of the views.
    pub epoch: Option<u64>,
    /// Applier: slots that are being re-materialised or cannot be written now; 0 = complete.
    pub slots_behind: Option<u64>,
    /// Applier: offset up to which a repair has come, while there is one.
    pub repair_offset: Option<u64>,
    /// Applier: nobody read the partition for so long that compaction may have removed tombstones unread. Keys that should be
    /// gone may be there until the views are rebuilt under a new epoch. Written only when it is so.
    pub deletions_missed: bool,
}

/// Why a partition stands still. A code that this version does not know is a stall all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stall {
    /// The record at the committed offset cannot be processed, and there is no dead-letter topic.
    PoisonedRecord,
    /// What a newer worker says.
    Other(u64),
}

impl Stall {
    /// As it is written.
    fn code(self) -> u64 {
        match self {
            Self::PoisonedRecord => 1,
            Self::Other(code) => code,
        }
    }

    fn of(code: u64) -> Self {
        match code {
            1 => Self::PoisonedRecord,
            code => Self::Other(code),
        }
    }
}

/// Why a text is not a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// Longer than any worker writes.
    #[error("longer than {MAX_REPORT_BYTES} bytes")]
    TooLong,
    /// Other software's metadata, or a version this code does not know.
    #[error("does not begin with \"{VERSION}\"")]
    Version,
    /// Not `key=digits`.
    #[error("a field is not `key=unsigned number`")]
    Field,
    /// A key that counts once is there twice.
    #[error("a field is there twice")]
    Twice,
    /// A field every report has is not there.
    #[error("a required field is missing")]
    Missing,
}

impl PartitionReport {
    /// The text of this report.
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(128);
        text.push_str(VERSION);
        let fields = [
            ("s", Some(self.since)),
            ("a", Some(self.at)),
            ("n", Some(self.records)),
            ("b", Some(self.busy_micros)),
            ("d", Some(self.dead_letters)),
            ("t", self.last_timestamp),
            ("w", self.watermark),
            ("e", self.epoch),
            ("g", self.slots_behind),
            ("r", self.repair_offset),
            ("x", self.stall.map(Stall::code)),
            ("m", self.deletions_missed.then_some(1)),
        ];
        for (key, value) in fields {
            if let Some(value) = value {
                // Writing to a String cannot fail.
                let _ = write!(text, " {key}={value}");
            }
        }
        if let Some(id) = &self.topic_id {
            let _ = write!(text, " i={id}");
        }
        text
    }

    /// Reads a text that anybody may have written.
    pub fn parse(text: &str) -> Result<Self, ReportError> {
        if text.len() > MAX_REPORT_BYTES {
            return Err(ReportError::TooLong);
        }
        let mut words = text.split(' ');
        if words.next() != Some(VERSION) {
            return Err(ReportError::Version);
        }
        let mut known: [(&str, Option<u64>); 12] =
            ["s", "a", "n", "b", "d", "t", "w", "e", "g", "r", "x", "m"].map(|key| (key, None));
        let mut topic_id = None;
        for word in words {
            let (key, digits) = word.split_once('=').ok_or(ReportError::Field)?;
            if key == "i" {
                let id = TopicId::parse(digits).ok_or(ReportError::Field)?;
                if topic_id.replace(id).is_some() {
                    return Err(ReportError::Twice);
                }
                continue;
            }
            if key.is_empty() || digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(ReportError::Field);
            }
            let value: u64 = digits.parse().map_err(|_| ReportError::Field)?;
            if let Some((_, slot)) = known.iter_mut().find(|(name, _)| *name == key)
                && slot.replace(value).is_some()
            {
                return Err(ReportError::Twice);
            }
        }
        let [
            since,
            at,
            records,
            busy,
            dead,
            last_timestamp,
            watermark,
            epoch,
            slots_behind,
            repair_offset,
            stall,
            missed,
        ] = known.map(|(_, value)| value);
        Ok(Self {
            since: since.ok_or(ReportError::Missing)?,
            at: at.ok_or(ReportError::Missing)?,
            records: records.ok_or(ReportError::Missing)?,
            busy_micros: busy.ok_or(ReportError::Missing)?,
            dead_letters: dead.ok_or(ReportError::Missing)?,
            last_timestamp,
            topic_id,
            stall: stall.map(Stall::of),
            watermark,
            epoch,
            slots_behind,
            repair_offset,
            deletions_missed: missed.is_some_and(|missed| missed > 0),
        })
    }
}

/// The epoch in a watermark record, which workers keep in Redis: `1 <topic id> <epoch> …`. None: not a record, or one of a
/// layout that this code does not know.
pub fn record_epoch(text: &str) -> Option<u64> {
    let mut words = text.split(' ');
    let (layout, id, epoch) = (words.next()?, words.next()?, words.next()?);
    (layout == "1" && TopicId::parse(id).is_some()).then(|| epoch.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_was() {
        let all = PartitionReport {
            since: 1,
            at: 2,
            records: u64::MAX,
            busy_micros: 4,
            last_timestamp: Some(5),
            dead_letters: 6,
            topic_id: TopicId::parse("7Wc2m-Qd_kOZr4hV0nH3xA"),
            stall: Some(Stall::PoisonedRecord),
            watermark: Some(7),
            epoch: Some(8),
            slots_behind: Some(0),
            repair_offset: Some(u64::MAX),
            deletions_missed: true,
        };
        let newer = PartitionReport { stall: Some(Stall::Other(7)), ..all };
        for report in [all, newer, PartitionReport::default()] {
            let text = report.encode();
            assert!(text.len() <= MAX_REPORT_BYTES, "{text}");
            assert_eq!(PartitionReport::parse(&text), Ok(report));
        }
    }

    #[test]
    fn a_newer_worker_may_say_more() {
        let report = PartitionReport { since: 1, ..PartitionReport::default() };
        assert_eq!(PartitionReport::parse(&format!("{} zz=9 zz=9", report.encode())), Ok(report));
    }

    #[test]
    fn an_older_worker_says_nothing_of_missed_deletions_and_a_newer_one_only_when_there_may_be_some() {
        let report = PartitionReport { since: 1, ..PartitionReport::default() };
        assert!(!report.encode().contains(" m="), "an older operator reads the text that it knows");
        let missed = PartitionReport { deletions_missed: true, ..report };
        assert_eq!(missed.encode(), format!("{} m=1", report.encode()));
        for (said, meant) in [("m=0", false), ("m=1", true), ("m=7", true)] {
            let parsed = PartitionReport::parse(&format!("{} {said}", report.encode()));
            assert_eq!(parsed.map(|report| report.deletions_missed), Ok(meant), "{said}");
        }
    }

    #[test]
    fn hostile_texts_are_refused() {
        let long = format!("{VERSION} {}", "x=1 ".repeat(200));
        for (text, error) in [
            ("", ReportError::Version),
            ("NO_METADATA", ReportError::Version),
            ("sluice2 s=1", ReportError::Version),
            (long.as_str(), ReportError::TooLong),
            ("sluice1", ReportError::Missing),
            ("sluice1 s=1 a=1 n=1 b=1", ReportError::Missing),
            ("sluice1 s=1 s=2 a=1 n=1 b=1 d=0", ReportError::Twice),
            ("sluice1 x=PoisonedRecord", ReportError::Field),
            ("sluice1 s=-1", ReportError::Field),
            ("sluice1 s=+1", ReportError::Field),
            ("sluice1 s=99999999999999999999", ReportError::Field),
            ("sluice1 i=short", ReportError::Field),
            ("sluice1 i=7Wc2m-Qd_kOZr4hV0nH3x/", ReportError::Field),
            ("sluice1 i=7Wc2m-Qd_kOZr4hV0nH3xA i=7Wc2m-Qd_kOZr4hV0nH3xA", ReportError::Twice),
            ("sluice1 s=1  a=1", ReportError::Field),
            ("sluice1 =1", ReportError::Field),
            ("sluice1 s=", ReportError::Field),
            ("sluice1 s=\u{0661}", ReportError::Field),
        ] {
            assert_eq!(PartitionReport::parse(text), Err(error), "{text:?}");
        }
    }
}
