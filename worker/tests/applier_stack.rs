//! The applier as a process, from real Kafka brokers into a Redis of the test's own.

#[path = "../../clients/tests/support/mod.rs"]
mod redis_support;
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_crds::report::PartitionReport;

use redis_support::{Server, redis_missing};
use support::{Got, Send, Stack, Worker, eventually, now_millis, stack};

/// Keys that records are about.
const KEYS: u32 = 60;

/// A topic with two partitions, a Redis, and the configuration of a worker between them.
struct View {
    topic: String,
    redis: Server,
    config: Value,
}

fn view(stack: &Stack) -> View {
    let topic = stack.topic("view", 2, &[]);
    let redis = Server::start(&["--maxmemory-policy", "noeviction"]);
    let views = json!([
        {"name": "text", "key": "'text:' + key", "keyPrefix": "text:", "viewType": "Json"},
        {"name": "even", "key": "'even:{' + key + '}'", "keyPrefix": "even:", "viewType": "Hash",
         "when": "value.n % 2 == 0", "ttlSeconds": 86_400},
    ]);
    let config = stack.applier_config(&topic, &stack.name("applier"), &redis.address(), &views);
    View { topic, redis, config }
}

/// Sends `{"n": …}` for each number, under one of [`KEYS`] keys; each eleventh is a tombstone.
fn send(stack: &Stack, topic: &str, numbers: std::ops::Range<u32>) {
    let now = now_millis();
    let records: Vec<(String, Option<String>)> = numbers
        .map(|n| (format!("k{}", n * 7 % KEYS), (n % 11 != 0).then(|| format!("{{\"n\": {n}, \"pad\":  null}}"))))
        .collect();
    stack.send(
        topic,
        records.iter().map(|(key, value)| Send {
            key: Some(key.as_bytes()),
            value: value.as_deref().map(str::as_bytes),
            headers: &[],
            timestamp: now,
        }),
    );
}

/// What Redis must hold: `text:` is the last value's bytes, `even:` its number if that is even.
fn fold(records: &[Got]) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for record in records {
        let key = String::from_utf8(record.key.clone().expect("a key")).expect("text");
        let (text, even) = (format!("text:{key}"), format!("even:{{{key}}}"));
        all.remove(&text);
        all.remove(&even);
        let Some(value) = &record.value else { continue };
        let number = serde_json::from_slice::<Value>(value).expect("JSON")["n"].as_u64().expect("a number");
        all.insert(text, String::from_utf8(value.clone()).expect("text"));
        if number.is_multiple_of(2) {
            all.insert(even, number.to_string());
        }
    }
    all
}

/// What Redis holds, watermark records left out.
fn held(redis: &Server) -> BTreeMap<String, String> {
    let keys: Vec<String> = redis::from_redis_value(redis.call(&["KEYS", "*"])).expect("keys");
    let keys = keys.into_iter().filter(|key| !key.starts_with("sluice/"));
    keys.filter_map(|key| {
        let words = if key.starts_with("even:") { vec!["HGET", &key, "n"] } else { vec!["GET", &key] };
        // Deleted since KEYS.
        let value: Option<String> = redis::from_redis_value(redis.try_call(&words).ok()?).ok()?;
        value.map(|value| (key, value))
    })
    .collect()
}

/// Waits until Redis is the fold of the whole topic.
fn follows(stack: &Stack, view: &View) {
    let expected = fold(&stack.read(&view.topic));
    assert!(expected.len() > KEYS as usize, "too little to compare: {}", expected.len());
    eventually("Redis to equal the topic", || (held(&view.redis) == expected).then_some(()));
}

/// Whether a metric with this label value is at least 1.
fn says(worker: &Worker, metric: &str, label: &str) -> bool {
    let Some((_, text)) = worker.get("/metrics") else { return false };
    let mut lines = text.lines().filter(|line| line.starts_with(&format!("{metric}{{")) && line.contains(label));
    lines.any(|line| line.rsplit(' ').next() != Some("0") && line.rsplit(' ').next() != Some("0.0"))
}

