//! How long to wait before looking again. Per object, growing, with a cap and jitter; forgotten on success and deletion.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

/// First wait.
const FIRST: Duration = Duration::from_secs(1);
/// Longest wait.
const CAP: Duration = Duration::from_secs(60);
/// Around which a settled resource is looked at again.
const RESYNC: Duration = Duration::from_secs(15 * 60);

/// Failures in a row, by uid.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: Mutex<HashMap<String, u32>>,
}

impl Backoff {
    /// Notes a failure; how long to wait.
    pub fn failed(&self, uid: &str) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let count = failures.entry(uid.to_owned()).or_insert(0);
        *count = count.saturating_add(1);
        jittered(wait(*count), uid, *count)
    }

    /// Forgets failures: the object is well, or gone.
    pub fn forget(&self, uid: &str) {
        self.failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(uid);
    }
}

fn wait(failures: u32) -> Duration {
    let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    FIRST.saturating_mul(factor).min(CAP)
}

/// When to look at a settled resource again: spread over resources, so that they do not all come at once.
pub fn resync(uid: &str) -> Duration {
    jittered(RESYNC, uid, 0)
}

/// Three to five quarters of a duration, by a hash of who asks: as good as random between objects, and the same in tests.
fn jittered(base: Duration, uid: &str, round: u32) -> Duration {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (uid, round).hash(&mut hasher);
    let part = (hasher.finish() % 1_000) as f64 / 1_000.0;
    base.mul_f64(0.75 + part / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_start_over_after_success() {
        let backoff = Backoff::default();
        let waits: Vec<Duration> = (0..12).map(|_| backoff.failed("a")).collect();
        assert!(waits[0] < Duration::from_millis(1_300) && waits[3] > waits[0]);
        assert!(waits.iter().all(|wait| *wait <= CAP.mul_f64(1.25)));
        assert!(waits[11] >= CAP.mul_f64(0.75));
        backoff.forget("a");
        assert_eq!(backoff.failed("a"), waits[0]);
        assert!(backoff.failures.lock().unwrap().len() == 1);
    }

    #[test]
    fn resyncs_are_spread() {
        let all: Vec<Duration> = (0..50).map(|n| resync(&format!("uid-{n}"))).collect();
        let (min, max) = (all.iter().min().unwrap(), all.iter().max().unwrap());
        assert!(max.saturating_sub(*min) > RESYNC / 4 && *min >= RESYNC * 3 / 4 && *max <= RESYNC * 5 / 4);
    }
}
