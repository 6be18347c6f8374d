//! When what was broken on purpose.

/// What a fault may excuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// A Redis server lost data or was replaced by one that knew less; until repair, values may be older.
    RedisLoss,
    /// Slots are being moved and re-materialised.
    SlotMove,
    /// Anything that excuses nothing: worker kills, freezes, broker restarts.
    Other,
}

/// One injected fault. Times are milliseconds of the sampler's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultWindow {
    /// What.
    pub kind: FaultKind,
    /// When it began.
    pub from_ms: i64,
    /// When its repair was complete.
    pub until_ms: i64,
}

/// All injected faults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FaultLog {
    windows: Vec<FaultWindow>,
}

impl FaultLog {
    /// Notes a fault that is over and repaired.
    pub fn add(&mut self, window: FaultWindow) {
        self.windows.push(window);
    }

    /// Whether something seen between these times may be older than what was seen before.
    pub fn excuses(&self, from_ms: i64, until_ms: i64) -> bool {
        self.windows
            .iter()
            .any(|window| window.kind != FaultKind::Other && window.from_ms <= until_ms && from_ms <= window.until_ms)
    }

    /// Whether slots were being moved at this time, give or take the second that news of it takes.
    pub fn is_moving(&self, at_ms: i64) -> bool {
        const NEWS_MS: i64 = 1_000;
        let moving = |window: &&FaultWindow| window.kind == FaultKind::SlotMove;
        self.windows
            .iter()
            .filter(moving)
            .any(|window| (window.from_ms - NEWS_MS..=window.until_ms + NEWS_MS).contains(&at_ms))
    }

    /// Whether such a window lies between two moments, so that what was seen before it does not bind what is seen after.
    pub fn separates(&self, before_ms: i64, after_ms: i64) -> bool {
        self.excuses(before_ms, after_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_redis_faults_excuse_and_only_in_their_window() {
        let mut log = FaultLog::default();
        log.add(FaultWindow { kind: FaultKind::Other, from_ms: 0, until_ms: 100 });
        log.add(FaultWindow { kind: FaultKind::RedisLoss, from_ms: 200, until_ms: 300 });
        assert!(!log.excuses(50, 60));
        assert!(log.excuses(190, 200) && log.excuses(250, 260) && log.excuses(300, 310));
        assert!(!log.excuses(301, 310));
        assert!(log.separates(100, 400) && !log.separates(301, 400));
    }
}
