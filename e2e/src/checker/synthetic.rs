//! A history as a faultless worker would leave it, for the judge to acquit and for the mutants to corrupt.

use std::collections::BTreeMap;

use super::*;
use crate::generator::{Expected, GeneratedOrder, Generator, Profile, RecordId, Route};

pub(super) const NOW: i64 = 1_700_000_000_000;
pub(super) const TTL: i64 = 1_800_000;
pub(super) const SLACK: i64 = 5;
const PARTITIONS: i32 = 4;
/// Input records.
pub(super) const ORDERS: usize = 600;
/// Records in one transaction; each leaves a marker in the partitions it touched.
const BATCH: usize = 150;

/// Everything the checks take.
#[derive(Clone)]
pub(super) struct History {
    pub(super) input: TopicDump,
    pub(super) fates: BTreeMap<RecordId, Fate>,
    /// `enriched`, then `review`.
    pub(super) outputs: Vec<TopicDump>,
    pub(super) dead_letters: TopicDump,
    pub(super) committed: BTreeMap<i32, i64>,
    pub(super) input_ends: BTreeMap<i32, i64>,
    pub(super) probes: Vec<OffsetProbe>,
    pub(super) redis: RedisDump,
    pub(super) samples: Vec<Sample>,
    pub(super) faults: FaultLog,
    /// One in the middle, one at the end.
    pub(super) snapshots: Vec<ShardSnapshot>,
    pub(super) last_snapshots: Vec<ShardSnapshot>,
}

pub(super) fn view() -> ViewSpec {
    ViewSpec { before: "x:order:{".into(), after: "}".into(), kind: ViewKind::Hash, ttl_ms: Some(TTL), when: None }
}

fn topic_of(route: Route) -> String {
    format!("x.order.{}", route.name())
}

fn fate(order: &GeneratedOrder) -> Fate {
    let placement = |route, content| Placement { topic: topic_of(route), key: Some(order.key.clone()), content };
    match &order.expected {
        Expected::Filtered => Fate::Filtered,
        Expected::DeadLetter(reason) => Fate::DeadLetter(reason.name()),
        Expected::Tombstone => Fate::Outputs(vec![placement(Route::Enriched, Content::Same)]),
        Expected::Output { route, value } => Fate::Outputs(vec![placement(*route, Content::Json(value.clone()))]),
    }
}

impl History {
    pub(super) fn good(seed: u64) -> Self {
        let orders: Vec<GeneratedOrder> =
            Generator::new(Profile { orders: 150, ..Profile::mixed(seed, 4) }).take(ORDERS).collect();
        let (mut input, mut enriched, mut review, mut dead) = (vec![], vec![], vec![], vec![]);
        let mut ends: BTreeMap<(&'static str, i32), i64> = BTreeMap::new();
        let mut probes = Vec::new();
        for (number, order) in orders.iter().enumerate() {
            let record = input_record(number, order);
            let offset = record.offset;
            let mut append = |name: &'static str, into: &mut Vec<Record>, mut copy: Record| {
                let end = ends.entry((name, copy.partition)).or_default();
                copy.offset = *end;
                *end += 1;
                into.push(copy);
            };
            match &order.expected {
                Expected::Filtered => {}
                Expected::Tombstone => append("enriched", &mut enriched, record.clone()),
                Expected::Output { route, value } => {
                    let copy = Record { value: Some(value.to_string().into_bytes()), ..record.clone() };
                    match route {
                        Route::Enriched => append("enriched", &mut enriched, copy),
                        Route::Review => append("review", &mut review, copy),
                    }
                }
                Expected::DeadLetter(reason) => append("rejected", &mut dead, dead_letter(&record, reason.name())),
            }
            input.push(Record { offset, ..record });
            if number % BATCH == BATCH - 1 {
                // The transaction commits: markers everywhere, and an observer looks.
                for end in ends.values_mut() {
                    *end += 1;
                }
                probes.push(probe(&input, &ends));
            }
        }
        let of = |name: &str| {
            let ends = ends.iter().filter(|((topic, _), _)| *topic == name).map(|((_, at), end)| (*at, *end)).collect();
            (format!("x.order.{name}"), ends)
        };
        let dump = |name: &str, records| {
            let (topic, ends) = of(name);
            TopicDump::new(topic, records, ends)
        };
        let committed = counts(&input);
        let outputs = vec![dump("enriched", enriched), dump("review", review)];
        let mut history = Self {
            fates: orders.iter().map(|order| (order.id, fate(order))).collect(),
            dead_letters: dump("rejected", dead),
            input: TopicDump::new("x.order.created", input, committed.clone()),
            input_ends: committed.clone(),
            committed,
            probes,
            redis: RedisDump::default(),
            samples: Vec::new(),
            faults: FaultLog::default(),
            snapshots: Vec::new(),
            last_snapshots: Vec::new(),
            outputs,
        };
        history.materialise();
        history
    }

