//! The processor as a process, against real Kafka brokers (and Redis for lookups).

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::{Value, json};
use sluice_crds::report::PartitionReport;

use support::{Got, Send, Stack, eventually, now_millis, stack};

fn routing(routes: &[(&str, &str)], on_no_match: &str) -> Value {
    let routes: Vec<Value> = routes
        .iter()
        .map(|(topic, when)| {
            let mut route = json!({"name": topic, "topic": topic, "hasViews": false, "compacted": false});
            if !when.is_empty() {
                route["when"] = json!(when);
            }
            route
        })
        .collect();
    json!({"match": "First", "onNoMatch": on_no_match, "routes": routes})
}

/// Sends `{"id": n}` for each n, keyed by n.
fn send_numbers(stack: &Stack, topic: &str, numbers: impl IntoIterator<Item = u32>) {
    let records: Vec<(String, String)> =
        numbers.into_iter().map(|n| (format!("k{n}"), format!("{{\"id\": {n}, \"x\":\"padding\"}}"))).collect();
    let now = now_millis();
    let send = records.iter().map(|(key, value)| Send {
        key: Some(key.as_bytes()),
        value: Some(value.as_bytes()),
        headers: &[],
        timestamp: now,
    });
    stack.send(topic, send);
}

fn numbers(got: &[Got]) -> Vec<u32> {
    got.iter()
        .map(|one| {
            let value: Value = serde_json::from_str(one.text()).expect("JSON");
            u32::try_from(value["id"].as_u64().expect("a number")).expect("small")
        })
        .collect()
}

/// A pipeline without steps, from one topic to others that get every record.
struct Pipeline {
    source: String,
    outs: Vec<String>,
    group: String,
    config: Value,
}

/// Makes topics, start offsets and configuration; `processor` gives what differs.
fn pipeline(stack: &Stack, partitions: u32, outs: &[(&str, u32)], processor: &Value) -> Pipeline {
    let source = stack.topic("in", partitions, &[]);
    let outs: Vec<String> = outs.iter().map(|(name, partitions)| stack.topic(name, *partitions, &[])).collect();
    let group = stack.name("group");
    stack.commit_start(&group, &source, i32::try_from(partitions).expect("few"));
    let routes: Vec<(&str, &str)> = outs.iter().map(|out| (out.as_str(), "")).collect();
    let mut config = stack.config(&source, &group, &json!({"routing": routing(&routes, "Discard")}));
    for (key, value) in processor.as_object().expect("object") {
        config["processor"][key] = value.clone();
    }
    Pipeline { source, outs, group, config }
}

/// Waits until the group has committed everything; gives the reports.
fn caught_up(stack: &Stack, group: &str, topic: &str) -> BTreeMap<i32, (i64, PartitionReport)> {
    let ends: BTreeMap<i32, i64> = {
        let mut ends = BTreeMap::new();
        for one in stack.read(topic) {
            *ends.entry(one.partition).or_default() += 1;
        }
        ends
    };
    eventually("the group to catch up", || {
        let committed = stack.committed(group);
        let mut reports = BTreeMap::new();
        for (partition, end) in &ends {
            let found = committed.iter().find(|(at, _)| at.topic == topic && at.partition == *partition)?.1;
            if found.offset < *end {
                return None;
            }
            reports.insert(*partition, (found.offset, PartitionReport::parse(&found.metadata).ok()?));
        }
        Some(reports)
    })
}

/// Each number below `count` once.
fn exactly_once(got: &[Got], count: u32) {
    let mut got = numbers(got);
    got.sort_unstable();
    let missing: Vec<u32> = (0..count).filter(|n| got.binary_search(n).is_err()).take(5).collect();
    let twice: Vec<u32> = got.windows(2).filter(|two| two[0] == two[1]).map(|two| two[0]).take(5).collect();
    assert!(missing.is_empty() && twice.is_empty(), "missing {missing:?}, twice {twice:?}");
    assert_eq!(got.len(), count as usize);
}