#[test]
fn a_standalone_redis_follows_through_flushed_scripts_a_full_server_and_lost_data() {
    let Some(stack) = stack("follow") else { return };
    if redis_missing() {
        return;
    }
    let view = view(&stack);
    send(&stack, &view.topic, 0..2_000);
    let worker = stack.worker("follow-0", &view.config, None);
    follows(&stack, &view);
    assert_eq!(worker.get("/readyz").map(|(status, _)| status), Some(200));
    assert!(view.redis.text(&["PTTL", "even:{k2}"]) != "-1" || view.redis.text(&["EXISTS", "even:{k2}"]) == "0");
    // The server forgets the script: the next batch brings it along.
    view.redis.call(&["SCRIPT", "FLUSH"]);
    send(&stack, &view.topic, 2_000..2_500);
    follows(&stack, &view);
    // The server is full: nothing is written, and it is said why.
    view.redis.call(&["CONFIG", "SET", "maxmemory", "1"]);
    send(&stack, &view.topic, 2_500..3_000);
    eventually("the wait to be visible", || {
        says(&worker, "sluice_applier_shards_unusable", "cause=\"OutOfMemory\"").then_some(())
    });
    assert_eq!(worker.get("/livez").map(|(status, _)| status), Some(200), "waiting is alive");
    view.redis.call(&["CONFIG", "SET", "maxmemory", "0"]);
    follows(&stack, &view);
    // The server loses everything, records included.
    view.redis.call(&["FLUSHALL"]);
    follows(&stack, &view);
    assert_eq!(worker.stop().code(), Some(0), "SIGTERM ends the process cleanly");
}

#[test]
fn dies_before_and_after_a_script_and_every_record_counts_once() {
    let Some(stack) = stack("die") else { return };
    if redis_missing() {
        return;
    }
    let view = view(&stack);
    send(&stack, &view.topic, 0..3_000);
    for place in ["before-apply:4", "after-apply:6", "after-apply:3"] {
        let mut worker = stack.worker("die-0", &view.config, Some(place));
        assert!(!worker.exit().success(), "{place}: dies");
    }
    let worker = stack.worker("die-0", &view.config, None);
    follows(&stack, &view);
    // What was in Redis when the others died was not read, or written, again.
    assert_eq!(worker.metric("sluice_applier_refused_total"), 0);
    assert_eq!(worker.stop().code(), Some(0));
}

#[test]
fn a_record_that_cannot_be_applied_stops_its_partition_visibly_and_no_other() {
    let Some(stack) = stack("poison") else { return };
    if redis_missing() {
        return;
    }
    let view = view(&stack);
    send(&stack, &view.topic, 0..500);
    stack.send(&view.topic, [Send { key: Some(b"k1"), value: Some(b"{"), headers: &[], timestamp: now_millis() }]);
    send(&stack, &view.topic, 500..1_000);
    let records = stack.read(&view.topic);
    let bad = records.iter().find(|one| one.value.as_deref() == Some(b"{")).expect("there").partition;
    let before = records.iter().filter(|one| one.partition == bad).take_while(|one| one.value.as_deref() != Some(b"{"));
    let others = records.iter().filter(|one| one.partition != bad);
    let expected = fold(&before.chain(others).cloned().collect::<Vec<_>>());
    let mut worker = stack.worker("poison-0", &view.config, None);
    eventually("all that can be applied", || (held(&view.redis) == expected).then_some(()));
    eventually("the stall to be visible", || {
        says(&worker, "sluice_applier_stalled_partitions", "cause=\"InvalidJson\"").then_some(())
    });
    assert!(worker.is_running());
    assert_eq!(worker.get("/livez").map(|(status, _)| status), Some(200));
    assert!(worker.logs().contains("a record cannot be applied; its partition stands"));
    assert_eq!(held(&view.redis), expected, "nothing behind the record is applied");
    assert_eq!(worker.stop().code(), Some(0));
}

#[test]
fn a_position_that_expired_meanwhile_is_left_for_the_first_record_there_is() {
    let Some(stack) = stack("expired") else { return };
    if redis_missing() {
        return;
    }
    let view = view(&stack);
    send(&stack, &view.topic, 0..500);
    let worker = stack.worker("expired-0", &view.config, None);
    follows(&stack, &view);
    assert_eq!(worker.stop().code(), Some(0));
    // Longer away than the topic keeps its records; each key has one among those that stay.
    send(&stack, &view.topic, 500..2_500);
    stack.expire(&view.topic, 2, 500);
    let worker = stack.worker("expired-1", &view.config, None);
    follows(&stack, &view);
    assert!(
        says(&worker, "sluice_applier_repairs_total", "cause=\"ExpiredPosition\""),
        "it is said that records were missed"
    );
    assert_eq!(worker.stop().code(), Some(0));
}

