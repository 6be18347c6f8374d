//! What the tests share: programs from JSON, records, and running them with a map for Redis.
#![allow(dead_code, clippy::needless_pass_by_value)]

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use sluice_crds::v1alpha1::Format;
use sluice_transform::{
    CompileError, DeadLetter, Header, Limits, LookupValue, Outcome, Program, Progress, RecordView, prepare_lookup,
};

pub const LIMITS: Limits = Limits { max_record_bytes: 4096 };
pub type Redis = HashMap<&'static str, LookupValue>;

pub fn try_compile(format: Format, steps: Json, routing: Json) -> Result<Program, Vec<CompileError>> {
    let steps: Vec<_> = serde_json::from_value(steps).expect("steps");
    let routing = serde_json::from_value(routing).expect("routing");
    Program::compile(format, &steps, &routing, LIMITS)
}

pub fn compile(steps: Json, routing: Json) -> Program {
    try_compile(Format::Json, steps, routing).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

/// Routing with one route that takes everything.
pub fn one_route() -> Json {
    json!({"match": "First", "onNoMatch": "DeadLetter", "routes": [route(json!({}))]})
}

/// A route; `with` replaces its members.
pub fn route(with: Json) -> Json {
    let mut route = json!({"name": "out", "topic": "out", "hasViews": false, "compacted": false});
    for (name, value) in with.as_object().expect("object") {
        route[name] = value.clone();
    }
    route
}

pub fn routing(match_: &str, on_no_match: &str, routes: Vec<Json>) -> Json {
    json!({"match": match_, "onNoMatch": on_no_match, "routes": routes})
}

pub fn set(name: &str, fields: &[(&str, &str)]) -> Json {
    let fields: Vec<Json> =
        fields.iter().map(|(field, expression)| json!({"field": field, "expression": expression})).collect();
    json!({"name": name, "action": {"set": {"fields": fields}}})
}

pub fn filter(name: &str, keep_when: &str) -> Json {
    json!({"name": name, "action": {"filter": {"keepWhen": keep_when}}})
}

pub fn remove(name: &str, fields: &[&str]) -> Json {
    json!({"name": name, "action": {"remove": {"fields": fields}}})
}

pub fn mask(name: &str, fields: &[&str]) -> Json {
    json!({"name": name, "action": {"mask": {"fields": fields, "method": "Redact"}}})
}

pub fn lookup(name: &str, key: &str, prefix: &str, lookup_type: &str, on_miss: &str) -> Json {
    json!({"name": name, "action": {"lookup":
        {"key": key, "keyPrefix": prefix, "lookupType": lookup_type, "onMiss": on_miss}}})
}

pub fn record<'a>(key: Option<&'a str>, value: Option<&'a [u8]>) -> RecordView<'a> {
    RecordView {
        topic: "orders",
        partition: 3,
        offset: 42,
        timestamp_ms: 1_700_000_000_123,
        key: key.map(str::as_bytes),
        value,
        headers: HEADERS,
    }
}

pub const HEADERS: &[Header<'static>] =
    &[("trace", Some(b"first")), ("trace", Some(b"t-1")), ("blob", Some(b"\xff\x00")), ("empty", None)];

/// Runs a record to its end; gives the outcome and the keys of each round trip.
pub fn run<'r>(program: &Program, record: RecordView<'r>, redis: &Redis) -> (Outcome<'r>, Vec<Vec<String>>) {
    let mut rounds = Vec::new();
    let mut progress = program.start(record);
    loop {
        match progress {
            Progress::Done(outcome) => return (outcome, rounds),
            Progress::NeedLookups(pending) => {
                let requests = pending.requests().to_vec();
                let key = |key: &[u8]| String::from_utf8(key.to_vec()).expect("key");
                rounds.push(requests.iter().map(|request| key(&request.key)).collect());
                let results = requests.iter().map(|request| {
                    let value = redis.get(key(&request.key).as_str()).cloned().unwrap_or(LookupValue::Missing);
                    Arc::new(prepare_lookup(request.lookup_type, value))
                });
                progress = pending.resume(results);
            }
        }
    }
}

/// The value that goes out, as text.
pub fn output(program: &Program, value: &str) -> String {
    match run(program, record(Some("k"), Some(value.as_bytes())), &Redis::new()).0 {
        Outcome::Outputs(outputs) => String::from_utf8(outputs.value.expect("a value").into_owned()).expect("UTF-8"),
        other => panic!("{value} gave {other:?}"),
    }
}

pub fn dead_letter(program: &Program, value: &str) -> DeadLetter {
    match run(program, record(Some("k"), Some(value.as_bytes())), &Redis::new()).0 {
        Outcome::DeadLetter(letter) => letter,
        other => panic!("{value} gave {other:?}"),
    }
}