    /// Redis, its readers and its watermarks, from the view topic as it stands.
    fn materialise(&mut self) {
        let folded = fold(&self.outputs[0], &[view()]);
        self.redis = RedisDump { from_ms: NOW, until_ms: NOW + 50, ..RedisDump::default() };
        for (key, timeline) in &folded.keys {
            for version in &timeline.versions {
                let at = NOW - 100_000 + version.offset;
                let held = version.state.clone();
                self.samples.push(Sample { key: key.clone(), from_ms: at, until_ms: at, held });
            }
            if let Some(entry) = entry(timeline.last()) {
                self.redis.keys.insert(key.clone(), entry);
            }
        }
        self.snapshots = shards(&folded, 2);
        self.last_snapshots = shards(&folded, 1);
    }

    pub(super) fn folded(&self) -> Folded {
        fold(&self.outputs[0], &[view()])
    }

    /// All checks.
    pub(super) fn judge(&self) -> Report {
        let pipeline = PipelineHistory {
            input: &self.input,
            fates: &self.fates,
            outputs: &self.outputs,
            dead_letters: Some(&self.dead_letters),
            committed: &self.committed,
        };
        let mut report = check_pipeline(&pipeline);
        report.merge(check_probes(&pipeline, &self.probes));
        let folded = self.folded();
        report.merge(check_view(&folded, &self.redis, SLACK));
        report.merge(check_samples(&folded, &self.samples, &self.faults, SLACK));
        for snapshot in self.snapshots.iter().chain(&self.last_snapshots) {
            report.merge(check_snapshot(&folded, snapshot, SLACK));
        }
        report.merge(check_caught_up(&folded, &self.last_snapshots));
        report.merge(check_lag("x", &self.committed, &self.input_ends));
        report
    }
}

fn input_record(number: usize, order: &GeneratedOrder) -> Record {
    Record {
        partition: order.id.partition,
        offset: i64::try_from(order.id.sequence).expect("small"),
        timestamp_ms: NOW - 200_000 + i64::try_from(number).expect("small"),
        key: Some(order.key.clone()),
        value: order.value.clone(),
        headers: order.headers.clone(),
    }
}

fn dead_letter(input: &Record, reason: &str) -> Record {
    let added = [
        ("sluice-error-step", "price".to_owned()),
        ("sluice-error-reason", reason.to_owned()),
        ("sluice-error-message", "…".to_owned()),
        ("sluice-source-topic", "x.order.created".to_owned()),
        ("sluice-source-partition", input.partition.to_string()),
        ("sluice-source-offset", input.offset.to_string()),
        ("sluice-source-timestamp", input.timestamp_ms.to_string()),
    ];
    let mut letter = input.clone();
    letter.headers.extend(added.map(|(name, value)| (name.to_owned(), value.into_bytes())));
    letter
}

fn counts(records: &[Record]) -> BTreeMap<i32, i64> {
    let mut counts: BTreeMap<i32, i64> = (0..PARTITIONS).map(|partition| (partition, 0)).collect();
    for record in records {
        *counts.entry(record.partition).or_default() += 1;
    }
    counts
}

fn probe(input: &[Record], ends: &BTreeMap<(&'static str, i32), i64>) -> OffsetProbe {
    let ends: BTreeMap<(String, i32), i64> =
        ends.iter().map(|((name, at), end)| ((format!("x.order.{name}"), *at), *end)).collect();
    OffsetProbe { visible_before: ends.clone(), committed: counts(input), ends_after: ends }
}

pub(super) fn entry(version: &Version) -> Option<Entry> {
    version.state.clone().map(|held| Entry { held, expires_at_ms: version.expires_at_ms })
}

/// Three shards that stand at `1/fraction` of each partition.
fn shards(folded: &Folded, fraction: i64) -> Vec<ShardSnapshot> {
    [(0, 5_460), (5_461, 10_922), (10_923, 16_383)]
        .into_iter()
        .map(|slots| {
            let mark = |end: i64| Mark { offset: end / fraction, covered: vec![slots], behind: BTreeMap::new() };
            let marks: BTreeMap<i32, Mark> = folded.ends.iter().map(|(&at, &end)| (at, mark(end))).collect();
            let keys = folded.keys.iter().filter(|(key, _)| (slots.0..=slots.1).contains(&slot_of(key)));
            let keys = keys.filter_map(|(key, timeline)| {
                let version = timeline.before(marks[&timeline.partition].offset)?;
                Some((key.clone(), entry(version)?))
            });
            ShardSnapshot {
                shard: format!("shard {}", slots.0),
                slots: vec![slots],
                at_ms: NOW,
                keys: keys.collect(),
                marks,
            }
        })
        .collect()
}
