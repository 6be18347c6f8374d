//! `docs/autoscaling/many.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::bench::{Machine, whole};

/// What one run has measured. What is `None` could not be seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Pipelines.
    pub pipelines: usize,
    /// Topics that they consume.
    pub topics: usize,
    /// Partitions of each of these.
    pub partitions: usize,
    /// Brokers.
    pub brokers: usize,
    /// The first look at all of them.
    pub first: First,
    /// While nothing happens.
    pub rest: Rest,
    /// After the operator was killed.
    pub restart: Restart,
    /// All of them deleted; none when that failed.
    pub deletion: Option<Deletion>,
}

/// From pipelines that nobody has looked at to all of them Ready.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct First {
    /// Until the API server had them; no operator ran.
    pub created: Duration,
    /// From the operator's start until its sweep had all of them.
    pub swept: Option<Duration>,
    /// From the operator's start until all were Ready.
    pub ready: Duration,
    /// Reconciles until then.
    pub reconciles: f64,
    /// Kafka requests until then.
    pub requests: Option<f64>,
    /// Processor time of the operator until then.
    pub cpu: Duration,
}

/// While nothing happens.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rest {
    /// How long processes were watched.
    pub watched: Duration,
    /// Processor time of the operator meanwhile.
    pub cpu: Duration,
    /// The same of all brokers together.
    pub brokers_cpu: Option<Duration>,
    /// The same of the API server.
    pub api_server_cpu: Option<Duration>,
    /// Resident memory of the operator at the end of it, in bytes.
    pub resident: u64,
    /// Its largest so far.
    pub peak: u64,
    /// From the end of one round of the sweep to the end of a later one.
    pub swept: Duration,
    /// Rounds in that time.
    pub rounds: f64,
    /// Of these, those that failed.
    pub failed: f64,
    /// Seconds of a round.
    pub round_seconds: Option<f64>,
    /// Kafka requests in that time, by their name; empty: not counted.
    pub requests: BTreeMap<String, f64>,
    /// Reconciles in that time: each resource is looked at now and then.
    pub reconciles: f64,
    /// Warnings in the operator's log since its start.
    pub warnings: usize,
    /// Pipelines and Deployments that somebody wrote meanwhile.
    pub changed: Vec<String>,
}

/// After the operator was killed and started again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Restart {
    /// From its start until its sweep had all pipelines again.
    pub swept: Duration,
    /// Processor time until then.
    pub cpu: Duration,
    /// Kafka requests until then.
    pub requests: Option<f64>,
    /// Resident memory two rounds later, in bytes.
    pub resident: u64,
    /// Its largest so far.
    pub peak: u64,
    /// Pipelines that were written from before the kill until two rounds later.
    pub pipelines: Vec<String>,
    /// Deployments that were written in that time.
    pub deployments: Vec<String>,
}

/// Deletion of all. What is none had not come to its end when the time was over.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Deletion {
    /// Until the API server had none of them any more.
    pub gone: Duration,
    /// Until none of their users was left on Kafka.
    pub users: Option<Duration>,
    /// Until Kubernetes had removed their Deployments.
    pub deployments: Option<Duration>,
}

