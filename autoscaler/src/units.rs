//! Numbers with a meaning.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

/// Records a second: finite, 0 to 10¹².
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Rate(f64);

impl Rate {
    /// Nothing.
    pub const ZERO: Self = Self(0.0);
    const MAX: f64 = 1e12;

    /// NaN, infinite and negative values are no rate; what is absurdly large is cut.
    pub fn new(per_second: f64) -> Option<Self> {
        (per_second.is_finite() && per_second >= 0.0).then(|| Self(per_second.min(Self::MAX)))
    }

    /// Records a second.
    pub fn per_second(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Short(self.0))
    }
}

/// Records, commit markers not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Messages(pub u64);

impl Messages {
    /// As a number for formulas.
    pub(crate) fn count(self) -> f64 {
        self.0 as f64
    }

    #[expect(clippy::cast_possible_truncation, reason = "`as` ends at the bounds of u64")]
    pub(crate) fn from_count(count: f64) -> Self {
        Self(count as u64)
    }
}

/// Workers of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Replicas(pub u32);

impl Replicas {
    /// None at all: asleep.
    pub const ZERO: Self = Self(0);

    pub(crate) fn count(self) -> f64 {
        f64::from(self.0)
    }

    /// Rounded up; whatever is not a number is 0, whatever is too large is the largest.
    pub(crate) fn ceil(needed: f64) -> Self {
        Self(ceil_u32(needed))
    }
}

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "clamped to the range of u32 first")]
pub(crate) fn ceil_u32(value: f64) -> u32 {
    // A sum of shares that is 3 up to rounding errors is 3, not 4. A NaN becomes 0.
    (value - 1e-9).ceil().clamp(0.0, f64::from(u32::MAX)) as u32
}

/// A number as a person reads it: three digits or so.
pub(crate) struct Short(pub f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            v if v >= 1e9 => write!(f, "{v:.2e}"),
            v if v >= 100.0 || v == 0.0 => write!(f, "{v:.0}"),
            v if v >= 10.0 => write!(f, "{v:.1}"),
            v => write!(f, "{v:.2}"),
        }
    }
}

/// From `then` to `now`; nothing if the clock went back.
pub(crate) fn since(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

/// `duration` later, or the end of time.
pub(crate) fn after(time: Timestamp, duration: Duration) -> Timestamp {
    jiff::SignedDuration::try_from(duration).ok().and_then(|d| time.checked_add(d).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rate_is_made_of_nonsense() {
        for nonsense in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, -f64::MIN_POSITIVE] {
            assert_eq!(Rate::new(nonsense), None, "{nonsense}");
        }
        assert_eq!(Rate::new(f64::MAX).map(Rate::per_second), Some(1e12));
    }

    #[test]
    fn replicas_are_rounded_up_but_not_by_rounding_errors() {
        for (needed, replicas) in [
            (0.0, 0),
            (0.1, 1),
            (3.0, 3),
            (0.1 + 0.2 + 2.7, 3),
            (3.001, 4),
            (1e300, u32::MAX),
            (f64::NAN, 0),
            (-5.0, 0),
        ] {
            assert_eq!(Replicas::ceil(needed), Replicas(replicas), "{needed}");
        }
    }

    #[test]
    fn times_do_not_overflow() {
        assert_eq!(since(Timestamp::MIN, Timestamp::MAX), Duration::ZERO);
        assert_eq!(after(Timestamp::MAX, Duration::from_secs(1)), Timestamp::MAX);
        assert_eq!(after(Timestamp::UNIX_EPOCH, Duration::MAX), Timestamp::MAX);
    }
}
