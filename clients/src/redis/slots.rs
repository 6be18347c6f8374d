//! Redis Cluster slots: pure arithmetic (Redis Cluster specification, "Key distribution model").

use std::fmt;
use std::sync::LazyLock;

/// Number of slots of a Redis Cluster.
pub const SLOT_COUNT: u16 = 16_384;

/// One of the 16,384 slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The slot with this number; none at or above [`SLOT_COUNT`].
    pub const fn new(number: u16) -> Option<Self> {
        if number < SLOT_COUNT { Some(Self(number)) } else { None }
    }

    /// The slot of a key: of its hash tag when it has a non-empty one, else of the whole key.
    pub fn of_key(key: &[u8]) -> Self {
        Self(crc16(hash_tag(key)) % SLOT_COUNT)
    }

    /// Its number, below [`SLOT_COUNT`].
    pub const fn number(self) -> u16 {
        self.0
    }

    /// A short text that hashes to this slot. The table is part of the format of stored keys and never changes.
    pub fn tag(self) -> &'static str {
        &TAGS[usize::from(self.0)]
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What of a key is hashed: the text between the first `{` and the next `}` when it is not empty, else everything.
pub fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else { return key };
    let rest = &key[open + 1..];
    match rest.iter().position(|byte| *byte == b'}') {
        Some(close) if close > 0 => &rest[..close],
        _ => key,
    }
}

/// CRC16-CCITT as XMODEM has it, which is what Redis Cluster hashes with.
pub fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| (crc << 8) ^ CRC_TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

const CRC_TABLE: [u16; 256] = crc_table();

const fn crc_table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut index: u16 = 0;
    while index < 256 {
        let mut crc = index << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[index as usize] = crc;
        index += 1;
    }
    table
}

/// For each slot the first number, written in base 36, that hashes to it.
static TAGS: LazyLock<Vec<Box<str>>> = LazyLock::new(|| {
    let mut tags: Vec<Box<str>> = vec![Box::default(); usize::from(SLOT_COUNT)];
    let mut missing = tags.len();
    for number in 0_u32.. {
        let text = base36(number);
        let tag = &mut tags[usize::from(crc16(text.as_bytes()) % SLOT_COUNT)];
        if tag.is_empty() {
            *tag = text.into();
            missing -= 1;
            if missing == 0 {
                break;
            }
        }
    }
    tags
});

fn base36(mut number: u32) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut text = Vec::new();
    loop {
        text.push(DIGITS[(number % 36) as usize]);
        number /= 36;
        if number == 0 {
            break;
        }
    }
    text.iter().rev().map(|byte| char::from(*byte)).collect()
}

/// A set of slots, kept as sorted ranges that neither touch nor overlap: equal sets are equal values.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct SlotSet(Vec<(u16, u16)>);

impl SlotSet {
    /// All slots.
    pub fn all() -> Self {
        Self(vec![(0, SLOT_COUNT - 1)])
    }

    /// The slots of inclusive ranges in any order; none when a range is reversed or leaves the slots.
    pub fn from_ranges(ranges: impl IntoIterator<Item = (u16, u16)>) -> Option<Self> {
        let mut ranges: Vec<_> = ranges.into_iter().collect();
        if ranges.iter().any(|(first, last)| first > last || *last >= SLOT_COUNT) {
            return None;
        }
        ranges.sort_unstable();
        Some(Self(merged(ranges)))
    }

    /// Whether no slot is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many slots are in it.
    pub fn len(&self) -> u32 {
        self.0.iter().map(|(first, last)| u32::from(last - first) + 1).sum()
    }

    /// Whether the slot is in it.
    pub fn contains(&self, slot: Slot) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= slot.0);
        after > 0 && slot.0 <= self.0[after - 1].1
    }

    /// The lowest slot.
    pub fn first(&self) -> Option<Slot> {
        self.0.first().map(|(first, _)| Slot(*first))
    }

    /// The ranges, inclusive, ascending.
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }

    /// The slots, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        self.0.iter().flat_map(|(first, last)| (*first..=*last).map(Slot))
    }

    /// Slots in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut ranges: Vec<_> = self.0.iter().chain(&other.0).copied().collect();
        ranges.sort_unstable();
        Self(merged(ranges))
    }

    /// Slots in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut ranges = Vec::new();
        while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
            let (first, last) = (a.0.max(b.0), a.1.min(b.1));
            if first <= last {
                ranges.push((first, last));
            }
            if a.1 < b.1 {
                left.next()
            } else {
                right.next()
            };
        }
        Self(ranges)
    }

    /// Slots in this one and not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut ranges = Vec::new();
        for (first, last) in &self.0 {
            // At most SLOT_COUNT, which a u16 holds.
            let mut next = *first;
            for (cut_first, cut_last) in other.0.iter().filter(|cut| cut.1 >= *first && cut.0 <= *last) {
                if *cut_first > next {
                    ranges.push((next, cut_first - 1));
                }
                next = cut_last + 1;
            }
            if next <= *last {
                ranges.push((next, *last));
            }
        }
        Self(ranges)
    }

    /// Reads the form that `Display` writes; none for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::default());
        }
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            ranges.push((number(first)?, number(last)?));
        }
        let set = Self::from_ranges(ranges.iter().copied())?;
        (set.0 == ranges).then_some(set)
    }
}

