//! Kafka as a test sees it.

use std::path::{Path, PathBuf};
use std::process::Command;

use secrecy::{ExposeSecret, SecretString};

use super::{Variables, numbered};
use crate::stack::error::StackError;
use crate::stack::files;
use crate::stack::install::Programs;
use crate::stack::kafka::{Jars, KafkaCluster, Security, tools};
use crate::stack::layout::Layout;
use crate::stack::part::Part;

/// A Kafka cluster and its super user.
#[derive(Debug)]
pub struct Kafka {
    bootstrap: String,
    security: Security,
    username: String,
    password: SecretString,
    ca_file: Option<PathBuf>,
    local: Option<LocalKafka>,
}

#[derive(Debug)]
struct LocalKafka {
    layout: Layout,
    jars: Jars,
    cluster: KafkaCluster,
}

impl Kafka {
    pub(super) fn local(layout: &Layout, programs: &Programs, cluster: KafkaCluster) -> Result<Self, StackError> {
        let secured = cluster.security == Security::SaslSsl;
        Ok(Self {
            bootstrap: cluster.brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            security: cluster.security,
            username: cluster.username.clone(),
            password: if secured { files::read_secret(&cluster.password_file)? } else { SecretString::default() },
            ca_file: secured.then(|| cluster.ca_file.clone()),
            local: Some(LocalKafka { layout: layout.clone(), jars: programs.kafka.clone(), cluster }),
        })
    }

    pub(super) fn existing(variables: &Variables<'_>) -> Result<Option<Self>, StackError> {
        let Some(bootstrap) = variables.get("KAFKA_BROKERS") else { return Ok(None) };
        let username = variables.get("KAFKA_SASL_USERNAME").unwrap_or_default();
        let plaintext =
            variables.get("KAFKA_SECURITY_PROTOCOL").map_or(username.is_empty(), |protocol| protocol == "PLAINTEXT");
        Ok(Some(Self {
            bootstrap,
            security: if plaintext { Security::Plaintext } else { Security::SaslSsl },
            username,
            password: variables.password("KAFKA_SASL_PASSWORD")?,
            ca_file: variables.get("KAFKA_CA_FILE").map(PathBuf::from),
            local: None,
        }))
    }

    /// Bootstrap servers, separated by commas.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// How clients connect.
    pub fn security(&self) -> Security {
        self.security
    }

    /// A super user (SCRAM-SHA-512). Empty on a plaintext cluster.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The super user's password.
    pub fn password(&self) -> &SecretString {
        &self.password
    }

    /// PEM file of the authority that signed the brokers' certificates; `None`: the system's authorities.
    pub fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    /// Number of brokers on this machine.
    pub fn broker_count(&self) -> usize {
        self.local.as_ref().map_or(0, |local| local.cluster.parts.len())
    }

    /// The broker with this node id (from 1).
    pub fn broker(&self, id: usize) -> Result<Part, StackError> {
        let (layout, parts) = self.local.as_ref().map(|local| (&local.layout, local.cluster.parts.as_slice())).unzip();
        numbered(layout, parts.unwrap_or_default(), id, "handling one broker")
    }

    /// After brokers were started again: waits until the super user can log in at each, which it may have lost with all other
    /// users (written again then), and groups and transactions have their coordinators.
    pub fn settle(&self) -> Result<(), StackError> {
        crate::stack::kafka::settle(&self.require_local()?.cluster).map(drop)
    }

    /// One of Kafka's own tools (`kafka-console-consumer`) as the super user; add the tool's arguments.
    pub fn tool(&self, name: &str) -> Result<Command, StackError> {
        let local = self.require_local()?;
        tools::command(&local.cluster, &local.jars, name, None)
    }

    /// As [`Self::tool`], with other client properties.
    pub fn tool_as(&self, name: &str, properties: &Path) -> Result<Command, StackError> {
        let local = self.require_local()?;
        tools::command(&local.cluster, &local.jars, name, Some(properties))
    }

    /// Writes Java client properties of another user, for [`Self::tool_as`]; readable by the owner only.
    pub fn write_client_properties(
        &self,
        file: &Path,
        username: &str,
        password: &SecretString,
    ) -> Result<(), StackError> {
        let user = KafkaCluster { username: username.to_owned(), ..self.require_local()?.cluster.clone() };
        let secured = self.security == Security::SaslSsl;
        let password = secured.then(|| password.expose_secret());
        files::write_private(file, &crate::stack::kafka::client_properties(&user, password))
    }

    /// librdkafka settings of the super user.
    pub fn client_config(&self) -> rdkafka::ClientConfig {
        self.client_config_as(&self.username, &self.password)
    }

    /// librdkafka settings of another user.
    pub fn client_config_as(&self, username: &str, password: &SecretString) -> rdkafka::ClientConfig {
        // Tests make the crate's own clients of it, and end while those are destroyed.
        sluice_clients::kafka::keep_openssl();
        let mut config = rdkafka::ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        if self.security == Security::SaslSsl {
            config
                .set("security.protocol", "SASL_SSL")
                .set("sasl.mechanism", "SCRAM-SHA-512")
                .set("sasl.username", username)
                .set("sasl.password", password.expose_secret());
        }
        if let Some(ca_file) = &self.ca_file {
            config.set("ssl.ca.location", ca_file.display().to_string());
        }
        config
    }

    fn require_local(&self) -> Result<&LocalKafka, StackError> {
        self.local.as_ref().ok_or(StackError::NotLocal("running Kafka's own tools"))
    }
}
