//! Watches calls that may never return. A call past its deadline means a new process: threads cannot be killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::engine::Shutdown;
use crate::reexec;

/// What a call may take beyond the time-out it was given, before it counts as stuck. Far above scheduling noise.
const SLACK: Duration = Duration::from_secs(20);
/// How often the watchdog looks.
const PERIOD: Duration = Duration::from_millis(500);

/// The calls of one thread.
#[derive(Clone, Debug)]
pub struct CallClock {
    origin: Instant,
    /// Milliseconds after `origin` at which the running call is stuck; 0 = no call.
    stuck_at: Arc<AtomicU64>,
}

impl CallClock {
    /// No call runs.
    pub fn new() -> Self {
        Self { origin: Instant::now(), stuck_at: Arc::default() }
    }

    /// Runs a blocking call that promises to return within `timeout`.
    pub fn watch<T>(&self, timeout: Duration, call: impl FnOnce() -> T) -> T {
        let stuck_at = self.origin.elapsed() + timeout + SLACK;
        self.stuck_at.store(u64::try_from(stuck_at.as_millis()).unwrap_or(u64::MAX), Ordering::Release);
        let result = call();
        self.stuck_at.store(0, Ordering::Release);
        result
    }

    fn is_stuck(&self) -> bool {
        let stuck_at = self.stuck_at.load(Ordering::Acquire);
        stuck_at != 0 && self.origin.elapsed().as_millis() >= u128::from(stuck_at)
    }
}

/// Watches these clocks until the process stops.
pub async fn watch(clocks: Vec<CallClock>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            // The grace period bounds what is left after a stop.
            () = shutdown.raised() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
        if clocks.iter().any(CallClock::is_stuck) {
            reexec::now("StuckCall");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_late_call_is_stuck() {
        let clock = CallClock::new();
        assert!(!clock.is_stuck());
        clock.watch(Duration::from_secs(60), || assert!(!clock.is_stuck()));
        clock.stuck_at.store(1, Ordering::Release);
        std::thread::sleep(Duration::from_millis(2));
        assert!(clock.is_stuck());
    }
}
