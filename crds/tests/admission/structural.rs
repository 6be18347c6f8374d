//! What an API server checks of a structural schema besides rules, in its words: types, required and unknown fields,
//! bounds, patterns, enums, and the keys of list-maps. A stand-in for the real one, which the end-to-end tests ask.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::Value;

/// Everything wrong with `value`, as `field: message`.
pub fn check(schema: &Value, value: &Value, field: &str) -> Vec<String> {
    let mut errors = Vec::new();
    walk(schema, value, field, &mut errors);
    errors
}

/// Drops nulls, as an API server does with what is created or replaced where nothing is nullable.
pub fn prune_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(prune_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(prune_nulls),
        _ => {}
    }
}

/// Puts the items of `old`'s list-maps where `new` has the item of the same key. An API server pairs them so for rules
/// about changes; `kube-cel` pairs by position. An item that `new` adds is its own past, one that it drops has no future.
pub fn pair(schema: &Value, new: &Value, old: &mut Value) {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            for (key, member) in new {
                if let Some(old) = old.get_mut(key) {
                    pair(&schema["properties"][key], member, old);
                }
            }
        }
        (Value::Array(new), Value::Array(old)) if schema["x-kubernetes-list-type"] == "map" => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array().expect("a list-map has keys");
            let same =
                |one: &Value, other: &Value| keys.iter().filter_map(Value::as_str).all(|key| one[key] == other[key]);
            let before = std::mem::take(old);
            old.extend(new.iter().map(|item| {
                let mut past = before.iter().find(|past| same(past, item)).unwrap_or(item).clone();
                pair(&schema["items"], item, &mut past);
                past
            }));
        }
        _ => {}
    }
}

fn walk(schema: &Value, value: &Value, field: &str, errors: &mut Vec<String>) {
    let quantity = schema["x-kubernetes-int-or-string"] == true;
    let type_ = schema["type"].as_str().unwrap_or_default();
    let fits = match type_ {
        _ if quantity => value.is_string() || value.is_i64(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        "boolean" => value.is_boolean(),
        other => panic!("{field}: type {other:?} is not known to this check"),
    };
    if !fits {
        errors.push(format!("{field}: Invalid value: {value}: {field} in body must be of type {type_}"));
        return;
    }
    match value {
        Value::Object(members) => object(schema, members, field, errors),
        Value::Array(items) => list(schema, items, field, errors),
        Value::String(text) => string(schema, text, field, errors),
        Value::Number(number) => {
            let number = number.as_f64().expect("a number");
            if schema["minimum"].as_f64().is_some_and(|minimum| number < minimum) {
                errors.push(format!(
                    "{field}: should be greater than or equal to {}",
                    schema["minimum"].as_f64().expect("a bound")
                ));
            }
            if schema["maximum"].as_f64().is_some_and(|maximum| number > maximum) {
                errors.push(format!(
                    "{field}: should be less than or equal to {}",
                    schema["maximum"].as_f64().expect("a bound")
                ));
            }
        }
        _ => {}
    }
}

fn object(schema: &Value, members: &serde_json::Map<String, Value>, field: &str, errors: &mut Vec<String>) {
    let path = |key: &str| if field.is_empty() { key.to_owned() } else { format!("{field}.{key}") };
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !members.contains_key(required) {
            errors.push(format!("{}: Required value", path(required)));
        }
    }
    if schema["maxProperties"].as_u64().is_some_and(|max| members.len() as u64 > max) {
        errors.push(format!("{field}: Too many: {}", members.len()));
    }
    for (key, member) in members {
        let known = &schema["properties"][key];
        let values = &schema["additionalProperties"];
        if known.is_object() {
            walk(known, member, &path(key), errors);
        } else if values.is_object() {
            walk(values, member, &path(key), errors);
        } else if !(field.is_empty() && ["apiVersion", "kind", "metadata"].contains(&key.as_str())) {
            errors.push(format!("unknown field {:?}", path(key)));
        }
    }
}

fn list(schema: &Value, items: &[Value], field: &str, errors: &mut Vec<String>) {
    if schema["minItems"].as_u64().is_some_and(|min| (items.len() as u64) < min) {
        errors.push(format!("{field}: {field} in body should have at least {} items", schema["minItems"]));
    }
    if schema["maxItems"].as_u64().is_some_and(|max| items.len() as u64 > max) {
        errors.push(format!("{field}: Too many: {}: must have at most {} items", items.len(), schema["maxItems"]));
    }
    let keys: Vec<&str> =
        schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let path = format!("{field}[{index}]");
        walk(&schema["items"], item, &path, errors);
        let key = match schema["x-kubernetes-list-type"].as_str() {
            Some("map") => keys.iter().map(|key| item[key].to_string()).collect::<Vec<_>>().join(","),
            Some("set") => item.to_string(),
            other => panic!("{field}: list type {other:?} is not known to this check"),
        };
        if !seen.insert(key.clone()) {
            errors.push(format!("{path}: Duplicate value: {key}"));
        }
    }
}

fn string(schema: &Value, text: &str, field: &str, errors: &mut Vec<String>) {
    let length = text.chars().count() as u64;
    if schema["minLength"].as_u64().is_some_and(|min| length < min) {
        errors.push(format!("{field}: {field} in body should be at least {} chars long", schema["minLength"]));
    }
    if schema["maxLength"].as_u64().is_some_and(|max| length > max) {
        errors.push(format!("{field}: Too long: may not be more than {}", schema["maxLength"]));
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && !Regex::new(pattern).expect("a pattern of ours").is_match(text)
    {
        errors.push(format!("{field}: Invalid value: {text:?}: {field} in body should match '{pattern}'"));
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(&Value::from(text))
    {
        let values: Vec<String> = values.iter().map(Value::to_string).collect();
        errors.push(format!("{field}: Unsupported value: {text:?}: supported values: {}", values.join(", ")));
    }
}
