//! I1, I2, I3: each input exactly once where it belongs, in order, together with its offset.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::json;
use super::record::{Record, TopicDump};
use super::report::Report;
use super::violation::{Violation, show};
use crate::generator::{Expected, RecordId, Route};

/// What must become of one input.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    /// One record in each of these places.
    Outputs(Vec<Placement>),
    /// Nothing is written.
    Filtered,
    /// A dead letter with this reason.
    DeadLetter(&'static str),
}

impl Fate {
    /// What must become of an order with this key, where `topic` is where a route leads.
    pub fn of(key: &[u8], expected: &Expected, topic: impl Fn(Route) -> String) -> Self {
        let placement = |route, content| Placement { topic: topic(route), key: Some(key.to_vec()), content };
        match expected {
            Expected::Filtered => Self::Filtered,
            Expected::DeadLetter(reason) => Self::DeadLetter(reason.name()),
            Expected::Tombstone => Self::Outputs(vec![placement(Route::Enriched, Content::Same)]),
            Expected::Output { route, value } => Self::Outputs(vec![placement(*route, Content::Json(value.clone()))]),
        }
    }
}

/// One place where an output must be.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// The topic.
    pub topic: String,
    /// The output's key.
    pub key: Option<Vec<u8>>,
    /// The output's value.
    pub content: Content,
}

/// What an output's value must be.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// The input's bytes.
    Same,
    /// This JSON: members in this order, numbers by value.
    Json(Value),
}

/// Everything that is known of one pipeline once it has come to rest.
#[derive(Debug, Clone, Copy)]
pub struct PipelineHistory<'a> {
    /// The source topic.
    pub input: &'a TopicDump,
    /// What must become of each input.
    pub fates: &'a BTreeMap<RecordId, Fate>,
    /// All topics the pipeline writes, but the dead letters.
    pub outputs: &'a [TopicDump],
    /// The dead letters.
    pub dead_letters: Option<&'a TopicDump>,
    /// The group's committed offsets.
    pub committed: &'a BTreeMap<i32, i64>,
}

type Traces<'a> = BTreeMap<RecordId, Vec<(&'a str, &'a Record)>>;

/// Checks I1 and I2.
pub fn check_pipeline(history: &PipelineHistory<'_>) -> Report {
    let mut report = Report::default();
    let inputs = index(history, &mut report);
    let traces = traces(history, &inputs, &mut report);
    for (id, input) in &inputs {
        let committed = history.committed.get(&input.partition).copied().unwrap_or(0);
        let found = traces.get(id).map_or(&[][..], Vec::as_slice);
        if input.offset >= committed {
            for (topic, _) in found {
                let topic = (*topic).to_owned();
                report.found(Violation::AboveCommitted { id: *id, offset: input.offset, committed, topic });
            }
        } else if let Some(fate) = history.fates.get(id) {
            check_fate(&Case { history, id: *id, input, committed }, fate, found, &mut report);
        }
    }
    for dump in history.outputs.iter().chain(history.dead_letters) {
        check_order(dump, &inputs, &mut report);
    }
    report.count("inputs", inputs.len());
    report.count("outputs", traces.values().map(Vec::len).sum());
    report
}

/// Inputs by id; a second one with the same id, or one without, is the harness's mistake and reported as a stranger.
fn index<'a>(history: &PipelineHistory<'a>, report: &mut Report) -> BTreeMap<RecordId, &'a Record> {
    let mut inputs = BTreeMap::new();
    for record in &history.input.records {
        match record.id().filter(|id| history.fates.contains_key(id) && !inputs.contains_key(id)) {
            Some(id) => {
                inputs.insert(id, record);
            }
            None => report.found(stranger(&history.input.topic, record)),
        }
    }
    inputs
}

fn traces<'a>(
    history: &PipelineHistory<'a>,
    inputs: &BTreeMap<RecordId, &'a Record>,
    report: &mut Report,
) -> Traces<'a> {
    let mut traces: Traces<'a> = BTreeMap::new();
    for dump in history.outputs.iter().chain(history.dead_letters) {
        for record in &dump.records {
            match record.id().filter(|id| inputs.contains_key(id)) {
                Some(id) => traces.entry(id).or_default().push((&dump.topic, record)),
                None => report.found(stranger(&dump.topic, record)),
            }
        }
    }
    traces
}

