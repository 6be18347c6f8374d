//! I9: when nothing is produced any more, nobody lags.

use std::collections::BTreeMap;

use super::report::Report;
use super::violation::Violation;

/// Checks that a group has committed the end of every partition.
pub fn check_lag(group: &str, committed: &BTreeMap<i32, i64>, ends: &BTreeMap<i32, i64>) -> Report {
    let mut report = Report::default();
    for (&partition, &end) in ends {
        let found = committed.get(&partition).copied();
        // A partition that never held anything needs no offset.
        if found.unwrap_or(0) != end {
            report.found(Violation::Lag { group: group.to_owned(), partition, committed: found, end });
        }
    }
    report.count("group partitions", ends.len());
    report
}
