//! Routing, keys and tombstones.

#![allow(clippy::needless_raw_string_hashes)] // tables read better when all lines quote alike

mod common;

use std::borrow::Cow;

use common::{Redis, compile, filter, record, route, routing, run};
use serde_json::{Value as Json, json};
use sluice_crds::v1alpha1::Format;
use sluice_transform::{Outcome, Program, Reason};

fn routes(match_: &str, on_no_match: &str, routes: &[Json]) -> Program {
    compile(json!([]), routing(match_, on_no_match, routes.iter().cloned().map(route).collect()))
}

/// Routes and keys of an output, or the reason it has none.
fn sent(program: &Program, key: Option<&str>, value: Option<&str>) -> Result<Vec<(usize, Option<String>)>, String> {
    match run(program, record(key, value.map(str::as_bytes)), &Redis::new()).0 {
        Outcome::Outputs(outputs) => Ok(outputs
            .routes
            .iter()
            .map(|to| (to.route, to.key.as_ref().map(|key| String::from_utf8_lossy(key).into_owned())))
            .collect()),
        Outcome::DeadLetter(letter) => {
            assert_eq!(letter.step, "routing", "{letter:?}");
            Err(letter.reason.to_string())
        }
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn first_takes_one_and_all_takes_every_match() {
    let list = [
        json!({"name": "a", "when": "value.n > 10"}),
        json!({"name": "b", "when": "value.n > 5", "key": "'b' + string(value.n)"}),
        json!({"name": "c", "when": "value.n > 0"}),
    ];
    let key = |route, key: &str| (route, Some(key.to_owned()));
    let first = routes("First", "DeadLetter", &list);
    assert_eq!(sent(&first, Some("k"), Some(r#"{"n":7}"#)), Ok(vec![key(1, "b7")]));
    let all = routes("All", "Discard", &list);
    assert_eq!(sent(&all, Some("k"), Some(r#"{"n":11}"#)), Ok(vec![key(0, "k"), key(1, "b11"), key(2, "k")]));
    assert_eq!(sent(&first, Some("k"), Some(r#"{"n":0}"#)), Err("NoRoute".to_owned()));
    let (outcome, _) = run(&all, record(None, Some(br#"{"n":0}"#)), &Redis::new());
    assert_eq!(outcome, Outcome::NoRoute);
    assert_eq!(sent(&first, Some("k"), Some(r#"{"n":"x"}"#)), Err("TypeError".to_owned()));
    assert_eq!(sent(&first, Some("k"), Some(r#"{}"#)), Err("MissingField".to_owned()));
}

#[test]
fn a_failure_in_one_route_is_a_failure_of_the_record() {
    let all = routes("All", "Discard", &[json!({"name": "a"}), json!({"name": "b", "key": "value.nothing"})]);
    assert_eq!(sent(&all, Some("k"), Some(r#"{}"#)), Err("MissingField".to_owned()));
}

#[test]
fn keys_become_bytes() {
    for (expression, want) in [
        ("'text'", Ok(Some("text"))),
        ("value.s", Ok(Some("ü"))),
        ("bytes('b')", Ok(Some("b"))),
        ("value.i", Ok(Some("-7"))),
        ("value.u", Ok(Some("18446744073709551615"))),
        ("value.h", Ok(Some("123456789012345678901"))),
        ("value.t", Ok(Some("true"))),
        ("null", Ok(None)),
        ("value.nil", Ok(None)),
        ("key", Ok(Some("k"))),
        ("value.d", Err("TypeError")),
        ("value.l", Err("TypeError")),
        ("value", Err("TypeError")),
    ] {
        let program = routes("First", "DeadLetter", &[json!({"key": expression})]);
        let value = r#"{"s":"\u00fc","i":-7,"u":18446744073709551615,"h":123456789012345678901,"t":true,"d":1.5,
            "l":[],"nil":null}"#;
        let got = sent(&program, Some("k"), Some(value));
        let want = want.map(|key| vec![(0, key.map(str::to_owned))]).map_err(str::to_owned);
        assert_eq!(got, want, "{expression}");
    }
}

#[test]
fn a_compacted_topic_takes_no_null_key() {
    let program = routes("First", "DeadLetter", &[json!({"compacted": true})]);
    assert_eq!(sent(&program, None, Some("{}")), Err("NullKey".to_owned()));
    assert_eq!(sent(&program, None, None), Err("NullKey".to_owned()));
    assert_eq!(sent(&program, Some(""), Some("{}")), Ok(vec![(0, Some(String::new()))]), "an empty key is a key");
    let computed = routes("First", "DeadLetter", &[json!({"compacted": true, "key": "value.id"})]);
    assert_eq!(sent(&computed, Some("k"), Some(r#"{"id":null}"#)), Err("NullKey".to_owned()));
}

#[test]
fn tombstones_bypass_the_steps_and_go_to_every_view() {
    let views = |extra: Json| {
        let mut view = json!({"name": "v", "hasViews": true, "compacted": true});
        for (name, value) in extra.as_object().expect("object") {
            view[name] = value.clone();
        }
        view
    };
    let program = |list: Vec<Json>| {
        let list = list.into_iter().map(route).collect();
        compile(json!([filter("f", "value.n > 1")]), routing("First", "DeadLetter", list))
    };
    let key = |route| (route, Some("k".to_owned()));
    let two = program(vec![
        json!({"name": "plain"}),
        views(json!({"when": "value.n > 5"})),
        views(json!({"name": "w", "key": "value == null ? key : value.id"})),
    ]);
    assert_eq!(sent(&two, Some("k"), None), Ok(vec![key(1), key(2)]));
    let needs_value = program(vec![views(json!({"key": "value.id"}))]);
    assert_eq!(sent(&needs_value, Some("k"), None), Err("TypeError".to_owned()));
    let no_view = program(vec![json!({"name": "a", "when": "value != null"}), json!({"name": "b"})]);
    assert_eq!(sent(&no_view, Some("k"), None), Ok(vec![key(1)]));
    let unguarded = program(vec![json!({"when": "value.n > 5"})]);
    assert_eq!(sent(&unguarded, Some("k"), None), Err("TypeError".to_owned()));
    match run(&two, record(Some("k"), None), &Redis::new()).0 {
        Outcome::Outputs(outputs) => assert!(outputs.value.is_none()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_copied_that_nobody_changed() {
    let program = routes("First", "DeadLetter", &[json!({})]);
    match run(&program, record(Some("k"), Some(b" {} ")), &Redis::new()).0 {
        Outcome::Outputs(outputs) => {
            assert!(matches!(outputs.value, Some(Cow::Borrowed(b" {} "))));
            assert!(matches!(outputs.routes[0].key, Some(Cow::Borrowed(b"k"))));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn raw_values_are_bytes() {
    let list = vec![route(json!({"when": "size(value) > 2 && value != b'abc'"})), route(json!({"name": "b"}))];
    let routing = routing("First", "DeadLetter", list);
    let program = common::try_compile(Format::Raw, json!([filter("f", "topic == 'orders'")]), routing).expect("ok");
    for (value, route) in [(&b"\xff\xfe\x00\x01"[..], 0), (b"ab", 1), (b"abc", 1), (b"", 1)] {
        match run(&program, record(Some("k"), Some(value)), &Redis::new()).0 {
            Outcome::Outputs(outputs) => {
                assert_eq!(outputs.routes[0].route, route, "{value:?}");
                assert!(matches!(outputs.value, Some(Cow::Borrowed(same)) if same == value));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn keys_that_are_not_text_are_bytes() {
    let program = routes("First", "DeadLetter", &[json!({"when": "type(key) == bytes", "key": "key"})]);
    let view = sluice_transform::RecordView { key: Some(b"\xff\x01"), ..record(None, Some(b"{}")) };
    match run(&program, view, &Redis::new()).0 {
        Outcome::Outputs(outputs) => assert_eq!(outputs.routes[0].key.as_deref(), Some(&b"\xff\x01"[..])),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_key_counts_for_the_size() {
    let program = routes("First", "DeadLetter", &[json!({"key": "value.k"})]);
    let value = format!(r#"{{"k":"{}"}}"#, "x".repeat(2050));
    assert_eq!(sent(&program, Some("k"), Some(&value)), Err(Reason::TooLarge.to_string()));
}
