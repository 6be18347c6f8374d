//! Untouched bytes stay, whatever they look like.

mod common;

use std::collections::BTreeMap;

use common::{compile, mask, one_route, output, remove, set};
use proptest::prelude::*;
use serde_json::json;
use serde_json::value::RawValue;

/// JSON with odd formats: white space everywhere, escapes, numbers in every notation.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,3})?",
        any_string(),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            (prop::collection::vec((space(), inner.clone(), space()), 0..5), space()).prop_map(|(items, empty)| {
                let items: Vec<String> = items.into_iter().map(|(a, item, b)| format!("{a}{item}{b}")).collect();
                if items.is_empty() { format!("[{empty}]") } else { format!("[{}]", items.join(",")) }
            }),
            members(inner).prop_map(|members| object(&members)),
        ]
    })
}

fn space() -> impl Strategy<Value = String> {
    "[ \t\r\n]{0,3}"
}

fn any_string() -> impl Strategy<Value = String> {
    "([ -!#-\\[\\]-~]|ü|€|😀|\\\\n|\\\\\"|\\\\\\\\|\\\\/|\\\\u00e9|\\\\uD83D\\\\uDE00){0,12}"
        .prop_map(|inner| format!("\"{inner}\""))
}

/// Members with their white space; names are unique and none is `target`.
fn members(value: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<[String; 6]>> {
    let member = (space(), "[a-e\\.ü]{1,3}", space(), space(), value, space());
    prop::collection::vec(member, 0..6).prop_map(|list| {
        let number = |(at, (a, name, b, c, value, d))| [a, format!("\"{name}{at}\""), b, c, value, d];
        list.into_iter().enumerate().map(number).collect()
    })
}

fn object(members: &[[String; 6]]) -> String {
    let members: Vec<String> =
        members.iter().map(|[a, name, b, c, value, d]| format!("{a}{name}{b}:{c}{value}{d}")).collect();
    format!("{{{}}}", members.join(","))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn steps_that_touch_nothing_change_nothing(value in any_json()) {
        let program = compile(
            json!([remove("r", &["target", "target2.x"]), mask("m", &["target", "target2.x"])]),
            one_route(),
        );
        prop_assert_eq!(output(&program, &value), value);
    }

    #[test]
    fn setting_a_field_leaves_the_rest(list in members(any_json()), at in 0..7_usize, old in any_json(), tail in space()) {
        let program = compile(json!([set("s", &[("target", "'new'")])]), one_route());
        let with = |value: &str| {
            let mut list = list.clone();
            let member = ["", "\"target\"", " ", tail.as_str(), value, ""].map(str::to_owned);
            list.insert(at.min(list.len()), member);
            object(&list)
        };
        prop_assert_eq!(output(&program, &with(&old)), with("\"new\""));
    }

    #[test]
    fn adding_a_field_leaves_the_rest(list in members(any_json())) {
        let program = compile(json!([set("s", &[("target", "1"), ("more.deep", "2")])]), one_route());
        let value = object(&list);
        let got = output(&program, &value);
        let comma = if list.is_empty() { "" } else { "," };
        let end = list.last().map_or("", |member| member[5].as_str());
        let start = value.strip_suffix('}').expect("an object");
        let start = start.strip_suffix(end).expect("its white space");
        prop_assert_eq!(got, format!("{start}{comma}\"target\":1,\"more\":{{\"deep\":2}}{end}}}"));
    }

    #[test]
    fn masking_a_field_leaves_the_rest(list in members(any_json()), old in any_json(), at in 0..7_usize) {
        let program = compile(json!([mask("m", &["target"])]), one_route());
        let with = |value: &str| {
            let mut list = list.clone();
            list.insert(at.min(list.len()), ["\n", "\"target\"", "", "\t", value, " "].map(str::to_owned));
            object(&list)
        };
        prop_assert_eq!(output(&program, &with(&old)), with("\"***\""));
    }

    #[test]
    fn removing_fields_leaves_the_texts_of_the_others(list in members(any_json()), gone in prop::collection::vec(any::<bool>(), 6)) {
        let names: Vec<String> = list.iter().map(|member| member[1].trim_matches('"').to_owned()).collect();
        // A path's members are separated by dots, so a name with a dot cannot be named.
        let is_gone = |at: usize| gone[at] && !names[at].contains('.');
        let paths: Vec<&str> = (0..list.len()).filter(|at| is_gone(*at)).map(|at| names[at].as_str()).collect();
        prop_assume!(!paths.is_empty());
        let got = output(&compile(json!([remove("r", &paths)]), one_route()), &object(&list));
        let parsed: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&got).expect("an object");
        prop_assert_eq!(parsed.len(), list.len() - paths.len());
        let mut rest = got.as_str();
        for at in (0..list.len()).filter(|at| !is_gone(*at)) {
            let [_, name, b, c, value, _] = &list[at];
            let text = format!("{name}{b}:{c}{value}");
            let found = rest.find(&text);
            prop_assert!(found.is_some(), "{} is not in {}", text, rest);
            rest = &rest[found.expect("found") + text.len()..];
        }
    }

    #[test]
    fn copies_keep_their_text(value in any_json()) {
        let program = compile(json!([set("s", &[("copy", "value.deep.x")])]), one_route());
        let record = format!("{{\"deep\":{{\"x\":{value}}}}}");
        prop_assert_eq!(output(&program, &record), format!("{{\"deep\":{{\"x\":{value}}},\"copy\":{value}}}"));
    }

    /// Nothing makes the scanner, the steps or the expressions panic.
    #[test]
    fn any_bytes_end_in_an_outcome(bytes in prop::collection::vec(any::<u8>(), 0..60), json in any_json(), cut in 0..80_usize) {
        let program = compile(
            json!([set("s", &[("a", "value.b + value.c")]), mask("m", &["a.b"]), remove("r", &["c"])]),
            one_route(),
        );
        drop(common::run(&program, common::record(None, Some(&bytes)), &common::Redis::new()));
        let cut = &json.as_bytes()[..cut.min(json.len())];
        drop(common::run(&program, common::record(None, Some(cut)), &common::Redis::new()));
    }

    /// Our scanner takes exactly what serde_json takes, but for what we refuse on purpose.
    #[test]
    fn we_take_what_others_take(json in any_json(), at in 0..200_usize, byte in "[ -~]") {
        let mut changed = json.clone();
        if let Some((start, character)) = json.char_indices().nth(at) {
            changed.replace_range(start..start + character.len_utf8(), &byte);
        }
        let program = compile(json!([]), one_route());
        let record = common::record(None, Some(changed.as_bytes()));
        let ours = matches!(common::run(&program, record, &common::Redis::new()).0, sluice_transform::Outcome::Outputs(_));
        // IgnoredAny checks the grammar only; a Value also refuses lone surrogates, but numbers beyond f64 too.
        let grammar = serde_json::from_str::<serde::de::IgnoredAny>(&changed).is_ok();
        let refused_on_purpose = changed.contains("\\u") || changed.matches('"').count() > 3;
        if ours {
            prop_assert!(grammar, "{}", changed);
        } else if !refused_on_purpose {
            prop_assert!(!grammar, "{}", changed);
        }
    }
}
