//! I7: a shard's watermark record proves its data. I9 for views: every shard has reached the end.

use std::collections::BTreeMap;

use super::fold::Folded;
use super::report::Report;
use super::view::{Allowed, Entry, allowed};
use super::violation::Violation;

/// Hash slots from the first to the second, both included.
pub type SlotRange = (u16, u16);

/// What a shard's record says about one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mark {
    /// Everything below this offset is applied to the covered slots.
    pub offset: i64,
    /// The slots this is true of.
    pub covered: Vec<SlotRange>,
    /// Slots that stand at an older offset: in motion, or being repaired.
    pub behind: BTreeMap<u16, i64>,
}

/// One shard, all of it at the same instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShardSnapshot {
    /// Its address.
    pub shard: String,
    /// The slots it owns.
    pub slots: Vec<SlotRange>,
    /// The server's clock, in milliseconds since 1970.
    pub at_ms: i64,
    /// The records it holds, by partition.
    pub marks: BTreeMap<i32, Mark>,
    /// The keys it holds.
    pub keys: BTreeMap<String, Entry>,
}

/// The hash slot of a Redis key: CRC16 of its hash tag, or of the whole key.
pub fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    crc16(tag.filter(|tag| !tag.is_empty()).unwrap_or(key).as_bytes()) % 16_384
}

/// CRC16/XMODEM, as Redis Cluster uses it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| {
        (0..8).fold(
            crc ^ (u16::from(byte) << 8),
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
            },
        )
    })
}

fn holds(ranges: &[SlotRange], slot: u16) -> bool {
    ranges.iter().any(|&(first, last)| (first..=last).contains(&slot))
}

/// Checks I7: for every key in a slot that a record names at its offset, the data is exactly the fold up to that offset.
pub fn check_snapshot(folded: &Folded, snapshot: &ShardSnapshot, slack_ms: i64) -> Report {
    let mut report = Report::default();
    let mut proven = 0;
    for (key, timeline) in &folded.keys {
        let slot = slot_of(key);
        let Some(mark) = snapshot.marks.get(&timeline.partition) else { continue };
        if !holds(&snapshot.slots, slot) || !holds(&mark.covered, slot) || mark.behind.contains_key(&slot) {
            continue;
        }
        proven += 1;
        let version = timeline.before(mark.offset);
        let found = snapshot.keys.get(key).map(|entry| &entry.held);
        let expected = match allowed(version, snapshot.at_ms, snapshot.at_ms, slack_ms) {
            Allowed::Present(state) if found == Some(state) => continue,
            Allowed::Either(state) if found.is_none_or(|held| held == state) => continue,
            Allowed::Absent(_) if found.is_none() => continue,
            Allowed::Present(state) | Allowed::Either(state) => state.to_string(),
            Allowed::Absent(why) => format!("nothing: {why}"),
        };
        report.found(Violation::WatermarkLies {
            shard: snapshot.shard.clone(),
            key: key.clone(),
            found: found.map_or_else(|| "nothing".into(), ToString::to_string),
            expected,
            partition: timeline.partition,
            watermark: mark.offset,
        });
    }
    report.count("snapshots", 1);
    report.count("keys proven by a watermark", proven);
    report
}

/// Checks that every shard has reached the end of every partition, for all its slots.
pub fn check_caught_up(folded: &Folded, snapshots: &[ShardSnapshot]) -> Report {
    let mut report = Report::default();
    for snapshot in snapshots {
        for (&partition, &end) in &folded.ends {
            let mark = snapshot.marks.get(&partition);
            let uncovered = mark.and_then(|mark| {
                snapshot.slots.iter().flat_map(|&(first, last)| first..=last).find(|&slot| !holds(&mark.covered, slot))
            });
            let behind = mark.and_then(|mark| mark.behind.keys().next().copied());
            let detail = match (uncovered, behind) {
                (Some(slot), _) => format!("; slot {slot} is not named"),
                (_, Some(slot)) => format!("; slot {slot} is behind"),
                _ => String::new(),
            };
            let found = mark.map(|mark| mark.offset);
            // A partition without records needs no mark.
            if (end > 0 && found != Some(end)) || !detail.is_empty() {
                let shard = snapshot.shard.clone();
                report.found(Violation::NotCaughtUp { shard, partition, found, end, detail });
            }
        }
    }
    report.count("shards caught up", snapshots.len());
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_redis_slots() {
        // From the Redis Cluster specification and `CLUSTER KEYSLOT`.
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot_of("foo"), 12_182);
        assert_eq!(slot_of("bar{foo}baz"), 12_182);
        assert_eq!(slot_of("{}foo"), slot_of_whole("{}foo"));
        assert_eq!(slot_of("foo{{bar}}zap"), slot_of_whole("{bar"));
    }

    fn slot_of_whole(text: &str) -> u16 {
        crc16(text.as_bytes()) % 16_384
    }
}
