//! The tables of manifests, for checks in process and for the same checks by a real API server.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

/// One wrong manifest: a change of a correct one, and the refusal it must meet.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wrong {
    pub name: String,
    base: String,
    #[serde(default)]
    set: Map<String, Value>,
    #[serde(default)]
    remove: Vec<String>,
    #[serde(default)]
    pub update: bool,
    pub field: String,
    pub message: String,
}

impl Wrong {
    /// The correct manifest it starts from.
    pub fn base(&self, correct: &[Value]) -> Value {
        let mut bases = correct.iter().filter(|manifest| manifest["metadata"]["name"] == self.base.as_str());
        bases.next().unwrap_or_else(|| panic!("{}: no base {:?}", self.name, self.base)).clone()
    }

    /// The wrong manifest.
    pub fn manifest(&self, correct: &[Value]) -> Value {
        let mut manifest = self.base(correct);
        for pointer in &self.remove {
            let (parent, key) = split(pointer);
            let removed = match self.at(&mut manifest, parent) {
                Value::Object(members) => members.remove(key).is_some(),
                Value::Array(items) => {
                    items.remove(key.parse().expect("an index"));
                    true
                }
                _ => false,
            };
            assert!(removed, "{}: nothing at {pointer}", self.name);
        }
        for (pointer, value) in &self.set {
            let (parent, key) = split(pointer);
            match self.at(&mut manifest, parent) {
                Value::Object(members) => drop(members.insert(key.to_owned(), value.clone())),
                Value::Array(items) if key == "-" => items.push(value.clone()),
                other => panic!("{}: cannot set {pointer} in {other}", self.name),
            }
        }
        manifest
    }

    fn at<'a>(&self, manifest: &'a mut Value, pointer: &str) -> &'a mut Value {
        manifest.pointer_mut(pointer).unwrap_or_else(|| panic!("{}: nothing at {pointer}", self.name))
    }

    /// True when a refusal says what it must.
    pub fn matches(&self, refusal: &str) -> bool {
        refusal.contains(&self.field) && refusal.contains(&self.message)
    }
}

fn split(pointer: &str) -> (&str, &str) {
    pointer.rsplit_once('/').expect("a JSON pointer")
}

/// Manifests that must be accepted: the table's and the repository's examples.
pub fn correct() -> Vec<Value> {
    let mut all: Vec<Value> = read(&tables().join("correct.yaml"));
    let examples = ["enrich-orders/pipeline.yaml", "project-orders/pipeline.yaml", "order-cache/cache.yaml"];
    let folder = tables().join("../../../examples/orders");
    all.extend(examples.iter().map(|file| {
        let mut manifest: Value = read(&folder.join(file));
        let name = format!("example-{}", manifest["metadata"]["name"].as_str().expect("an example has a name"));
        manifest["metadata"]["name"] = name.into();
        manifest
    }));
    all
}

/// Manifests that must be refused.
pub fn wrong() -> Vec<Wrong> {
    let all: Vec<Wrong> = read(&tables().join("wrong.yaml"));
    assert!(all.len() >= 40, "the table has {} manifests", all.len());
    all
}

fn tables() -> &'static Path {
    // The folder of this file, whichever crate's test reads it.
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/tests/manifests"))
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> T {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
