//! Samples out of Prometheus' text format as the operator writes it: no comma, brace or quote is in a label's value.

use std::collections::BTreeMap;

/// Samples of a metric: its labels as they are written, and its value.
pub fn samples<'a>(page: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
    page.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once("} ")?,
            // Another metric whose name only begins like this one has no space here.
            None => ("", rest.strip_prefix(' ')?),
        };
        Some((labels, value.trim_end().parse().ok()?))
    })
}

/// The value of a label.
pub fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
}

/// Sum of a metric's samples that have this label; none when there is no such sample.
pub fn sum_with(page: &str, name: &str, (wanted, value): (&str, &str)) -> Option<f64> {
    let with = samples(page, name).filter(|(labels, _)| label(labels, wanted) == Some(value));
    with.map(|(_, value)| value).reduce(|sum, value| sum + value)
}

/// Sums of a metric's samples by the value of a label.
pub fn sums_by(page: &str, name: &str, wanted: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for (labels, value) in samples(page, name) {
        if let Some(by) = label(labels, wanted) {
            *sums.entry(by.to_owned()).or_default() += value;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "HTTP/1.1 200 OK\r\n\r\n\
        # HELP sluice_operator_sweeps Rounds over a connection.\n\
        sluice_operator_sweeps_total{server=\"kafka\",outcome=\"ok\"} 7\n\
        sluice_operator_sweeps_total{server=\"kafka\",outcome=\"failed\"} 2\n\
        sluice_operator_sweeps_total{server=\"redis\",outcome=\"ok\"} 9\n\
        sluice_operator_sweep_seconds_sum{server=\"kafka\"} 3.25\n\
        sluice_operator_settings_broken 0\n\
        # EOF\n";

    #[test]
    fn samples_are_those_of_the_metric_alone() {
        assert_eq!(samples(PAGE, "sluice_operator_settings_broken").collect::<Vec<_>>(), [("", 0.0)]);
        assert_eq!(samples(PAGE, "sluice_operator_sweep").count(), 0);
        assert_eq!(samples(PAGE, "sluice_operator_sweeps_total").count(), 3);
    }

    #[test]
    fn sums_are_by_label_and_what_is_not_there_is_no_zero() {
        let sweeps = "sluice_operator_sweeps_total";
        assert_eq!(sum_with(PAGE, sweeps, ("server", "kafka")), Some(9.0));
        assert_eq!(sum_with(PAGE, sweeps, ("server", "other")), None);
        assert_eq!(sum_with(PAGE, "sluice_operator_sweep_seconds_sum", ("server", "kafka")), Some(3.25));
        let by = sums_by(PAGE, sweeps, "outcome");
        assert_eq!(by, BTreeMap::from([("ok".to_owned(), 16.0), ("failed".to_owned(), 2.0)]));
        assert!(sums_by(PAGE, "sluice_operator_kafka_requests_total", "api").is_empty());
    }
}
