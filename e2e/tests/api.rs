//! What a real API server says to the committed definitions, and to every manifest of the tables that the API's own tests
//! check in process: rules within their cost limits, every refusal with the right message, defaults that do not drift,
//! `kubectl explain`, `kubectl get` and `kubectl scale`.
//!
//! Each test installs the definitions under an API group of its own, so that it meets neither the chart's nor another test's.

#[path = "../../crds/tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use sluice_e2e::stack::{Group, Kube, Stack, output, require, wait_for};

const KINDS: [&str; 2] = ["eventpipelines", "cachesyncs"];

/// Both definitions under a group of their own, and a namespace; gone when dropped.
struct Api<'a> {
    kube: &'a Kube,
    group: String,
    namespace: String,
    folder: tempfile::TempDir,
}

impl<'a> Api<'a> {
    fn install(stack: &'a Stack, test: &str) -> Self {
        let kube = stack.kube().expect("required");
        let namespace = format!("api-{test}-{}", std::process::id());
        let group = format!("{namespace}.sluice.test");
        let folder = tempfile::tempdir().expect("a folder");
        let api = Self { kube, group, namespace, folder };
        let files: Vec<Value> = KINDS.iter().map(|kind| api.definition(kind)).collect();
        let path = api.write("definitions", "all", &Value::Array(files));
        api.kubectl(&["create", "namespace", &api.namespace]);
        // Created, not applied: a refusal of the schema or of a rule's cost fails here.
        api.kubectl(&["create", "-f", text(&path)]);
        for kind in KINDS {
            let name = format!("crd/{kind}.{}", api.group);
            api.kubectl(&[
                "wait",
                "--for=condition=NamesAccepted",
                "--for=condition=Established",
                "--timeout=120s",
                &name,
            ]);
        }
        // Established is not yet served: the server publishes discovery, and then a kind's part of OpenAPI, some time later.
        for kind in KINDS {
            wait_for(Duration::from_secs(120), || api.is_served(kind).then_some(()))
                .unwrap_or_else(|| panic!("{kind} are not served two minutes after they were established"));
        }
        api
    }

    /// Whether a kind can be asked for and explained by a client that remembers nothing. Asked with a cache, kubectl keeps
    /// what it discovered too early, and explains nothing from then on.
    fn is_served(&self, kind: &str) -> bool {
        let cache = tempfile::tempdir().expect("a folder");
        let asked = |arguments: &[&str]| {
            let mut command = self.kube.kubectl();
            command.args(arguments).arg("--cache-dir").arg(cache.path());
            command.output().expect("kubectl runs").status.success()
        };
        asked(&["get", &self.kind(kind), "-n", &self.namespace])
            && asked(&["explain", kind, &format!("--api-version={}/v1alpha1", self.group)])
    }

    /// A committed definition, in this test's group.
    fn definition(&self, kind: &str) -> Value {
        let path = format!("{}/../config/crds/{kind}.yaml", env!("CARGO_MANIFEST_DIR"));
        let yaml = std::fs::read_to_string(&path).expect("a committed definition");
        let mut definition: Value = serde_saphyr::from_str(&yaml).expect("YAML");
        definition["metadata"]["name"] = format!("{kind}.{}", self.group).into();
        definition["spec"]["group"] = self.group.as_str().into();
        definition
    }

    fn kind(&self, plural: &str) -> String {
        format!("{plural}.{}", self.group)
    }

    /// A manifest of the tables, in this test's group and namespace.
    fn manifest(&self, mut manifest: Value) -> Value {
        manifest["apiVersion"] = format!("{}/v1alpha1", self.group).into();
        manifest["metadata"]["namespace"] = self.namespace.as_str().into();
        manifest
    }

