//! Kafka's own command line tools, as independent witnesses: run from the jars, already told where the cluster is.

use std::path::Path;
use std::process::Command;

use super::{Jars, KafkaCluster};
use crate::stack::error::StackError;
use crate::stack::files;

/// How a tool is told where the cluster is.
struct Tool {
    name: &'static str,
    class: &'static str,
    /// The option that takes client properties; empty when the tool needs no cluster.
    config: &'static str,
    /// Whether it has `--bootstrap-server` (else it reads the properties).
    bootstrap: bool,
}

const fn tool(name: &'static str, class: &'static str, config: &'static str) -> Tool {
    Tool { name, class, config, bootstrap: true }
}

const TOOLS: &[Tool] = &[
    tool("kafka-acls", "org.apache.kafka.tools.AclCommand", "--command-config"),
    tool("kafka-configs", "kafka.admin.ConfigCommand", "--command-config"),
    tool("kafka-console-consumer", "org.apache.kafka.tools.consumer.ConsoleConsumer", "--consumer.config"),
    tool("kafka-console-producer", "org.apache.kafka.tools.ConsoleProducer", "--producer.config"),
    tool("kafka-consumer-groups", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", "--command-config"),
    tool("kafka-consumer-perf-test", "org.apache.kafka.tools.ConsumerPerformance", "--consumer.config"),
    tool("kafka-delete-records", "org.apache.kafka.tools.DeleteRecordsCommand", "--command-config"),
    Tool { name: "kafka-dump-log", class: "kafka.tools.DumpLogSegments", config: "", bootstrap: false },
    tool("kafka-get-offsets", "org.apache.kafka.tools.GetOffsetShell", "--command-config"),
    tool("kafka-leader-election", "org.apache.kafka.tools.LeaderElectionCommand", "--admin.config"),
    tool("kafka-metadata-quorum", "org.apache.kafka.tools.MetadataQuorumCommand", "--command-config"),
    Tool {
        name: "kafka-producer-perf-test",
        class: "org.apache.kafka.tools.ProducerPerformance",
        config: "--producer.config",
        bootstrap: false,
    },
    tool("kafka-reassign-partitions", "org.apache.kafka.tools.reassign.ReassignPartitionsCommand", "--command-config"),
    tool("kafka-topics", "org.apache.kafka.tools.TopicCommand", "--command-config"),
    tool("kafka-transactions", "org.apache.kafka.tools.TransactionsCommand", "--command-config"),
    tool("kafka-verifiable-consumer", "org.apache.kafka.tools.VerifiableConsumer", "--consumer.config"),
    tool("kafka-verifiable-producer", "org.apache.kafka.tools.VerifiableProducer", "--producer.config"),
];

/// A tool as the cluster's super user (`as_client: None`) or with other client properties. Add the tool's own arguments; it
/// has no time-out of its own, so give it one where it has (`--timeout-ms`), or kill it.
pub fn command(
    cluster: &KafkaCluster,
    jars: &Jars,
    name: &str,
    as_client: Option<&Path>,
) -> Result<Command, StackError> {
    let tool = TOOLS
        .iter()
        .find(|tool| tool.name == name)
        .ok_or_else(|| StackError::Absent(format!("{name:?} is not among the Kafka tools of the stack")))?;
    let mut command = Command::new("java");
    command.args(arguments(tool, cluster, jars, as_client.unwrap_or(&cluster.client_config)));
    Ok(command)
}

fn arguments(tool: &Tool, cluster: &KafkaCluster, jars: &Jars, config: &Path) -> Vec<String> {
    let mut arguments = jars.quick();
    arguments.push("-Xmx256m".into());
    if let Some(folder) = cluster.client_config.parent() {
        arguments.push(format!("-Dlog4j2.configurationFile={}", folder.join("tools-log4j2.properties").display()));
    }
    arguments.extend(["-cp".into(), jars.class_path(), tool.class.into()]);
    if tool.bootstrap {
        let brokers: Vec<String> = cluster.brokers.iter().map(ToString::to_string).collect();
        arguments.extend(["--bootstrap-server".into(), brokers.join(",")]);
    }
    if !tool.config.is_empty() {
        arguments.extend([tool.config.into(), config.display().to_string()]);
    }
    arguments
}

/// Writes one script for each tool into `bin`, for `stack exec`. `KAFKA_CLIENT_CONFIG` chooses other client properties.
pub(crate) fn write_scripts(cluster: &KafkaCluster, jars: &Jars, bin: &Path) -> Result<(), StackError> {
    let chosen = format!("${{KAFKA_CLIENT_CONFIG:-{}}}", cluster.client_config.display());
    for tool in TOOLS {
        let arguments = arguments(tool, cluster, jars, Path::new(&chosen));
        let quoted: Vec<String> = arguments.iter().map(|argument| format!("\"{argument}\"")).collect();
        let script = format!("#!/bin/sh\nexec java {} \"$@\"\n", quoted.join(" "));
        files::write_script(&bin.join(tool.name), &script)?;
    }
    Ok(())
}

/// Errors only, on standard error: standard output belongs to the tool.
pub(crate) const LOGGING: &str = "\
status = error
appender.err.type = Console
appender.err.name = err
appender.err.target = SYSTEM_ERR
appender.err.layout.type = PatternLayout
appender.err.layout.pattern = %d %p %c{1} %m%n
rootLogger.level = error
rootLogger.appenderRef.err.ref = err
";
