//! What a person wants to see when a test on the stack has failed: resources, events, the ends of logs; without secrets.

use std::process::Command;

use secrecy::ExposeSecret;

use super::attach::{Kube, Stack};
use super::command::{bounded, output};
use super::error::StackError;
use super::files;
use super::layout::Layout;
use super::part::Part;
use super::process::ProcessState;

/// Lines of each log.
const LOG_LINES: usize = 25;
/// Pods whose logs are shown, those in trouble first.
const PODS: usize = 12;

/// One text. Whatever cannot be had is left out: the caller has a failure to report already.
pub fn dump(layout: &Layout, parts: &[Part]) -> Result<String, StackError> {
    let stack = Stack::attach()?;
    let mut text = String::new();
    for part in parts {
        let state = part.state();
        let lines = if state == ProcessState::Running { LOG_LINES } else { 4 * LOG_LINES };
        section(&mut text, &format!("{} ({state:?})", part.name()), &files::tail(part.log(), lines));
    }
    if let Ok(kube) = stack.kube() {
        kubernetes(kube, &mut text);
    }
    section(&mut text, "run folder", &layout.run().display().to_string());
    Ok(scrub(text, &secrets(&stack)))
}

fn kubernetes(kube: &Kube, text: &mut String) {
    let all: [(&str, &[&str]); 4] = [
        ("pods", &["get", "pods", "-A", "-o", "wide"]),
        ("workloads", &["get", "deployments,replicasets,poddisruptionbudgets", "-A", "-o", "wide"]),
        ("resources", &["get", "eventpipelines,cachesyncs", "-A", "-o", "yaml"]),
        ("events", &["get", "events", "-A", "--sort-by=.metadata.creationTimestamp"]),
    ];
    for (title, arguments) in all {
        section(text, title, &ask(kube, arguments));
    }
    let pods = ask(kube, &["get", "pods", "-A", "--no-headers"]);
    let mut rows: Vec<Vec<&str>> = pods.lines().map(|line| line.split_whitespace().collect()).collect();
    rows.sort_by_key(|row| row.get(3) == Some(&"Running"));
    for row in rows.iter().take(PODS) {
        if let [namespace, pod, ..] = row[..] {
            let log = ask(kube, &["logs", "-n", namespace, pod, "--all-containers", "--tail=30"]);
            section(text, &format!("log of {namespace}/{pod}"), &log);
        }
    }
}

/// What `kubectl` says, at most the last 200 lines; why it says nothing, if it fails.
fn ask(kube: &Kube, arguments: &[&str]) -> String {
    let kubectl: Command = kube.kubectl();
    let mut command = bounded(20, kubectl.get_program());
    command.arg("--kubeconfig").arg(kube.kubeconfig()).args(arguments);
    let said = output(&mut command).unwrap_or_else(|error| error.to_string());
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(200)..].join("\n")
}

fn section(text: &mut String, title: &str, body: &str) {
    text.extend(["\n--- ", title, "\n", body.trim_end(), "\n"]);
}

fn secrets(stack: &Stack) -> Vec<String> {
    let kafka = stack.kafka().map(|kafka| kafka.password().expose_secret().to_owned());
    let redis = stack.redis().map(|redis| redis.password().expose_secret().to_owned());
    [kafka, redis].into_iter().flatten().filter(|secret| secret.len() >= 8).collect()
}

/// Takes out known secrets, and whatever follows the word `password`.
fn scrub(text: String, secrets: &[String]) -> String {
    let text = secrets.iter().fold(text, |text, secret| text.replace(secret.as_str(), "***"));
    text.lines().map(scrub_line).collect::<Vec<_>>().join("\n")
}

fn scrub_line(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let Some(at) = lower.find("password") else { return line.to_owned() };
    let after = at + "password".len();
    let value = line[after..].find(|character: char| !"=:\"' ".contains(character));
    match value {
        Some(offset) if line[after..].starts_with(['=', ':', '"', '\'']) => format!("{}***", &line[..after + offset]),
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_do_not_get_out() {
        let known = ["0123456789abcdef".to_owned()];
        assert_eq!(scrub("x 0123456789abcdef y".into(), &known), "x *** y");
        assert_eq!(scrub("sasl.password=hunter2 and more".into(), &[]), "sasl.password=***");
        assert_eq!(scrub("\"Password\": \"hunter2\"".into(), &[]), "\"Password\": \"***");
        assert_eq!(scrub("the password file is missing".into(), &[]), "the password file is missing");
    }
}
