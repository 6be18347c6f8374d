//! What the schemas promise, field by field.

use proptest::prelude::*;
use regex::Regex;
use serde_json::Value;
use sluice_crds::names::{GroupId, KeyPrefix, PartName, TopicName};

use super::schema_of;

const KINDS: [&str; 2] = ["EventPipeline", "CacheSync"];

/// Calls `visit` for every schema below `schema`, with its path; list items are `[]`, map values `{}`.
fn each<'a>(schema: &'a Value, path: &str, visit: &mut dyn FnMut(&str, &'a Value)) {
    visit(path, schema);
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        each(property, &format!("{path}.{key}"), visit);
    }
    if schema["items"].is_object() {
        each(&schema["items"], &format!("{path}[]"), visit);
    }
    if schema["additionalProperties"].is_object() {
        each(&schema["additionalProperties"], &format!("{path}{{}}"), visit);
    }
}

/// Paths below `spec` (and, if asked, `status`) for which `wrong` holds.
fn paths(parts: &[&str], wrong: impl Fn(&str, &Value) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for kind in KINDS {
        let schema = schema_of(kind);
        for part in parts {
            each(&schema["properties"][part], &format!("{kind}.{part}"), &mut |path, schema| {
                if wrong(path, schema) {
                    found.push(path.to_owned());
                }
            });
        }
    }
    found
}

fn none(found: &[String]) {
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn everything_a_user_writes_is_bounded() {
    none(&paths(&["spec"], |_, schema| match schema["type"].as_str() {
        Some("string") => schema["maxLength"].is_null() && schema["enum"].is_null(),
        Some("array") => schema["maxItems"].is_null(),
        Some("integer") => schema["minimum"].is_null() || schema["maximum"].is_null(),
        Some("object") => schema["properties"].is_null() && schema["maxProperties"].is_null(),
        // A quantity.
        None => schema["maxLength"].is_null() || schema["pattern"].is_null(),
        _ => false,
    }));
}

#[test]
fn nothing_is_a_float_a_bool_or_a_hole_in_the_schema() {
    none(&paths(&["spec", "status"], |_, schema| {
        ["number", "boolean"].contains(&schema["type"].as_str().unwrap_or_default())
            || !schema["x-kubernetes-preserve-unknown-fields"].is_null()
            || !schema["nullable"].is_null()
            || ["anyOf", "oneOf", "allOf", "not"].iter().any(|union| !schema[union].is_null())
    }));
}

#[test]
fn every_field_is_described_for_explain() {
    let item_or_value = |path: &str| path.ends_with("[]") || path.ends_with("{}");
    none(&paths(&["spec", "status"], |path, schema| {
        let description = schema["description"].as_str().unwrap_or_default();
        !item_or_value(path) && (description.len() < 10 || description.contains("Auto-generated"))
    }));
}

/// One writer a list, and rules that can pair items of the old with the new.
#[test]
fn every_list_is_a_map_or_a_set() {
    none(&paths(&["spec", "status"], |_, schema| {
        schema["type"] == "array"
            && !["map", "set"].contains(&schema["x-kubernetes-list-type"].as_str().unwrap_or_default())
    }));
}

/// A default inside a list item makes Argo CD report drift for ever.
#[test]
fn nothing_inside_lists_has_a_default() {
    none(&paths(&["spec"], |path, schema| path.contains("[]") && !schema["default"].is_null()));
}

/// `/scale` answers an error while `.spec.worker.replicas` is absent.
#[test]
fn replicas_always_have_a_value() {
    for kind in KINDS {
        let worker = &schema_of(kind)["properties"]["spec"]["properties"]["worker"];
        assert_eq!(worker["default"]["resources"], serde_json::json!({}));
        assert_eq!(worker["properties"]["replicas"]["default"], 1);
    }
}

/// YAML 1.1 (and Go's yaml within kubectl) reads these as bool, null or number when unquoted.
#[test]
fn no_enum_value_needs_quotes() {
    let mut checked = 0;
    let other = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", "nan", "inf"];
    for kind in KINDS {
        let schema = schema_of(kind);
        each(schema, kind, &mut |path, schema| {
            for value in schema["enum"].as_array().into_iter().flatten() {
                let text = value.as_str().unwrap_or_else(|| panic!("{path}: {value} is no text"));
                // Status of conditions is Kubernetes' own: "True", "False", "Unknown".
                if path.ends_with(".status.conditions[].status") {
                    continue;
                }
                assert!(
                    text.chars().all(|c| c.is_ascii_alphabetic())
                        && !other.contains(&text.to_ascii_lowercase().as_str()),
                    "{path}: {text}"
                );
                let read: Value = serde_saphyr::from_str(text).unwrap();
                assert_eq!(read, *value, "{path}: {text} is read as something else");
                checked += 1;
            }
        });
    }
    assert!(checked > 20, "{checked} values");
}

/// Whether the pattern at a path of the pipeline's spec lets `text` through.
fn lets_through(pointer: &str, text: &str) -> bool {
    let schema = schema_of("EventPipeline");
    let found = schema.pointer(&format!("/properties/spec/properties/{pointer}/pattern")).and_then(Value::as_str);
    Regex::new(found.unwrap_or_else(|| panic!("no pattern at {pointer}"))).unwrap().is_match(text)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// The schema's patterns say what the newtypes say; only what needs a rule is left to the rules.
    #[test]
    fn patterns_and_newtypes_agree(text in r#"[a-zA-Z0-9._/*?:{}~%\[\]()'" -]{1,12}|[ -~]{1,6}|\PC{1,4}"#) {
        let topic = lets_through("source/properties/topics/items/properties/name", &text);
        prop_assert_eq!(topic && text != "." && text != "..", TopicName::parse(&*text).is_ok());
        let group = lets_through("source/properties/groupId", &text);
        prop_assert_eq!(group, GroupId::parse(&*text).is_ok());
        let prefix = lets_through("steps/items/properties/lookup/properties/keyPrefix", &text);
        let reserved = text.starts_with("sluice/") || "sluice/".starts_with(&text);
        prop_assert_eq!(prefix && !reserved, KeyPrefix::parse(&*text).is_ok());
        let route = lets_through("routing/properties/routes/items/properties/name", &text);
        prop_assert_eq!(route, PartName::parse(&*text).is_ok());
    }
}
