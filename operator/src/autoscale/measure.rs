//! Offsets, ends and reports of one partition over time → rates and lag. Pure.
//!
//! Offsets are no records: commit markers, aborted batches and what compaction removed have offsets too. Workers say how many
//! records they have processed, so the share of offsets that are records is known for what was read, and what comes next
//! is taken to be like it.

use std::time::Duration;

use sluice_autoscaler::{Messages, Partition, Rate};
use sluice_clients::kafka::admin::CommittedOffset;
use sluice_crds::report::PartitionReport;

use crate::sweep::EndHistory;

/// How fast the share of records follows what was last read.
const DENSITY_STEP: f64 = 0.3;
/// Smallest share that is believed: anybody who may commit to the group could say that it holds no records.
const MIN_DENSITY: f64 = 0.01;

/// What one round has read of a partition. What is `None` could not be read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look<'a> {
    /// Its ends for readers of committed records, over time. One that was not read now is none.
    pub ends: Option<&'a EndHistory>,
    /// Its beginning; only asked for where it matters.
    pub start: Option<i64>,
    /// What the group has committed.
    pub committed: Option<&'a CommittedOffset>,
}

/// What is remembered of a partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Tracker {
    last: Option<Last>,
    density: Option<f64>,
}

/// The last look.
#[derive(Clone, Copy, Debug)]
struct Last {
    at: i64,
    end: i64,
    committed: Option<i64>,
    report: Option<PartitionReport>,
}

/// Records processed and seconds of work, a second.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Work {
    processed: f64,
    busy: Option<f64>,
}

impl Tracker {
    /// Takes in one look, at a time in milliseconds.
    pub fn update(&mut self, now: i64, look: Look<'_>) -> Partition {
        let Some((ends, end)) = look.ends.and_then(|ends| Some((ends, ends.end_at(now)?))) else {
            return Partition::default();
        };
        // Anybody who may commit to the group could have written it: it is parsed as hostile, and what it says is bounded.
        let report = look.committed.and_then(|committed| PartitionReport::parse(&committed.metadata).ok());
        let committed = look.committed.map(|committed| committed.offset);
        let last = self.last.replace(Last { at: now, end, committed, report });
        let elapsed = last.map(|last| (now - last.at) as f64 / 1_000.0).filter(|elapsed| *elapsed > 0.0);
        self.learn_density(last, committed, report);
        let density = self.density.unwrap_or(1.0);
        let arrived = last.and_then(|last| Some(((end - last.end) as f64) * density / elapsed?));
        let work = last.and_then(|last| work(&last, committed, report, elapsed?, density));
        // What retention has removed is not waited for.
        let position = committed.map(|offset| offset.max(look.start.unwrap_or(offset)));
        let lag = position.map(|position| ((end - position).max(0) as f64 * density).ceil());
        let oldest = position.and_then(|position| ends.lag(now, position)).map_or(0, |lag| lag.seconds);
        Partition {
            lag: lag.map(|lag| Messages(bounded(lag))),
            oldest: Some(Duration::from_secs(oldest.unsigned_abs())),
            arrival: arrived.and_then(Rate::new),
            processed: work.and_then(|work| Rate::new(work.processed)),
            busy: work.and_then(|work| work.busy).and_then(Rate::new),
        }
    }

