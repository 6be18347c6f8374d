//! Whether deletions may have been missed. Compaction removes a tombstone some time after it was written (`delete.retention.ms`);
//! what was not brought forward for longer never sees it, and the key that it deletes would stay in Redis for ever.
//!
//! Half of that time is the bound: the other half is for the lag before and the reading after it. Nothing is missed where nothing
//! was written meanwhile, so a view at the end of its topic may be left alone for any time. What may have been missed cannot be
//! found out, so only a new epoch, which clears the views, ends it; until then each record says it to the next owner.

use super::held::{Held, Place};
use super::partition::{Context, Partition};
use super::types::LineId;

/// Shorter absences are none, in milliseconds: else every restart would be one where tombstones are kept for seconds. The log
/// cleaner itself needs two passes for a tombstone, and rests 15 s between them.
const SHORTEST: u64 = 60_000;
/// A record is written again after this part of the bound, though nothing moves: then the first records after a long silence do
/// not make a restart an absence.
const RENEWED: u64 = 4;
/// As the time of a record: deletions may have been missed.
const MISSED: u64 = 0;

/// Longest absence in which nothing is missed, in milliseconds, where tombstones are `kept` for so long.
fn bound(kept: u64) -> u64 {
    (kept / 2).max(SHORTEST)
}

/// What is known of one shard and partition. Times are Unix milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Absence {
    /// When all of it was last known to go forward, or to have nothing before it.
    forward_at: u64,
    /// The same, as the record on the shard says it.
    recorded_at: u64,
    /// It was at the end of the log while this process looked.
    followed: bool,
    /// Deletions may have been missed.
    missed: bool,
}

impl Absence {
    /// The shard's record was read, or has changed without our doing; none: there is none of our epoch, and nothing is held.
    pub(super) fn read(&mut self, wall_ms: Option<u64>, now_ms: u64) {
        *self = Self {
            forward_at: wall_ms.unwrap_or(now_ms),
            recorded_at: wall_ms.unwrap_or(now_ms),
            followed: false,
            missed: wall_ms.is_some_and(|wall_ms| self.missed || wall_ms == MISSED),
        };
    }

    /// A record with this time was written.
    pub(super) fn wrote(&mut self, wall_ms: u64) {
        self.recorded_at = wall_ms;
        self.forward_at = self.forward_at.max(wall_ms);
    }

    /// Whether a record is to be written only for its time.
    pub(super) fn is_to_be_renewed(&self, kept: Option<u64>) -> bool {
        let Some(kept) = kept else { return false };
        let age = self.forward_at.saturating_sub(self.recorded_at);
        if self.missed { self.recorded_at != MISSED } else { age >= bound(kept) / RENEWED }
    }

    /// Looks at the time. `behind`: the log has more than is held; `at_end`: it is held to its end, and read on. True when
    /// deletions may have been missed from now on.
    fn look(&mut self, behind: bool, at_end: bool, now_ms: u64, kept: u64) -> bool {
        let too_long = now_ms.saturating_sub(self.forward_at) >= bound(kept);
        // Who has followed and looks so late was frozen: what it takes for the end is the end of then.
        let found = !self.missed && too_long && (behind || (at_end && self.followed));
        self.missed |= found;
        if at_end {
            (self.forward_at, self.followed) = (now_ms, true);
        }
        found
    }
}

impl Held {
    /// The time of a record that is written now.
    pub(super) fn wall_ms(&self, now_ms: u64, kept: Option<u64>) -> u64 {
        match kept {
            Some(_) if self.absence.missed => MISSED,
            // What is parked is not brought forward, whatever is written of the rest.
            Some(_)
                if self.groups.iter().any(|group| group.offset > 0 && matches!(group.place, Place::Parked { .. })) =>
            {
                self.absence.forward_at
            }
            _ => now_ms,
        }
    }
}

impl Partition {
    /// How long compaction leaves tombstones in the topic at least; none = it removes none.
    pub(super) fn tombstones_kept(&self, context: &Context<'_>) -> Option<u64> {
        context.settings.tombstones_kept_ms.get(usize::from(self.id.topic)).copied().flatten()
    }

