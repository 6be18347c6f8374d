use serde_json::Value;
use sluice_crds::names::TEMPLATE_HASH_ANNOTATION;
use sluice_crds::worker_config;

use super::*;
use crate::controller::test_support::{CACHE, PIPELINE, built, cache, facts, pipeline, settings};
use crate::secrets::InstallKey;

/// Compares with a committed file; `UPDATE_GOLDEN=1` writes it.
fn golden(name: &str, children: &Children<Prepared>) {
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    // Credentials stay out of the repository, even those of a test.
    let secret = children.secret.as_ref().map(|secret| {
        let keys: Vec<&String> = secret.data.iter().flatten().map(|(key, _)| key).collect();
        serde_json::json!({"metadata": secret.metadata, "keys": keys, "immutable": secret.immutable})
    });
    let config: Value = serde_json::to_value(&children.config).unwrap();
    let all = serde_json::json!({
        "serviceAccount": children.service_account,
        "configMap": children.config_map.metadata,
        "config": config,
        "secret": secret,
        "deployment": children.deployment,
        "disruptionBudget": children.disruption_budget,
        "podMonitor": children.pod_monitor,
    });
    let text = serde_json::to_string_pretty(&all).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(wanted == text, "{path} differs: look at it, and run with UPDATE_GOLDEN=1 if it is meant");
}

#[test]
fn children_of_a_pipeline() {
    golden("pipeline", &built(&pipeline(PIPELINE).unwrap()));
}

#[test]
fn children_of_a_cache() {
    golden("cache", &built(&cache(CACHE).unwrap()));
}

#[test]
fn a_worker_takes_the_configuration() {
    for children in [built(&pipeline(PIPELINE).unwrap()), built(&cache(CACHE).unwrap())] {
        let text = &children.config_map.data.as_ref().unwrap()[CONFIG_KEY];
        assert_eq!(worker_config::parse(text.as_bytes()).unwrap(), children.config);
    }
}

#[test]
fn the_same_is_built_the_same_and_a_change_has_another_name() {
    let resource = pipeline(PIPELINE).unwrap();
    let (one, two) = (built(&resource), built(&resource));
    assert_eq!((&one.config_map, &one.deployment), (&two.config_map, &two.deployment));
    let other = built(&pipeline(&PIPELINE.replace("ttlSeconds: 60", "ttlSeconds: 61")).unwrap());
    assert_ne!(one.config_map.metadata.name, other.config_map.metadata.name);
    assert_eq!(one.secret.unwrap().metadata.name, other.secret.unwrap().metadata.name);
}

#[test]
fn provided_credentials_are_mounted_and_nothing_is_generated() {
    let access = "{mode: Provided, secretRef: {name: mine}}";
    let spec = format!("spec:\n  kafka: {{access: {access}}}\n  redis: {{access: {access}}}\n");
    let children = built(&pipeline(&PIPELINE.replacen("spec:\n", &spec, 1)).unwrap());
    assert!(children.secret.is_none());
    let pod = children.deployment.spec.unwrap().template.spec.unwrap();
    let secrets: Vec<_> = pod.volumes.unwrap().into_iter().filter_map(|volume| volume.secret?.secret_name).collect();
    assert_eq!(secrets, ["mine", "mine"]);
}

#[test]
fn no_password_is_outside_of_the_secret() {
    let resource = pipeline(PIPELINE).unwrap();
    let children = built(&resource);
    let secret = children.secret.as_ref().unwrap();
    let texts = [
        serde_json::to_string(&children.config_map).unwrap(),
        serde_json::to_string(&children.deployment).unwrap(),
        serde_json::to_string(&children.pod_monitor).unwrap(),
    ];
    for key in ["kafka-password", "redis-password"] {
        let password = String::from_utf8(secret.data.as_ref().unwrap()[key].0.clone()).unwrap();
        assert!(texts.iter().all(|text| !text.contains(&password)));
    }
}

#[test]
fn only_what_pods_are_made_of_replaces_pods() {
    let hash = |yaml: &str| {
        let children = built(&pipeline(yaml).unwrap());
        children.deployment.metadata.annotations.unwrap()[TEMPLATE_HASH_ANNOTATION].clone()
    };
    let more = PIPELINE.replace("replicas: 2", "replicas: 3");
    assert!(more != PIPELINE && hash(&more) == hash(PIPELINE), "scaling");
    assert_ne!(hash(&PIPELINE.replace("memory: 128Mi", "memory: 256Mi")), hash(PIPELINE));
    assert_ne!(hash(&PIPELINE.replace("\"CREATED\"", "\"NEW\"")), hash(PIPELINE), "another configuration");
}

/// A number that the load changes is neither in the hash nor, when another owns it, in what is applied.
#[test]
fn the_number_of_workers_is_in_the_hash_only_when_the_spec_says_it() {
    use sluice_crds::names::DESIRED_HASH_ANNOTATION;

    use crate::controller::replicas::Wanted;

    let resource = pipeline(PIPELINE).unwrap();
    let (topics, settings) = (facts(&resource), settings());
    let install_key = InstallKey::new(&[b'k'; 32]).unwrap();
    let deployment = |count, applied, hashed| {
        let replicas = Wanted { count, applied, hashed };
        let inputs =
            Inputs { topics: &topics, epoch: 7, replicas, install_key: &install_key, worker: &settings.worker };
        let deployment = build(&resource, &inputs).deployment;
        let hash = deployment.metadata.annotations.unwrap()[DESIRED_HASH_ANNOTATION].clone();
        (deployment.spec.unwrap().replicas, hash)
    };
    let (said, by_hand) = deployment(2, true, true);
    assert_eq!(said, Some(2));
    assert_ne!(deployment(3, true, true).1, by_hand);
    let (said, by_load) = deployment(2, true, false);
    assert_eq!(said, Some(2));
    assert_eq!(deployment(9, false, false), (None, by_load));
}

#[test]
fn an_autoscaler_scales_the_workers_by_the_lag_of_their_own_group() {
    assert!(hpa(&pipeline(PIPELINE).unwrap()).is_none());
    let scaled = |more: &str| {
        let autoscaling =
            format!("spec:\n  {more}autoscaling: {{mode: Hpa, minReplicas: 2, maxReplicas: 8, lagThreshold: 500}}\n");
        hpa(&pipeline(&PIPELINE.replacen("spec:\n", &autoscaling, 1)).unwrap())
    };
    assert!(scaled("state: Stopped\n  ").is_none(), "nobody starts what shall not run");
    let made = serde_json::to_value(scaled("").unwrap()).unwrap();
    assert_eq!(made["metadata"]["ownerReferences"][0]["controller"], true);
    let resource = pipeline(PIPELINE).unwrap();
    let expected = serde_json::json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "evp-enrich"},
        "minReplicas": 2, "maxReplicas": 8,
        "metrics": [{"type": "External", "external": {
            "metric": {"name": "consumer_lag", "selector": {"matchLabels": {"group": resource.id.processor_group().to_string()}}},
            "target": {"type": "AverageValue", "averageValue": "500"},
        }}],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 120}},
    });
    assert_eq!(made["spec"], expected);
}
