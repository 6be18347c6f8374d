//! The README's first pipeline, as a reader follows it: applied as it is printed, a record sent with Kafka's own console
//! producer, its value read in Redis. Only on the built-in stack: elsewhere the demo touches nothing but its example's names.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use super::cluster::Cluster;
use crate::datapath::{HarnessError, now_ms, wait_for};
use crate::stack::Stack;

const README: &str = include_str!("../../../README.md");
const NAME: &str = "first";

/// Applies it, sends one record, waits for the Redis key, deletes the resource again.
pub(super) fn follow(stack: &Stack, cluster: &Cluster<'_>) -> Result<(), HarnessError> {
    cluster.apply_text(manifest(README)?)?;
    cluster.wait_ready_of(&format!("evp/{NAME}"), Duration::from_secs(120))?;
    let value = format!(r#"{{"sent":{}}}"#, now_ms());
    produce(stack, &format!("a/{value}\n"))?;
    let key = format!("{NAME}:{{a}}");
    wait_for("the README's record in Redis", Duration::from_secs(120), || {
        Ok((stack.redis()?.cli(1, &["-c", "GET", &key])?.trim() == value).then_some(()))
    })?;
    cluster.delete_resource(&format!("evp/{NAME}"))
}

/// The first YAML block after the heading.
fn manifest(readme: &'static str) -> Result<&'static str, HarnessError> {
    let section = readme.split_once("## A first pipeline").map(|(_, rest)| rest);
    let block = section.and_then(|text| text.split_once("```yaml\n")).and_then(|(_, rest)| rest.split_once("```"));
    block
        .map(|(block, _)| block)
        .ok_or(HarnessError::Unreadable { witness: "README.md", message: "no first pipeline".into() })
}

/// Sends lines with the command that the README names.
fn produce(stack: &Stack, lines: &str) -> Result<(), HarnessError> {
    let name = "kafka-console-producer";
    let fail = |message: String| HarnessError::Process { name: name.into(), message };
    let mut command = stack.kafka()?.tool(name)?;
    command.args(["--topic", "first.event", "--property", "parse.key=true", "--property", "key.separator=/"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| fail(error.to_string()))?;
    // Taken out, so that it is closed and the producer ends.
    if let Some(mut input) = child.stdin.take() {
        input.write_all(lines.as_bytes()).map_err(|error| fail(error.to_string()))?;
    }
    let output = child.wait_with_output().map_err(|error| fail(error.to_string()))?;
    if output.status.success() { Ok(()) } else { Err(fail(String::from_utf8_lossy(&output.stderr).into_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_the_pipeline_that_is_followed() {
        let manifest = manifest(README).expect("a manifest");
        assert!(manifest.contains("kind: EventPipeline") && manifest.contains(&format!("name: {NAME},")), "{manifest}");
        let command = "kafka-console-producer --topic first.event --property parse.key=true --property key.separator=/";
        assert!(README.contains(command));
    }
}
