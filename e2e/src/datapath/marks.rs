//! The applier's watermark records as an outsider reads them, from their documented layout.
//!
//! `1 <topic id> <epoch> <version> <unix ms> <offset>:<slots>;<offset>:<slots>[ !<offset>:<slot>,<slot>]`, in the field
//! `<topic>:<partition>` of one hash for each shard. Slots after `!` are behind, whatever the part before says.

use std::collections::BTreeMap;

use crate::checker::{Mark, SlotRange};

/// The marks in one record hash, by partition. What is no record is left out: then the shard is not caught up.
pub fn read(_key: &str, fields: &BTreeMap<Vec<u8>, Vec<u8>>) -> BTreeMap<i32, Mark> {
    let entry = |(name, text): (&Vec<u8>, &Vec<u8>)| {
        let partition = std::str::from_utf8(name).ok()?.rsplit_once(':')?.1.parse().ok()?;
        Some((partition, parse(std::str::from_utf8(text).ok()?)?))
    };
    fields.iter().filter_map(entry).collect()
}

fn parse(text: &str) -> Option<Mark> {
    let words: Vec<&str> = text.split(' ').collect();
    let ["1", _, _, _, _, coverage, rest @ ..] = &words[..] else { return None };
    let mut mark = Mark::default();
    if *coverage != "-" {
        for (index, part) in coverage.split(';').enumerate() {
            let (offset, slots) = part.split_once(':')?;
            let offset: i64 = offset.parse().ok()?;
            let ranges = slots.split(',').map(range).collect::<Option<Vec<SlotRange>>>()?;
            if index == 0 {
                mark.offset = offset;
            } else {
                let slots = ranges.iter().flat_map(|&(first, last)| first..=last);
                mark.behind.extend(slots.map(|slot| (slot, offset)));
            }
            mark.covered.extend(ranges);
        }
    }
    for word in rest {
        let (offset, slots) = word.strip_prefix('!')?.split_once(':')?;
        let offset: i64 = offset.parse().ok()?;
        for slot in slots.split(',') {
            mark.behind.insert(slot.parse().ok()?, offset);
        }
    }
    Some(mark)
}

fn range(text: &str) -> Option<SlotRange> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((first.parse().ok()?, last.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_offsets_and_slots_left_behind() {
        let fields = [
            (b"@".to_vec(), b"1 3 abc".to_vec()),
            (b"x.order.enriched:2".to_vec(), b"1 7Wc2 5 9 17 900:0-99,200;17:100-101 !40:7,3".to_vec()),
            (b"x.order.enriched:3".to_vec(), b"1 7Wc2 5 9 17 -".to_vec()),
            (b"x.order.enriched:4".to_vec(), b"rubbish".to_vec()),
        ];
        let marks = read("k", &fields.into());
        assert_eq!(marks.keys().copied().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(marks[&2].offset, 900);
        assert_eq!(marks[&2].covered, [(0, 99), (200, 200), (100, 101)]);
        assert_eq!(marks[&2].behind, [(100, 17), (101, 17), (7, 40), (3, 40)].into());
        assert_eq!(marks[&3], Mark::default());
    }
}
