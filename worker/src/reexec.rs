//! The way out of a call that never returns: the process replaces itself by a fresh copy (`execve`).
//!
//! Some librdkafka calls can block for ever (`send_offsets_to_transaction` while the group coordinator is away), and a
//! thread cannot be killed. Exiting would be safe too, but an outage of one broker would then show as a crash-looping
//! fleet, with restarts minutes apart when the broker is back. The copy keeps pid and container; it backs off before it
//! starts its engines.

use std::os::unix::process::CommandExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::engine::Shutdown;
use crate::failpoint;

/// How many copies in a row did not get to [`worked`].
const VARIABLE: &str = "SLUICE_REEXEC_COUNT";

/// This copy has done work.
static WORKED: AtomicBool = AtomicBool::new(false);

/// Says that this copy has done work: the next one does not wait longer because of those before.
pub fn worked() {
    WORKED.store(true, Ordering::Relaxed);
}

/// Replaces the process. Does not return.
pub fn now(reason: &'static str) -> ! {
    let before = if WORKED.load(Ordering::Relaxed) { 0 } else { count() };
    let count = before + 1;
    tracing::error!(reason, count, "re-executing the process");
    let error = match std::env::current_exe() {
        Ok(program) => {
            let mut copy = std::process::Command::new(program);
            // A fault that a test asked for was for this process, not for its copy.
            copy.args(std::env::args_os().skip(1)).env(VARIABLE, count.to_string()).env_remove(failpoint::VARIABLE);
            copy.exec()
        }
        Err(error) => error,
    };
    tracing::error!(%error, "cannot re-execute, aborting instead");
    std::process::abort();
}

/// In a copy: waits 1 s, 2 s, 4 s … 30 s, by the number of copies before it; less when the process must stop.
pub async fn wait_out_backoff(shutdown: &Shutdown) {
    let wait = backoff(count());
    if wait.is_zero() {
        return;
    }
    tracing::warn!(seconds = wait.as_secs(), "started anew after a stuck call, waiting before the engines start");
    let _ = tokio::time::timeout(wait, shutdown.raised()).await;
}

fn count() -> u32 {
    std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn backoff(count: u32) -> Duration {
    match count {
        0 => Duration::ZERO,
        n => Duration::from_secs(1 << (n - 1).min(5)).min(Duration::from_secs(30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backs_off_up_to_half_a_minute() {
        let seconds: Vec<u64> = (0..8).map(|count| backoff(count).as_secs()).collect();
        assert_eq!(seconds, [0, 1, 2, 4, 8, 16, 30, 30]);
    }
}
