//! What the API server will accept and refuse, checked in process: the committed definitions are the generated ones,
//! every correct manifest passes, every wrong one is refused with the right message, and the schema keeps its promises
//! (bounded, described, list-maps, no value that YAML reads as something else).

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod schema;
mod structural;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::cel::Validator;
use serde_json::Value;
use sluice_crds::v1alpha1::{CacheSync, EventPipeline, definitions};

/// The schema of a kind.
fn schema_of(kind: &str) -> &'static Value {
    static SCHEMAS: LazyLock<BTreeMap<String, Value>> = LazyLock::new(|| {
        let schema = |definition: CustomResourceDefinition| {
            let schema = serde_json::to_value(&definition.spec.versions[0].schema).unwrap()["openAPIV3Schema"].take();
            (definition.spec.names.kind, schema)
        };
        definitions().map(schema).into()
    });
    &SCHEMAS[kind]
}

/// What an API server says to `new`, put in place of `old`. As there, rules are asked only when the rest is right.
fn refusals(new: &Value, old: Option<&Value>) -> Vec<String> {
    let schema = schema_of(new["kind"].as_str().unwrap());
    let as_stored = |value: &Value| {
        let mut value = value.clone();
        structural::prune_nulls(&mut value);
        kube::core::cel::apply_defaults(schema, &value)
    };
    let new = as_stored(new);
    let structural = structural::check(schema, &new, "");
    if !structural.is_empty() {
        return structural;
    }
    let old = old.map(|old| {
        let mut old = as_stored(old);
        structural::pair(schema, &new, &mut old);
        old
    });
    match Validator::new().validate(schema, &new, old.as_ref()) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn correct_manifests_are_accepted() {
    for mut manifest in support::correct() {
        assert_eq!(refusals(&manifest, None), Vec::<String>::new(), "{}", manifest["metadata"]["name"]);
        assert_eq!(
            refusals(&manifest, Some(&manifest)),
            Vec::<String>::new(),
            "{} unchanged",
            manifest["metadata"]["name"]
        );
        structural::prune_nulls(&mut manifest);
        match manifest["kind"].as_str().unwrap() {
            "EventPipeline" => drop(serde_json::from_value::<EventPipeline>(manifest).unwrap()),
            "CacheSync" => drop(serde_json::from_value::<CacheSync>(manifest).unwrap()),
            other => panic!("kind {other}"),
        }
    }
}

#[test]
fn wrong_manifests_are_refused_with_the_right_message() {
    let correct = support::correct();
    for wrong in support::wrong() {
        let base = wrong.base(&correct);
        let refusals = refusals(&wrong.manifest(&correct), wrong.update.then_some(&base));
        assert!(refusals.iter().any(|refusal| wrong.matches(refusal)), "{}: {refusals:#?}", wrong.name);
    }
}

/// What may change, may change.
#[test]
fn allowed_updates_are_allowed() {
    let correct = support::correct();
    let mut manifest = correct[0].clone();
    let old = manifest.clone();
    manifest["spec"]["topics"].as_array_mut().unwrap().reverse();
    assert_eq!(refusals(&manifest, Some(&old)), Vec::<String>::new(), "another order is no change");
    manifest["spec"]["topics"][3]["partitions"] = 24.into();
    manifest["spec"]["topics"].as_array_mut().unwrap().push(serde_json::json!({"name": "new", "partitions": 1}));
    assert_eq!(refusals(&manifest, Some(&old)), Vec::<String>::new(), "growing");
    manifest["spec"]["topics"].as_array_mut().unwrap().remove(0);
    assert_eq!(refusals(&manifest, Some(&old)), Vec::<String>::new(), "releasing a topic");
    manifest["spec"]["worker"]["replicas"] = 3.into();
    manifest["spec"]["state"] = "Stopped".into();
    assert_eq!(refusals(&manifest, Some(&old)), Vec::<String>::new(), "scaling and stopping");
    let (old, mut named) = (correct[1].clone(), correct[1].clone());
    for server in ["kafka", "redis"] {
        named["spec"][server] = serde_json::json!({"connectionRef": {"name": "default"}});
    }
    assert_eq!(refusals(&named, Some(&old)), Vec::<String>::new(), "absent means default");
    assert_eq!(refusals(&old, Some(&named)), Vec::<String>::new(), "and default may be left out");
}

#[test]
fn the_committed_definitions_are_the_generated_ones() {
    for (file, text) in crdgen::files() {
        let path = format!("{}/../config/crds/{file}", env!("CARGO_MANIFEST_DIR"));
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == text, "config/crds/{file} is not what the types say: run `make generate`");
        // Helm reads charts' files as templates.
        assert!(!text.contains("{{"), "{file} holds a template's braces");
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        let name = read["spec"]["names"]["kind"].as_str().unwrap();
        let written = definitions().into_iter().find(|definition| definition.spec.names.kind == name).unwrap();
        let read: CustomResourceDefinition = serde_json::from_value(read).unwrap();
        assert_eq!(read, written, "{file} reads back as written");
    }
}

#[path = "../../src/bin/crdgen.rs"]
#[allow(dead_code, reason = "only the generator is used, not its main")]
mod crdgen;
