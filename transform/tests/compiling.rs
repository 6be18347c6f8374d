//! Mistakes in a resource, found before the first record.

mod common;

use common::{compile, filter, lookup, mask, one_route, output, remove, route, routing, set, try_compile};
use serde_json::{Value as Json, json};
use sluice_crds::v1alpha1::{Expression, Format};
use sluice_transform::{
    CompileError, KeyForm, Position, Program, RECORD_VARIABLES, VIEW_KEY_VARIABLES, key_form, literal_prefix, variables,
};

fn errors(steps: Json, routing: Json) -> Vec<String> {
    match try_compile(Format::Json, steps, routing) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(CompileError::to_string).collect(),
    }
}

fn expression_error(expression: &str) -> CompileError {
    match try_compile(Format::Json, json!([filter("f", expression)]), one_route()) {
        Ok(_) => panic!("{expression} compiles"),
        Err(mut errors) => errors.remove(0),
    }
}

#[test]
fn mistakes_in_expressions_have_a_place() {
    let at = |line, column| Some(Position { line, column });
    for (expression, position, says) in [
        ("value.a = 1", at(1, 9), "syntax error"),
        ("value.a +\n  (value.b *", at(2, 13), "syntax error"),
        ("'abc", at(1, 1), "syntax error"),
        ("", None, "empty"),
        (" \n ", None, "empty"),
        ("valeu.a == 1", at(1, 1), "unknown variable \"valeu\": known here are key, value,"),
        ("value.a == 1 &&\n  'ü' == late", at(2, 10), "unknown variable \"late\""),
        ("value.a.map(x, y)", at(1, 16), "unknown variable \"y\""),
        ("value.a.map(x, x) == x", at(1, 22), "unknown variable \"x\""),
        ("hash(value.a)", at(1, 1), "unknown function \"hash\""),
        ("value.a.hash()", at(1, 9), "unknown function \"hash\""),
        ("size(1, 2)", at(1, 1), "size takes 1 arguments, not 2"),
        ("value.a.replace('x')", at(1, 9), "replace takes 2 to 3 arguments, not 1"),
        ("startsWith(value.a, 'x')", at(1, 1), "is called as x.startsWith()"),
        ("value.a.double()", at(1, 9), "is called as double(x)"),
        ("math.cbrt(1.0)", at(1, 1), "unknown"),
        ("Order{id: 1}", at(1, 6), "messages cannot be made"),
        ("value.a.matches('a(')", at(1, 17), "not a regular expression: error: unclosed group"),
        ("@sluice_fuel", at(1, 1), "syntax error"),
    ] {
        let error = expression_error(expression);
        assert_eq!(error.path, "steps[0] \"f\" filter.keepWhen", "{expression}");
        assert_eq!(error.position, position, "{expression}: {error}");
        assert!(error.message.contains(says), "{expression}: {error}");
        assert!(error.message.len() < 400, "{error}");
    }
}

#[test]
fn every_mistake_is_told_with_its_path() {
    let steps = json!([
        filter("f", "nope"),
        set("totals", &[("a", "1"), ("b", "value.+"), ("a", "2"), ("a.x", "3")]),
        remove("r", &["a", "a"]),
        mask("m", &["a", "a.b"]),
        lookup("value", "'x'", "x", "Json", "Continue"),
        lookup("a-b", "'x'", "x", "Json", "Continue"),
        lookup("int", "'x'", "x", "Json", "Continue"),
        filter("f", "true"),
    ]);
    let list =
        vec![route(json!({"when": "price.amount > 1", "key": "value["})), route(json!({"name": "out", "when": "1 +"}))];
    let errors = errors(steps, routing("First", "Discard", list));
    for path in [
        "steps[0] \"f\" filter.keepWhen, line 1, column 1: unknown variable",
        "steps[1] \"totals\" set[1].expression, line 1, column 7: syntax error",
        "steps[1] \"totals\" set[2].field: \"a\" is set twice",
        "steps[1] \"totals\" set[3].field: \"a.x\" and a field inside it",
        "steps[2] \"r\" remove.fields[1]: \"a\" is listed twice",
        "steps[3] \"m\" mask.fields[1]: \"a.b\" and a field inside it",
        "steps[4] \"value\": a lookup cannot be named \"value\": it is a variable",
        "steps[5] \"a-b\": a lookup cannot be named",
        "steps[6] \"int\": a lookup cannot be named \"int\": it is a word of CEL",
        "steps[7] \"f\": the name is taken",
        "routing.routes[1] \"out\": the name is taken",
        "routing.routes[0] \"out\" when, line 1, column 1: unknown variable \"price\"",
        "routing.routes[0] \"out\" key, line 1, column",
        "routing.routes[1] \"out\" when, line 1, column",
    ] {
        assert!(errors.iter().any(|error| error.starts_with(path)), "{path} is not in {errors:#?}");
    }
    assert_eq!(errors.len(), 14, "{errors:#?}");
}

#[test]
fn a_lookup_is_known_after_its_step() {
    let early = json!([filter("f", "price == null"), lookup("price", "'p'", "p", "Json", "Continue")]);
    assert_eq!(errors(early, one_route()).len(), 1);
    let own = json!([lookup("price", "'p' + price", "p", "Json", "Continue")]);
    assert_eq!(errors(own, one_route()).len(), 1);
    let late = json!([lookup("price", "'p'", "p", "Json", "Continue"), filter("f", "price == null")]);
    assert_eq!(errors(late, one_route()), Vec::<String>::new());
}

