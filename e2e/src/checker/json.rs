//! JSON by its text: member order counts, and numbers are compared as the numbers they say, not as some parser rounds them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// An object's members in the order of the text.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

type Items = Vec<Box<RawValue>>;

/// Whether two texts say the same: members in the same order, `1.0` is `1`. Texts that are not JSON say nothing.
pub(super) fn same(one: &str, other: &str) -> bool {
    if let (Ok(Members(one)), Ok(Members(other))) = (serde_json::from_str(one), serde_json::from_str(other)) {
        return one.len() == other.len()
            && one.iter().zip(&other).all(|(one, other)| one.0 == other.0 && same(one.1.get(), other.1.get()));
    }
    if let (Ok(one), Ok(other)) = (serde_json::from_str::<Items>(one), serde_json::from_str::<Items>(other)) {
        return one.len() == other.len() && one.iter().zip(&other).all(|(one, other)| same(one.get(), other.get()));
    }
    if let (Ok(one), Ok(other)) = (serde_json::from_str::<String>(one), serde_json::from_str::<String>(other)) {
        return one == other;
    }
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    match (number(one), number(other)) {
        // The standard library rounds correctly; serde_json's quick parser may be off by one in the last place.
        (Some(one), Some(other)) => one.to_bits() == other.to_bits(),
        _ => one == other && matches!(one, "null" | "true" | "false"),
    }
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn order_and_value_count_and_spelling_does_not() {
        assert!(same(r#"{"a":1,"b":[1.0,{"c":"\u0041"}]}"#, r#"{ "a": 1.0, "b": [1, {"c": "A"}] }"#));
        assert!(!same(r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#));
        assert!(!same("3919.2000000000003", "3919.2000000000002"[..17].trim_end_matches('0')));
        assert!(same("3919.2000000000003", "3919.20000000000030"));
        assert!(!same("true", "1") && same("null", "null") && !same("nil", "nil") && !same("\"1\"", "1"));
    }
}