fn stranger(topic: &str, record: &Record) -> Violation {
    let id = record.header(crate::generator::ID_HEADER).map(show);
    Violation::Stranger { topic: topic.to_owned(), partition: record.partition, offset: record.offset, id }
}

/// One input under judgement.
struct Case<'a> {
    history: &'a PipelineHistory<'a>,
    id: RecordId,
    input: &'a Record,
    committed: i64,
}

fn check_fate(case: &Case<'_>, fate: &Fate, found: &[(&str, &Record)], report: &mut Report) {
    let dead = case.history.dead_letters.map(|dump| dump.topic.as_str());
    let wanted: BTreeSet<&str> = match fate {
        Fate::Outputs(places) => places.iter().map(|place| place.topic.as_str()).collect(),
        Fate::Filtered => BTreeSet::new(),
        Fate::DeadLetter(_) => dead.into_iter().collect(),
    };
    for topic in &wanted {
        let here: Vec<&Record> = found.iter().filter(|(at, _)| at == topic).map(|(_, record)| *record).collect();
        match (here.as_slice(), fate) {
            ([], _) => report.found(Violation::Lost {
                id: case.id,
                offset: case.input.offset,
                committed: case.committed,
                topic: (*topic).to_owned(),
            }),
            ([record], Fate::Outputs(places)) => {
                let place = places.iter().find(|place| place.topic == *topic).expect("made from this list");
                check_output(case, place, record, report);
            }
            ([record], Fate::DeadLetter(reason)) => check_dead_letter(case, topic, reason, record, report),
            (several, _) => report.found(Violation::Doubled {
                id: case.id,
                topic: (*topic).to_owned(),
                times: several.len(),
                offsets: several.iter().map(|record| record.offset).collect(),
            }),
        }
    }
    for (topic, record) in found.iter().filter(|(topic, _)| !wanted.contains(topic)) {
        let expected = match fate {
            Fate::Outputs(_) => format!("{wanted:?}"),
            Fate::Filtered => "nothing".into(),
            Fate::DeadLetter(reason) => format!("a dead letter ({reason})"),
        };
        let (id, topic, offset) = (case.id, (*topic).to_owned(), record.offset);
        report.found(Violation::Misrouted { id, topic, offset, expected });
    }
}

/// Reports one part of a trace that is not as it should be.
fn compare(case: &Case<'_>, at: (&str, i64), part: &'static str, found: &str, expected: &str, report: &mut Report) {
    if found != expected {
        report.found(Violation::Content {
            id: case.id,
            topic: at.0.to_owned(),
            offset: at.1,
            part,
            found: found.to_owned(),
            expected: expected.to_owned(),
        });
    }
}

fn check_output(case: &Case<'_>, place: &Placement, record: &Record, report: &mut Report) {
    let at = (place.topic.as_str(), record.offset);
    compare(case, at, "key", &show_option(record.key.as_deref()), &show_option(place.key.as_deref()), report);
    compare(case, at, "timestamp", &record.timestamp_ms.to_string(), &case.input.timestamp_ms.to_string(), report);
    compare(case, at, "headers", &show_headers(&record.headers), &show_headers(&case.input.headers), report);
    match &place.content {
        Content::Same => compare_bytes(case, at, record.value.as_deref(), case.input.value.as_deref(), report),
        Content::Json(wanted) => {
            let wanted = wanted.to_string();
            let found = record.value.as_deref().unwrap_or_default();
            if !std::str::from_utf8(found).is_ok_and(|found| json::same(found, &wanted)) {
                let shown = show_difference(found, wanted.as_bytes());
                compare(case, at, "value", &shown, &show_difference(wanted.as_bytes(), found), report);
            }
        }
    }
}

fn compare_bytes(case: &Case<'_>, at: (&str, i64), found: Option<&[u8]>, expected: Option<&[u8]>, report: &mut Report) {
    if found != expected {
        // The two may look the same once they are cut for printing.
        let expected = format!("{} exactly", show_option(expected));
        compare(case, at, "value", &show_option(found), &expected, report);
    }
}

