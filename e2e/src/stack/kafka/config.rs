//! The texts of a cluster's configuration files.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::{KafkaCluster, KafkaOptions, Security};
use crate::stack::netns;

/// One broker's addresses.
pub(super) struct Node {
    pub(super) id: u16,
    pub(super) tenant: SocketAddr,
    pub(super) broker: SocketAddr,
    pub(super) controller: SocketAddr,
}

impl Node {
    pub(super) fn new(id: u16, options: &KafkaOptions) -> Self {
        let port = options.base_port + id - 1;
        Self {
            id,
            tenant: (netns::NODE, port).into(),
            broker: (Ipv4Addr::LOCALHOST, port + 10_000).into(),
            controller: (Ipv4Addr::LOCALHOST, port + 20_000).into(),
        }
    }

    pub(super) fn config_file(&self, folder: &Path) -> PathBuf {
        folder.join(format!("server-{}.properties", self.id))
    }

    pub(super) fn data(&self, folder: &Path) -> PathBuf {
        folder.join(format!("data-{}", self.id))
    }
}

/// INFO to standard output, which is the part's log.
pub(super) const LOGGING: &str = "\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %c{1} %m%n
rootLogger.level = info
rootLogger.appenderRef.out.ref = out
";

/// `server.properties` of one node.
pub(super) fn server(node: &Node, nodes: &[Node], folder: &Path, options: &KafkaOptions) -> String {
    let voters: Vec<String> = nodes.iter().map(|node| format!("{}@{}", node.id, node.controller)).collect();
    let replicas = if nodes.len() >= 3 { 3 } else { 1 };
    let in_sync = if replicas == 3 { 2 } else { 1 };
    let mut text = format!(
        "\
process.roles=broker,controller
node.id={id}
log.dirs={data}
controller.quorum.voters={voters}
listeners=TENANT://{tenant},BROKER://{broker},CONTROLLER://{controller}
advertised.listeners=TENANT://{tenant},BROKER://{broker}
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={replicas}
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
",
        id = node.id,
        data = node.data(folder).display(),
        voters = voters.join(","),
        tenant = node.tenant,
        broker = node.broker,
        controller = node.controller,
    );
    text.push_str(COMMON);
    match options.security {
        Security::Plaintext => {
            text.push_str("listener.security.protocol.map=TENANT:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT\n");
        }
        Security::SaslSsl => {
            text.push_str(SECURED);
            let folder = folder.display();
            let _ = write!(
                text,
                "listener.name.tenant.ssl.keystore.type=PEM\n\
                 listener.name.tenant.ssl.keystore.location={folder}/broker.pem\n\
                 listener.name.tenant.ssl.truststore.type=PEM\n\
                 listener.name.tenant.ssl.truststore.location={folder}/ca.crt\n"
            );
        }
    }
    text
}

/// Small pools and internal topics for a machine with few cores, and nothing made by accident. The cleaner's buffer is cut
/// from 128 MiB, a third of the heap; aborted transactions are looked for each second instead of each ten, so that tests of
/// time-outs need not be slow. With an early snapshot a broker that starts again does not replay its whole metadata log at once,
/// which can cost it its users (`settle.rs`).
const COMMON: &str = "\
auto.create.topics.enable=false
unclean.leader.election.enable=false
group.initial.rebalance.delay.ms=0
metadata.log.max.snapshot.interval.ms=30000
offsets.topic.num.partitions=8
transaction.state.log.num.partitions=8
share.coordinator.state.topic.num.partitions=8
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
log.cleaner.dedupe.buffer.size=16777216
log.cleaner.backoff.ms=5000
num.network.threads=2
num.io.threads=4
background.threads=4
num.recovery.threads.per.data.dir=1
log.segment.bytes=268435456
";

/// ANONYMOUS is whoever connects to the loopback listeners: the brokers themselves.
const SECURED: &str = "\
listener.security.protocol.map=TENANT:SASL_SSL,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT
listener.name.tenant.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.tenant.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=false
super.users=User:ANONYMOUS;User:admin
";

/// Java client properties of the super user.
pub(super) fn client(cluster: &KafkaCluster, password: Option<&str>) -> String {
    let brokers: Vec<String> = cluster.brokers.iter().map(ToString::to_string).collect();
    let mut text = format!("bootstrap.servers={}\n", brokers.join(","));
    if let Some(password) = password {
        let _ = write!(
            text,
            "security.protocol=SASL_SSL\n\
             sasl.mechanism=SCRAM-SHA-512\n\
             sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=\"{}\" password=\"{password}\";\n\
             ssl.truststore.type=PEM\n\
             ssl.truststore.location={}\n",
            cluster.username,
            cluster.ca_file.display(),
        );
    }
    text
}

/// `meta.properties` of a node, after another one's. A directory's id is 22 digits of base64.
pub(super) fn meta(other: &str, node: u16, directory: &str) -> String {
    let line = |line: &str| match line.split_once('=') {
        Some(("node.id", _)) => format!("node.id={node}\n"),
        Some(("directory.id", _)) => format!("directory.id={directory}\n"),
        _ => format!("{line}\n"),
    };
    other.lines().map(line).collect()
}
