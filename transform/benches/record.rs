//! Microseconds of CPU a record: `cargo bench -p sluice-transform`. Best of several rounds, one thread. Linux only.

use std::hint::black_box;
use std::sync::Arc;

use serde_json::json;
use sluice_crds::v1alpha1::{Format, LookupType};
use sluice_transform::{
    Limits, LookupValue, Outcome, PreparedLookup, Program, Progress, RecordView, ViewProgram, prepare_lookup,
};

const ROUNDS: usize = 15;
const RECORDS: u32 = 10_000;

const ORDER: &str = r#"{"orderId":"0d9a1f6e-8f0c-4f7d-9a35-3f1c5a3f7b10","status":"CREATED","createdAt":"2025-11-14T09:30:00.123Z","sku":"sku-004711","quantity":3,"currency":"EUR","unitPrice":19.95,"customer":{"id":"c-88012","name":"Jane Roe","email":"jane.roe@example.com","tier":"gold","address":{"street":"1 Long Street","city":"Springfield","zip":"01234","country":"DE"}},"items":[{"sku":"sku-004711","quantity":3,"price":19.95},{"sku":"sku-000815","quantity":1,"price":5.00}],"channel":"web","campaign":null,"express":false,"notes":"leave at the \"back\" door","internal":{"score":0.731,"shard":12,"trace":"4bf92f3577b34da6a3ce929d0e0e4736"}}"#;

fn main() {
    println!("record: {} bytes", ORDER.len());
    time("parse and pass on", &program(json!([])), &[]);
    time("filter", &program(json!([filter()])), &[]);
    time("filter + set 2", &program(json!([filter(), set()])), &[]);
    time("filter + set 2 + set 1", &program(json!([filter(), set(), set_again()])), &[]);
    time("filter + mask + remove", &program(json!([filter(), mask(), remove()])), &[]);
    let price = prepare_lookup(LookupType::Json, LookupValue::String(br#"{"amount":19.95}"#.to_vec()));
    let stock = prepare_lookup(LookupType::Hash, LookupValue::Hash(vec![(b"onHand".to_vec(), b"7".to_vec())]));
    let enrich =
        program(json!([filter(), lookup("price", "Json"), lookup("stock", "Hash"), enrich(), mask(), remove()]));
    time("the reference pipeline", &enrich, &[Arc::new(price), Arc::new(stock)]);
    views();
}

fn filter() -> serde_json::Value {
    json!({"name": "f", "action": {"filter": {"keepWhen": "value.status == \"CREATED\" && value.quantity > 0"}}})
}

fn set() -> serde_json::Value {
    json!({"name": "s", "action": {"set": {"fields": [
        {"field": "total", "expression": "double(value.quantity) * value.unitPrice"},
        {"field": "city", "expression": "value.customer.address.city"}]}}})
}

fn set_again() -> serde_json::Value {
    json!({"name": "t", "action": {"set": {"fields": [
        {"field": "large", "expression": "value.total > 10000.0"}]}}})
}

fn enrich() -> serde_json::Value {
    json!({"name": "e", "action": {"set": {"fields": [
        {"field": "total", "expression": "double(value.quantity) * double(price.amount)"},
        {"field": "inStock", "expression": "stock != null && int(stock.onHand) >= int(value.quantity)"}]}}})
}

fn lookup(name: &str, lookup_type: &str) -> serde_json::Value {
    json!({"name": name, "action": {"lookup": {"key": format!("'{name}:' + value.sku"), "keyPrefix": name,
        "lookupType": lookup_type, "onMiss": "DeadLetter"}}})
}

fn mask() -> serde_json::Value {
    json!({"name": "m", "action": {"mask": {"fields": ["customer.email"], "method": "Redact"}}})
}

fn remove() -> serde_json::Value {
    json!({"name": "r", "action": {"remove": {"fields": ["internal"]}}})
}

fn program(steps: serde_json::Value) -> Program {
    let steps: Vec<_> = serde_json::from_value(steps).expect("steps");
    let routing = json!({"match": "First", "onNoMatch": "DeadLetter", "routes": [
        {"name": "review", "topic": "review", "when": "value.quantity > 1000", "hasViews": false, "compacted": false},
        {"name": "out", "topic": "out", "hasViews": false, "compacted": false}]});
    let routing = serde_json::from_value(routing).expect("routing");
    Program::compile(Format::Json, &steps, &routing, Limits { max_record_bytes: 1 << 20 }).expect("a program")
}

fn record() -> RecordView<'static> {
    RecordView {
        topic: "order.created",
        partition: 1,
        offset: 7,
        timestamp_ms: 1_700_000_000_000,
        key: Some(b"0d9a1f6e"),
        value: Some(ORDER.as_bytes()),
        headers: &[],
    }
}

/// Time this thread was on a CPU: what other processes take does not count.
fn cpu_microseconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux should tell CPU times");
    stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("nanoseconds on a CPU") / 1000.0
}

fn best(name: &str, mut run: impl FnMut()) {
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let start = cpu_microseconds();
        for _ in 0..RECORDS {
            run();
        }
        best = best.min((cpu_microseconds() - start) / f64::from(RECORDS));
    }
    println!("{name:<28} {best:6.2} us");
}

fn time(name: &str, program: &Program, lookups: &[Arc<PreparedLookup>]) {
    best(name, || {
        let mut progress = program.start(black_box(record()));
        loop {
            match progress {
                Progress::NeedLookups(pending) => progress = pending.resume(lookups.iter().cloned()),
                Progress::Done(outcome) => {
                    assert!(matches!(outcome, Outcome::Outputs(_)), "{outcome:?}");
                    black_box(outcome);
                    break;
                }
            }
        }
    });
}

fn views() {
    for view_type in ["Json", "Hash"] {
        let views = json!([{"name": "v", "key": "'order:{' + key + '}'", "keyPrefix": "order:{", "viewType": view_type,
            "ttlSeconds": 1800}]);
        let views: Vec<_> = serde_json::from_value(views).expect("views");
        let program = ViewProgram::compile("views", Format::Json, &views).expect("a program");
        best(&format!("view {view_type}"), || {
            black_box(program.mutations(black_box(&record()), 0)).expect("mutations");
        });
    }
}
