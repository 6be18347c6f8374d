//! The chart's rules are what the operator uses: no less, or something is refused, and no more.

mod operator;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};

use operator::{EVERYTHING, Operator, PATIENCE};
use serde_json::Value;
use sluice_e2e::stack::{require, wait_for};

/// A right as rules and audit log both can say it: group, resource with subresource, verb.
type Right = (String, String, String);

/// Of the definition of `PodMonitor`, as much as an API server needs to take one.
const POD_MONITORS: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: podmonitors.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {kind: PodMonitor, plural: podmonitors, singular: podmonitor, listKind: PodMonitorList}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, x-kubernetes-preserve-unknown-fields: true}}}}
";

const RESOURCES: &str = r#"
apiVersion: sluice.dev/v1alpha1
kind: EventPipeline
metadata: {name: orders}
spec:
  state: Stopped
  deletionPolicy: {topics: Delete}
  topics: [{name: NAME.in, partitions: 1, config: {cleanup.policy: compact}}, {name: NAME.out, partitions: 1}]
  source: {topics: [{name: NAME.in}]}
  routing: {routes: [{name: all, topic: NAME.out, when: "CONDITION"}]}
---
apiVersion: sluice.dev/v1alpha1
kind: EventPipeline
metadata: {name: scaled}
spec:
  source: {topics: [{name: NAME.in}]}
  routing: {routes: [{name: all, topic: NAME.out}]}
  worker: {replicas: 0}
  autoscaling: {minReplicas: 1, maxReplicas: 1}
---
apiVersion: sluice.dev/v1alpha1
kind: EventPipeline
metadata: {name: hpa}
spec:
  source: {topics: [{name: NAME.in}]}
  routing: {routes: [{name: all, topic: NAME.out}]}
  autoscaling: {mode: Hpa, maxReplicas: 1, lagThreshold: 100}
---
apiVersion: sluice.dev/v1alpha1
kind: CacheSync
metadata: {name: cache}
spec:
  state: Stopped
  deletionPolicy: {redisKeys: Delete}
  source: {topics: [{name: NAME.in}]}
  views: [{name: v, key: "'NAME:v:' + key", type: Json}]
"#;

#[test]
fn the_operator_uses_every_right_of_the_chart_and_needs_no_other() {
    let Some(stack) = require(&EVERYTHING) else { return };
    let mut operator = Operator::start(&stack, "role");
    let apply = |operator: &Operator<'_>, condition: &str| operator.apply(&RESOURCES.replace("CONDITION", condition));
    apply(&operator, "value.a == 1");
    operator.wait_condition("evp", "orders", "Ready", ("True", "Stopped"));
    operator.wait_condition("csync", "cache", "Ready", ("True", "Stopped"));
    assert!(operator.get("podmonitor", "evp-orders").is_none(), "nobody would read it");

    // Its definition comes and goes with the Prometheus operator; a start finds it at once.
    operator.apply(POD_MONITORS);
    operator.kubectl(&[
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "crd/podmonitors.monitoring.coreos.com",
    ]);
    operator.kill();
    operator.run();
    let monitor = wait_for(PATIENCE, || operator.get("podmonitor", "evp-orders")).expect("a PodMonitor");
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], "admin");
    assert_eq!(monitor["metadata"]["ownerReferences"][0]["name"], "orders", "it goes with its resource");

    // Configurations of the third change push out the first; an error in between repeats an event.
    for condition in ["value.a ==", "value.a == 2", "value.a ==", "value.a == 3", "value.a == 4"] {
        apply(&operator, condition);
        let wanted = if condition.ends_with('=') { ("False", "InvalidExpression") } else { ("True", "Stopped") };
        wait_observed(&operator, wanted);
    }
    wait_for(PATIENCE, || (config_maps(&operator, "evp-orders") == 2).then_some(()))
        .expect("two configurations are kept");
    // Out of its bounds with nobody in its group: brought into them.
    let scaled = || (operator.get("deployment", "evp-scaled")?["spec"]["replicas"] == 1).then_some(());
    assert!(wait_for(PATIENCE, scaled).is_some(), "{:#?}\n{}", operator.get("evp", "scaled"), operator.log());
    assert!(wait_for(PATIENCE, || operator.get("hpa", "evp-hpa")).is_some(), "{}", operator.log());
    operator.in_namespace(&[
        "patch",
        "evp",
        "hpa",
        "--type=merge",
        "-p",
        r#"{"spec": {"autoscaling": {"mode": "Manual"}}}"#,
    ]);
    let gone = wait_for(PATIENCE, || operator.get("hpa", "evp-hpa").is_none().then_some(()));
    assert!(gone.is_some(), "{}", operator.log());
    operator.in_namespace(&["delete", "evp/orders", "evp/scaled", "evp/hpa", "csync/cache", "--timeout=120s"]);
    operator.kubectl(&["delete", "crd", "podmonitors.monitoring.coreos.com", "--timeout=120s"]);

    // Watches are in the log when they have ended.
    operator.kill();
    let granted = granted();
    let found = wait_for(PATIENCE, || {
        let (used, refused) = seen(&operator);
        assert_eq!(refused, BTreeSet::new(), "the operator asked for what it may not do");
        granted.is_subset(&used).then_some(())
    });
    let unused: Vec<Right> = granted.difference(&seen(&operator).0).cloned().collect();
    assert!(found.is_some(), "granted and not used: {unused:?}\n{}", operator.log());
}

