//! The one `unsafe` module: thin, checked calls into librdkafka that the rdkafka crate lacks (ACLs, SCRAM users,
//! group offsets, ends of partitions with their topic) or does badly (its `commit_transaction` waits in steps of 100 ms).
//!
//! Rules: every block says why it is sound; no pointer leaves this module; each function takes and gives owned or
//! borrowed safe types only.
#![allow(unsafe_code)]

pub(super) mod admin;
mod call;
pub(super) mod consumer;
mod list;
pub(super) mod mailbox;
pub(super) mod membership;
pub(super) mod memory;
pub(super) mod openssl;
pub(super) mod producer;
pub(super) mod record;
