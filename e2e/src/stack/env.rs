//! The stack as environment variables: what `stack exec` sets and [`Stack::attach`](super::Stack::attach) reads. The same
//! variables name an existing cluster.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::error::StackError;
use super::group;
use super::install::Programs;
use super::kafka::{self, KafkaCluster, Security};
use super::kube::KubeCluster;
use super::layout::Layout;
use super::redis::RedisCluster;

/// Set inside `stack exec` to the run folder: the other variables describe the built-in stack.
pub const MARKER: &str = "SLUICE_STACK";

/// What is up of the built-in stack.
#[derive(Debug, Clone)]
pub(crate) struct Described {
    pub(crate) kafka: Option<KafkaCluster>,
    pub(crate) redis: Option<RedisCluster>,
    pub(crate) kube: Option<KubeCluster>,
}

impl Described {
    pub(crate) fn load(layout: &Layout, programs: &Programs) -> Result<Self, StackError> {
        Ok(Self {
            kafka: group::load(layout, programs)?,
            redis: group::load(layout, programs)?,
            kube: group::load(layout, programs)?,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kafka.is_none() && self.redis.is_none() && self.kube.is_none()
    }
}

/// The variables for a command that is to use the built-in stack, PATH included.
pub fn variables(layout: &Layout, programs: &Programs) -> Result<BTreeMap<&'static str, String>, StackError> {
    let described = Described::load(layout, programs)?;
    if described.is_empty() {
        return Err(StackError::Absent("the stack is not up; run `make stack`".into()));
    }
    let mut set = BTreeMap::new();
    set.insert(MARKER, layout.run().display().to_string());
    if let Some(kafka) = &described.kafka {
        set.insert("KAFKA_BROKERS", join(&kafka.brokers));
        let protocol = if kafka.security == Security::SaslSsl { "SASL_SSL" } else { "PLAINTEXT" };
        set.insert("KAFKA_SECURITY_PROTOCOL", protocol.into());
        set.insert("KAFKA_SASL_MECHANISM", "SCRAM-SHA-512".into());
        set.insert("KAFKA_SASL_USERNAME", kafka.username.clone());
        set.insert("KAFKA_SASL_PASSWORD_FILE", kafka.password_file.display().to_string());
        set.insert("KAFKA_CA_FILE", kafka.ca_file.display().to_string());
    }
    if let Some(redis) = &described.redis {
        set.insert("REDIS_ADDRESSES", join(&redis.nodes));
        set.insert("REDIS_USERNAME", redis.username.clone());
        set.insert("REDIS_PASSWORD_FILE", redis.password_file.display().to_string());
        set.insert("REDIS_CA_FILE", redis.ca_file.display().to_string());
        set.insert("REDIS_TLS", redis.tls.to_string());
    }
    if let Some(kube) = &described.kube {
        set.insert("KUBECONFIG", kube.kubeconfig.display().to_string());
        set.insert("KUBECACHEDIR", layout.kubectl_cache().display().to_string());
        set.insert("CONTAINERD_ADDRESS", kube.containerd.display().to_string());
        set.insert("CONTAINERD_NAMESPACE", "k8s.io".into());
    }
    set.insert("PATH", path(layout, programs)?);
    Ok(set)
}

fn join(addresses: &[std::net::SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn path(layout: &Layout, programs: &Programs) -> Result<String, StackError> {
    let old = std::env::var_os("PATH").unwrap_or_default();
    let own = [layout.bin(), programs.kube.clone(), programs.helm.clone()];
    let all = own.into_iter().chain(std::env::split_paths(&old).filter(|folder| !folder.starts_with(layout.run())));
    let joined = std::env::join_paths(all).map_err(|error| StackError::Absent(format!("PATH: {error}")))?;
    Ok(joined.to_string_lossy().into_owned())
}

/// Writes the scripts of `bin`: Kafka's tools and `stack-redis-cli PORT …`, all of them told where the stack is.
pub(crate) fn write_scripts(layout: &Layout, programs: &Programs) -> Result<(), StackError> {
    let described = Described::load(layout, programs)?;
    if let Some(kafka) = &described.kafka {
        kafka::tools::write_scripts(kafka, &programs.kafka, &layout.bin())?;
    }
    if let Some(redis) = &described.redis {
        let cli: PathBuf = redis.password_file.with_file_name("cli");
        let script = format!("#!/bin/sh\nexec '{}' \"$@\"\n", cli.display());
        super::files::write_script(&layout.bin().join("stack-redis-cli"), &script)?;
    }
    Ok(())
}
