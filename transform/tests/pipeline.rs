//! The reference pipeline from end to end.

mod common;

use common::{LIMITS, Redis, compile, filter, lookup, mask, record, remove, route, routing, run, set};
use sluice_transform::{LookupValue, Outcome, Program, Reason};

fn enrich_orders() -> Program {
    compile(
        serde_json::json!([
            filter("onlyCreated", r#"value.status == "CREATED""#),
            lookup("price", "'price:' + value.sku", "price:", "Json", "DeadLetter"),
            lookup("stock", "'stock:{' + value.sku + '}'", "stock:{", "Hash", "Continue"),
            set(
                "totals",
                &[
                    ("total", "double(value.quantity) * double(price.amount)"),
                    ("inStock", "stock != null && int(stock.onHand) >= int(value.quantity)"),
                ],
            ),
            mask("pii", &["customer.email"]),
            remove("tidy", &["internal"]),
        ]),
        routing(
            "First",
            "DeadLetter",
            vec![
                route(serde_json::json!({"name": "review", "topic": "order.review", "when": "value.total > 10000.0"})),
                route(serde_json::json!({"name": "enriched", "topic": "order.enriched"})),
            ],
        ),
    )
}

fn redis() -> Redis {
    Redis::from([
        ("price:sku-1", LookupValue::String(br#"{"amount": 19.5, "currency": "EUR"}"#.to_vec())),
        ("price:broken", LookupValue::String(b"{".to_vec())),
        ("price:list", LookupValue::WrongType),
        ("stock:{sku-1}", LookupValue::Hash(vec![(b"onHand".to_vec(), b"7".to_vec())])),
    ])
}

const ORDER: &str = r#"{ "orderId":"o-1", "status":"CREATED",
  "sku":"sku-1",  "quantity":2, "customer":{"id":7,"email":"a@b.c"},"internal":{"x":[1, 2]}, "weight":1.50}"#;

fn value(order: &str) -> (Vec<usize>, String) {
    match run(&enrich_orders(), record(Some("o-1"), Some(order.as_bytes())), &redis()).0 {
        Outcome::Outputs(outputs) => (
            outputs.routes.iter().map(|route| route.route).collect(),
            String::from_utf8(outputs.value.expect("value").into_owned()).expect("UTF-8"),
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_order_is_enriched_and_the_rest_of_its_bytes_stay() {
    let (routes, value) = value(ORDER);
    assert_eq!(routes, [1]);
    assert_eq!(
        value,
        r#"{ "orderId":"o-1", "status":"CREATED",
  "sku":"sku-1",  "quantity":2, "customer":{"id":7,"email":"***"}, "weight":1.50,"total":39.0,"inStock":true}"#
    );
}

#[test]
fn independent_lookups_take_one_round_trip() {
    let (_, rounds) = run(&enrich_orders(), record(None, Some(ORDER.as_bytes())), &redis());
    assert_eq!(rounds, [["price:sku-1", "stock:{sku-1}"]]);
}

#[test]
fn large_orders_go_to_review() {
    let (routes, _) = value(&ORDER.replace("\"quantity\":2", "\"quantity\":2000"));
    assert_eq!(routes, [0]);
}

#[test]
fn what_a_lookup_finds_decides() {
    let program = enrich_orders();
    for (sku, step, reason) in [
        ("none", "price", Reason::LookupMiss),
        ("broken", "price", Reason::LookupInvalid),
        ("list", "price", Reason::LookupInvalid),
    ] {
        let order = ORDER.replace("sku-1", sku);
        match run(&program, record(None, Some(order.as_bytes())), &redis()).0 {
            Outcome::DeadLetter(letter) => assert_eq!((letter.step.as_str(), letter.reason), (step, reason), "{sku}"),
            other => panic!("{sku} gave {other:?}"),
        }
    }
    let other = ORDER.replace("CREATED", "PAID");
    assert_eq!(run(&program, record(None, Some(other.as_bytes())), &redis()).0, Outcome::Filtered { step: 0 });
    assert!(LIMITS.max_record_bytes > ORDER.len());
}
