//! Where the time goes.

use std::fmt;
use std::time::{Duration, Instant};

/// The demo's stages with their lengths, in order.
#[derive(Debug)]
pub(super) struct Stages {
    start: Instant,
    last: Instant,
    ended: Vec<(&'static str, Duration)>,
}

impl Stages {
    /// Starts the first one.
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Self { start: now, last: now, ended: Vec::new() }
    }

    /// Ends a stage and starts the next; its length.
    pub(super) fn end(&mut self, name: &'static str) -> Duration {
        let now = Instant::now();
        let length = now - self.last;
        self.last = now;
        self.ended.push((name, length));
        length
    }
}

impl fmt::Display for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, length) in &self.ended {
            write!(f, "{name} {:.1} s, ", length.as_secs_f64())?;
        }
        write!(f, "in all {:.1} s", (self.last - self.start).as_secs_f64())
    }
}
