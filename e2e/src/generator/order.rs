//! One order: its bytes, and what must become of them.

use serde_json::{Map, Value};

use super::expected::{Expected, Reason, Route};
use super::random::Random;
use super::reference::Sku;

/// A total above this goes to review.
const REVIEW_ABOVE: f64 = 10_000.0;

const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// What is special about an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nothing.
    Good,
    /// Not in state CREATED.
    OtherState,
    /// No price for its SKU.
    UnknownSku,
    /// Its JSON stops in the middle.
    BrokenJson,
    /// It has no `status`.
    MissingField,
    /// Its quantity is a word.
    WrongType,
    /// It has no value.
    Tombstone,
}

pub(super) fn order_id(number: u32) -> String {
    format!("o-{number:07}")
}

/// Everything drawn for one order.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) kind: Kind,
    pub(super) number: u32,
    pub(super) version: u64,
    pub(super) customer: u32,
    pub(super) sku: Sku,
    pub(super) quantity: u32,
    pub(super) value_bytes: usize,
}

impl Draft {
    pub(super) fn order_id(&self) -> String {
        order_id(self.number)
    }

    pub(super) fn value(&self) -> Option<Vec<u8>> {
        match self.kind {
            Kind::Tombstone => None,
            Kind::BrokenJson => {
                let text = self.text();
                // Cut inside the members, so that it is never valid by chance.
                Some(text.as_bytes()[..text.len() / 2].to_vec())
            }
            _ => Some(self.text().into_bytes()),
        }
    }

    /// Compact JSON, written by hand: the order of the members is part of what is tested.
    fn text(&self) -> String {
        let status = match self.kind {
            Kind::MissingField => String::new(),
            Kind::OtherState => r#""status":"PAID","#.into(),
            _ => r#""status":"CREATED","#.into(),
        };
        let sku = if self.kind == Kind::UnknownSku { format!("gone-{}", self.sku.0) } else { self.sku.name() };
        let quantity = if self.kind == Kind::WrongType { r#""many""#.into() } else { self.quantity.to_string() };
        let (id, version, customer) = (self.order_id(), self.version, self.customer);
        let head = format!(
            r#"{{"orderId":"{id}","version":{version},{status}"sku":"{sku}","quantity":{quantity},"customer":{{"id":"c-{customer}","email":"c{customer}@example.com"}},"internal":{{"shard":{}}},"discount":null,"gift":{},"note":""#,
            self.number % 16,
            self.number.is_multiple_of(2),
        );
        let padding = self.value_bytes.saturating_sub(head.len() + 2);
        // Nothing that comes back: compression would make the benchmark's records too small.
        let mut random = Random::new(u64::from(self.number) << 32 | (self.version & 0xffff_ffff));
        let note: String = (0..padding).map(|_| char::from(LETTERS[random.below(36) as usize])).collect();
        format!("{head}{note}\"}}")
    }

    pub(super) fn expected(&self) -> Expected {
        match self.kind {
            Kind::Tombstone => Expected::Tombstone,
            Kind::OtherState => Expected::Filtered,
            Kind::UnknownSku => Expected::DeadLetter(Reason::LookupMiss),
            Kind::BrokenJson => Expected::DeadLetter(Reason::InvalidJson),
            Kind::MissingField => Expected::DeadLetter(Reason::MissingField),
            Kind::WrongType => Expected::DeadLetter(Reason::ExpressionError),
            Kind::Good => {
                let amount: f64 = self.sku.amount().parse().expect("a price is a number");
                let total = f64::from(self.quantity) * amount;
                let route = if total > REVIEW_ABOVE { Route::Review } else { Route::Enriched };
                Expected::Output { route, value: self.enriched(total) }
            }
        }
    }

    /// The members in order: input order kept, `internal` removed, the e-mail hidden, new members at the end.
    fn enriched(&self, total: f64) -> Value {
        let parsed: Map<String, Value> = serde_json::from_str(&self.text()).expect("a good order is an object");
        let mut members: Map<String, Value> = parsed.into_iter().filter(|(name, _)| name != "internal").collect();
        members["customer"]["email"] = "***".into();
        members.insert("total".into(), total.into());
        let in_stock = self.sku.on_hand().is_some_and(|pieces| pieces >= self.quantity);
        members.insert("inStock".into(), in_stock.into());
        Value::Object(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(kind: Kind) -> Draft {
        Draft { kind, number: 12, version: 3, customer: 5, sku: Sku(1), quantity: 2, value_bytes: 600 }
    }

    #[test]
    fn a_good_order_has_its_size_and_its_outcome() {
        let value = draft(Kind::Good).value().expect("a value");
        assert_eq!(value.len(), 600);
        let Expected::Output { route, value } = draft(Kind::Good).expected() else { panic!("an output") };
        assert_eq!(route, Route::Enriched);
        let names: Vec<&String> = value.as_object().expect("an object").keys().collect();
        let wanted = [
            "orderId", "version", "status", "sku", "quantity", "customer", "discount", "gift", "note", "total",
            "inStock",
        ];
        assert_eq!(names, wanted);
        assert_eq!(value["customer"]["email"], "***");
    }

    #[test]
    fn broken_json_is_broken_and_the_rest_is_not() {
        let parse = |kind| serde_json::from_slice::<Value>(&draft(kind).value().unwrap_or_default());
        assert!(parse(Kind::BrokenJson).is_err());
        for kind in [Kind::Good, Kind::OtherState, Kind::UnknownSku, Kind::MissingField, Kind::WrongType] {
            assert!(parse(kind).is_ok(), "{kind:?}");
        }
        assert_eq!(draft(Kind::Tombstone).value(), None);
    }
}