#[test]
fn raw_values_have_no_fields() {
    for step in [set("s", &[("a", "1")]), remove("s", &["a"]), mask("s", &["a"])] {
        let errors = try_compile(Format::Raw, json!([step]), one_route()).expect_err("should be refused");
        assert!(errors[0].to_string().contains("needs source.format Json"), "{errors:?}");
    }
}

type Build<'a> = &'a dyn Fn(usize) -> String;

/// Test threads have 2 MiB of stack, like the threads that run records: what compiles must also run there, and what
/// is too deep must be told, not end the process.
#[test]
fn no_expression_exhausts_the_stack() {
    let repeat = |start: &str, part: &str, middle: &str, end: &str, n: usize| {
        format!("{start}{}{middle}{}", part.repeat(n), end.repeat(n))
    };
    let shapes: [(&str, Build<'_>); 11] = [
        ("brackets", &|n| repeat("", "(", "1", ")", n)),
        ("lists", &|n| repeat("", "[", "1", "]", n)),
        ("maps", &|n| repeat("", "{'a':", "1", "}", n)),
        ("plus", &|n| repeat("1", "+1", "", "", n)),
        ("minus", &|n| repeat("1", " - 1", "", "", n)),
        ("ternaries", &|n| repeat("", "1==1?1:", "1", "", n)),
        ("selects", &|n| repeat("value", ".a", "", "", n)),
        ("indexes", &|n| repeat("value", "[0]", "", "", n)),
        ("members", &|n| repeat("value.s", ".trim()", "", "", n)),
        ("calls", &|n| repeat("", "string(", "1", ")", n)),
        ("comprehensions", &|n| repeat("", "[1].map(x,", "1", ")", n)),
    ];
    let record = r#"{"s":"x"}"#;
    for (shape, build) in shapes {
        let compiled = |n: usize| try_compile(Format::Json, json!([set("r", &[("r", &build(n))])]), one_route());
        let deepest: Program = (1..200).map_while(|n| compiled(n).ok()).last().expect("one level should compile");
        drop(common::run(&deepest, common::record(None, Some(record.as_bytes())), &common::Redis::new()));
        let errors = compiled(600).expect_err("600 levels should be refused");
        assert!(errors[0].message.contains("40 levels"), "{shape}: {errors:?}");
    }
    let balanced = compile(json!([filter("f", &repeat("true", "&&true", "", "", 300))]), one_route());
    assert_eq!(output(&balanced, "{}"), "{}");
}

#[test]
fn headers_are_only_needed_where_they_are_named() {
    assert!(!compile(json!([filter("f", "topic == 'headers'")]), one_route()).uses_headers());
    for program in [
        compile(json!([filter("f", "'x' in headers")]), one_route()),
        compile(json!([set("s", &[("h", "headers.trace")])]), one_route()),
        compile(json!([]), routing("First", "Discard", vec![route(json!({"key": "headers.trace"}))])),
    ] {
        assert!(program.uses_headers());
    }
}

#[test]
fn prefixes_and_variables_are_read_off() {
    let prefix = |text: &str| literal_prefix(&Expression(text.to_owned()), &RECORD_VARIABLES);
    for (expression, want) in [
        ("'price:' + value.sku", Some("price:")),
        ("'stock:{' + value.sku + '}'", Some("stock:{")),
        ("('a:' + topic) + key", Some("a:")),
        ("\"a\\x3a\" + key", Some("a:")),
        ("'fixed'", Some("fixed")),
        ("key + ':x'", None),
        ("value.a ? 'a:' : 'b:'", None),
        ("'a:' + nope", None),
        ("'a:' +", None),
        ("1 + 2", None),
    ] {
        assert_eq!(prefix(expression).as_deref(), want, "{expression}");
    }
    let named = |text: &str, known: &[&str]| variables(&Expression(text.to_owned()), known);
    let found = named("value.a.map(x, x + key) == [topic]", &RECORD_VARIABLES).expect("an expression");
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), ["key", "topic", "value"]);
    let form = |text: &str| key_form(&Expression(text.to_owned()), "t");
    let whole = |before: &str, after: &str| Some(KeyForm::Whole { before: before.into(), after: after.into() });
    for (expression, want) in [
        ("key", whole("", "")),
        ("'o:{' + key + '}:lines'", whole("o:{", "}:lines")),
        ("'o:' + (topic + ':' + (key + ':' + topic))", whole("o:t:", ":t")),
        ("'o:' + topic", Some(KeyForm::Same)),
        ("key + key", Some(KeyForm::Derived)),
        ("'o:' + key.split('|')[0]", Some(KeyForm::Derived)),
        ("key == 'a' ? 'a' : 'b'", Some(KeyForm::Derived)),
        ("'o:' + value.id", None),
    ] {
        assert_eq!(form(expression), want, "{expression}");
    }
    let error = &named("'o:' + value.id", &VIEW_KEY_VARIABLES).expect_err("value is not known")[0];
    assert!(error.message.contains("unknown variable \"value\": known here are key"), "{error}");
}