    /// Writes a manifest (or a list of some) to `<folder>/<name>.json`.
    fn write(&self, folder: &str, name: &str, content: &Value) -> PathBuf {
        let folder = self.folder.path().join(folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join(format!("{name}.json"));
        let content = match content {
            Value::Array(items) => serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items}),
            one => one.clone(),
        };
        std::fs::write(&path, content.to_string()).expect("a file");
        path
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.kube.kubectl();
        command.args(arguments).arg("--cache-dir").arg(self.folder.path().join("cache"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("kubectl runs")
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        output(&mut self.command(arguments)).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    fn get(&self, manifest: &Value) -> Value {
        let kind = format!("{}s", manifest["kind"].as_str().expect("a kind").to_lowercase());
        let name = manifest["metadata"]["name"].as_str().expect("a name");
        let json = self.kubectl(&["get", &self.kind(&kind), name, "-n", &self.namespace, "-o", "json"]);
        serde_json::from_str(&json).expect("JSON")
    }

    /// Runs `verb` on a folder of manifests without storing anything; the refusals by file name.
    fn refusals(&self, verb: &str, folder: &str) -> BTreeMap<String, String> {
        let path = self.folder.path().join(folder);
        let output = self.run(&[verb, "--dry-run=server", "--validate=strict", "-f", text(&path)]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // Each begins `Error from server (…): error when creating "/…/012.json": …`.
        let refusals = said.split("Error from server").skip(1).map(|refusal| {
            let file = refusal.split('"').nth(1).unwrap_or_else(|| panic!("a refusal without a file: {refusal}"));
            let name = Path::new(file).file_stem().expect("a file").to_string_lossy().into_owned();
            (name, refusal.to_owned())
        });
        refusals.collect()
    }
}

impl Drop for Api<'_> {
    fn drop(&mut self) {
        let definitions = KINDS.map(|kind| format!("crd/{kind}.{}", self.group));
        let namespace = format!("namespace/{}", self.namespace);
        for object in definitions.iter().chain([&namespace]) {
            // Tidying up must not hide why a test failed.
            drop(self.run(&["delete", object, "--wait=false", "--ignore-not-found"]));
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

#[test]
fn wrong_manifests_are_refused_with_the_right_message() {
    let Some(stack) = require(&[Group::Kube]) else { return };
    let api = Api::install(&stack, "wrong");
    let (correct, wrong) = (support::correct(), support::wrong());
    for (index, wrong) in wrong.iter().enumerate() {
        let verb = if wrong.update { "replace" } else { "create" };
        api.write(verb, &format!("{index:03}"), &api.manifest(wrong.manifest(&correct)));
    }
    let mut refusals = api.refusals("create", "create");
    // An update is one of something that is there.
    let bases: Vec<Value> = correct.iter().map(|manifest| api.manifest(manifest.clone())).collect();
    api.kubectl(&["create", "-f", text(&api.write("bases", "all", &Value::Array(bases)))]);
    refusals.extend(api.refusals("replace", "replace"));

    let mut failures = Vec::new();
    for (index, wrong) in wrong.iter().enumerate() {
        match refusals.get(&format!("{index:03}")) {
            None => failures.push(format!("{}: accepted", wrong.name)),
            Some(refusal) if !wrong.matches(refusal) => {
                failures
                    .push(format!("{}: expected {:?} and {:?} in {refusal}", wrong.name, wrong.field, wrong.message));
            }
            Some(_) => {}
        }
    }
    assert!(failures.is_empty(), "{} of {} failed:\n{}", failures.len(), wrong.len(), failures.join("\n"));
}

#[test]
fn correct_manifests_are_accepted_and_do_not_drift() {
    let Some(stack) = require(&[Group::Kube]) else { return };
    let api = Api::install(&stack, "correct");
    let all: Vec<Value> = support::correct().into_iter().map(|manifest| api.manifest(manifest)).collect();
    // What a template leaves empty is taken out of a client-side apply; a server-side one refuses it by name.
    let complete: Vec<Value> = all.iter().filter(|manifest| !has_null(manifest)).cloned().collect();
    assert!(complete.len() + 1 == all.len());
    for (way, manifests) in [("--server-side=false", &all), ("--server-side=true", &complete)] {
        let path = api.write("correct", way, &Value::Array(manifests.clone()));
        let apply = ["apply", way, "--validate=strict", "-f", text(&path)];
        api.kubectl(&apply);
        let stored = || -> Vec<Value> { manifests.iter().map(|manifest| api.get(manifest)).collect() };
        let before = stored();
        for manifest in &before {
            let name = &manifest["metadata"]["name"];
            let source = &manifest["spec"]["source"];
            assert!(["Json", "Raw"].iter().any(|format| source["format"] == *format), "{name}: defaults are stored");
            assert!(manifest["spec"]["worker"]["replicas"].is_i64(), "{name}: defaults are stored");
            assert_eq!(manifest["metadata"]["generation"], 1, "{name}");
            assert!(!has_null(manifest), "{manifest}");
        }
        api.kubectl(&apply);
        assert_eq!(stored(), before, "{way}: applying the same again changes nothing");
    }
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().any(has_null),
        Value::Object(members) => members.values().any(has_null),
        _ => false,
    }
}

#[test]
fn scale_and_columns_work() {
    let Some(stack) = require(&[Group::Kube]) else { return };
    let api = Api::install(&stack, "scale");
    for (plural, name) in [("eventpipelines", "least"), ("cachesyncs", "order-cache")] {
        let found = support::correct().into_iter().find(|manifest| manifest["metadata"]["name"] == name);
        let manifest = api.manifest(found.expect("in the table"));
        api.kubectl(&["create", "-f", text(&api.write("scale", name, &manifest))]);
        let (kind, namespace) = (api.kind(plural), ["-n", &api.namespace]);
        assert_eq!(api.get(&manifest)["spec"]["worker"]["replicas"], 1);
        api.kubectl(&["scale", &kind, name, "--current-replicas=1", "--replicas=3", namespace[0], namespace[1]]);
        assert_eq!(api.get(&manifest)["spec"]["worker"]["replicas"], 3);

        let status = serde_json::json!({"status": {
            "replicas": 2, "selector": "a=b", "partitions": 12, "lag": {"seconds": 5},
            "conditions": [{"type": "Ready", "status": "False", "reason": "RollingOut", "message": "1 of 3 workers is new",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        let patch = status.to_string();
        api.kubectl(&[
            "patch",
            &kind,
            name,
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
            namespace[0],
            namespace[1],
        ]);
        let table = api.kubectl(&["get", &kind, name, "-o", "wide", namespace[0], namespace[1]]);
        let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let header = lines.next().unwrap_or_default();
        assert_eq!(header, ["NAME", "READY", "REASON", "PARTITIONS", "REPLICAS", "LAG-S", "MESSAGE", "AGE"], "{table}");
        let row = lines.next().unwrap_or_default();
        assert_eq!(row[..6], [name, "False", "RollingOut", "12", "2", "5"], "{table}");
        let scale = api.kubectl(&["get", &kind, name, "--subresource=scale", "-o", "json", namespace[0], namespace[1]]);
        let scale: Value = serde_json::from_str(&scale).expect("JSON");
        assert_eq!((&scale["status"]["replicas"], &scale["status"]["selector"]), (&2.into(), &"a=b".into()));
    }
}

/// No field of spec and status is without a word. All of them in the document that `kubectl explain` prints parts of, since
/// asking for every object would start a process for each; then it has its say on the largest of them.
#[test]
fn explain_describes_every_field() {
    let Some(stack) = require(&[Group::Kube]) else { return };
    let api = Api::install(&stack, "explain");
    let version = format!("--api-version={}/v1alpha1", api.group);
    let served = api.kubectl(&["get", "--raw", &format!("/openapi/v3/apis/{}/v1alpha1", api.group)]);
    let served: Value = serde_json::from_str(&served).expect("a document");
    for plural in KINDS {
        let kind = api.definition(plural)["spec"]["names"]["kind"].take();
        let of_kind = |schema: &&Value| schema["x-kubernetes-group-version-kind"][0]["kind"] == kind;
        let schemas = served["components"]["schemas"].as_object().expect("schemas");
        let schema = schemas.values().find(of_kind).unwrap_or_else(|| panic!("{kind} is not in the document"));
        for part in ["spec", "status"] {
            let mut fields = BTreeMap::new();
            collect_fields(&schema["properties"][part], part, &mut fields);
            assert!(fields.len() > 20, "{plural}.{part} has only {fields:?}");
            let mute: Vec<&String> = fields.iter().filter(|(_, said)| said.is_empty()).map(|(path, _)| path).collect();
            assert!(mute.is_empty(), "{plural} says nothing of {mute:?}");
            let explained = api.kubectl(&["explain", &format!("{plural}.{part}"), &version]);
            assert!(explained.contains("FIELDS:") && !explained.contains("<no description>"), "{explained}");
        }
    }
}

/// What is said of the fields below a schema, by path.
fn collect_fields(schema: &Value, path: &str, found: &mut BTreeMap<String, String>) {
    let schema = if schema["items"].is_object() { &schema["items"] } else { schema };
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        found.insert(path.clone(), property["description"].as_str().unwrap_or_default().to_owned());
        collect_fields(property, &path, found);
    }
}
