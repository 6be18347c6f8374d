//! Prints the `CustomResourceDefinition`s as YAML, or writes one file each into a folder.
//!
//! ```text
//! crdgen            both, to stdout
//! crdgen FOLDER     FOLDER/eventpipelines.yaml, FOLDER/cachesyncs.yaml
//! ```
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

fn main() -> ExitCode {
    let folder = std::env::args_os().nth(1);
    for (file, text) in files() {
        let Some(folder) = &folder else {
            print!("---\n{text}");
            continue;
        };
        let path = Path::new(folder).join(file);
        if let Err(error) = std::fs::write(&path, text) {
            eprintln!("cannot write {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Name and content of each generated file.
pub(crate) fn files() -> Vec<(String, String)> {
    let definitions = sluice_crds::v1alpha1::definitions();
    let file = |definition| {
        let value = serde_json::to_value(definition).expect("a definition should be JSON");
        let name =
            value["spec"]["names"]["plural"].as_str().expect("a definition should have a plural name").to_owned();
        let mut text = "# Generated from the Rust types by `make generate`; not to be edited.\n".to_owned();
        write_value(&mut text, &value, 0, "");
        (name + ".yaml", text)
    };
    definitions.iter().map(file).collect()
}

/// Writes a value in block style after `lead` (a key, a dash, or nothing). A writer of our own, since the layout of a
/// committed file should not change with a library's version.
fn write_value(out: &mut String, value: &Value, indent: usize, lead: &str) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            if lead.ends_with(':') {
                out.push('\n');
            }
            for (index, (key, member)) in members.iter().enumerate() {
                // The first member of a list item stands behind its dash.
                if index > 0 || !lead.ends_with('-') {
                    out.push_str(&" ".repeat(indent));
                } else {
                    out.push(' ');
                }
                let key = scalar(&Value::String(key.clone())) + ":";
                out.push_str(&key);
                // Lists stand at the indentation of their key.
                write_value(out, member, if member.is_array() { indent } else { indent + 2 }, &key);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            for item in items {
                out.push_str(&" ".repeat(indent));
                out.push('-');
                write_value(out, item, indent + 2, "-");
            }
        }
        _ => {
            out.push(' ');
            out.push_str(&scalar(value));
            out.push('\n');
        }
    }
}

/// A scalar, or an empty list or map; text is quoted as JSON unless it is a word that no YAML reads as something else.
fn scalar(value: &Value) -> String {
    // Bounds are floats in the definition's type and whole numbers in every one of ours.
    if let Some(number) = value.as_f64().filter(|number| number.fract() == 0.0) {
        return format!("{number:.0}");
    }
    let Some(text) = value.as_str() else { return value.to_string() };
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '/' | '_'));
    let other = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if word && !other.contains(&text.to_ascii_lowercase().as_str()) { text.to_owned() } else { value.to_string() }
}
