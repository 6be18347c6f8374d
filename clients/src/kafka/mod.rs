//! Kafka through librdkafka.

pub mod admin;
pub mod config;
pub mod consumer;
pub mod error;
mod ffi;
pub mod producer;

pub use ffi::memory::bound_memory;
pub use ffi::openssl::keep_openssl;
