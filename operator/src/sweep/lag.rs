//! Offsets over time → seconds behind, coarse steps that have lasted, progress of views. Pure.

use std::collections::VecDeque;

use sluice_crds::report::PartitionReport;

/// Samples kept of a partition's end. As they are thinned out, that is a day within a sixth of the time that has passed.
const SAMPLES: usize = 60;
/// How long a new value must last before it is shown, in milliseconds.
const LASTS_MS: i64 = 30_000;
/// A view that is at most so far behind has caught up, in seconds.
const CAUGHT_UP_SECONDS: i64 = 30;
/// Upper ends of the steps, in seconds.
const STEPS: [i64; 12] = [0, 1, 2, 5, 10, 30, 60, 300, 900, 3_600, 21_600, 86_400];

/// Lag of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionLag {
    /// Records between the committed offset and the end.
    pub records: i64,
    /// Since when the end is beyond the committed offset, in seconds; at least that, for what was so before we looked.
    pub seconds: i64,
    /// At most so many seconds ago the end was where the committed offset is; none = it was beyond it whenever we looked.
    /// Commit markers and aborted batches have offsets and no record: this counts positions, so they do no harm as long as
    /// the reader commits the end of a partition and not its last record.
    pub at_most_seconds: Option<i64>,
}

/// Where a partition ended, and when. A partition that nobody writes to costs two samples.
#[derive(Clone, Debug, Default)]
pub struct EndHistory {
    samples: VecDeque<(i64, i64)>,
}

impl EndHistory {
    /// Notes the end at a time (milliseconds).
    pub fn note(&mut self, now: i64, end: i64) {
        // A topic made anew begins anew.
        if self.samples.back().is_some_and(|(_, last)| *last > end) {
            self.samples.clear();
        }
        let stands = |at: usize| self.samples.len().checked_sub(at).is_some_and(|at| self.samples[at].1 == end);
        if stands(1) && stands(2) {
            // It stood here all the while.
            self.samples.pop_back();
        } else if self.samples.len() == SAMPLES {
            self.thin_out(now);
        }
        self.samples.push_back((now, end));
    }

    /// Gives up the sample that is missed least: the one with the smallest gap around it, for its age. Lag in seconds is a
    /// matter of proportion: nobody asks whether an hour was ten seconds longer.
    fn thin_out(&mut self, now: i64) {
        let gap = |at: usize| {
            let (before, (time, _), after) = (self.samples[at - 1].0, self.samples[at], self.samples[at + 1].0);
            (after - before) as f64 / (now - time).max(1) as f64
        };
        let least = (1..self.samples.len() - 1).min_by(|one, other| gap(*one).total_cmp(&gap(*other)));
        // The first says since when nothing is known, the last where it ends.
        self.samples.remove(least.unwrap_or(0));
    }

    /// Where it ended at this very time, if it was read then.
    pub fn end_at(&self, now: i64) -> Option<i64> {
        self.samples.back().filter(|(time, _)| *time == now).map(|(_, end)| *end)
    }

    /// Lag of a reader at `committed`, without reading a single record.
    pub fn lag(&self, now: i64, committed: i64) -> Option<PartitionLag> {
        let (_, end) = self.samples.back()?;
        let records = (end - committed).max(0);
        let since = self.samples.iter().find(|(_, end)| *end > committed).map(|(time, _)| *time);
        let seconds = since.filter(|_| records > 0).map_or(0, |since| (now - since).max(0) / 1_000);
        let there = self.samples.iter().rev().find(|(_, end)| *end <= committed).map(|(time, _)| *time);
        let at_most_seconds = there.map(|time| (now - time).max(0) / 1_000);
        Some(PartitionLag { records, seconds, at_most_seconds })
    }
}

/// The step a lag is in, by its upper end.
pub fn step(seconds: i64) -> i64 {
    STEPS.into_iter().find(|step| seconds <= *step).unwrap_or(86_400)
}

/// True when a partition's views are at the end of the topic, by what its worker reported.
///
/// A stream is never quite at its end, so it suffices to have been where the end was half a minute ago. That must have been
/// seen: after a start of the operator, a reader that is a million records behind has an unknown lag, not a small one.
pub fn is_caught_up(report: &PartitionReport, epoch: u64, lag: PartitionLag) -> bool {
    report.epoch == Some(epoch)
        && report.slots_behind.unwrap_or(0) == 0
        && !report.deletions_missed
        && report.repair_offset.is_none()
        && lag.at_most_seconds.is_some_and(|seconds| seconds <= CAUGHT_UP_SECONDS)
}

/// A value that is shown only when it has lasted: status must not be written for every flicker.
#[derive(Clone, Debug)]
pub struct Debounced<T> {
    shown: Option<T>,
    candidate: Option<(T, i64)>,
}

impl<T> Default for Debounced<T> {
    fn default() -> Self {
        Self { shown: None, candidate: None }
    }
}

impl<T: Copy + PartialEq> Debounced<T> {
    /// Notes the value at a time (milliseconds); true when what is shown changed. The first one is shown at once, and
    /// so is one that is `urgent`.
    pub fn note(&mut self, now: i64, value: T, urgent: bool) -> bool {
        if self.shown == Some(value) {
            self.candidate = None;
            return false;
        }
        let since = match self.candidate {
            Some((candidate, since)) if candidate == value => since,
            _ => now,
        };
        self.candidate = Some((value, since));
        if self.shown.is_some() && !urgent && now - since < LASTS_MS {
            return false;
        }
        self.shown = Some(value);
        self.candidate = None;
        true
    }

