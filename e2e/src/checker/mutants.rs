//! The judge is judged: a good history is acquitted, and each way of corrupting it is reported as what it is.

use super::synthetic::{History, NOW, TTL, view};
use super::*;

/// A corruption, and what must be reported of it.
struct Mutant {
    name: &'static str,
    corrupt: fn(&mut History),
    reported: fn(&Violation) -> bool,
}

/// `$name: $corrupt => $pattern`
macro_rules! mutants {
    ($($name:literal: $corrupt:expr => $pattern:pat $(if $guard:expr)?,)*) => {
        [$(Mutant { name: $name, corrupt: $corrupt, reported: |violation| matches!(violation, $pattern $(if $guard)?) }),*]
    };
}

/// Position of the first record on `enriched` whose key was written by another record later, and that record's position.
fn two_of_a_key(dump: &TopicDump) -> (usize, usize) {
    let same = |one: &Record, other: &Record| one.partition == other.partition && one.key == other.key;
    let found = dump.records.iter().enumerate().find_map(|(index, record)| {
        let other = dump.records[index + 1..].iter().position(|other| same(record, other))?;
        Some((index, index + 1 + other))
    });
    found.expect("keys come back")
}

/// A key whose last version exists, with at least one other value before it.
fn rewritten(history: &History) -> (String, Timeline) {
    let folded = history.folded();
    let found = folded.keys.iter().find(|(_, timeline)| {
        timeline.last().state.is_some() && timeline.versions[0].state.is_some() && timeline.versions.len() > 2
    });
    found.map(|(key, timeline)| (key.clone(), timeline.clone())).expect("keys come back")
}

/// A key whose last record deletes it.
fn deleted(history: &History) -> (String, Timeline) {
    let folded = history.folded();
    let gone = |timeline: &Timeline| timeline.last().state.is_none() && timeline.versions.len() > 1;
    let found = folded.keys.iter().find(|(_, timeline)| gone(timeline));
    found.map(|(key, timeline)| (key.clone(), timeline.clone())).expect("some keys end deleted")
}

fn value_of(timeline: &Timeline, index: usize) -> Held {
    timeline.versions[index].state.clone().expect("a version with a value")
}

fn first_with(history: &History, wanted: fn(&Fate) -> bool) -> Record {
    let found = history.input.records.iter().find(|record| record.id().is_some_and(|id| wanted(&history.fates[&id])));
    found.expect("every fate occurs").clone()
}

#[test]
fn a_good_history_is_acquitted() {
    for seed in 0..5 {
        let report = History::good(seed).judge();
        assert!(report.is_clean(), "{report}");
        for (what, least) in [("inputs", 600), ("samples with a value", 400), ("keys proven by a watermark", 250)] {
            assert!(report.checked(what) >= least, "only {} {what}: the acquittal proves little", report.checked(what));
        }
    }
}

