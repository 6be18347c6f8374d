//! The chart on the real cluster, with the images as they ship: what `helm install --wait` says, and what becomes of resources
//! when the definitions or the operator go before them. An operator of the whole cluster: one test, so that it has no
//! neighbours.

mod operator;

use std::collections::BTreeMap;

use operator::release::{RELEASE, Release};
use operator::servers::own;
use operator::{EVERYTHING, PATIENCE};
use serde_json::json;
use sluice_e2e::stack::{output, require_local, wait_for};

const DEFINITIONS: [&str; 2] = ["crd/eventpipelines.sluice.dev", "crd/cachesyncs.sluice.dev"];

#[test]
fn helm_tells_the_truth_and_what_goes_too_early_destroys_nothing() {
    let Some(stack) = require_local(&EVERYTHING) else { return };
    let (kafka, redis) = own(&stack, "helm");
    let release = Release::new(&stack, (&kafka, &redis), "helm", &json!({"deletionDeadlineSeconds": 3_600}));

    // The operator is well without Kafka; its resources are not.
    let broker = kafka.broker(1).expect("the only one");
    broker.freeze().expect("frozen");
    let said = release.install().unwrap_or_else(|error| panic!("(`make images` first) {error}\n{}", release.log()));
    let operators = release.operators();
    assert_eq!(operators.len(), 1, "{operators:?}");
    release.apply_pipeline("orders", "Running", "Retain");
    release.wait_reason("orders", "KafkaUnreachable");
    helm_says_nothing_of_resources(&release);
    broker.thaw().expect("goes on");
    release.wait_ready("orders");
    assert_eq!(release.workers("orders").len(), 1);
    let topics = release.topics(&["orders"]);
    assert_eq!(topics.len(), 1);

    definitions_go_first(&release, &topics);
    assert_eq!(release.operators(), operators, "the same operator, never started again");
    operator_goes_first(&release, &said, &topics);
}

/// Helm 3 takes every custom resource for ready, as the chart's notes say; `kubectl wait` does not.
fn helm_says_nothing_of_resources(release: &Release<'_>) {
    release.write("bundle/Chart.yaml", "apiVersion: v2\nname: bundle\nversion: 1.0.0\n");
    release.write("bundle/templates/pipeline.yaml", &release.pipeline("bundled", "Stopped", "Retain"));
    release.helm(&["install", "bundle", &release.path("bundle"), "--wait", "--timeout", "60s"]).expect("installed");
    release.wait_reason("bundled", "KafkaUnreachable");
    let wait = ["-n", &release.name, "wait", "--for=condition=Ready", "--timeout=1s", "evp/bundled"];
    assert!(output(release.kube.kubectl().args(wait)).is_err());
    release.helm(&["uninstall", "bundle", "--wait", "--timeout", "60s"]).expect("uninstalled");
    assert!(release.get("bundled").is_none(), "nothing of it is to be deleted, so nothing waits for Kafka");
}

/// With the definitions every resource goes, as if it were deleted; they come back by an upgrade.
fn definitions_go_first(release: &Release<'_>, topics: &BTreeMap<String, String>) {
    release.apply_pipeline("scratch", "Stopped", "Delete");
    release.wait_ready("scratch");
    release.wait_finalizer("scratch", true);
    release.kubectl(&[&["delete"], &DEFINITIONS[..], &["--timeout=120s"]].concat());
    assert_eq!(&release.topics(&["orders", "scratch"]), topics, "what was to be deleted, and no more");
    release.workers_go("orders");

    release.install().unwrap_or_else(|error| panic!("{error}\n{}", release.log()));
    release.apply_pipeline("orders", "Running", "Retain");
    release.wait_ready("orders");
    assert_eq!(&release.topics(&["orders"]), topics);
}

/// As the chart's notes say it: resources are let go, the chart is uninstalled, workers work on, and a deletion ends.
fn operator_goes_first(release: &Release<'_>, said: &str, topics: &BTreeMap<String, String>) {
    release.in_namespace(&[
        "patch",
        "evp",
        "orders",
        "--type=merge",
        "-p",
        r#"{"spec":{"deletionPolicy":{"topics":"Delete"}}}"#,
    ]);
    release.wait_finalizer("orders", true);
    let workers = release.workers("orders");
    let notes = said.lines().find_map(|line| line.split_once("let go of them: kubectl ")).expect("the command").1;
    release.kubectl(&notes.split_whitespace().collect::<Vec<_>>());
    release.wait_finalizer("orders", false);
    release.helm(&["uninstall", RELEASE, "--wait", "--timeout", "60s"]).expect("uninstalled");
    assert!(
        release.operators().is_empty() || wait_for(PATIENCE, || release.operators().is_empty().then_some(())).is_some()
    );
    release.kubectl(&[&["get"], &DEFINITIONS[..]].concat());
    release.kubectl(&["-n", &release.system, "get", "secret", &format!("{RELEASE}-install-key")]);
    assert_eq!(release.workers("orders"), workers, "they work on");

    release.in_namespace(&["delete", "evp/orders", "--timeout=60s"]);
    release.workers_go("orders");
    assert_eq!(&release.topics(&["orders"]), topics);
}
