//! Structured logs: one JSON object a line on standard output.

use tracing_subscriber::EnvFilter;

/// Installs the subscriber. A filter that does not parse falls back to `info`, and says so.
pub fn init(filter: &str) {
    let (env_filter, bad) = match EnvFilter::try_new(filter) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    // A second call (tests in one process) keeps the first subscriber.
    let _ = tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(env_filter).try_init();
    if let Some(error) = bad {
        tracing::warn!(filter, %error, "log filter is not valid, using \"info\"");
    }
}
