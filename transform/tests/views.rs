//! Records of a committed topic → mutations.

#![allow(clippy::needless_pass_by_value, clippy::needless_raw_string_hashes)]

mod common;

use std::collections::BTreeMap;

use common::record;
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use sluice_crds::v1alpha1::Format;
use sluice_transform::{CompileError, Mutation, Op, Reason, RecordView, ViewError, ViewProgram};

fn try_views(format: Format, views: Json) -> Result<ViewProgram, Vec<CompileError>> {
    let views: Vec<_> = serde_json::from_value(views).expect("views");
    ViewProgram::compile("views", format, &views)
}

fn views(format: Format, list: Json) -> ViewProgram {
    try_views(format, list).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn view(with: Json) -> Json {
    let mut view = json!({"name": "v", "key": "'o:{' + key + '}'", "keyPrefix": "o:{", "viewType": "Json"});
    for (name, value) in with.as_object().expect("object") {
        view[name] = value.clone();
    }
    view
}

/// One view over one record at its own time.
fn one(format: Format, with: Json, record: RecordView<'_>) -> Result<Mutation, ViewError> {
    let mutations = views(format, json!([view(with)])).mutations(&record, record.timestamp_ms)?;
    assert_eq!(mutations.len(), 1);
    Ok(mutations.into_iter().next().expect("one mutation"))
}

fn op(with: Json, value: &str) -> Op {
    let mutation = one(Format::Json, with, record(Some("1"), Some(value.as_bytes()))).expect("a mutation");
    assert_eq!(mutation.key, b"o:{1}");
    mutation.op
}

fn string(text: &str) -> Op {
    Op::SetString(text.as_bytes().to_vec())
}

#[test]
fn json_keeps_the_bytes() {
    for value in [" {\"a\" : 1.0 } ", "[1e5]", "null", "\"x\""] {
        assert_eq!(op(json!({}), value), string(value));
    }
}

#[test]
fn string_is_the_text_of_a_string() {
    for (value, want) in [
        (r#" "Gr\u00fc\u00dfe" "#, "Grüße"),
        ("1.50", "1.50"),
        (" true ", "true"),
        ("null", "null"),
        (r#" {"a" : 1} "#, r#"{"a" : 1}"#),
    ] {
        assert_eq!(op(json!({"viewType": "String"}), value), string(want));
    }
}

#[test]
fn hash_has_a_field_for_each_member() {
    let value = r#"{"s":"t\u00e4xt","n":1.50,"i":-7,"t":true,"null":null,"o":{"a" : [1, 2]},"l":[ ],"\u0065":""}"#;
    let fields =
        [("s", "täxt"), ("n", "1.50"), ("i", "-7"), ("t", "true"), ("o", r#"{"a" : [1, 2]}"#), ("l", "[ ]"), ("e", "")];
    let want = fields.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).to_vec();
    assert_eq!(op(json!({"viewType": "Hash"}), value), Op::SetHash(want));
    for empty in ["{}", r#"{"a":null}"#] {
        assert_eq!(op(json!({"viewType": "Hash"}), empty), Op::Delete, "{empty}");
    }
}

#[test]
fn raw_values_are_strings_as_they_are() {
    for view_type in ["String", "Json"] {
        let mutation = one(Format::Raw, json!({"viewType": view_type}), record(Some("1"), Some(b"\xff{")));
        assert_eq!(mutation.expect("a mutation").op, Op::SetString(b"\xff{".to_vec()));
    }
    let errors = try_views(Format::Raw, json!([view(json!({"viewType": "Hash"}))])).expect_err("refused");
    assert_eq!(errors[0].path, "views[0] \"v\"");
}

#[test]
fn tombstones_and_when_delete() {
    let when = json!({"when": "value.state != 'CLOSED'"});
    assert_eq!(op(when.clone(), r#"{"state":"OPEN"}"#), string(r#"{"state":"OPEN"}"#));
    assert_eq!(op(when.clone(), r#"{"state":"CLOSED"}"#), Op::Delete);
    let mutation = one(Format::Json, when, record(Some("1"), None)).expect("a mutation");
    assert_eq!((mutation.op, mutation.key.as_slice()), (Op::Delete, &b"o:{1}"[..]));
}

#[test]
fn life_counts_from_the_record() {
    let program = views(Format::Json, json!([view(json!({"ttlSeconds": 60}))]));
    let born = record(None, None).timestamp_ms;
    let value = record(Some("1"), Some(b"{}"));
    let at = |record: RecordView<'_>, now| program.mutations(&record, now).expect("mutations").remove(0);
    for now in [0, born, born + 59_999] {
        let mutation = at(value, now);
        assert_eq!((mutation.op, mutation.expire_at_ms), (string("{}"), Some(born + 60_000)), "{now}");
    }
    for now in [born + 60_000, born + 1_000_000] {
        let mutation = at(value, now);
        assert_eq!((mutation.op, mutation.expire_at_ms), (Op::Delete, None), "{now}");
    }
    let error = program.mutations(&RecordView { timestamp_ms: -1, ..value }, born).expect_err("no timestamp");
    assert_eq!(error.reason, Reason::NoTimestamp);
    let gone = at(RecordView { timestamp_ms: -1, value: None, ..value }, born);
    assert_eq!(gone.op, Op::Delete, "a deletion needs no timestamp");
    assert_eq!(one(Format::Json, json!({}), value).expect("a mutation").expire_at_ms, None);
}

#[test]
fn what_a_view_cannot_take_is_an_error() {
    for (with, key, value, reason) in [
        (json!({}), Some("1"), "{", Reason::InvalidJson),
        (json!({"viewType": "Hash"}), Some("1"), "[1]", Reason::TypeError),
        (json!({"viewType": "Hash"}), Some("1"), "null", Reason::TypeError),
        (json!({}), None, "{}", Reason::TypeError),
        (json!({"key": "key"}), Some("secret"), "{}", Reason::KeyOutsidePrefix),
        (json!({"key": "size(key)"}), Some("1"), "{}", Reason::TypeError),
        (json!({"when": "value.none"}), Some("1"), "{}", Reason::MissingField),
        (json!({"when": "1"}), Some("1"), "{}", Reason::TypeError),
    ] {
        let error = one(Format::Json, with.clone(), record(key, Some(value.as_bytes()))).expect_err("an error");
        assert_eq!((error.reason, error.name.as_str()), (reason, "v"), "{with} {value}: {error}");
        assert!(!error.message.contains("secret"), "{error}");
    }
}

#[test]
fn keys_see_only_the_key_and_names_are_unique() {
    for variable in ["value.id", "string(partition)", "string(offset)", "headers.x", "string(timestamp)"] {
        let key = format!("'o:' + {variable}");
        let errors = try_views(Format::Json, json!([view(json!({"key": key}))])).expect_err("refused");
        assert_eq!(errors[0].path, "views[0] \"v\" key");
        assert!(errors[0].message.contains("known here are key"), "{}", errors[0]);
    }
    let errors = try_views(Format::Json, json!([view(json!({})), view(json!({}))])).expect_err("refused");
    assert_eq!(errors[0].to_string(), "views[1] \"v\": the name is taken: give each item its own");
}

#[test]
fn several_views_of_a_record_come_in_order() {
    let program = views(
        Format::Json,
        json!([
            view(json!({})),
            view(json!({"name": "h", "key": "'h:' + key", "keyPrefix": "h:", "viewType": "Hash"}))
        ]),
    );
    let mutations = program.mutations(&record(Some("1"), Some(br#"{"a":"b"}"#)), 0).expect("mutations");
    let keys: Vec<(usize, &[u8])> = mutations.iter().map(|mutation| (mutation.view, mutation.key.as_slice())).collect();
    assert_eq!(keys, [(0, &b"o:{1}"[..]), (1, &b"h:1"[..])]);
    assert_eq!(mutations[1].size(), 5);
}

type Store = BTreeMap<Vec<u8>, (Op, Option<i64>)>;

/// Applies records to a store that forgets what has expired.
fn fold(program: &ViewProgram, records: &[(u8, Option<String>, i64)], now: i64, store: &mut Store) {
    for (key, value, timestamp_ms) in records {
        let key = [b'0' + key];
        let value = value.as_ref().map(String::as_bytes);
        let record = RecordView { key: Some(&key), value, timestamp_ms: *timestamp_ms, ..common::record(None, None) };
        for mutation in program.mutations(&record, now).expect("mutations") {
            match mutation.op {
                Op::Delete => store.remove(&mutation.key),
                op => store.insert(mutation.key, (op, mutation.expire_at_ms)),
            };
        }
    }
    store.retain(|_, (_, expire_at_ms)| expire_at_ms.is_none_or(|at| at > now));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Replaying from any older offset, at any later time, ends in the same state as applying once.
    #[test]
    fn mutations_converge(
        records in prop::collection::vec(
            (0..3_u8, prop::option::of("\\{\"a\":(1|\"x\"|null)(,\"b\":[0-9])?\\}"), 0..100_000_i64), 1..30),
        from in 0..30_usize,
        first_now in 0..200_000_i64,
        later in 0..200_000_i64,
    ) {
        let program = views(Format::Json, json!([
            view(json!({"ttlSeconds": 60, "when": "value.a != 'x'"})),
            view(json!({"name": "h", "key": "'h:' + key", "keyPrefix": "h:", "viewType": "Hash"})),
        ]));
        let mut once = Store::new();
        fold(&program, &records, first_now + later, &mut once);
        let mut twice = Store::new();
        fold(&program, &records, first_now, &mut twice);
        fold(&program, &records[from.min(records.len())..], first_now + later, &mut twice);
        prop_assert_eq!(once, twice);
    }
}
