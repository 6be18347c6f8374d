//! Each step: what it changes, what it leaves, how it fails.

#![allow(clippy::needless_raw_string_hashes)] // tables read better when all lines quote alike

mod common;

use common::{Redis, compile, dead_letter, filter, lookup, mask, one_route, output, record, remove, run, set};
use serde_json::json;
use sluice_transform::{LookupValue, MAX_MESSAGE_BYTES, Outcome, Reason};

#[test]
fn filter_keeps_or_ends() {
    let program = compile(json!([filter("f", "value.n > 1")]), one_route());
    assert_eq!(output(&program, r#"{"n":2}"#), r#"{"n":2}"#);
    let (outcome, _) = run(&program, record(None, Some(br#"{"n":1}"#)), &Redis::new());
    assert_eq!(outcome, Outcome::Filtered { step: 0 });
    for (value, reason) in [(r#"{}"#, Reason::MissingField), (r#"{"n":"x"}"#, Reason::TypeError)] {
        let letter = dead_letter(&program, value);
        assert_eq!((letter.step.as_str(), letter.reason), ("f", reason), "{value}");
    }
    let not_bool = compile(json!([filter("f", "value.n")]), one_route());
    assert!(dead_letter(&not_bool, r#"{"n":1}"#).message.contains("gives int, not a bool"));
}

#[test]
fn set_replaces_in_place_and_appends_in_order() {
    let cases = [
        (&[("a", "1")][..], r#"{}"#, r#"{"a":1}"#),
        (&[("a", "1")], r#"{ }"#, r#"{"a":1 }"#),
        (&[("a", "1")], r#"{"b" : 2 }"#, r#"{"b" : 2,"a":1 }"#),
        (&[("a", "1")], r#"{"a" :  "long old value" , "b":2}"#, r#"{"a" :  1 , "b":2}"#),
        (&[("z", "1"), ("y", "2")], r#"{"x":0}"#, r#"{"x":0,"z":1,"y":2}"#),
        (&[("a.b", "1"), ("a.c", "2")], r#"{}"#, r#"{"a":{"b":1,"c":2}}"#),
        (&[("a.b", "1"), ("x", "3"), ("a.c.d", "2")], r#"{}"#, r#"{"a":{"b":1,"c":{"d":2}},"x":3}"#),
        (&[("a.b", "1")], r#"{"a":{"c":[ ]}}"#, r#"{"a":{"c":[ ],"b":1}}"#),
        (&[("a.b", "1"), ("n", "2")], r#"{"a":{}}"#, r#"{"a":{"b":1},"n":2}"#),
        (&[("a", "1")], r#"{"\u0061":0}"#, r#"{"\u0061":1}"#),
        (&[("a\"b", "1")], r#"{}"#, r#"{"a\"b":1}"#),
        (&[("ü", "1")], r#"{"x":"ü"}"#, r#"{"x":"ü","ü":1}"#),
    ];
    for (fields, value, want) in cases {
        assert_eq!(output(&compile(json!([set("s", fields)]), one_route()), value), want, "{fields:?}");
    }
}

#[test]
fn set_sees_the_record_as_it_entered_the_step() {
    let swap = compile(json!([set("s", &[("a", "value.b"), ("b", "value.a")])]), one_route());
    assert_eq!(output(&swap, r#"{"a":1.0,"b":2e0}"#), r#"{"a":2e0,"b":1.0}"#);
    let two = compile(json!([set("s", &[("a", "value.a + 1")]), set("t", &[("b", "value.a + 1")])]), one_route());
    assert_eq!(output(&two, r#"{"a":1}"#), r#"{"a":2,"b":3}"#);
}

#[test]
fn set_makes_nothing_deeper_than_is_taken() {
    let program = compile(json!([set("s", &[("a.b", "value.x")])]), one_route());
    let nested = |levels: usize| format!(r#"{{"x":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    assert!(output(&program, &nested(126)).len() > 126 * 4);
    let letter = dead_letter(&program, &nested(127));
    assert_eq!((letter.step.as_str(), letter.reason), ("s", Reason::TypeError));
    assert!(letter.message.contains("deeper than 128"), "{}", letter.message);
}

#[test]
fn set_needs_objects_on_its_way() {
    let program = compile(json!([set("s", &[("a.b.c", "1")])]), one_route());
    for (value, place) in [
        (r#"{"a":null}"#, "a is null"),
        (r#"{"a":{"b":[1]}}"#, "a.b is an array"),
        (r#"{"a":{"b":"x"}}"#, "a.b is a string"),
        (r#"[1]"#, "the value is an array"),
        (r#"7"#, "the value is a number"),
    ] {
        let letter = dead_letter(&program, value);
        assert_eq!((letter.step.as_str(), letter.reason), ("s", Reason::TypeError), "{value}");
        assert!(letter.message.contains(place), "{value}: {}", letter.message);
    }
}

#[test]
fn remove_takes_the_comma_along() {
    let cases = [
        (&["a"][..], r#"{"a":1}"#, r#"{}"#),
        (&["a"], r#"{ "a":1, "b":2 }"#, r#"{ "b":2 }"#),
        (&["b"], r#"{ "a":1, "b":2 }"#, r#"{ "a":1 }"#),
        (&["b"], r#"{"a":1 , "b":2 , "c":3}"#, r#"{"a":1 , "c":3}"#),
        (&["a", "b"], r#"{"a":1,"b":2,"c":3}"#, r#"{"c":3}"#),
        (&["b", "c"], r#"{"a":1,"b":2,"c":3}"#, r#"{"a":1}"#),
        (&["a", "c"], r#"{"a":1,"b":2,"c":3}"#, r#"{"b":2}"#),
        (&["c", "a", "b"], r#"{"a":1,"b":2,"c":3}"#, r#"{}"#),
        (&["a.b"], r#"{"a":{"b":1,"c":[2]},"b":3}"#, r#"{"a":{"c":[2]},"b":3}"#),
        (&["a.b", "c"], r#"{"a":{"b":1},"c":3}"#, r#"{"a":{}}"#),
        (&["a.b"], r#"{"a":7}"#, r#"{"a":7}"#),
        (&["none"], r#"{"a" : 7}"#, r#"{"a" : 7}"#),
        (&["a"], r#"[1]"#, r#"[1]"#),
        (&["é"], r#"{"\u00e9":1,"a":2}"#, r#"{"a":2}"#),
    ];
    for (fields, value, want) in cases {
        assert_eq!(output(&compile(json!([remove("r", fields)]), one_route()), value), want, "{fields:?} of {value}");
    }
}

#[test]
fn mask_hides_what_is_there() {
    let cases = [
        (&["a"][..], r#"{"a" : "secret", "b":1}"#, r#"{"a" : "***", "b":1}"#),
        (&["a"], r#"{"a":{"deep":[1,2]}}"#, r#"{"a":"***"}"#),
        (&["a"], r#"{"a":null}"#, r#"{"a":"***"}"#),
        (&["a.b", "c"], r#"{"a":{"b":1},"c":2}"#, r#"{"a":{"b":"***"},"c":"***"}"#),
        (&["a.b"], r#"{"a":[{"b":1}]}"#, r#"{"a":[{"b":1}]}"#),
        (&["none"], r#"{"a" : 7}"#, r#"{"a" : 7}"#),
        (&["email"], r#"{"em\u0061il":"x@y.z"}"#, r#"{"em\u0061il":"***"}"#),
    ];
    for (fields, value, want) in cases {
        assert_eq!(output(&compile(json!([mask("m", fields)]), one_route()), value), want, "{fields:?} of {value}");
    }
}

#[test]
fn a_member_that_comes_twice_cannot_hide_from_mask() {
    let program = compile(json!([mask("m", &["email"])]), one_route());
    for value in [r#"{"email":"a","email":"b"}"#, r#"{"email":"a","\u0065mail":"b"}"#] {
        assert_eq!(dead_letter(&program, value).reason, Reason::InvalidJson, "{value}");
    }
    let many: String = (0..60).map(|at| format!("\"f{at}\":1")).collect::<Vec<_>>().join(",") + ",";
    assert_eq!(output(&program, &format!("{{{many}\"x\":1}}")).len(), many.len() + 7);
    let letter = dead_letter(&program, &format!("{{{many}\"f7\":1}}"));
    assert!(letter.message.contains("member name repeated"), "{}", letter.message);
}

#[test]
fn values_that_are_not_json_are_dead_letters_of_the_source() {
    let program = compile(json!([]), one_route());
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels)).into_bytes();
    let refused: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "unexpected end"),
        (b"  ".to_vec(), "unexpected end"),
        (b"{".to_vec(), "expected a member's name"),
        (b"{\"a\":1".to_vec(), "unexpected end"),
        (b"{\"a\" 1}".to_vec(), "expected :"),
        (b"{\"a\":1,}".to_vec(), "expected a member's name"),
        (b"[1,]".to_vec(), "expected a value"),
        (b"{} {}".to_vec(), "text after the value at byte 3"),
        (b"nul".to_vec(), "expected a value"),
        (b"NaN".to_vec(), "expected a value"),
        (b"01".to_vec(), "leading zero"),
        (b"1.".to_vec(), "expected a digit"),
        (b"1e".to_vec(), "expected a digit"),
        (b"-".to_vec(), "expected a digit"),
        (b"+1".to_vec(), "expected a value"),
        (b"\"a\nb\"".to_vec(), "control character"),
        (b"\"abc".to_vec(), "unexpected end"),
        (b"\"\\x41\"".to_vec(), "unknown escape"),
        (b"\"\\u12\"  ".to_vec(), "unknown escape"),
        (b"\"\\u1".to_vec(), "unexpected end"),
        (b"\"\\ud800\"".to_vec(), "lone surrogate"),
        (b"\"\\ud800\\u0041\"".to_vec(), "lone surrogate"),
        (b"\"\\udc00\"".to_vec(), "lone surrogate"),
        (b"\"\xff\"".to_vec(), "invalid UTF-8 at byte 1"),
        (b"\xef\xbb\xbf{}".to_vec(), "byte order mark"),
        (b"'a'".to_vec(), "expected a value"),
        (deep(129), "deeper than 128"),
    ];
    for (value, says) in refused {
        match run(&program, record(None, Some(&value)), &Redis::new()).0 {
            Outcome::DeadLetter(letter) => {
                assert_eq!((letter.step.as_str(), letter.reason), ("source", Reason::InvalidJson), "{value:?}");
                assert!(letter.message.contains(says), "{value:?}: {}", letter.message);
            }
            other => panic!("{value:?} gave {other:?}"),
        }
    }
    let deepest = deep(128);
    assert!(matches!(run(&program, record(None, Some(&deepest)), &Redis::new()).0, Outcome::Outputs(_)));
}

#[test]
fn a_value_over_the_limit_is_a_dead_letter() {
    let grow = compile(json!([set("s", &[("b", "value.a + value.a + value.a")])]), one_route());
    let value = format!(r#"{{"a":"{}"}}"#, "x".repeat(1500));
    let letter = dead_letter(&grow, &value);
    assert_eq!((letter.step.as_str(), letter.reason), ("s", Reason::TooLarge));
    let pass = compile(json!([]), one_route());
    let letter = dead_letter(&pass, &format!("\"{}\"", "x".repeat(4093 + 2)));
    assert_eq!((letter.step.as_str(), letter.reason), ("routing", Reason::TooLarge));
    assert_eq!(output(&pass, &format!("\"{}\"", "x".repeat(4093))).len(), 4095, "one byte is the key's");
}

#[test]
fn lookups_that_need_one_another_take_turns() {
    let program = compile(
        json!([
            lookup("a", "'a:' + value.id", "a:", "String", "Continue"),
            lookup("b", "'b:' + value.id", "b:", "String", "Continue"),
            lookup("c", "'c:' + a", "c:", "String", "Continue"),
            lookup("d", "'d:' + value.id", "d:", "String", "Continue"),
            lookup("e", "'e:' + c", "e:", "String", "Continue"),
            set("s", &[("r", "a + b + c + d + string(e == null)")]),
        ]),
        one_route(),
    );
    let string = |text: &str| LookupValue::String(text.as_bytes().to_vec());
    let redis = Redis::from([("a:1", string("A")), ("b:1", string("B")), ("c:A", string("C")), ("d:1", string("D"))]);
    let (outcome, rounds) = run(&program, record(None, Some(br#"{"id":"1"}"#)), &redis);
    assert_eq!(rounds, [vec!["a:1", "b:1"], vec!["c:A", "d:1"], vec!["e:C"]]);
    match outcome {
        Outcome::Outputs(outputs) => {
            assert_eq!(outputs.value.expect("a value").as_ref(), br#"{"id":"1","r":"ABCDtrue"}"#);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lookup_that_ends_the_record_comes_before_a_later_key_that_fails() {
    let steps = |on_miss| {
        json!([
            lookup("a", "'a:' + value.id", "a:", "String", on_miss),
            lookup("b", "'b:' + value.nothing", "b:", "String", "Continue")
        ])
    };
    let value = record(None, Some(br#"{"id":"1"}"#));
    let (outcome, _) = run(&compile(steps("Discard"), one_route()), value, &Redis::new());
    assert_eq!(outcome, Outcome::Discarded { step: 0 });
    let (outcome, rounds) = run(&compile(steps("Continue"), one_route()), value, &Redis::new());
    assert_eq!(rounds, [["a:1"]]);
    match outcome {
        Outcome::DeadLetter(letter) => {
            assert_eq!((letter.step.as_str(), letter.reason), ("b", Reason::MissingField));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lookup_s_key_must_be_a_string_with_its_prefix() {
    for (key, reason) in [
        ("value.key", Reason::KeyOutsidePrefix),
        ("value.n", Reason::TypeError),
        ("null", Reason::TypeError),
        ("'price:' + value.nothing", Reason::MissingField),
    ] {
        let program = compile(json!([lookup("p", key, "price:", "Json", "DeadLetter")]), one_route());
        let letter = dead_letter(&program, r#"{"key":"secret:1","n":1}"#);
        assert_eq!((letter.step.as_str(), letter.reason), ("p", reason), "{key}");
        assert!(!letter.message.contains("secret"), "{}", letter.message);
    }
}

#[test]
fn messages_hold_types_and_names_but_no_contents() {
    let secret = "hunter2".repeat(100);
    let value = format!(r#"{{"s":"{secret}","n":1,"l":["{secret}"]}}"#);
    for expression in [
        "value.s + value.n",
        "int(value.s)",
        "double(value.s)",
        "value.n[value.s]",
        "value[value.s]",
        "value.s < value.n",
        "value.l[value.s]",
        "value.s in value.n",
        "timestamp(value.s)",
        "duration(value.s)",
        "'x'.matches('(' + value.s)",
        "value.s.substring(9999)",
        "{value.s: 1, value.s: 2}",
        "value.s ? 1 : 2",
        "-value.s",
        "value.l.map(x, x + 1)",
    ] {
        let letter = dead_letter(&compile(json!([set("s", &[("r", expression)])]), one_route()), &value);
        assert!(!letter.message.contains("hunter2"), "{expression}: {}", letter.message);
        assert!(letter.message.len() <= MAX_MESSAGE_BYTES && letter.message.starts_with("set r: "), "{letter:?}");
    }
}

#[test]
fn long_messages_are_cut_at_a_character() {
    let field = "ü".repeat(300);
    let program = compile(json!([set("s", &[(&field, "value.n + 'x'")])]), one_route());
    let letter = dead_letter(&program, r#"{"n":1}"#);
    assert!(letter.message.len() <= MAX_MESSAGE_BYTES && letter.message.ends_with("..."), "{letter:?}");
}

#[test]
fn an_evaluation_has_a_budget() {
    let program = compile(
        json!([set("s", &[("r", "size(value.l.filter(a, value.l.all(b, value.l.all(c, a + b + c > 0))))")])]),
        one_route(),
    );
    let list = |n: usize| format!(r#"{{"l":[{}]}}"#, vec!["1"; n].join(","));
    assert!(output(&program, &list(20)).ends_with("\"r\":20}"));
    let start = std::time::Instant::now();
    let letter = dead_letter(&program, &list(1000));
    assert_eq!(letter.reason, Reason::ExpressionError);
    assert!(letter.message.contains("100000 iterations"), "{}", letter.message);
    assert!(start.elapsed().as_secs() < 20, "a budget should bound the time: {:?}", start.elapsed());
    let absorbed = compile(
        json!([filter("f", "value.l.exists(a, value.l.all(b, value.l.all(c, a + b + c > 0))) || true")]),
        one_route(),
    );
    let big = list(1000);
    assert!(matches!(
        run(&absorbed, record(None, Some(big.as_bytes())), &Redis::new()).0,
        Outcome::DeadLetter(letter) if letter.reason == Reason::ExpressionError
    ));
}
