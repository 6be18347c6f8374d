//! Kafka through librdkafka; coordinators of many groups at once by requests of our own.

pub mod admin;
pub mod config;
pub mod consumer;
pub mod error;
mod ffi;
mod groups;
pub mod producer;

pub use ffi::memory::bound_memory;
pub use ffi::openssl::keep_openssl;