fn number(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn merged(sorted: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    let mut ranges: Vec<(u16, u16)> = Vec::with_capacity(sorted.len());
    for (first, last) in sorted {
        match ranges.last_mut() {
            Some(open) if first <= open.1.saturating_add(1) => open.1 = open.1.max(last),
            _ => ranges.push((first, last)),
        }
    }
    ranges
}

impl FromIterator<Slot> for SlotSet {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        let mut ranges: Vec<_> = slots.into_iter().map(|slot| (slot.0, slot.0)).collect();
        ranges.sort_unstable();
        Self(merged(ranges))
    }
}

/// `0-5460,5470`; empty for the empty set.
impl fmt::Display for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn keys_hash_as_the_specification_says() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(Slot::of_key(b"foo").number(), 12_182);
        assert_eq!(Slot::of_key(b"{foo}.bar"), Slot::of_key(b"foo"));
        assert_eq!(hash_tag(b"a{}b{c}"), b"a{}b{c}");
        assert_eq!(hash_tag(b"a{{b}}c"), b"{b");
        assert_eq!(hash_tag(b"a{b"), b"a{b");
    }

    #[test]
    fn every_slot_has_a_tag_that_hashes_to_it() {
        for slot in SlotSet::all().iter() {
            assert_eq!(Slot::of_key(format!("x/{{{}}}", slot.tag()).as_bytes()), slot);
        }
        // Stored keys depend on these.
        assert_eq!(Slot::new(0).map(Slot::tag), Some("1bz"));
    }

    /// A small set from a bit pattern, so that ranges touch, overlap and leave gaps.
    fn set(bits: u32) -> (SlotSet, BTreeSet<u16>) {
        let numbers: BTreeSet<u16> = (0..32)
            .filter(|bit| bits >> bit & 1 == 1)
            .map(|bit| if bit < 16 { bit } else { SLOT_COUNT - 32 + bit })
            .collect();
        (numbers.iter().filter_map(|number| Slot::new(*number)).collect(), numbers)
    }

    #[test]
    fn sets_behave_as_sets() {
        // A fixed linear congruential sequence: many shapes, the same ones each run.
        let mut seed = 1_u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed ^ seed >> 15
        };
        for _ in 0..2_000 {
            let ((a, left), (b, right)) = (set(next()), set(next()));
            let same = |ours: SlotSet, theirs: BTreeSet<u16>| {
                assert_eq!(ours.iter().map(Slot::number).collect::<BTreeSet<_>>(), theirs);
                assert_eq!(ours.len() as usize, theirs.len());
                assert_eq!(SlotSet::parse(&ours.to_string()), Some(ours));
            };
            same(a.union(&b), left.union(&right).copied().collect());
            same(a.intersection(&b), left.intersection(&right).copied().collect());
            same(a.difference(&b), left.difference(&right).copied().collect());
            for slot in SlotSet::all().iter().filter(|slot| slot.number() < 32 || slot.number() > SLOT_COUNT - 40) {
                assert_eq!(a.contains(slot), left.contains(&slot.number()));
            }
        }
    }

    #[test]
    fn only_the_one_written_form_is_read() {
        for wrong in
            ["1-", "-1", "2-1", "16384", "0-16384", "1,1", "2,1", "1,2", "1-2,3", "+1", " 1", "1,,2", "a", "1-1"]
        {
            let read = SlotSet::parse(wrong);
            assert!(read.is_none() || wrong == "1-1", "{wrong:?} was read as {read:?}");
        }
        assert_eq!(SlotSet::parse(""), Some(SlotSet::default()));
        assert_eq!(SlotSet::parse("0-16383"), Some(SlotSet::all()));
    }
}