/// The whole page.
pub fn render(report: &Report, machine: Machine) -> String {
    let Machine { cores, load } = machine;
    let Report { pipelines, topics, partitions, brokers, .. } = report;
    let mut text = format!(
        "<!-- Written by `make many`. Do not edit. -->\n\
         # {} pipelines that sleep\n\n\
         One operator as it ships, with the sweep's normal interval, on the real stack: Kubernetes of one node, {brokers} brokers with \
         TLS and SCRAM, all on {cores} cores of one machine together with the measurement.\n\n\
         Each pipeline consumes one of {topics} topics of {partitions} partitions, all produce to one topic, and nothing arrives. With \
         `autoscaling: {{minReplicas: 0}}` no worker runs, and each round of the sweep reads the offsets of each group and decides for \
         each pipeline. Each has a user and rights of its own on Kafka. They are made while no operator runs, asleep already, as after \
         the restore of a cluster.\n\n\
         The controllers of Kubernetes run with their default limit of requests (20 a second): that bounds how soon thousands of new \
         Deployments are looked at, and how soon those of deleted pipelines are removed.\n\n\
         The machine's load average was {load:.1} before the run.\n\n",
        whole(*pipelines as f64),
    );
    text.push_str("| | |\n|---|---|\n");
    let parts = [first(report), rest(report), restart(&report.restart), deletion(report.deletion.as_ref())];
    for (name, value) in parts.into_iter().flatten() {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    text
}

type Rows = Vec<(String, String)>;

fn first(report: &Report) -> Rows {
    let (first, pipelines) = (&report.first, report.pipelines as f64);
    let each = |all: Option<f64>| all.map(|all| format!("{} ({:.1} a pipeline)", whole(all), all / pipelines));
    vec![
        ("**From nothing to Ready**".into(), String::new()),
        ("made in the API server, without an operator".into(), seconds(first.created)),
        ("operator's start → the sweep has all (seen every 15 s)".into(), known(first.swept.map(seconds))),
        ("operator's start → all Ready (seen every 15 s)".into(), seconds(first.ready)),
        ("reconciles until then".into(), known(each(Some(first.reconciles)))),
        ("Kafka requests until then, the sweep's included".into(), known(each(first.requests))),
        ("processor time of the operator until then".into(), seconds(first.cpu)),
    ]
}

fn rest(report: &Report) -> Rows {
    let rest = &report.rest;
    let minute = |used: Duration| {
        let watched = rest.watched.as_secs_f64().max(1.0);
        format!("{:.1} s a minute", used.as_secs_f64() * 60.0 / watched)
    };
    let rounds = rest.rounds.max(1.0);
    let mut rows = vec![
        ("**At rest**".into(), String::new()),
        (
            "rounds of the sweep".into(),
            format!("{} in {}, {} of them failed", whole(rest.rounds), seconds(rest.swept), whole(rest.failed)),
        ),
        ("a round".into(), known(rest.round_seconds.map(|round| format!("{round:.2} s")))),
        ("processor time of the operator".into(), minute(rest.cpu)),
        ("… of the brokers".into(), known(rest.brokers_cpu.map(minute))),
        ("… of the API server".into(), known(rest.api_server_cpu.map(minute))),
        ("memory of the operator, now and largest (VmRSS, VmHWM)".into(), memory(rest.resident, rest.peak)),
        ("reconciles in those rounds".into(), whole(rest.reconciles)),
        ("warnings in its log since its start".into(), whole(rest.warnings as f64)),
        ("pipelines and Deployments written meanwhile".into(), whole(rest.changed.len() as f64)),
    ];
    let all: f64 = rest.requests.values().sum();
    let each = all / rounds / (report.pipelines as f64).max(1.0);
    let all = format!("{} ({each:.2} a pipeline)", whole(all / rounds));
    rows.push((
        "Kafka requests a round (counted every 5 s)".into(),
        known(Some(all).filter(|_| !rest.requests.is_empty())),
    ));
    let mut by_api: Vec<(&String, f64)> = rest.requests.iter().map(|(api, count)| (api, count / rounds)).collect();
    by_api.retain(|(_, count)| *count >= 0.05);
    by_api.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let count = |count: f64| if count < 100.0 { format!("{count:.1}") } else { whole(count) };
    rows.extend(by_api.into_iter().map(|(api, times)| (format!("… {api}"), count(times))));
    rows
}

fn restart(restart: &Restart) -> Rows {
    vec![
        ("**After a kill of the operator**".into(), String::new()),
        ("operator's start → the sweep has all again".into(), seconds(restart.swept)),
        ("processor time of the operator until then".into(), seconds(restart.cpu)),
        ("Kafka requests until then".into(), known(restart.requests.map(whole))),
        ("memory of the operator two rounds later, now and largest".into(), memory(restart.resident, restart.peak)),
        (
            "Deployments / pipelines written since before the kill".into(),
            format!("{} / {}", whole(restart.deployments.len() as f64), whole(restart.pipelines.len() as f64)),
        ),
    ]
}

fn deletion(deletion: Option<&Deletion>) -> Rows {
    let end = |when: fn(&Deletion) -> Option<Duration>| known(deletion.and_then(when).map(seconds));
    vec![
        ("**All deleted**".into(), String::new()),
        ("until no pipeline is left".into(), end(|deletion| Some(deletion.gone))),
        ("until none of their users is left on Kafka (seen every 15 s)".into(), end(|deletion| deletion.users)),
        ("until Kubernetes has removed the Deployments (seen every 15 s)".into(), end(|deletion| deletion.deployments)),
    ]
}

fn known(text: Option<String>) -> String {
    text.unwrap_or_else(|| "unknown".to_owned())
}

fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 100.0 { format!("{seconds:.1} s") } else { format!("{} s", whole(seconds)) }
}

fn memory(resident: u64, peak: u64) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    format!("{:.0} / {:.0} MiB", mib(resident), mib(peak))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_those_of_a_round_and_what_was_not_seen_is_unknown() {
        let rest = Rest {
            watched: Duration::from_secs(30),
            cpu: Duration::from_secs(3),
            rounds: 2.0,
            requests: [("Metadata", 6.0), ("OffsetFetch", 6_000.0)].map(|(api, n)| (api.to_owned(), n)).into(),
            ..Rest::default()
        };
        let report = Report { pipelines: 3_000, rest, ..Report::default() };
        let page = render(&report, Machine { cores: 2, load: 0.5 });
        for line in [
            "# 3,000 pipelines that sleep",
            "| processor time of the operator | 6.0 s a minute |",
            "| Kafka requests a round (counted every 5 s) | 3,003 (1.00 a pipeline) |",
            "| … OffsetFetch | 3,000 |",
            "| … Metadata | 3.0 |",
            "| a round | unknown |",
            "| until no pipeline is left | unknown |",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        assert!(page.starts_with("<!-- Written by `make many`. Do not edit. -->\n"));
        assert!(
            render(&Report::default(), Machine { cores: 1, load: 0.0 })
                .contains("| Kafka requests a round (counted every 5 s) | unknown |")
        );
    }
}
