//! Access to Kafka and Redis, shared by worker, operator and tests.
//!
//! ```text
//! kafka/config.rs   endpoint + credentials → client properties, one place
//! kafka/ffi/        the one audited `unsafe` module: calls librdkafka has and the rdkafka crate lacks or does badly
//! kafka/…           consumer and transactional producer as the processor and the applier need them
//! kafka/admin/      typed admin calls: topics, configs, ACLs, SCRAM users, group offsets
//! redis/…           one multiplexed connection a node, slot map, pipelines by node, scripts
//! redis/admin/      ACL users and settings on every node
//! ```
#![deny(unsafe_code)]

pub mod kafka;
pub mod redis;
