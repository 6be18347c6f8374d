//! Apache Kafka in `KRaft` mode: one or three nodes that are broker and controller at once.
//!
//! [`create`] lays out certificates, configuration and formatted data; starting the parts is the caller's. Each node has
//! three listeners: TENANT on the node address (what pods, tests and the operator use), BROKER and CONTROLLER on loopback,
//! which pods cannot reach: whoever connects there is the super user ANONYMOUS.

mod config;
mod jars;
mod settle;
pub mod tools;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::command;
use super::error::{AtPath, StackError};
use super::files;
use super::netns;
use super::part::{PartSpec, argv};
use super::pki::{Authority, Subject};
use super::process;
use super::ready::Ready;
use super::reap::kill_all;

pub use jars::Jars;
pub(crate) use settle::settle;

/// How clients meet the TENANT listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Security {
    /// TLS and SCRAM-SHA-512, ACLs on, nothing allowed but what an ACL allows.
    SaslSsl,
    /// Neither TLS nor users nor ACLs.
    Plaintext,
}

/// How the JVM compiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compiler {
    /// The quick compiler only: starts sooner and takes less memory; for tests.
    Quick,
    /// The JVM's default; for benchmarks.
    Full,
}

/// What cluster to make.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// Prefix of the part names, unique in the stack.
    pub name: String,
    /// 1 or 3. With 3, topics have three replicas and need two of them in sync.
    pub brokers: u8,
    /// The TENANT listener.
    pub security: Security,
    /// Heap of each broker in MiB.
    pub heap_mib: u32,
    /// How the JVM compiles.
    pub compiler: Compiler,
    /// TENANT port of the first broker; the next brokers count on. The other listeners are 10000 and 20000 above. A cluster of
    /// one's own gets a free one instead.
    pub base_port: u16,
}

impl KafkaOptions {
    /// The shared cluster of the stack: three brokers, TLS, SCRAM, ACLs.
    pub fn shared() -> Self {
        Self {
            name: "kafka".into(),
            brokers: 3,
            security: Security::SaslSsl,
            heap_mib: 384,
            compiler: Compiler::Quick,
            base_port: 9092,
        }
    }

    /// One plaintext broker for a benchmark.
    pub fn bench(name: &str) -> Self {
        Self {
            name: name.into(),
            brokers: 1,
            security: Security::Plaintext,
            heap_mib: 1024,
            compiler: Compiler::Full,
            base_port: 0,
        }
    }
}

/// A cluster that was laid out: how to start it and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaCluster {
    /// One for each broker, in the order of node ids from 1.
    pub parts: Vec<PartSpec>,
    /// TENANT listeners.
    pub brokers: Vec<SocketAddr>,
    /// BROKER listeners: plaintext on loopback, super user.
    pub internal: Vec<SocketAddr>,
    /// The TENANT listener.
    pub security: Security,
    /// The super user of the TENANT listener.
    pub username: String,
    /// Holds the super user's password. Empty path with [`Security::Plaintext`].
    pub password_file: PathBuf,
    /// The authority that signed the brokers' certificates. Empty path with [`Security::Plaintext`].
    pub ca_file: PathBuf,
    /// Java client properties of the super user, for Kafka's own tools.
    pub client_config: PathBuf,
}

/// Java client properties of the user named in `cluster`.
pub(crate) fn client_properties(cluster: &KafkaCluster, password: Option<&str>) -> String {
    config::client(cluster, password)
}

/// Lays out a new cluster in `folder`, which must be empty or absent.
pub fn create(folder: &Path, jars: &Jars, options: &KafkaOptions) -> Result<KafkaCluster, StackError> {
    files::make_dir(folder)?;
    let nodes: Vec<config::Node> = (1..=u16::from(options.brokers)).map(|id| config::Node::new(id, options)).collect();
    let secured = options.security == Security::SaslSsl;
    let password = if secured { Some(files::random_hex(16)?) } else { None };
    let mut cluster = KafkaCluster {
        parts: Vec::new(),
        brokers: nodes.iter().map(|node| node.tenant).collect(),
        internal: nodes.iter().map(|node| node.broker).collect(),
        security: options.security,
        username: "admin".into(),
        password_file: PathBuf::new(),
        ca_file: PathBuf::new(),
        client_config: folder.join("client.properties"),
    };
    if let Some(password) = &password {
        cluster.password_file = folder.join("admin.password");
        files::write_private(&cluster.password_file, password)?;
        cluster.ca_file = create_certificates(folder)?;
    }
    files::write_private(&cluster.client_config, &client_properties(&cluster, password.as_deref()))?;
    files::write(&folder.join("log4j2.properties"), config::LOGGING)?;
    files::write(&folder.join("tools-log4j2.properties"), tools::LOGGING)?;
    let id = cluster_id(folder)?;
    for node in &nodes {
        files::write(&node.config_file(folder), &config::server(node, &nodes, folder, options))?;
        cluster.parts.push(part(node, &nodes, folder, jars, options)?);
    }
    format(&nodes, folder, jars, &id, password.as_deref())?;
    Ok(cluster)
}

