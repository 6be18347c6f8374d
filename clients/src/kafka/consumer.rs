//! Group consumers: how they are configured. The calls are in [`Consumer`].

use std::time::Duration;

use rdkafka::ClientConfig;

pub use super::ffi::consumer::{Committed, Consumer};
pub use super::ffi::mailbox::Polled;
pub use super::ffi::membership::GroupMetadata;
pub use super::ffi::record::Record;

/// How long the group waits for a member that has gone silent: a `kill -9` stalls its partitions that long.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(12);
/// How long a member may take to give partitions back, and the longest pause between two polls.
pub const MAX_POLL_INTERVAL: Duration = Duration::from_secs(60);
/// What a consumer holds of records not yet polled, in KiB; what is on the way from each broker comes on top. librdkafka
/// counts keys and values only, so records are bounded too: each costs it about half a KiB besides.
const PREFETCH_KIB: u32 = 3 * 1024;
const PREFETCH_RECORDS: u32 = 8_000;
/// Most of one answer of a broker, in bytes, and of one partition in it. A single larger record comes all the same
/// (KIP-74).
const FETCH_BYTES: u32 = 1024 * 1024;
const FETCH_PARTITION_BYTES: u32 = 512 * 1024;

/// Properties of a consumer for exactly-once work: committed records only, no offset moves by itself, ends of
/// partitions are told, a lost offset is an error. Partitions move cooperatively (classic protocol).
pub fn consumer_config(mut base: ClientConfig, group: &str) -> ClientConfig {
    base.set("group.id", group)
        .set("group.protocol", "classic")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", SESSION_TIMEOUT.as_millis().to_string())
        .set("heartbeat.interval.ms", "3000")
        .set("max.poll.interval.ms", MAX_POLL_INTERVAL.as_millis().to_string())
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("allow.auto.create.topics", "false")
        .set("check.crcs", "true")
        .set("queued.max.messages.kbytes", PREFETCH_KIB.to_string())
        .set("queued.min.messages", PREFETCH_RECORDS.to_string())
        // A full queue otherwise stops fetching for a whole second.
        .set("fetch.queue.backoff.ms", "10")
        .set("fetch.wait.max.ms", "100")
        .set("fetch.error.backoff.ms", "200")
        .set("fetch.max.bytes", FETCH_BYTES.to_string())
        .set("fetch.message.max.bytes", FETCH_PARTITION_BYTES.to_string());
    base
}
