//! Transactional producers: how they are configured. The calls are in [`TransactionalProducer`].

use std::time::Duration;

use rdkafka::ClientConfig;

pub use super::ffi::producer::{DeliveryFailure, Outgoing, TopicHandle, TransactionalProducer};

/// After this, brokers abort a transaction whose producer is gone. Below the session time-out: a transaction must die
/// before the group gives its partitions to somebody else.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(8);

/// Sizes of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerLimits {
    /// Largest record, in bytes; a larger one is refused by the call that produces it.
    pub max_record_bytes: u64,
    /// What may wait for the brokers, in bytes.
    pub queue_bytes: u64,
}

/// Properties of a transactional producer.
pub fn producer_config(mut base: ClientConfig, transactional_id: &str, limits: ProducerLimits) -> ClientConfig {
    base.set("transactional.id", transactional_id)
        .set("enable.idempotence", "true")
        .set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string())
        // librdkafka wants it below the transaction time-out.
        .set("socket.timeout.ms", "6000")
        .set("message.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string())
        // The partitioner of Kafka's own clients; librdkafka's default would put keys elsewhere.
        .set("partitioner", "murmur2_random")
        .set("delivery.report.only.error", "true")
        // Commit flushes without waiting for it; between, it makes larger batches.
        .set("linger.ms", "10")
        .set("batch.num.messages", "10000")
        .set("allow.auto.create.topics", "false")
        .set("message.max.bytes", limits.max_record_bytes.clamp(1000, 1_000_000_000).to_string())
        .set("queue.buffering.max.kbytes", (limits.queue_bytes / 1024).clamp(1024, 2_097_151).to_string())
        .set("queue.buffering.max.messages", "200000");
    base
}