#[test]
fn every_corruption_of_the_pipeline_is_reported() {
    convict(&mutants! {
        "an output is lost": |h| { h.outputs[0].records.remove(17); } => Violation::Lost { topic, .. } if topic == "x.order.enriched",
        "a dead letter is lost": |h| { h.dead_letters.records.remove(2); } => Violation::Lost { topic, .. } if topic == "x.order.rejected",
        "a batch is written twice": |h| {
            let again: Vec<Record> = h.outputs[0].records[..20].to_vec();
            h.outputs[0].records.extend(again.into_iter().map(|record| Record { offset: record.offset + 100_000, ..record }));
        } => Violation::Doubled { times: 2, .. },
        "an output is in two topics": |h| {
            let copy = h.outputs[0].records[3].clone();
            h.outputs[1].records.push(copy);
        } => Violation::Misrouted { topic, .. } if topic == "x.order.review",
        "a filtered record comes out": |h| {
            let record = first_with(h, |fate| *fate == Fate::Filtered);
            h.outputs[0].records.push(Record { offset: 200_000, ..record });
        } => Violation::Misrouted { expected, .. } if expected == "nothing",
        "a good record is dead-lettered": |h| {
            let record = h.outputs[0].records.remove(5);
            h.dead_letters.records.push(Record { offset: 200_000, ..record });
        } => Violation::Misrouted { topic, .. } if topic == "x.order.rejected",
        "outputs are committed without their offsets": |h| { *h.committed.get_mut(&1).expect("there") -= 30; } => Violation::AboveCommitted { .. },
        "offsets are committed without outputs": |h| {
            let last = h.input_ends[&2];
            h.outputs[0].records.retain(|record| record.id().is_none_or(|id| id.partition != 2 || (id.sequence as i64) < last - 10));
        } => Violation::Lost { .. },
        "an aborted transaction is read": |h| {
            let mut record = h.outputs[0].records[0].clone();
            record.headers[0].1 = b"0:999999".to_vec();
            h.outputs[0].records.push(record);
        } => Violation::Stranger { .. },
        "a record without an id appears": |h| { h.outputs[1].records[0].headers.clear(); } => Violation::Stranger { id: None, .. },
        "two records of a key change places": |h| {
            let (one, other) = two_of_a_key(&h.outputs[0]);
            let records = &mut h.outputs[0].records;
            let (first, second) = (records[one].offset, records[other].offset);
            records.swap(one, other);
            (records[one].offset, records[other].offset) = (first, second);
        } => Violation::Reordered { .. },
        "a record is replayed after a later one of its key": |h| {
            let (one, _) = two_of_a_key(&h.outputs[0]);
            let record = h.outputs[0].records[one].clone();
            h.outputs[0].records.push(Record { offset: 300_000, ..record });
        } => Violation::Reordered { .. },
        "a total is wrong": |h| {
            let value = h.outputs[0].records.iter_mut().find_map(|record| record.value.as_mut()).expect("a value");
            let text = String::from_utf8(value.clone()).expect("JSON").replace("\"total\":", "\"total\":1");
            *value = text.into_bytes();
        } => Violation::Content { part: "value", .. },
        "members change places": |h| {
            let value = h.outputs[0].records.iter_mut().find_map(|record| record.value.as_mut()).expect("a value");
            let text = String::from_utf8(value.clone()).expect("JSON").replace("\"discount\":null,\"gift\":true", "\"gift\":true,\"discount\":null");
            *value = text.replace("\"discount\":null,\"gift\":false", "\"gift\":false,\"discount\":null").into_bytes();
        } => Violation::Content { part: "value", .. },
        "a tombstone gets a value": |h| {
            let record = h.outputs[0].records.iter_mut().find(|record| record.value.is_none()).expect("a tombstone");
            record.value = Some(Vec::new());
        } => Violation::Content { part: "value", .. },
        "a key is dropped": |h| { h.outputs[1].records[1].key = None; } => Violation::Content { part: "key", .. },
        "a header is made text": |h| {
            let opaque = &mut h.outputs[0].records[1].headers[1].1;
            *opaque = String::from_utf8_lossy(&[0xff, 1, 2, 3]).into_owned().into_bytes();
        } => Violation::Content { part: "headers", .. },
        "the clock of the worker is used": |h| { h.outputs[0].records[1].timestamp_ms += 77; } => Violation::Content { part: "timestamp", .. },
        "a dead letter is changed by a byte": |h| {
            let letter = h.dead_letters.records.iter_mut().find_map(|record| record.value.as_mut()).expect("a value");
            let last = letter.len() - 1;
            letter[last] ^= 1;
        } => Violation::Content { part: "value", .. },
        "a dead letter names another offset": |h| {
            let headers = &mut h.dead_letters.records[0].headers;
            headers.iter_mut().find(|(name, _)| name == "sluice-source-offset").expect("there").1 = b"123456".to_vec();
        } => Violation::Content { part: "sluice-source-offset", .. },
        "a dead letter names another reason": |h| {
            let headers = &mut h.dead_letters.records[0].headers;
            headers.iter_mut().find(|(name, _)| name == "sluice-error-reason").expect("there").1 = b"Other".to_vec();
        } => Violation::Content { part: "sluice-error-reason", .. },
        "an offset is committed before its outputs": |h| {
            h.probes[1].ends_after.values_mut().for_each(|end| *end -= 20);
        } => Violation::Torn { probe: 1, .. },
        "an output is visible before its offset": |h| {
            h.probes[2].committed.values_mut().for_each(|offset| *offset -= 20);
        } => Violation::Torn { probe: 2, .. },
        "a partition is not consumed": |h| { h.committed.insert(3, 0); } => Violation::Lag { partition: 3, .. },
        "the group has no offset": |h| { h.committed.remove(&0); } => Violation::Lag { partition: 0, committed: None, .. },
    });
}