    /// What is shown.
    pub fn published(&self) -> Option<T> {
        self.shown
    }

    /// Shows nothing again.
    pub fn clear(&mut self) {
        *self = Self { shown: None, candidate: None };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_in_seconds_counts_from_when_the_end_passed_the_reader() {
        let mut history = EndHistory::default();
        for (now, end) in [(0, 100), (10_000, 200), (20_000, 300)] {
            history.note(now, end);
        }
        for (committed, records, seconds, at_most) in
            [(300, 0, 0, Some(0)), (250, 50, 0, Some(10)), (150, 150, 10, Some(20)), (0, 300, 20, None)]
        {
            let lag = PartitionLag { records, seconds, at_most_seconds: at_most };
            assert_eq!(history.lag(20_000, committed), Some(lag), "{committed}");
        }
        history.note(30_000, 5);
        assert_eq!(history.lag(30_000, 5), Some(lag(0, 0, Some(0))), "made anew");
    }

    fn lag(records: i64, seconds: i64, at_most_seconds: Option<i64>) -> PartitionLag {
        PartitionLag { records, seconds, at_most_seconds }
    }

    #[test]
    fn an_empty_partition_has_no_lag_and_a_reader_far_behind_has_no_small_one() {
        let mut history = EndHistory::default();
        history.note(0, 0);
        assert_eq!(history.lag(0, 0), Some(lag(0, 0, Some(0))), "an empty topic");
        history.note(10_000, 1_000_000);
        assert_eq!(history.lag(10_000, 1), Some(lag(999_999, 0, Some(10))));
        let mut after_restart = EndHistory::default();
        after_restart.note(0, 1_000_000);
        assert_eq!(after_restart.lag(0, 1), Some(lag(999_999, 0, None)));
        // What retention or compaction removed below the end is no lag: offsets count, and the end was reached.
        assert_eq!(after_restart.lag(0, 1_000_000), Some(lag(0, 0, Some(0))));
    }

    #[test]
    fn a_day_is_remembered_in_proportion_and_bounded() {
        let mut history = EndHistory::default();
        let day = 86_400;
        (0..=day / 5).for_each(|n| history.note(n * 5_000, n));
        assert_eq!(history.samples.len(), SAMPLES);
        let ends = (history.samples.front().unwrap().1, history.samples.back().unwrap().1);
        assert_eq!(ends, (0, day / 5), "the beginning and the end are never given up");
        for behind in [1, 2, 12, 60, 720, 6_000, 17_000] {
            let (seconds, known) = (behind * 5, history.lag(day * 1_000, day / 5 - behind).unwrap());
            let least = (seconds - 5) * 4 / 5;
            assert!((least..=seconds).contains(&known.seconds), "{seconds}: {known:?}");
            let most = (seconds + 5) * 6 / 5;
            assert!((seconds..=most).contains(&known.at_most_seconds.unwrap()), "{seconds}: {known:?}");
        }
    }

    #[test]
    fn a_partition_that_nobody_writes_to_costs_two_samples_and_loses_nothing() {
        let mut history = EndHistory::default();
        (0..1_000).for_each(|n| history.note(n * 5_000, 7));
        assert_eq!(history.samples.len(), 2);
        let now = 999 * 5_000;
        assert_eq!(history.lag(now, 6), Some(lag(1, 4_995, None)), "since the first look");
        assert_eq!(history.lag(now, 7), Some(lag(0, 0, Some(0))));
        history.note(now + 5_000, 8);
        assert_eq!(history.lag(now + 5_000, 7), Some(lag(1, 0, Some(5))));
        assert_eq!((history.end_at(now + 5_000), history.end_at(now)), (Some(8), None));
    }

    #[test]
    fn steps_are_upper_ends() {
        for (seconds, expected) in [(0, 0), (1, 1), (3, 5), (31, 60), (301, 900), (1_000_000, 86_400)] {
            assert_eq!(step(seconds), expected);
        }
    }

    #[test]
    fn a_value_is_shown_first_and_then_only_when_it_has_lasted() {
        let mut lag = Debounced::default();
        assert!(lag.note(0, 0, false));
        assert!(!lag.note(10_000, 5, false));
        assert!(!lag.note(20_000, 0, false), "back: the candidate is forgotten");
        assert!(!lag.note(30_000, 5, false));
        assert!(!lag.note(59_999, 5, false));
        assert!(lag.note(60_000, 5, false));
        assert_eq!(lag.published(), Some(5));
        assert!(lag.note(60_001, 0, true), "urgent ones do not wait");
    }

    #[test]
    fn only_the_current_epoch_without_repairs_at_the_end_has_caught_up() {
        let report = PartitionReport { epoch: Some(7), slots_behind: Some(0), ..PartitionReport::default() };
        let at_end = lag(0, 0, Some(0));
        assert!(is_caught_up(&report, 7, at_end));
        assert!(!is_caught_up(&report, 8, at_end));
        assert!(!is_caught_up(&PartitionReport { slots_behind: Some(1), ..report }, 7, at_end));
        assert!(!is_caught_up(&PartitionReport { repair_offset: Some(1), ..report }, 7, at_end));
        assert!(!is_caught_up(&PartitionReport { deletions_missed: true, ..report }, 7, at_end));
        assert!(!is_caught_up(&report, 7, lag(9, 21, Some(31))));
        assert!(is_caught_up(&report, 7, lag(9, 2, Some(12))), "a stream is never quite at its end");
        assert!(!is_caught_up(&report, 7, lag(999_999, 0, None)), "unknown is not small");
    }
}