    /// True while a shard may show what was deleted.
    pub(super) fn has_missed_deletions(&self) -> bool {
        self.held.values().any(|held| held.absence.missed)
    }

    /// Notes which shards may have missed deletions, and which are at the end of the log.
    pub(super) fn watch_absence(&mut self, context: &mut Context<'_>) {
        let Some(kept) = self.tombstones_kept(context) else { return };
        let (main, idle) = (&self.main, self.main.window.is_none() && self.main.queue.is_empty());
        let fetched = main.queue.back().map(|last| last.offset + 1).or(main.window.as_ref().map(|window| window.to));
        let end = main.position.max(main.end.unwrap_or(0)).max(fetched.unwrap_or(0));
        let at_end = main.active && idle && main.end == Some(main.position);
        for held in self.held.values_mut() {
            // What is at 0 is made anew from the beginning of the log.
            let behind = held.groups.iter().any(|group| group.offset > 0 && group.offset < end);
            let all_there = at_end && held.groups.iter().all(|group| group.place == Place::Line(LineId::Main));
            context.stats.missed_deletions += u64::from(held.absence.look(behind, all_there, context.wall_ms, kept));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const DAY: u64 = 24 * HOUR;

    /// As after a record of this time was read.
    fn read(wall_ms: u64) -> Absence {
        let mut absence = Absence::default();
        absence.read(Some(wall_ms), 1_000 * DAY);
        absence
    }

    #[test]
    fn half_of_what_tombstones_are_kept_for_is_too_long_if_there_is_anything_to_miss() {
        let now = 1_000 * DAY;
        for (kept, age, behind, missed) in [
            (DAY, 12 * HOUR, true, true),
            (DAY, 12 * HOUR - 1, true, false),
            (DAY, 12 * HOUR, false, false),
            (DAY, 300 * DAY, false, false),
            (0, SHORTEST - 1, true, false),
            (0, SHORTEST, true, true),
            (u64::MAX, 999 * DAY, true, false),
        ] {
            assert_eq!(read(now - age).look(behind, !behind, now, kept), missed, "{kept} {age} {behind}");
        }
        assert!(!read(now + DAY).look(true, false, now, DAY), "written by a clock that goes before");
    }

    #[test]
    fn nothing_is_missed_while_the_end_is_followed_and_by_whom_there_is_no_record() {
        let mut absence = read(0);
        absence.read(None, 5 * DAY);
        assert!(!absence.look(true, false, 5 * DAY, DAY));
        for hour in 0..100 {
            assert!(!absence.look(false, true, 5 * DAY + hour * HOUR, DAY));
        }
        assert!(!absence.look(true, false, 5 * DAY + 100 * HOUR, DAY), "the first record after a long silence");
        let frozen = absence.look(false, true, 5 * DAY + 120 * HOUR, DAY);
        assert!(frozen, "the end it knows is of a day ago");
    }

    #[test]
    fn what_may_have_been_missed_is_remembered_by_the_record_until_there_is_none_of_the_epoch() {
        let mut absence = read(7 * DAY);
        assert!(absence.look(true, false, 8 * DAY, DAY));
        assert!(!absence.look(true, false, 8 * DAY, DAY), "counted once");
        assert!(absence.missed && absence.is_to_be_renewed(Some(DAY)));
        absence.wrote(MISSED);
        assert!(!absence.is_to_be_renewed(Some(DAY)), "it says so");
        assert!(read(MISSED).missed);
        absence.read(Some(9 * DAY), 9 * DAY);
        assert!(absence.missed, "somebody who did not know wrote it");
        absence.read(None, 9 * DAY);
        assert!(!absence.missed);
    }

    #[test]
    fn the_record_of_an_idle_view_is_renewed_now_and_then() {
        let mut absence = read(DAY);
        assert!(!absence.look(false, true, DAY + 3 * HOUR - 1, DAY));
        assert!(!absence.is_to_be_renewed(Some(DAY)));
        absence.look(false, true, DAY + 3 * HOUR, DAY);
        assert!(absence.is_to_be_renewed(Some(DAY)) && !absence.is_to_be_renewed(None));
        absence.wrote(DAY + 3 * HOUR);
        assert!(!absence.is_to_be_renewed(Some(DAY)));
    }
}