#[test]
fn every_corruption_of_a_view_is_reported() {
    convict(&mutants! {
        "a key is lost": |h| { let (key, _) = rewritten(h); h.redis.keys.remove(&key); } => Violation::Stale { found, .. } if found == "nothing",
        "a key keeps an older value": |h| {
            let (key, timeline) = rewritten(h);
            h.redis.keys.get_mut(&key).expect("there").held = value_of(&timeline, 0);
        } => Violation::Stale { .. },
        "a field of an older value stays": |h| {
            let (key, _) = rewritten(h);
            if let Held::Hash(fields) = &mut h.redis.keys.get_mut(&key).expect("there").held { fields.insert(b"old".to_vec(), b"1".to_vec()); }
        } => Violation::Stale { .. },
        "a key has another type": |h| {
            let (key, _) = rewritten(h);
            h.redis.keys.get_mut(&key).expect("there").held = Held::Other("list".into());
        } => Violation::Stale { .. },
        "a delete is missed": |h| {
            let (key, timeline) = deleted(h);
            let value = timeline.versions.iter().find_map(|version| version.state.clone()).expect("it had a value");
            h.redis.keys.insert(key, Entry { held: value, expires_at_ms: Some(NOW + 1) });
        } => Violation::GhostKey { .. },
        "a key of a foreign epoch stays": |h| {
            let held = Held::Text(b"x".to_vec());
            h.redis.keys.insert(view().redis_key(b"o-9999999"), Entry { held, expires_at_ms: None });
        } => Violation::GhostKey { .. },
        "a life is counted from the time of writing": |h| {
            let (key, _) = rewritten(h);
            h.redis.keys.get_mut(&key).expect("there").expires_at_ms = Some(NOW + TTL);
        } => Violation::WrongExpiry { .. },
        "a key lives for ever": |h| {
            let (key, _) = rewritten(h);
            h.redis.keys.get_mut(&key).expect("there").expires_at_ms = None;
        } => Violation::WrongExpiry { found: None, .. },
        "an expired key is still there": |h| { h.redis.from_ms += TTL; h.redis.until_ms += TTL; } => Violation::GhostKey { .. },
        "a reader sees what never commits": |h| {
            h.samples[40].held = Some(Held::Text(b"aborted".to_vec()));
        } => Violation::Uncommitted { .. },
        "a reader sees a key nobody writes": |h| {
            let (key, held) = ("x:order:{nobody}".into(), Some(Held::Text(b"1".to_vec())));
            h.samples.push(Sample { key, from_ms: NOW, until_ms: NOW, held });
        } => Violation::Uncommitted { .. },
        "a reader sees an older value after a newer one": |h| {
            let (key, timeline) = rewritten(h);
            let held = Some(value_of(&timeline, 0));
            h.samples.push(Sample { key, from_ms: NOW, until_ms: NOW, held });
        } => Violation::Backwards { .. },
        "a reader sees a value vanish": |h| {
            let (key, _) = rewritten(h);
            h.samples.push(Sample { key, from_ms: NOW, until_ms: NOW, held: None });
        } => Violation::Backwards { .. },
        "a fault excuses only its own time": |h| {
            h.faults.add(FaultWindow { kind: FaultKind::RedisLoss, from_ms: NOW, until_ms: NOW + 10 });
            let (key, timeline) = rewritten(h);
            for (at, index) in [(NOW + 20, timeline.versions.len() - 1), (NOW + 30, 0)] {
                h.samples.push(Sample { key: key.clone(), from_ms: at, until_ms: at, held: Some(value_of(&timeline, index)) });
            }
        } => Violation::Backwards { .. },
    });
}

