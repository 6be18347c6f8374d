//! What expressions mean: every line of `corpus/*.json`.

mod common;

use common::{Redis, compile, lookup, one_route, record, run, set};
use serde::Deserialize;
use sluice_transform::{LookupValue, Outcome, RecordView};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    expression: String,
    gives: Option<String>,
    fails: Option<String>,
    says: Option<String>,
}

const VALUE: &str = r#"{"int":42,"negative":-7,"double":1.50,"wholeDouble":3.0,"exponent":1e5,
 "uint":18446744073709551615,"minInt":-9223372036854775808,"huge":123456789012345678901234567890,"beyondDouble":1e400,
 "digits":"12","decimal":"19.90","text":"Gr\u00fc\u00dfe, \"Welt\"","emoji":"\ud83d\ude00","sku":"sku-1",
 "flag":true,"tags":["new","gift"],"nested":{ "a" : {"b":[1,  2.0]}, "n":null },
 "items":[{"id":"a","qty":1},{"id":"b",  "qty":2}]}"#;

fn redis() -> Redis {
    let field = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    Redis::from([
        ("price:sku-1", LookupValue::String(br#"{"amount": 19.90}"#.to_vec())),
        ("stock:sku-1", LookupValue::Hash(vec![field("shelf", "b2"), field("onHand", "7")])),
        ("note:sku-1", LookupValue::String(b"call".to_vec())),
    ])
}

/// The JSON text an expression gives, or the reason and message it fails with.
fn evaluate(expression: &str) -> Result<String, (String, String)> {
    let lookups = [("price", "Json"), ("stock", "Hash"), ("note", "String"), ("gone", "String")];
    let mut steps: Vec<_> = lookups
        .iter()
        .map(|(name, kind)| lookup(name, &format!("'{name}:' + value.sku"), name, kind, "Continue"))
        .collect();
    steps.push(set("s", &[("r", expression)]));
    let program = compile(steps.into(), one_route());
    let record = RecordView { key: Some(b"order-1"), ..record(None, Some(VALUE.as_bytes())) };
    match run(&program, record, &redis()).0 {
        Outcome::DeadLetter(letter) => Err((letter.reason.to_string(), letter.message)),
        Outcome::Outputs(outputs) => {
            let text = String::from_utf8(outputs.value.expect("a value").into_owned()).expect("UTF-8");
            let start = format!("{},\"r\":", VALUE.strip_suffix('}').expect("an object"));
            let rest = text.strip_prefix(&start).unwrap_or_else(|| panic!("other bytes changed: {text}"));
            Ok(rest.strip_suffix('}').expect("an object").to_owned())
        }
        other => panic!("{expression} gave {other:?}"),
    }
}

fn check(file: &str) {
    let cases: Vec<Case> = serde_json::from_str(file).expect("cases");
    let mut wrong = Vec::new();
    for case in &cases {
        let right = match (evaluate(&case.expression), &case.gives, &case.fails) {
            (Ok(got), Some(want), None) => (got == *want).then_some(()).ok_or(format!("gives {got}, not {want}")),
            (Err((reason, message)), None, Some(want)) => {
                let says = case.says.as_ref().is_none_or(|part| message.contains(part.as_str()));
                (reason == *want && says).then_some(()).ok_or(format!("fails with {reason}: {message}"))
            }
            (got, ..) => Err(format!("ends in {got:?}")),
        };
        if let Err(how) = right {
            wrong.push(format!("{} {how}", case.expression));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(!cases.is_empty());
}

#[test]
fn numbers() {
    check(include_str!("corpus/numbers.json"));
}

#[test]
fn strings() {
    check(include_str!("corpus/strings.json"));
}

#[test]
fn structures() {
    check(include_str!("corpus/structures.json"));
}

#[test]
fn logic() {
    check(include_str!("corpus/logic.json"));
}

#[test]
fn variables() {
    check(include_str!("corpus/variables.json"));
}
