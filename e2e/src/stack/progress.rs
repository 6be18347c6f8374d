//! Lines that tell a person what is going on and how long it took.

use std::sync::mpsc;
use std::time::{Duration, Instant};

const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// Prints progress lines with the seconds since the start.
#[derive(Debug, Clone)]
pub struct Progress {
    start: Instant,
    silent: bool,
}

impl Progress {
    /// The clock starts now.
    pub fn start() -> Self {
        Self { start: Instant::now(), silent: false }
    }

    /// Prints nothing.
    pub fn silent() -> Self {
        Self { silent: true, ..Self::start() }
    }

    /// One line.
    pub fn line(&self, topic: &str, text: impl AsRef<str>) {
        if self.silent {
            return;
        }
        println!("[{:6.1} s] {topic:<8} {}", self.start.elapsed().as_secs_f64(), text.as_ref());
    }

    /// A line now, and another when the step is done.
    pub(crate) fn step(&self, topic: &'static str, text: String) -> Step<'_> {
        self.line(topic, &text);
        Step { progress: self, topic, text, start: Instant::now() }
    }

    /// Runs something that may take minutes, with a sign of life every half minute.
    pub(crate) fn watch<T>(&self, topic: &'static str, text: String, work: impl FnOnce() -> T) -> T {
        let step = self.step(topic, text);
        let (done, finished) = mpsc::channel::<()>();
        let start = step.start;
        let worked = std::thread::scope(|scope| {
            scope.spawn(move || {
                // Ends when the sender is dropped, whether `work` returned or panicked.
                while finished.recv_timeout(SIGN_OF_LIFE) == Err(mpsc::RecvTimeoutError::Timeout) {
                    self.line(topic, format!("… {:.0} s", start.elapsed().as_secs_f64()));
                }
            });
            let _done = done;
            work()
        });
        step.done();
        worked
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }
}

/// Something that takes a while.
pub(crate) struct Step<'a> {
    progress: &'a Progress,
    topic: &'static str,
    text: String,
    start: Instant,
}

impl Step<'_> {
    pub(crate) fn done(self) {
        let seconds = self.start.elapsed().as_secs_f64();
        self.progress.line(self.topic, format!("{}: done in {seconds:.1} s", self.text));
    }
}
