//! The workers: restricted pods without rights and without a token, replaced in place.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMap, ConfigMapVolumeSource, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction,
    KeyToPath, LocalObjectReference, ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
    ResourceRequirements, SeccompProfile, Secret, SecretVolumeSource, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_crds::names::UID_LABEL;
use sluice_crds::v1alpha1::ComputeResources;

use super::Inputs;
use super::metadata::{metadata, sealed_deployment};
use super::secret::{KAFKA_PASSWORD_KEY, KAFKA_USERNAME_KEY, REDIS_PASSWORD_KEY, REDIS_USERNAME_KEY};
use super::worker_config::{ADMIN_PORT, CONFIG_DIR, KAFKA_DIR, REDIS_CA_DIR, REDIS_DIR};
use crate::controller::replicas::Wanted;
use crate::controller::validated::{RedisPlace, ValidatedResource, WorkerAccess};

/// The user and group of the worker image.
const NOBODY: i64 = 65_532;
/// After this long without a pod more that is ready, a roll-out is called stuck: above image pulls and a rebalance.
const PROGRESS_DEADLINE_SECONDS: i32 = 300;
/// Seconds of the grace period that are left to the process after its own deadline.
const GRACE_MARGIN_SECONDS: u32 = 5;

pub(super) fn deployment(
    resource: &ValidatedResource,
    inputs: &Inputs<'_>,
    config_map: &ConfigMap,
    secret: Option<&Secret>,
) -> Deployment {
    let id = &resource.id;
    let Wanted { count, applied, hashed } = inputs.replicas;
    let mut deployment = sealed_deployment(Deployment {
        metadata: metadata(resource, id.child_name()),
        spec: Some(DeploymentSpec {
            replicas: hashed.then_some(count),
            // The last two ConfigMaps and Secrets are kept: older ReplicaSets could not run any more.
            revision_history_limit: Some(1),
            progress_deadline_seconds: Some(PROGRESS_DEADLINE_SECONDS),
            selector: LabelSelector { match_labels: Some(id.selector_labels()), ..LabelSelector::default() },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                // No surge: an extra worker would join and leave the group, two rebalances more.
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(0)),
                    max_unavailable: Some(IntOrString::String("25%".to_owned())),
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(pod_labels(resource)), ..ObjectMeta::default() }),
                spec: Some(pod(resource, inputs, volumes(resource, config_map, secret))),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    });
    // Added after the hash: a number that changes by itself is no reason to apply the rest again.
    if let Some(spec) = &mut deployment.spec {
        spec.replicas = applied.then_some(count);
    }
    deployment
}

fn pod_labels(resource: &ValidatedResource) -> BTreeMap<String, String> {
    let mut labels = resource.id.labels();
    labels.insert(UID_LABEL.to_owned(), resource.uid.to_string());
    labels
}

/// A volume and where the worker sees it.
type Mounted = (Volume, VolumeMount);

