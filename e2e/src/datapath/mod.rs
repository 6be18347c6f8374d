//! Running the data path on the real stack and bringing what became of it before the judge.
//!
//! ```text
//!  loader.rs  generated orders ─▶ source topic            worker_process ── sluice-worker processes, killed and frozen
//!  scenario.rs  topics, start offsets, reference data, WorkerConfig, the final verdict
//!  kafka.rs   dumps and offsets by librdkafka     console.rs  the same topics by Kafka's own console consumer
//!  trial.rs   one trial from load to verdict      observer.rs  offsets and shards under load   marks.rs  the applier's records
//!  resp.rs    a Redis client of 200 lines         redis.rs    atomic dumps of shards     sampler.rs  a reader under load
//! ```
//!
//! Nothing that reads here shares code with the worker: a mistake made twice would acquit itself.

pub mod console;
mod error;
pub mod kafka;
pub mod loader;
pub mod marks;
pub mod observer;
pub mod redis;
pub mod resp;
pub mod sampler;
pub mod scenario;
pub mod trial;

pub use error::HarnessError;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

/// Polls `condition` until it gives a value; `what` is not true after `limit` otherwise.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>, HarnessError>,
) -> Result<T, HarnessError> {
    let started = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if started.elapsed() > limit {
            return Err(HarnessError::Timeout { what: what.to_owned(), seconds: limit.as_secs() });
        }
        // The pace of asking, not a time in which something must have happened.
        std::thread::sleep(Duration::from_millis(100));
    }
}
