//! Places where tests let the process die, as if by `kill -9`.
//!
//! `SLUICE_FAILPOINT=before-commit:3` aborts the process when the place `before-commit` is passed for the third time;
//! `in-send-offsets:3:hang` makes the thread hang there for ever, as a call that never returns does.
//! Without the variable a passage costs one load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Name of the environment variable.
pub const VARIABLE: &str = "SLUICE_FAILPOINT";

#[derive(Debug)]
struct Armed {
    place: String,
    left: AtomicU64,
    hangs: bool,
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// Passes `place`; does not return if this is the passage the process shall die at.
pub fn hit(place: &'static str) {
    let armed = ARMED.get_or_init(|| std::env::var(VARIABLE).ok().and_then(|text| parse(&text)));
    if let Some(armed) = armed
        && armed.place == place
        && armed.left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        if armed.hangs {
            tracing::warn!(place, "failpoint reached, hanging");
            loop {
                std::thread::park();
            }
        }
        tracing::warn!(place, "failpoint reached, dying");
        // abort() raises SIGABRT: no destructor, no flush, no goodbye to the brokers.
        std::process::abort();
    }
}

fn parse(text: &str) -> Option<Armed> {
    let (text, hangs) = text.strip_suffix(":hang").map_or((text, false), |text| (text, true));
    let (place, count) = text.rsplit_once(':').unwrap_or((text, "1"));
    let count: u64 = count.parse().ok().filter(|count| *count > 0)?;
    Some(Armed { place: place.to_owned(), left: AtomicU64::new(count), hangs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_place_and_count() {
        let armed = parse("before-commit:3").expect("valid");
        assert_eq!((armed.place.as_str(), armed.left.load(Ordering::Relaxed)), ("before-commit", 3));
        assert_eq!(parse("after-commit").expect("valid").left.load(Ordering::Relaxed), 1);
        let hang = parse("in-send-offsets:2:hang").expect("valid");
        assert!(hang.hangs && hang.place == "in-send-offsets" && hang.left.load(Ordering::Relaxed) == 2);
        assert!(parse("x:0").is_none() && parse("x:y").is_none());
    }
}