    /// The share of offsets that are records, from what was read between two reports of one owner.
    fn learn_density(&mut self, last: Option<Last>, committed: Option<i64>, report: Option<PartitionReport>) {
        let read = last.and_then(|last| {
            let (before, now) = (last.report?, report?);
            let offsets = committed? - last.committed?;
            let records = now.records.checked_sub(before.records)?;
            (before.since == now.since && offsets > 0).then(|| records as f64 / offsets as f64)
        });
        if let Some(read) = read {
            let read = read.clamp(MIN_DENSITY, 1.0);
            self.density = Some(self.density.map_or(read, |known| known + (read - known) * DENSITY_STEP));
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a count of offsets, not negative; `as` ends at the bounds")]
fn bounded(count: f64) -> u64 {
    count as u64
}

/// What was done since the last look. By the worker's own clock where it reports; else by what was committed.
fn work(
    last: &Last,
    committed: Option<i64>,
    report: Option<PartitionReport>,
    elapsed: f64,
    density: f64,
) -> Option<Work> {
    let by_commits = || {
        let offsets = committed? - last.committed?;
        // Set back by somebody: nothing is known of what was done.
        (offsets >= 0).then(|| Work { processed: offsets as f64 * density / elapsed, busy: None })
    };
    let Some(now) = report else { return by_commits() };
    let (records, busy, from) = match last.report {
        Some(before) if before.since == now.since && before.at == now.at => return by_commits(),
        Some(before) if before.since == now.since => (before.records, before.busy_micros, before.at),
        // An owner that began after the last look: all it has done is news.
        Some(before) if now.since >= before.at => (0, 0, now.since),
        _ => return by_commits(),
    };
    let seconds = now.at.checked_sub(from).filter(|millis| *millis > 0)? as f64 / 1_000.0;
    Some(Work {
        processed: now.records.checked_sub(records)? as f64 / seconds,
        busy: Some(now.busy_micros.checked_sub(busy)? as f64 / 1e6 / seconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(offset: i64, since: u64, at: u64, records: u64, busy_micros: u64) -> CommittedOffset {
        let report = PartitionReport { since, at, records, busy_micros, ..PartitionReport::default() };
        CommittedOffset { offset, metadata: report.encode() }
    }

    /// A partition, and where it ended.
    #[derive(Default)]
    struct Looked {
        tracker: Tracker,
        ends: EndHistory,
    }

    impl Looked {
        fn at(&mut self, now: i64, end: i64, committed: &CommittedOffset) -> Partition {
            self.from(now, None, end, committed)
        }

        fn from(&mut self, now: i64, start: Option<i64>, end: i64, committed: &CommittedOffset) -> Partition {
            self.ends.note(now, end);
            self.tracker.update(now, Look { ends: Some(&self.ends), start, committed: Some(committed) })
        }
    }

    fn rate(rate: Option<Rate>) -> f64 {
        rate.map_or(f64::NAN, Rate::per_second)
    }

    #[test]
    fn rates_come_from_reports_and_lag_from_offsets() {
        let mut looked = Looked::default();
        let first = looked.at(10_000, 1_000, &said(900, 1, 10_000, 500, 1_000_000));
        assert_eq!((first.lag, first.processed, first.arrival), (Some(Messages(100)), None, None));
        // 400 records in two seconds of work over four seconds; the offsets between them are all records.
        let second = looked.at(15_000, 1_500, &said(1_300, 1, 14_000, 900, 3_000_000));
        assert_eq!(second.lag, Some(Messages(200)));
        assert!((rate(second.processed) - 100.0).abs() < 1e-9 && (rate(second.busy) - 0.5).abs() < 1e-9, "{second:?}");
        assert!((rate(second.arrival) - 100.0).abs() < 1e-9, "{second:?}");
        assert_eq!(second.oldest, Some(Duration::ZERO), "the end was not beyond 1,300 before now");
        let third = looked.at(20_000, 1_500, &said(1_300, 1, 14_000, 900, 3_000_000));
        assert_eq!((third.oldest, rate(third.processed)), (Some(Duration::from_secs(5)), 0.0));
        assert_eq!(third.busy, None, "nothing new was said");
    }

    #[test]
    fn offsets_that_are_no_records_do_not_count() {
        let mut looked = Looked::default();
        looked.at(0, 100, &said(0, 1, 0, 0, 0));
        // Each record has a commit marker behind it.
        let half = looked.at(10_000, 200, &said(100, 1, 10_000, 50, 1_000));
        assert_eq!(half.lag, Some(Messages(50)));
        assert!((rate(half.arrival) - 5.0).abs() < 1e-9, "{half:?}");
        // The worker has committed past the last marker.
        let none = looked.at(20_000, 200, &said(200, 1, 20_000, 100, 2_000));
        assert_eq!((none.lag, rate(none.arrival)), (Some(Messages(0)), 0.0));
    }

    #[test]
    fn what_retention_removed_is_not_waited_for() {
        let mut looked = Looked::default();
        let committed = CommittedOffset { offset: 10, metadata: String::new() };
        let found = looked.from(0, Some(90), 100, &committed);
        assert_eq!(found.lag, Some(Messages(10)));
    }

    #[test]
    fn a_new_owner_counts_from_its_beginning_and_other_software_by_its_commits() {
        let mut looked = Looked::default();
        looked.at(0, 1_000, &said(0, 1, 5, 700, 7));
        let taken = looked.at(10_000, 1_000, &said(500, 6_000, 10_000, 400, 2_000_000));
        assert!((rate(taken.processed) - 100.0).abs() < 1e-9 && (rate(taken.busy) - 0.5).abs() < 1e-9, "{taken:?}");
        let plain = CommittedOffset { offset: 600, metadata: "x".to_owned() };
        let foreign = looked.at(20_000, 1_000, &plain);
        assert_eq!((rate(foreign.processed), foreign.busy), (10.0, None));
    }

    #[test]
    fn hostile_reports_end_here() {
        let mut looked = Looked::default();
        looked.at(0, 1_000, &said(0, 1, 1_000, 700, 700));
        let back = looked.at(10_000, 1_000, &said(10, 1, 500, 1, 1));
        assert_eq!((back.processed, back.busy), (None, None));
        let all = looked.at(20_000, 1_000, &said(20, 1, 501, u64::MAX, u64::MAX));
        assert!(rate(all.processed) <= 1e12 && rate(all.busy) <= 1e12, "{all:?}");
        let empty = looked.at(30_000, 1_000, &said(900, 1, 502, u64::MAX, u64::MAX));
        assert_eq!(empty.lag, Some(Messages(71)), "a claim of no records at all is not believed at once, nor wholly");
        // Its end was read before, and not now.
        let gone = looked.tracker.update(40_000, Look { ends: Some(&looked.ends), ..Look::default() });
        assert_eq!(gone, Partition::default());
        let anew = looked.at(50_000, 5, &said(0, 1, 503, 0, 0));
        assert_eq!((anew.arrival, anew.processed), (None, None), "a topic made anew");
    }
}