#[test]
fn a_topic_that_is_made_again_is_never_applied() {
    let Some(stack) = stack("again") else { return };
    if redis_missing() {
        return;
    }
    let view = view(&stack);
    send(&stack, &view.topic, 0..500);
    let worker = stack.worker("again-0", &view.config, None);
    follows(&stack, &view);
    let before = held(&view.redis);
    // The worker sees nothing of it, and the new topic has more records than the old one: no position is out of range.
    worker.signal("STOP");
    stack.delete_topic(&view.topic);
    assert_eq!(stack.topic("view", 2, &[]), view.topic);
    send(&stack, &view.topic, 5_000..7_000);
    // Its clock tells it that it was frozen.
    std::thread::sleep(Duration::from_secs(2));
    worker.signal("CONT");
    eventually("applying to stop", || worker.get("/readyz").filter(|(_, body)| body.contains("TopicReplaced")));
    eventually("the stop in the metrics", || {
        says(&worker, "sluice_applier_stopped", "cause=\"TopicReplaced\"").then_some(())
    });
    assert_eq!(held(&view.redis), before, "no record of the other topic was applied");
    assert_eq!(worker.stop().code(), Some(0));
    // Another worker with the old configuration does not begin.
    let late = stack.worker("again-1", &view.config, None);
    eventually("it to say so", || late.get("/readyz").filter(|(_, body)| body.contains("TopicReplaced")));
    assert_eq!(held(&view.redis), before);
}

/// Makes every watermark record as old as if nobody had written it for so many hours.
fn age_records(redis: &Server, hours: u64) {
    let keys: Vec<String> = redis::from_redis_value(redis.call(&["KEYS", "sluice/*"])).expect("keys");
    for key in keys {
        let fields: BTreeMap<String, String> = redis::from_redis_value(redis.call(&["HGETALL", &key])).expect("a hash");
        for (field, text) in fields.into_iter().filter(|(field, _)| field != "@") {
            let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
            let written: u64 = words[4].parse().expect("Unix milliseconds");
            words[4] = (written - hours * 3_600_000).to_string();
            redis.call(&["HSET", &key, &field, &words.join(" ")]);
        }
    }
}

/// What the partitions' reports say of missed deletions, once they are of this epoch.
fn missed(stack: &Stack, view: &View, epoch: u64) -> Vec<bool> {
    let group = view.config["applier"]["group"].as_str().expect("a group");
    eventually("a report of each partition", || {
        let committed = stack.committed(group);
        let reports = committed.values().filter_map(|committed| PartitionReport::parse(&committed.metadata).ok());
        let missed: Vec<bool> =
            reports.filter(|report| report.epoch == Some(epoch)).map(|report| report.deletions_missed).collect();
        (missed.len() == 2).then_some(missed)
    })
}

#[test]
fn who_was_away_for_too_long_says_that_deletions_may_have_been_missed_until_there_is_a_new_epoch() {
    let Some(stack) = stack("away") else { return };
    if redis_missing() {
        return;
    }
    let mut view = view(&stack);
    view.config["applier"]["topics"][0]["tombstonesKeptMilliseconds"] = json!(24 * 3_600_000);
    send(&stack, &view.topic, 0..500);
    let worker = stack.worker("away-0", &view.config, None);
    follows(&stack, &view);
    assert_eq!(missed(&stack, &view, 1), [false, false]);
    assert_eq!(worker.stop().code(), Some(0));

    age_records(&view.redis, 13);
    send(&stack, &view.topic, 500..1_000);
    let worker = stack.worker("away-1", &view.config, None);
    eventually("both partitions to say so", || (missed(&stack, &view, 1) == [true, true]).then_some(()));
    // What is there is shown all the same.
    follows(&stack, &view);
    assert!(worker.logs().contains("deletions may have been missed"));
    assert_eq!(worker.stop().code(), Some(0));

    view.config["applier"]["epoch"] = json!(2);
    let worker = stack.worker("away-2", &view.config, None);
    assert_eq!(missed(&stack, &view, 2), [false, false]);
    assert_eq!(worker.stop().code(), Some(0));
}