#[test]
fn every_corruption_of_a_watermark_is_reported() {
    convict(&mutants! {
        "a watermark runs ahead of its data": |h| {
            h.snapshots[0].marks.values_mut().for_each(|mark| mark.offset += 20);
        } => Violation::WatermarkLies { .. },
        "data runs ahead of its watermark": |h| {
            h.snapshots[1].marks.values_mut().for_each(|mark| mark.offset -= 20);
        } => Violation::WatermarkLies { .. },
        "a moved slot is lost though its new owner's record names it": |h| {
            let slot = slot_of(h.snapshots[2].keys.keys().next().expect("a key"));
            h.snapshots[2].keys.retain(|key, _| slot_of(key) != slot);
        } => Violation::WatermarkLies { .. },
        "a watermark is written to another shard": |h| {
            let mark = h.last_snapshots[0].marks[&1].clone();
            h.last_snapshots[0].marks.remove(&1);
            h.last_snapshots[1].marks.insert(1, mark);
        } => Violation::NotCaughtUp { found: None, .. },
        "a shard stops before the end": |h| {
            h.last_snapshots[2].marks.get_mut(&0).expect("there").offset -= 1;
        } => Violation::NotCaughtUp { partition: 0, .. },
        "a transaction's marker is not counted": |h| {
            for snapshot in &mut h.last_snapshots { snapshot.marks.values_mut().for_each(|mark| mark.offset -= 1); }
        } => Violation::NotCaughtUp { .. },
        "a slot stays behind for ever": |h| {
            h.last_snapshots[0].marks.get_mut(&2).expect("there").behind.insert(77, 3);
        } => Violation::NotCaughtUp { partition: 2, .. },
        "a slot is never named": |h| {
            h.last_snapshots[1].marks.get_mut(&2).expect("there").covered = vec![(5_461, 8_000), (8_002, 10_922)];
        } => Violation::NotCaughtUp { partition: 2, .. },
    });
}

fn convict(mutants: &[Mutant]) {
    let good = History::good(1);
    for mutant in mutants {
        let mut history = good.clone();
        (mutant.corrupt)(&mut history);
        for dump in history.outputs.iter_mut().chain([&mut history.dead_letters]) {
            dump.records.sort_by_key(|record| (record.partition, record.offset));
        }
        let report = history.judge();
        assert!(report.violations.iter().any(mutant.reported), "{:?} was not reported: {report}", mutant.name);
    }
}

#[test]
fn a_fault_excuses_older_values_until_its_repair() {
    let mut history = History::good(1);
    let (key, timeline) = rewritten(&history);
    history.faults.add(FaultWindow { kind: FaultKind::RedisLoss, from_ms: NOW, until_ms: NOW + 10 });
    for at in [NOW + 5, NOW + 20] {
        let held = Some(value_of(&timeline, 0));
        history.samples.push(Sample { key: key.clone(), from_ms: at, until_ms: at, held });
    }
    let report = history.judge();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_slot_that_is_not_named_or_behind_proves_nothing() {
    let mut history = History::good(1);
    let slot = slot_of(history.snapshots[0].keys.keys().next().expect("a key"));
    history.snapshots[0].keys.retain(|key, _| slot_of(key) != slot);
    for mark in history.snapshots[0].marks.values_mut() {
        mark.behind.insert(slot, 0);
    }
    let report = history.judge();
    assert!(report.is_clean(), "{report}");
}