/// Waits until status speaks of the newest spec.
fn wait_observed(operator: &Operator<'_>, wanted: (&str, &str)) {
    let generation = operator.get("evp", "orders").expect("it is there")["metadata"]["generation"].clone();
    let settled = wait_for(PATIENCE, || {
        let orders = operator.get("evp", "orders")?;
        let conditions = orders["status"]["conditions"].as_array()?;
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready")?;
        let observed = orders["status"]["observedGeneration"] == generation;
        (observed && ready["status"] == wanted.0 && ready["reason"] == wanted.1).then_some(())
    });
    assert!(settled.is_some(), "should be {wanted:?}: {:#?}\n{}", operator.get("evp", "orders"), operator.log());
}

fn config_maps(operator: &Operator<'_>, instance: &str) -> usize {
    let selector = format!("app.kubernetes.io/instance={instance}");
    operator.in_namespace(&["get", "configmap", "-l", &selector, "-o", "name"]).lines().count()
}

#[derive(serde::Deserialize)]
struct Rules {
    rules: Vec<Rule>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<String>,
}

/// What the chart's rules allow.
fn granted() -> BTreeSet<Right> {
    let rules: Rules = serde_saphyr::from_str(include_str!("../../charts/sluice/files/rules.yaml")).expect("rules");
    let mut granted = BTreeSet::new();
    for rule in &rules.rules {
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let rights = rule.verbs.iter().map(|verb| (group.clone(), resource.clone(), verb.clone()));
                granted.extend(rights);
            }
        }
    }
    granted
}

/// What the operator did, by the audit log, and what it was refused.
fn seen(operator: &Operator<'_>) -> (BTreeSet<Right>, BTreeSet<Right>) {
    let log = BufReader::new(std::fs::File::open(operator.kube.audit_log().expect("local")).expect("audit log"));
    let (account, mut used, mut refused) =
        (format!("system:serviceaccount:{0}:sluice-operator", operator.name), BTreeSet::new(), BTreeSet::new());
    for line in log.lines().map_while(Result::ok).filter(|line| line.contains(&account)) {
        let Ok(entry) = serde_json::from_str::<Value>(&line) else { continue };
        if entry["user"]["username"] != account.as_str() {
            continue;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &entry["objectRef"];
        let resource = match text(&object["subresource"]) {
            none if none.is_empty() => text(&object["resource"]),
            subresource => format!("{}/{subresource}", text(&object["resource"])),
        };
        let right = |verb: &str| (text(&object["apiGroup"]), resource.clone(), verb.to_owned());
        let code = entry["responseStatus"]["code"].as_u64().unwrap_or(0);
        if code == 403 {
            refused.insert(right(entry["verb"].as_str().unwrap_or_default()));
        } else if !object.is_null() {
            used.insert(right(entry["verb"].as_str().unwrap_or_default()));
            // Server-side apply of what is not there needs both.
            if code == 201 {
                used.insert(right("create"));
            }
        }
    }
    (used, refused)
}
