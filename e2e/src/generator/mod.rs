//! Orders with a known outcome.
//!
//! ```text
//! Profile + seed ─▶ Generator ─▶ GeneratedOrder { id, key, value, headers, expected }
//!                      │                                                   │
//!   random.rs  seeded draws, Zipf              expected.rs  what must become of it, by construction
//!   partition.rs  Kafka's murmur2 again        reference.rs  prices and stock, pure functions of the SKU
//! ```
//!
//! Every record has an id `partition:sequence` in the header [`ID_HEADER`], which no step touches: it is found again in
//! outputs and dead letters, tombstones and broken JSON included. What the orders go through is the pipeline of
//! `examples/orders/enrich-orders`: filter, two lookups, set, mask, remove, two routes.

mod expected;
mod order;
mod partition;
mod random;
mod reference;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

pub use expected::{Expected, Reason, Route};
pub use order::Kind;
pub use partition::partition_of;
pub use random::{Random, Zipf};
pub use reference::Sku;

/// Header that carries the id.
pub const ID_HEADER: &str = "event-id";
/// A header with bytes that are no text, to be passed on as it is.
pub const BINARY_HEADER: &str = "opaque";

/// Names one input record: its partition and its place among the generated records of that partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// Partition it is produced to.
    pub partition: i32,
    /// From 0, in the order of production.
    pub sequence: u64,
}

impl fmt::Display for RecordId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.partition, self.sequence)
    }
}

/// The text is not `partition:sequence`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an id like 3:17")]
pub struct NotAnId(String);

impl FromStr for RecordId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let parsed = text.split_once(':').and_then(|(partition, sequence)| {
            Some(Self { partition: partition.parse().ok()?, sequence: sequence.parse().ok()? })
        });
        parsed.ok_or_else(|| NotAnId(text.to_owned()))
    }
}

/// The record key of an order by its number, below [`Profile::orders`].
pub fn order_key(number: u32) -> Vec<u8> {
    order::order_id(number).into_bytes()
}

/// How many of 1,000 orders are of an unusual kind; the others are good ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    /// In another state than CREATED: filtered out.
    pub other_state: u32,
    /// A SKU without a price: dead letter.
    pub unknown_sku: u32,
    /// JSON that stops in the middle: dead letter.
    pub broken_json: u32,
    /// No member `status`: dead letter.
    pub missing_field: u32,
    /// A text where a number belongs: dead letter.
    pub wrong_type: u32,
    /// No value: deletes.
    pub tombstone: u32,
}

impl Mix {
    /// Good orders only.
    pub const CLEAN: Self =
        Self { other_state: 0, unknown_sku: 0, broken_json: 0, missing_field: 0, wrong_type: 0, tombstone: 0 };
    /// A bit of everything.
    pub const MIXED: Self =
        Self { other_state: 80, unknown_sku: 20, broken_json: 10, missing_field: 5, wrong_type: 5, tombstone: 60 };
}

/// What orders to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// Everything drawn follows from it.
    pub seed: u64,
    /// Partitions of the topic the orders go to.
    pub partitions: u32,
    /// Distinct order ids (record keys): with fewer than records, keys are written again and again.
    pub orders: u32,
    /// Distinct customers, drawn by Zipf.
    pub customers: u32,
    /// Distinct SKUs, drawn by Zipf.
    pub skus: u32,
    /// Smallest size of a good order's value in bytes; shorter ones are padded.
    pub value_bytes: usize,
    /// Unusual kinds.
    pub mix: Mix,
}

impl Profile {
    /// A bit of everything, with keys that come back.
    pub fn mixed(seed: u64, partitions: u32) -> Self {
        Self { seed, partitions, orders: 400, customers: 1_000, skus: 500, value_bytes: 300, mix: Mix::MIXED }
    }
}

/// One order, ready to be produced.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratedOrder {
    /// Its name.
    pub id: RecordId,
    /// Record key: the order id.
    pub key: Vec<u8>,
    /// Record value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Record headers, the id among them.
    pub headers: Vec<(String, Vec<u8>)>,
    /// What must become of it.
    pub expected: Expected,
}

/// An endless, deterministic stream of orders.
#[derive(Debug, Clone)]
pub struct Generator {
    profile: Profile,
    random: Random,
    customers: Zipf,
    skus: Zipf,
    /// Next sequence number of each partition.
    sequences: Vec<u64>,
    /// Records made so far for each key.
    versions: BTreeMap<u32, u64>,
}

