//! Kubernetes as a person types it: helm and kubectl.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::{INSTANCE, NAMESPACE};
use crate::chart;
use crate::datapath::HarnessError;
use crate::stack::{Kube, Progress, Stack};

/// Namespace of the operator.
const SYSTEM: &str = "sluice-system";
/// On a namespace that a demo has made.
const MARK: &str = "sluice.dev/demo";
/// Selects worker pods.
const WORKERS: &str = "app.kubernetes.io/name=sluice-worker";
/// Selects the operator's pod.
const OPERATOR: &str = "app.kubernetes.io/name=sluice-operator";

/// How often a pod's container was started again, and what ended it last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Restarts {
    pub(super) pod: String,
    pub(super) count: u32,
    pub(super) last: String,
}

impl Restarts {
    /// Whether somebody else ended it: by SIGTERM, upon which it exits with 0, or by SIGKILL.
    pub(super) fn was_ended(&self) -> bool {
        matches!(self.last.rsplit(' ').next(), Some("0" | "137" | "143"))
    }
}

/// The cluster, and what the chart is told.
pub(super) struct Cluster<'a> {
    kube: &'a Kube,
    secrets: Vec<Value>,
    values: Value,
    local: bool,
}

impl<'a> Cluster<'a> {
    pub(super) fn new(stack: &'a Stack) -> Result<Self, HarnessError> {
        let secrets = chart::secrets(SYSTEM, stack.kafka()?, stack.redis()?)?;
        Ok(Self { kube: stack.kube()?, secrets, values: values(stack)?, local: stack.is_local() })
    }

    /// Removes what an earlier demo left, so that every run starts from nothing.
    pub(super) fn forget_earlier(&self, progress: &Progress) -> Result<(), HarnessError> {
        let found = self.kubectl(&["get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name"])?;
        if found.trim().is_empty() {
            return Ok(());
        }
        progress.line("demo", "removing what an earlier demo left");
        // An install that failed, or somebody who removed the CRDs, leaves the namespace alone.
        let kinds = self.kubectl(&["api-resources", "--api-group=sluice.dev", "--cached=false", "-o", "name"])?;
        if !kinds.trim().is_empty() {
            self.kubectl(&["-n", NAMESPACE, "delete", "evp,csync", "--all", "--wait=true", "--timeout=120s"])?;
        }
        self.kubectl(&["delete", "namespace", NAMESPACE, "--wait=true", "--timeout=120s"])?;
        Ok(())
    }