fn check_dead_letter(case: &Case<'_>, topic: &str, reason: &str, record: &Record, report: &mut Report) {
    let at = (topic, record.offset);
    let input = case.input;
    compare(case, at, "key", &show_option(record.key.as_deref()), &show_option(input.key.as_deref()), report);
    compare_bytes(case, at, record.value.as_deref(), input.value.as_deref(), report);
    let kept = record.headers.get(..input.headers.len()).unwrap_or(&record.headers);
    compare(case, at, "headers", &show_headers(kept), &show_headers(&input.headers), report);
    let wanted = [
        ("sluice-error-reason", reason.to_owned()),
        ("sluice-source-topic", case.history.input.topic.clone()),
        ("sluice-source-partition", input.partition.to_string()),
        ("sluice-source-offset", input.offset.to_string()),
        ("sluice-source-timestamp", input.timestamp_ms.to_string()),
    ];
    for (name, value) in wanted {
        let found = record.header(name).map_or_else(|| "absent".to_owned(), show);
        compare(case, at, name, &found, &value, report);
    }
    for name in ["sluice-error-step", "sluice-error-message"] {
        if record.header(name).is_none() {
            compare(case, at, name, "absent", "present", report);
        }
    }
}

fn show_option(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(|| "nothing".to_owned(), |bytes| format!("{:?}", show(bytes)))
}

fn show_headers(headers: &[(String, Vec<u8>)]) -> String {
    let shown: Vec<String> = headers.iter().map(|(name, value)| format!("{name}={}", show(value))).collect();
    shown.join(", ")
}

/// The part of a value where it begins to differ from another.
fn show_difference(bytes: &[u8], other: &[u8]) -> String {
    const BEFORE: usize = 24;
    let same = bytes.iter().zip(other).take_while(|(one, other)| one == other).count();
    let from = same.saturating_sub(BEFORE);
    format!("…{} (from byte {from})", show(&bytes[from..]))
}

/// Output partition, output key, source partition.
type Stream<'a> = (i32, Option<&'a [u8]>, i32);

/// I2: what came from one source partition with one output key comes out in the order it went in.
fn check_order(dump: &TopicDump, inputs: &BTreeMap<RecordId, &Record>, report: &mut Report) {
    let mut last: BTreeMap<Stream<'_>, (i64, RecordId)> = BTreeMap::new();
    for record in &dump.records {
        let Some((id, input)) = record.id().and_then(|id| inputs.get(&id).map(|input| (id, input))) else { continue };
        let stream = (record.partition, record.key.as_deref(), input.partition);
        if let Some((offset, earlier)) = last.get(&stream) {
            // Equal offsets are doubles, which I1 reports.
            if *offset > input.offset {
                report.found(Violation::Reordered {
                    topic: dump.topic.clone(),
                    key: show_option(record.key.as_deref()),
                    later: id,
                    earlier: *earlier,
                    offset: record.offset,
                });
                continue;
            }
        }
        last.insert(stream, (input.offset, id));
    }
    report.count("ordered streams", last.len());
}

/// What an observer saw while the pipeline ran, in this order: the last stable offsets of all outputs, the group's stable
/// committed offsets, the ends of all outputs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OffsetProbe {
    /// Last stable offset by topic and partition, taken before the offsets.
    pub visible_before: BTreeMap<(String, i32), i64>,
    /// The group's committed offsets, read so that offsets of transactions in flight are waited for.
    pub committed: BTreeMap<i32, i64>,
    /// Log end by topic and partition, taken after the offsets.
    pub ends_after: BTreeMap<(String, i32), i64>,
}

/// Checks I3: an output that was visible had its offset committed; a committed offset had all its outputs written.
pub fn check_probes(history: &PipelineHistory<'_>, probes: &[OffsetProbe]) -> Report {
    let mut report = Report::default();
    // What is wrong with the dumps themselves is I1's to say.
    let inputs = index(history, &mut Report::default());
    for (number, probe) in probes.iter().enumerate() {
        for dump in history.outputs.iter().chain(history.dead_letters) {
            for record in &dump.records {
                let Some((id, input)) = record.id().and_then(|id| inputs.get(&id).map(|input| (id, input))) else {
                    continue;
                };
                let Some(&committed) = probe.committed.get(&input.partition) else { continue };
                let place = (dump.topic.clone(), record.partition);
                let visible = probe.visible_before.get(&place).is_some_and(|&stable| record.offset < stable);
                let written = probe.ends_after.get(&place).is_none_or(|&end| record.offset < end);
                let covered = input.offset < committed;
                if (visible && !covered) || (covered && !written) {
                    let (topic, offset) = (dump.topic.clone(), record.offset);
                    report.found(Violation::Torn { probe: number, id, topic, offset, committed });
                }
            }
        }
    }
    report.count("probes", probes.len());
    report
}