impl Generator {
    /// Starts the stream. Counts of zero are taken as one.
    pub fn new(profile: Profile) -> Self {
        let profile = Profile {
            partitions: profile.partitions.max(1),
            orders: profile.orders.max(1),
            customers: profile.customers.max(1),
            skus: profile.skus.max(1),
            ..profile
        };
        Self {
            random: Random::new(profile.seed),
            customers: Zipf::new(profile.customers, 1.0),
            skus: Zipf::new(profile.skus, 1.0),
            sequences: vec![0; profile.partitions as usize],
            versions: BTreeMap::new(),
            profile,
        }
    }

    /// Every SKU that has a price.
    pub fn known_skus(&self) -> impl Iterator<Item = Sku> + use<> {
        (0..self.profile.skus).map(Sku)
    }

    fn draw_kind(&mut self) -> Kind {
        let mix = self.profile.mix;
        let mut point = self.random.below(1_000);
        let shares = [
            (mix.other_state, Kind::OtherState),
            (mix.unknown_sku, Kind::UnknownSku),
            (mix.broken_json, Kind::BrokenJson),
            (mix.missing_field, Kind::MissingField),
            (mix.wrong_type, Kind::WrongType),
            (mix.tombstone, Kind::Tombstone),
        ];
        for (share, kind) in shares {
            if point < share {
                return kind;
            }
            point -= share;
        }
        Kind::Good
    }
}

impl Iterator for Generator {
    type Item = GeneratedOrder;

    fn next(&mut self) -> Option<GeneratedOrder> {
        let kind = self.draw_kind();
        let number = self.random.below(self.profile.orders);
        let version = self.versions.entry(number).or_insert(0);
        *version += 1;
        let draft = order::Draft {
            kind,
            number,
            version: *version,
            customer: self.customers.draw(&mut self.random),
            sku: Sku(self.skus.draw(&mut self.random)),
            // One in sixteen is large: those make totals that go to review.
            quantity: if self.random.below(16) == 0 { 20 + self.random.below(80) } else { 1 + self.random.below(8) },
            value_bytes: self.profile.value_bytes,
        };
        let key = draft.order_id().into_bytes();
        let partition = partition_of(&key, self.profile.partitions);
        let sequence = &mut self.sequences[usize::try_from(partition).expect("partitions are not negative")];
        let id = RecordId { partition, sequence: *sequence };
        *sequence += 1;
        let opaque = self.random.next_u64().to_le_bytes().to_vec();
        Some(GeneratedOrder {
            id,
            key,
            value: draft.value(),
            headers: vec![(ID_HEADER.into(), id.to_string().into_bytes()), (BINARY_HEADER.into(), opaque)],
            expected: draft.expected(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_orders() {
        let take = |seed| Generator::new(Profile::mixed(seed, 4)).take(500).collect::<Vec<_>>();
        assert_eq!(take(1), take(1));
        assert_ne!(take(1), take(2));
    }

    #[test]
    fn ids_are_dense_in_each_partition_and_found_in_the_header() {
        let mut next = [0u64; 4];
        for order in Generator::new(Profile::mixed(5, 4)).take(2_000) {
            let partition = usize::try_from(order.id.partition).expect("not negative");
            assert_eq!(order.id.sequence, next[partition]);
            next[partition] += 1;
            let header = String::from_utf8(order.headers[0].1.clone()).expect("text");
            assert_eq!(header.parse(), Ok(order.id));
        }
        assert!(next.iter().all(|&count| count > 100), "{next:?}");
    }

    #[test]
    fn the_mix_is_kept_and_every_outcome_occurs() {
        let mut count: BTreeMap<String, u32> = BTreeMap::new();
        for order in Generator::new(Profile::mixed(9, 4)).take(20_000) {
            *count.entry(order.expected.label().to_owned()).or_default() += 1;
        }
        let of = |label: &str| count.get(label).copied().unwrap_or(0);
        assert!((1_300..1_900).contains(&of("filtered")), "{count:?}");
        assert!((1_000..1_400).contains(&of("tombstone")), "{count:?}");
        assert!((300..500).contains(&of("LookupMiss")), "{count:?}");
        assert!(of("review") > 200 && of("enriched") > 10_000, "{count:?}");
        assert!(of("InvalidJson") > 100 && of("MissingField") > 50 && of("ExpressionError") > 50, "{count:?}");
    }

    #[test]
    fn ids_that_are_no_ids_are_refused() {
        for text in ["", "3", "3:", ":3", "a:b", "1:2:3"] {
            assert!(text.parse::<RecordId>().is_err(), "{text:?}");
        }
    }
}