    /// Credentials, then the chart, which waits until the operator is ready.
    pub(super) fn install(&self) -> Result<(), HarnessError> {
        for namespace in [SYSTEM, NAMESPACE] {
            let labels = if namespace == NAMESPACE {
                json!({"pod-security.kubernetes.io/enforce": "restricted", MARK: "true"})
            } else {
                json!({})
            };
            self.apply(
                &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}),
            )?;
        }
        for secret in &self.secrets {
            self.apply(secret)?;
        }
        let mut helm = self.kube.helm();
        helm.args(["upgrade", "--install", "sluice", "charts/sluice", "--namespace", SYSTEM]);
        helm.args(["--wait", "--timeout", "3m", "--values", "-"]);
        if self.local {
            // Tests of the operator may have installed the CRDs on this stack before.
            helm.arg("--take-ownership");
        }
        text(helm, Some(&self.values.to_string())).map(drop)
    }

    /// The example, exactly as it is in the repository.
    pub(super) fn apply_example(&self) -> Result<(), HarnessError> {
        self.kubectl(&["apply", "-k", "examples/orders"]).map(drop)
    }

    /// Waits as a user would.
    pub(super) fn wait_ready(&self, limit: Duration) -> Result<(), HarnessError> {
        let timeout = format!("--timeout={}s", limit.as_secs());
        self.kubectl(&["-n", NAMESPACE, "wait", "--for=condition=Ready", "evp,csync", "--all", &timeout]).map(drop)
    }

    /// Waits for one resource, as a user would.
    pub(super) fn wait_ready_of(&self, resource: &str, limit: Duration) -> Result<(), HarnessError> {
        let timeout = format!("--timeout={}s", limit.as_secs());
        self.kubectl(&["-n", NAMESPACE, "wait", "--for=condition=Ready", resource, &timeout]).map(drop)
    }

    /// Applies a manifest as a reader of it would.
    pub(super) fn apply_text(&self, manifest: &str) -> Result<(), HarnessError> {
        let mut command = self.kube.kubectl();
        command.args(["apply", "-f", "-"]);
        text(command, Some(manifest)).map(drop)
    }

    /// Deletes a resource of the example's namespace and waits until it is gone.
    pub(super) fn delete_resource(&self, resource: &str) -> Result<(), HarnessError> {
        self.kubectl(&["-n", NAMESPACE, "delete", resource, "--wait=true", "--timeout=60s"]).map(drop)
    }

    /// The resources' table.
    pub(super) fn resources(&self) -> Result<String, HarnessError> {
        self.kubectl(&["-n", NAMESPACE, "get", "evp,csync"])
    }

    /// Installation id of the release in the operator's namespace, if there is one.
    pub(super) fn installed_instance(&self) -> Result<Option<String>, HarnessError> {
        let mut helm = self.kube.helm();
        helm.args(["list", "--namespace", SYSTEM, "--filter", "^sluice$", "--all", "--short"]);
        if text(helm, None)?.trim().is_empty() {
            return Ok(None);
        }
        let mut helm = self.kube.helm();
        helm.args(["get", "values", "sluice", "--namespace", SYSTEM, "--output", "json"]);
        let values: Value = serde_json::from_str(&text(helm, None)?).unwrap_or_default();
        Ok(Some(values["instanceId"].as_str().unwrap_or_default().to_owned()))
    }

    /// Whether a demo has made the example's namespace; `None`: it is not there.
    pub(super) fn namespace_is_ours(&self) -> Result<Option<bool>, HarnessError> {
        let found = self.kubectl(&["get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "json"])?;
        let found: Option<Value> = serde_json::from_str(&found).ok();
        Ok(found.map(|namespace| namespace["metadata"]["labels"][MARK] == "true"))
    }

    /// Running worker pods as (name, uid).
    pub(super) fn worker_pods(&self) -> Result<Vec<(String, String)>, HarnessError> {
        let path =
            r#"jsonpath={range .items[?(@.status.phase=="Running")]}{.metadata.name} {.metadata.uid}{"\n"}{end}"#;
        let text = self.kubectl(&["-n", NAMESPACE, "get", "pods", "-l", WORKERS, "-o", path])?;
        let pair = |line: &str| line.split_once(' ').map(|(name, uid)| (name.to_owned(), uid.to_owned()));
        Ok(text.lines().filter_map(pair).collect())
    }

    /// Restarts of the workers and of the operator.
    pub(super) fn restarts(&self) -> Result<Vec<Restarts>, HarnessError> {
        let path = r#"jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].lastState.terminated.reason} {.status.containerStatuses[0].lastState.terminated.exitCode}{"\n"}{end}"#;
        let mut all = Vec::new();
        for (namespace, selector) in [(NAMESPACE, WORKERS), (SYSTEM, OPERATOR)] {
            let text = self.kubectl(&["-n", namespace, "get", "pods", "-l", selector, "-o", path])?;
            all.extend(text.lines().filter_map(|line| {
                let mut words = line.splitn(3, ' ');
                let (pod, count) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
                Some(Restarts { pod, count, last: words.next().unwrap_or_default().trim().to_owned() })
            }));
        }
        Ok(all)
    }

    /// The end of the log of a worker's container that has ended.
    pub(super) fn previous_log(&self, pod: &str) -> String {
        self.kubectl(&["-n", NAMESPACE, "logs", pod, "--previous", "--tail=15"])
            .unwrap_or_else(|error| error.to_string())
    }

    /// The operator's pod uid.
    pub(super) fn operator_uid(&self) -> Result<String, HarnessError> {
        self.kubectl(&["-n", SYSTEM, "get", "pods", "-l", OPERATOR, "-o", "jsonpath={.items[0].metadata.uid}"])
    }

    /// Ends a pod at once.
    pub(super) fn delete_pod_now(&self, pod: &str) -> Result<(), HarnessError> {
        self.kubectl(&["-n", NAMESPACE, "delete", "pod", pod, "--grace-period=0", "--force"]).map(drop)
    }

    /// What a person would look at first when it did not work, on standard error.
    pub(super) fn print_trouble(&self) {
        let log = ["-n", SYSTEM, "logs", "-l", OPERATOR, "--tail=15"];
        eprintln!("\nlast lines of the operator:\n{}", self.kubectl(&log).unwrap_or_default());
        for namespace in [NAMESPACE, SYSTEM] {
            let warnings = ["-n", namespace, "get", "events", "--field-selector=type!=Normal"];
            for arguments in [&["-n", namespace, "get", "pods"][..], &warnings] {
                let shown = self.kubectl(arguments).unwrap_or_default();
                if !shown.trim().is_empty() {
                    eprintln!("namespace {namespace}:\n{shown}");
                }
            }
        }
    }

    fn apply(&self, object: &Value) -> Result<(), HarnessError> {
        let mut command = self.kube.kubectl();
        command.args(["apply", "--server-side", "--force-conflicts", "--field-manager=demo", "-f", "-"]);
        text(command, Some(&object.to_string())).map(drop)
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String, HarnessError> {
        let mut command = self.kube.kubectl();
        command.args(arguments);
        text(command, None)
    }
}

/// Runs a command; its output, or an error with what it said.
fn text(mut command: Command, input: Option<&str>) -> Result<String, HarnessError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let fail = |message: String| HarnessError::Process { name: name.clone(), message };
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|error| fail(error.to_string()))?;
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
        pipe.write_all(input.as_bytes()).map_err(|error| fail(error.to_string()))?;
    }
    let output = child.wait_with_output().map_err(|error| fail(error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    // Helm warns of the chart's link to the CRDs at each call.
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.lines().filter(|line| !line.starts_with("walk.go")).collect();
    Err(fail(format!("{}: {}", output.status, said.join("\n").trim())))
}

/// The chart's values (YAML is a superset of JSON).
fn values(stack: &Stack) -> Result<Value, HarnessError> {
    let kafka = json!({"name": NAMESPACE, "own": ["order.", "first."], "consume": ["order.", "first."],
        "produce": ["order.", "first."], "maxPartitions": 200});
    let redis = json!({"name": NAMESPACE, "write": ["order:", "state:", "first:"], "read": ["price:", "stock:"]});
    let mut values =
        chart::values(stack, INSTANCE, &chart::connections(stack.kafka()?, stack.redis()?, &kafka, &redis));
    // A new operator each time: the image of this name may have been built anew.
    values["podAnnotations"] = json!({MARK: crate::datapath::now_ms().to_string()});
    Ok(values)
}