#[test]
fn steps_routes_and_dead_letters() {
    let Some(stack) = stack("steps") else { return };
    let source = stack.topic("in", 4, &[]);
    let (big, small, dead) = (stack.topic("big", 2, &[]), stack.topic("small", 2, &[]), stack.topic("dead", 1, &[]));
    let group = stack.name("group");
    stack.commit_start(&group, &source, 4);
    let prefix = stack.name("price:");
    let lookups = seed(&format!("{prefix}a"), r#"{"amount": 2.5}"#);
    let mut steps = vec![json!({"name": "keep", "action": {"filter": {"keepWhen": "value.status != 'NO'"}}})];
    if lookups {
        steps.push(json!({"name": "price", "action": {"lookup": {
            "key": format!("'{prefix}' + value.sku"), "keyPrefix": prefix, "lookupType": "Json", "onMiss": "DeadLetter"}}}));
        steps.push(json!({"name": "total", "action": {"set": {"fields": [
            {"field": "total", "expression": "double(value.n) * double(price.amount)"}]}}}));
    } else {
        println!("lookups are not tested: stack-redis-cli is not on the PATH");
        steps.push(json!({"name": "total", "action": {"set": {"fields": [
            {"field": "total", "expression": "double(value.n) * 2.5"}]}}}));
    }
    let config = stack.config(
        &source,
        &group,
        &json!({
            "steps": steps, "deadLetterTopic": dead,
            "routing": routing(&[(&big, "value.total >= 10"), (&small, "")], "DeadLetter"),
        }),
    );
    let now = now_millis() - 1000;
    let header: &[(&str, Option<&[u8]>)] = &[("trace", Some(b"abc")), ("empty", None), ("trace", Some(b"second"))];
    let send = |key: &'static [u8], value: Option<&'static [u8]>| Send {
        key: Some(key),
        value,
        headers: header,
        timestamp: now,
    };
    stack.send(
        &source,
        [
            send(b"1", Some(br#"{"status":"OK", "sku":"a",  "n":1}"#)),
            send(b"2", Some(br#"{"status":"OK", "sku":"a",  "n":7, "odd": 1.50}"#)),
            send(b"3", Some(br#"{"status":"NO", "sku":"a",  "n":1}"#)),
            send(b"4", Some(b"not json")),
            send(b"5", Some(br#"{"status":"OK"}"#)),
            send(b"6", None),
        ],
    );
    if lookups {
        stack.send(&source, [send(b"7", Some(br#"{"status":"OK", "sku":"unknown", "n":1}"#))]);
    }
    let worker = stack.worker("steps-0", &config, None);
    let reports = caught_up(&stack, &group, &source);
    let total: u64 = reports.values().map(|(_, report)| report.records).sum();
    assert_eq!(total, if lookups { 7 } else { 6 });

    let got = stack.read(&big);
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].text(), r#"{"status":"OK", "sku":"a",  "n":7, "odd": 1.50,"total":17.5}"#);
    assert_eq!(got[0].key.as_deref(), Some(&b"2"[..]));
    assert_eq!(got[0].timestamp, Some(now), "outputs carry the source's timestamp");
    let headers: Vec<(String, Option<Vec<u8>>)> =
        header.iter().map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec))).collect();
    assert_eq!(got[0].headers, headers, "headers pass unchanged, in order");
    let small_keys: BTreeSet<_> = stack.read(&small).into_iter().map(|one| one.key.expect("a key")).collect();
    assert_eq!(small_keys, BTreeSet::from([b"1".to_vec()]));

    let letters = stack.read(&dead);
    let by_key = |key: &[u8]| letters.iter().find(|one| one.key.as_deref() == Some(key)).expect("a dead letter");
    assert_eq!(by_key(b"4").header("sluice-error-reason"), Some("InvalidJson"));
    assert_eq!(by_key(b"4").value.as_deref(), Some(&b"not json"[..]));
    assert_eq!(by_key(b"4").header("trace"), Some("abc"), "original headers stay");
    assert_eq!(by_key(b"4").header("sluice-source-topic"), Some(source.as_str()));
    assert_eq!(by_key(b"4").header("sluice-source-timestamp"), Some(now.to_string().as_str()));
    assert_eq!(by_key(b"5").header("sluice-error-reason"), Some("MissingField"));
    if lookups {
        assert_eq!(by_key(b"7").header("sluice-error-reason"), Some("LookupMiss"));
        assert_eq!(by_key(b"7").header("sluice-error-step"), Some("price"));
    }
    assert_eq!(worker.get("/readyz").map(|(status, _)| status), Some(200));
    assert_eq!(worker.get("/livez").map(|(status, _)| status), Some(200));
    assert!(worker.metric("sluice_processor_records_total") >= 6);
    let status = worker.stop();
    assert_eq!(status.code(), Some(0), "SIGTERM ends the process cleanly");
}

/// Sets a key by the stack's own client; false when there is none.
fn seed(key: &str, value: &str) -> bool {
    let done = Command::new("stack-redis-cli").args(["7001", "-c", "SET", key, value]).output();
    done.is_ok_and(|output| output.status.success())
}

#[test]
fn dies_anywhere_and_every_record_counts_once() {
    let Some(stack) = stack("kill") else { return };
    // Two copies of each record: an atomic pair.
    let Pipeline { source, outs, group, mut config } =
        pipeline(&stack, 4, &[("out", 3), ("copy", 1)], &json!({"maxBatchRecords": 100}));
    config["processor"]["routing"]["match"] = json!("All");
    let count = 6000;
    send_numbers(&stack, &source, 0..count);
    for place in ["before-send-offsets:3", "before-commit:4", "after-commit:5"] {
        let mut worker = stack.worker("kill-0", &config, Some(place));
        let status = worker.exit();
        assert!(!status.success(), "{place}: dies");
    }
    let worker = stack.worker("kill-0", &config, None);
    caught_up(&stack, &group, &source);
    for out in &outs {
        exactly_once(&stack.read(out), count);
    }
    assert_eq!(worker.stop().code(), Some(0));
}

#[test]
fn two_workers_share_and_hand_over() {
    let Some(stack) = stack("share") else { return };
    let Pipeline { source, outs, group, config } = pipeline(&stack, 6, &[("out", 3)], &json!({"maxBatchRecords": 50}));
    let count = 8000;
    send_numbers(&stack, &source, 0..count);
    let one = stack.worker("share-0", &config, None);
    eventually("the first worker's work", || (one.metric("sluice_processor_records_total") > 500).then_some(()));
    let two = stack.worker("share-1", &config, None);
    eventually("the second worker's share", || (two.metric("sluice_processor_partitions") == 3).then_some(()));
    send_numbers(&stack, &source, count..2 * count);
    assert_eq!(one.stop().code(), Some(0));
    eventually("the second to own all", || (two.metric("sluice_processor_partitions") == 6).then_some(()));
    caught_up(&stack, &group, &source);
    exactly_once(&stack.read(&outs[0]), 2 * count);
    assert_eq!(two.stop().code(), Some(0));
}

#[test]
fn without_a_dead_letter_topic_the_partition_stands_still_before_the_record() {
    let Some(stack) = stack("still") else { return };
    let Pipeline { source, outs, config, .. } = pipeline(&stack, 2, &[("out", 1)], &json!({}));
    send_numbers(&stack, &source, 0..100);
    let bad = Send { key: Some(b"k1"), value: Some(b"{"), headers: &[], timestamp: now_millis() };
    stack.send(&source, [bad]);
    send_numbers(&stack, &source, 100..200);
    let mut worker = stack.worker("still-0", &config, None);
    eventually("the stall", || (worker.metric("sluice_processor_stalled_partitions") == 1).then_some(()));
    // The partition without the bad record is done to its end, the other up to the bad record.
    let sources = stack.read(&source);
    let bad_at = sources.iter().find(|one| one.value.as_deref() == Some(b"{")).expect("there").partition;
    let before = sources.iter().filter(|one| one.partition == bad_at).take_while(|one| one.text() != "{");
    let others = sources.iter().filter(|one| one.partition != bad_at);
    let expected: BTreeSet<u32> = numbers(&before.chain(others).cloned().collect::<Vec<_>>()).into_iter().collect();
    eventually("what can be done", || {
        let got = numbers(&stack.read(&outs[0]));
        (got.len() == expected.len() && got.into_iter().collect::<BTreeSet<_>>() == expected).then_some(())
    });
    assert!(worker.is_running());
    assert_eq!(worker.get("/livez").map(|(status, _)| status), Some(200));
    assert!(worker.logs().contains("the partition stands still"));
    assert_eq!(worker.stop().code(), Some(0));
}

#[test]
fn waits_for_start_offsets_and_says_so() {
    let Some(stack) = stack("lost") else { return };
    let (source, out) = (stack.topic("in", 1, &[]), stack.topic("out", 1, &[]));
    let group = stack.name("group");
    let config = stack.config(&source, &group, &json!({"routing": routing(&[(&out, "")], "Discard")}));
    send_numbers(&stack, &source, 0..10);
    let worker = stack.worker("lost-0", &config, None);
    eventually("the stall", || worker.logs().contains("OffsetsLost").then_some(()));
    assert!(stack.read(&out).is_empty(), "no start position is invented");
    assert_eq!(worker.stop().code(), Some(0));
}

#[test]
fn a_source_that_is_made_again_is_not_processed() {
    let Some(stack) = stack("again") else { return };
    let Pipeline { source, outs, group, config } = pipeline(&stack, 2, &[("out", 1)], &json!({}));
    send_numbers(&stack, &source, 0..100);
    let mut worker = stack.worker("again-0", &config, None);
    caught_up(&stack, &group, &source);
    exactly_once(&stack.read(&outs[0]), 100);
    stack.delete_topic(&source);
    assert_eq!(stack.topic("in", 2, &[]), source);
    eventually("the stop to be visible", || worker.get("/readyz").filter(|(_, body)| body.contains("TopicReplaced")));
    // Committed offsets mean nothing in it.
    send_numbers(&stack, &source, 100..400);
    assert!(worker.is_running());
    assert_eq!(worker.stop().code(), Some(0));
    let late = stack.worker("again-1", &config, None);
    eventually("the next one to say so", || late.get("/readyz").filter(|(_, body)| body.contains("TopicReplaced")));
    exactly_once(&stack.read(&outs[0]), 100);
    assert_eq!(late.stop().code(), Some(0));
}

#[test]
fn a_record_the_brokers_refuse_is_found_and_set_aside() {
    let Some(stack) = stack("refused") else { return };
    let source = stack.topic("in", 1, &[]);
    let out = stack.topic("out", 1, &[("max.message.bytes", "20000")]);
    let dead = stack.topic("dead", 1, &[("max.message.bytes", "20000")]);
    let group = stack.name("group");
    stack.commit_start(&group, &source, 1);
    let config = stack.config(
        &source,
        &group,
        &json!({
        "routing": routing(&[(&out, "")], "Discard"), "deadLetterTopic": dead}),
    );
    send_numbers(&stack, &source, 0..50);
    let huge = format!("{{\"id\": 999, \"x\": \"{}\"}}", "x".repeat(50_000));
    let bad = Send { key: Some(b"huge"), value: Some(huge.as_bytes()), headers: &[], timestamp: now_millis() };
    stack.send(&source, [bad]);
    send_numbers(&stack, &source, 50..100);
    let worker = stack.worker("refused-0", &config, None);
    caught_up(&stack, &group, &source);
    assert_eq!(numbers(&stack.read(&out)), (0..100).collect::<Vec<_>>(), "in order, without the huge one");
    let letters = stack.read(&dead);
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].header("sluice-error-reason"), Some("TooLarge"));
    assert_eq!(letters[0].header("sluice-error-stub"), Some("true"), "the dead-letter topic does not take it either");
    assert_eq!(letters[0].header("sluice-source-offset"), Some("50"));
    assert_eq!(worker.stop().code(), Some(0));
}

#[test]
fn a_worker_frozen_past_its_session_commits_nothing_of_what_it_lost() {
    let Some(stack) = stack("frozen") else { return };
    let Pipeline { source, outs, group, config } = pipeline(&stack, 4, &[("out", 2)], &json!({"maxBatchRecords": 20}));
    let count = 8000;
    send_numbers(&stack, &source, 0..count);
    let frozen = stack.worker("frozen-0", &config, None);
    eventually("some work", || (frozen.metric("sluice_processor_records_total") > 100).then_some(()));
    frozen.signal("STOP");
    let heir = stack.worker("frozen-1", &config, None);
    eventually("the heir to own all", || (heir.metric("sluice_processor_partitions") == 4).then_some(()));
    frozen.signal("CONT");
    eventually("the frozen one to have its share again", || {
        let owned = frozen.metric("sluice_processor_partitions");
        (owned == 2 && heir.metric("sluice_processor_partitions") == 2).then_some(())
    });
    send_numbers(&stack, &source, count..count + 1000);
    caught_up(&stack, &group, &source);
    exactly_once(&stack.read(&outs[0]), count + 1000);
    assert_eq!(frozen.stop().code(), Some(0));
    assert_eq!(heir.stop().code(), Some(0));
}

#[test]
fn a_call_that_never_returns_ends_in_a_fresh_process_with_the_same_pid() {
    let Some(stack) = stack("stuck") else { return };
    let Pipeline { source, outs, group, config } = pipeline(&stack, 2, &[("out", 2)], &json!({"maxBatchRecords": 100}));
    let count = 3000;
    send_numbers(&stack, &source, 0..count);
    let mut worker = stack.worker("stuck-0", &config, Some("in-send-offsets:3:hang"));
    caught_up(&stack, &group, &source);
    exactly_once(&stack.read(&outs[0]), count);
    assert!(worker.is_running(), "the process stayed");
    let logs = worker.logs();
    assert!(logs.contains("failpoint reached, hanging") && logs.contains("re-executing the process"));
    assert_eq!(worker.stop().code(), Some(0));
}