fn pod(resource: &ValidatedResource, inputs: &Inputs<'_>, volumes: Vec<Mounted>) -> PodSpec {
    let (volumes, mounts) = volumes.into_iter().unzip();
    let pull_secrets = inputs.worker.image_pull_secrets.iter();
    let pull_secrets: Vec<_> = pull_secrets.map(|name| LocalObjectReference { name: name.clone() }).collect();
    PodSpec {
        service_account_name: Some(resource.id.child_name()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        image_pull_secrets: (!pull_secrets.is_empty()).then_some(pull_secrets),
        termination_grace_period_seconds: Some(inputs.worker.termination_grace_period_seconds.into()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(NOBODY),
            run_as_group: Some(NOBODY),
            fs_group: Some(NOBODY),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(resource, inputs, mounts)],
        volumes: Some(volumes),
        ..PodSpec::default()
    }
}

fn container(resource: &ValidatedResource, inputs: &Inputs<'_>, mounts: Vec<VolumeMount>) -> Container {
    let grace = inputs.worker.termination_grace_period_seconds - GRACE_MARGIN_SECONDS;
    let pod_name = EnvVar {
        name: "POD_NAME".to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: "metadata.name".to_owned(),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    let grace = EnvVar { name: "SLUICE_GRACE_SECONDS".to_owned(), value: Some(grace.to_string()), ..EnvVar::default() };
    Container {
        name: "worker".to_owned(),
        image: Some(inputs.worker.image.clone()),
        image_pull_policy: inputs.worker.image_pull_policy.map(|policy| policy.as_str().to_owned()),
        args: Some(vec!["--config".to_owned(), format!("{CONFIG_DIR}/{}", super::CONFIG_KEY)]),
        env: Some(vec![pod_name, grace]),
        ports: Some(vec![ContainerPort {
            name: Some("admin".to_owned()),
            container_port: ADMIN_PORT,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        // Three ticks of a stuck loop: the worker's own watchdog is faster, this is the net below it.
        liveness_probe: Some(probe("/livez", 10, 3)),
        readiness_probe: Some(probe("/readyz", 2, 1)),
        resources: requirements(resource),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("admin".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(2),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
    }
}

fn requirements(resource: &ValidatedResource) -> Option<ResourceRequirements> {
    let list = |resources: &Option<ComputeResources>| {
        let resources = resources.as_ref()?;
        let pairs = [("cpu", &resources.cpu), ("memory", &resources.memory)];
        let set = pairs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
        Some(set.collect::<BTreeMap<String, Quantity>>()).filter(|set| !set.is_empty())
    };
    let (requests, limits) = (list(&resource.resources.requests), list(&resource.resources.limits));
    (requests.is_some() || limits.is_some()).then(|| ResourceRequirements {
        requests,
        limits,
        ..ResourceRequirements::default()
    })
}

fn volumes(resource: &ValidatedResource, config_map: &ConfigMap, secret: Option<&Secret>) -> Vec<Mounted> {
    let config = Volume {
        name: "config".to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: config_map.metadata.name.clone().unwrap_or_default(),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    };
    let generated = secret.and_then(|secret| secret.metadata.name.clone()).unwrap_or_default();
    let mut all = vec![(config, mount("config", CONFIG_DIR))];
    let kafka_keys = [(KAFKA_USERNAME_KEY, "username"), (KAFKA_PASSWORD_KEY, "password")];
    all.extend(credentials("kafka", KAFKA_DIR, &resource.kafka.access, &generated, kafka_keys));
    if let Some(redis) = &resource.redis {
        let redis_keys = [(REDIS_USERNAME_KEY, "username"), (REDIS_PASSWORD_KEY, "password")];
        all.extend(credentials("redis", REDIS_DIR, &redis.access, &generated, redis_keys));
        if let RedisPlace::Inline { tls: Some(tls), .. } = &redis.place
            && let Some(ca) = &tls.ca_secret
        {
            all.push((secret_volume("redis-ca", ca, [("ca.crt", "ca.crt")]), mount("redis-ca", REDIS_CA_DIR)));
        }
    }
    all
}

fn credentials(
    name: &str,
    directory: &str,
    access: &WorkerAccess,
    generated: &str,
    keys: [(&str, &str); 2],
) -> Option<Mounted> {
    let volume = match access {
        WorkerAccess::Open => return None,
        WorkerAccess::Generated => secret_volume(name, generated, keys),
        WorkerAccess::Provided { secret } => {
            secret_volume(name, secret, [("username", "username"), ("password", "password")])
        }
    };
    Some((volume, mount(name, directory)))
}

fn secret_volume<const N: usize>(name: &str, secret: &str, keys: [(&str, &str); N]) -> Volume {
    let items = keys.map(|(key, path)| KeyToPath { key: key.to_owned(), path: path.to_owned(), mode: None });
    Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            items: Some(items.to_vec()),
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn mount(name: &str, directory: &str) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: directory.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}