fn create_certificates(folder: &Path) -> Result<PathBuf, StackError> {
    let authority = Authority::create(folder, "ca")?;
    let addresses = [IpAddr::V4(netns::NODE), IpAddr::V4(Ipv4Addr::LOCALHOST)];
    let identity = authority.issue("broker", &Subject::server("kafka", &addresses))?;
    // Kafka wants key and certificate in one file.
    let both = format!("{}{}", files::read(&identity.key)?, files::read(&identity.certificate)?);
    files::write_private(&folder.join("broker.pem"), &both)?;
    Ok(authority.certificate().to_owned())
}

/// 16 bytes as URL-safe base64, as Kafka wants cluster ids; only hexadecimal digits are used, which are base64 as well.
fn cluster_id(folder: &Path) -> Result<String, StackError> {
    let id = files::random_hex(11)?;
    files::write(&folder.join("cluster.id"), &id)?;
    Ok(id)
}

fn part(
    node: &config::Node,
    nodes: &[config::Node],
    folder: &Path,
    jars: &Jars,
    options: &KafkaOptions,
) -> Result<PartSpec, StackError> {
    let mut arguments = vec![
        format!("-Xms{}m", options.heap_mib / 2),
        format!("-Xmx{}m", options.heap_mib),
        "-XX:+ExitOnOutOfMemoryError".into(),
        format!("-Dlog4j2.configurationFile={}", folder.join("log4j2.properties").display()),
    ];
    match options.compiler {
        Compiler::Quick => arguments.extend(jars.quick()),
        Compiler::Full => arguments.push("-XX:+UseG1GC".into()),
    }
    arguments.extend([
        "-cp".into(),
        jars.class_path(),
        "kafka.Kafka".into(),
        node.config_file(folder).display().to_string(),
    ]);
    Ok(PartSpec {
        name: format!("{}-{}", options.name, node.id),
        argv: argv("java", arguments)?,
        env: [("LANG".into(), "C.UTF-8".into())].into(),
        ready: Ready::Kafka { address: node.broker, brokers: nodes.len() },
        start_seconds: 240,
    })
}

/// Formats every node's storage: the first one's with Kafka's tool, the others' after it. They differ in two ids only, and
/// each run of the tool is a virtual machine that has to start.
fn format(
    nodes: &[config::Node],
    folder: &Path,
    jars: &Jars,
    id: &str,
    password: Option<&str>,
) -> Result<(), StackError> {
    let Some((first, others)) = nodes.split_first() else { return Ok(()) };
    format_node(first, folder, jars, id, password)?;
    let formatted = first.data(folder);
    let properties = files::read(&formatted.join(META))?;
    for node in others {
        let data = node.data(folder);
        files::make_dir(&data)?;
        let (from, to) = (formatted.join(BOOTSTRAP), data.join(BOOTSTRAP));
        fs::copy(&from, &to).at(&to)?;
        files::write(&data.join(META), &config::meta(&properties, node.id, &files::random_hex(11)?))?;
    }
    Ok(())
}

/// Whose storage this is.
const META: &str = "meta.properties";
/// The first records of the cluster: features, and the super user's credential.
const BOOTSTRAP: &str = "bootstrap.checkpoint";

fn format_node(
    node: &config::Node,
    folder: &Path,
    jars: &Jars,
    id: &str,
    password: Option<&str>,
) -> Result<(), StackError> {
    let config = node.config_file(folder);
    let mut arguments = jars.quick();
    arguments.extend(["-cp".into(), format!("\"{}\"", jars.class_path()), "kafka.tools.StorageTool".into()]);
    arguments.extend(["format", "--ignore-formatted", "-t", id, "-c"].map(String::from));
    arguments.push(format!("\"{}\"", config.display()));
    if let Some(password) = password {
        arguments.extend(["--add-scram".into(), format!("\"SCRAM-SHA-512=[name=admin,password={password}]\"")]);
    }
    // An argument file, so that the password is not in the process list.
    let file = config.with_extension("format");
    let argument = format!("@{}", file.display());
    // A formatter of a run that was killed a moment ago would put its own cluster id into our folder.
    kill_all(&process::with_argument(&argument))?;
    files::write_private(&file, &arguments.join("\n"))?;
    command::run(command::bounded(240, "java").arg(argument))?;
    files::remove_file(&file)
}
