//! Kafka through librdkafka; coordinators of many groups at once by requests of our own.

pub mod admin;
pub mod config;
pub mod consumer;
mod coordinators;
pub mod error;
mod ffi;
pub mod producer;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use ffi::memory::bound_memory;
pub use ffi::openssl::keep_openssl;

/// A panic while the lock was held leaves plain data that is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
