//! What one operator costs with thousands of pipelines: the time of a round of its sweep, memory, processor time, requests to
//! Kafka; and that nothing is written while nothing happens. The pipelines sleep from the beginning: no pod runs.

mod many;
mod operator;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use many::{Fleet, Outcome, changed, poll};
use operator::{Operator, PATIENCE};
use sluice_clients::kafka::admin::Admin;
use sluice_e2e::bench::{Machine, cpu_us, pids};
use sluice_e2e::datapath::kafka::{self, TopicSpec};
use sluice_e2e::many::{Deletion, First, Report, Rest, Restart, render, scrape};
use sluice_e2e::stack::process::ProcessId;
use sluice_e2e::stack::{Group, require};
use sluice_e2e::worker_process::{Usage, usage_of};

/// Topics that the pipelines share, and partitions of each.
const TOPICS: usize = 100;
const PARTITIONS: usize = 4;
/// Longest first look at all of them; longest second one, and longest deletion.
const FIRST: Duration = Duration::from_secs(30 * 60);
const AGAIN: Duration = Duration::from_secs(20 * 60);
const GONE: Duration = Duration::from_secs(20 * 60);
/// Longest wait for the end of a round of the sweep: it has limits of its own, a minute for each of its parts.
const ROUND: Duration = Duration::from_secs(5 * 60);
/// Longest wait for the last writes, and how long nothing must have been written: what is shown must have lasted 30 s.
const SETTLE: Duration = Duration::from_secs(10 * 60);
const QUIET: Duration = Duration::from_secs(60);
/// How long processes are watched at rest.
const WATCHED: Duration = Duration::from_secs(60);
/// Between two looks at thousands of objects, at the operator's page of thousands of lags, and at that page for a moment.
const LOOK: Duration = Duration::from_secs(15);
const GLANCE: Duration = Duration::from_secs(2);
const BLINK: Duration = Duration::from_millis(250);
/// Groups that are deleted by one call.
const GROUPS: usize = 250;

const SWEEPS: &str = "sluice_operator_sweeps_total";
const SWEEP_SUM: &str = "sluice_operator_sweep_seconds_sum";
const SWEEP_COUNT: &str = "sluice_operator_sweep_seconds_count";
const REQUESTS: &str = "sluice_operator_kafka_requests_total";
const RECONCILES: &str = "sluice_operator_reconciles_total";
const LAGS: &str = "kafka_consumer_lag";

/// An hour, so not a part of `make test`: `make many` runs it.
#[test]
#[ignore = "takes up to an hour; run by `make many`"]
fn thousands_sleep_and_nothing_is_written_while_nothing_happens() {
    let Some(stack) = require(&[Group::Kafka, Group::Redis, Group::Kube]) else { return };
    let machine = Machine::here();
    let count = std::env::var("PIPELINES").ok().and_then(|count| count.parse().ok()).unwrap_or(3_000);
    let mut many = Many::new(Operator::start(&stack, "many"), count).expect("clients");
    let measured = many.measure();
    // Before the deletion, which takes as long as all the rest.
    if let Ok(report) = &measured {
        write(report, machine);
    }
    // Whatever came of it: thousands of users and Deployments would be in the way of other tests.
    let deletion = many.delete();
    many.clean_up();
    if let Err(error) = &deletion {
        println!("deletion: {error}");
    }
    let report = measured.unwrap_or_else(|error| panic!("{error}\n{}", many.end_of_log()));
    let report = Report { deletion: deletion.ok(), ..report };
    write(&report, machine);
    assert!(report.rest.changed.is_empty(), "written at rest: {:?}", some(&report.rest.changed));
    assert!(report.restart.deployments.is_empty(), "a restart wrote {:?}", some(&report.restart.deployments));
}

fn write(report: &Report, machine: Machine) {
    let page = render(report, machine);
    println!("{page}");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/autoscaling/many.md");
    std::fs::write(file, &page).expect("docs/autoscaling/many.md can be written");
}

/// The first few.
fn some(all: &[String]) -> &[String] {
    &all[..all.len().min(10)]
}

struct Many<'a> {
    operator: Operator<'a>,
    fleet: Fleet,
    kafka: Admin,
}

/// Processor time of everybody, at one moment.
struct Used {
    at: Instant,
    operator: Usage,
    brokers: Option<Duration>,
    api_server: Option<Duration>,
}

impl<'a> Many<'a> {
    fn new(operator: Operator<'a>, count: usize) -> Outcome<Self> {
        let fleet = Fleet::new(operator.kube, &operator.name, count)?;
        let kafka = Admin::new(&operator.kafka.client_config(), PATIENCE)?;
        Ok(Self { operator, fleet, kafka })
    }

    fn measure(&mut self) -> Outcome<Report> {
        // Until all are there: what comes one by one is never all of it at once.
        self.operator.kill();
        self.operator.sweep_seconds = None;
        let topics = self.topics();
        let specs: Vec<TopicSpec<'_>> = topics
            .iter()
            .map(|name| TopicSpec { name, partitions: i32::try_from(PARTITIONS).unwrap_or(1), config: &[] })
            .collect();
        kafka::create_topics(self.operator.kafka, &specs)?;
        let first = self.first(&topics)?;
        self.settle()?;
        let rest = self.rest()?;
        let restart = self.restart()?;
        Ok(Report {
            pipelines: self.fleet.count,
            topics: TOPICS,
            partitions: PARTITIONS,
            brokers: self.operator.kafka.broker_count(),
            first,
            rest,
            restart,
            deletion: None,
        })
    }

    /// Topics that are consumed, and at the end the one that is produced to.
    fn topics(&self) -> Vec<String> {
        let name = &self.operator.name;
        (0..TOPICS).map(|number| format!("{name}.in{number}")).chain([format!("{name}.out")]).collect()
    }

    fn first(&mut self, topics: &[String]) -> Outcome<First> {
        let began = Instant::now();
        self.fleet.create(&topics[..TOPICS], &topics[TOPICS])?;
        let created = began.elapsed();
        println!("{} pipelines made in {:.0} s", self.fleet.count, created.as_secs_f64());
        self.operator.run();
        let (began, mut swept, mut last) = (Instant::now(), None, BTreeMap::new());
        let ready = poll(FIRST, LOOK, || {
            let lags = self.lags();
            if lags == self.all_lags() {
                swept.get_or_insert(began.elapsed());
            }
            last = self.fleet.reasons()?;
            println!("{:5.0} s  {last:?}; lag is known of {lags} partitions", began.elapsed().as_secs_f64());
            let ready = last.iter().filter(|(reason, _)| !reason.starts_with("not "));
            Ok(ready.map(|(_, count)| count).sum::<usize>() == self.fleet.count)
        })?;
        if !ready {
            return Err(format!("not all are ready after {} s: {last:?}", FIRST.as_secs()).into());
        }
        let ready = began.elapsed();
        let page = self.page()?;
        Ok(First {
            created,
            swept,
            ready,
            reconciles: sum(&page, RECONCILES),
            requests: requests(&page),
            cpu: Duration::from_micros(self.used()?.operator.cpu_us),
        })
    }

    /// Waits until all sleep and nobody writes any more.
    fn settle(&self) -> Outcome<()> {
        let (mut before, mut quiet) = (self.fleet.versions()?, Instant::now());
        let (mut written, mut last) = (Vec::new(), BTreeMap::new());
        let settled = poll(SETTLE, LOOK, || {
            let now = self.fleet.versions()?;
            written = changed(&before, &now);
            before = now;
            if !written.is_empty() {
                quiet = Instant::now();
            }
            last = self.fleet.reasons()?;
            println!("settling: {} written since the last look; {last:?}", written.len());
            Ok(quiet.elapsed() >= QUIET && last.get("Sleeping") == Some(&self.fleet.count))
        })?;
        if settled {
            return Ok(());
        }
        Err(format!("no rest after {} s: {last:?}, written last: {:?}", SETTLE.as_secs(), some(&written)).into())
    }

    fn rest(&self) -> Outcome<Rest> {
        let versions = self.fleet.versions()?;
        let (began, before) = self.end_of_round()?;
        let used = self.used()?;
        // The time that is measured: nobody asks the operator anything.
        std::thread::sleep(WATCHED);
        let now = self.used()?;
        let (ended, after) = self.end_of_round()?;
        let pods = self.fleet.counts()?[2];
        if pods > 0 {
            return Err(format!("{pods} pods run").into());
        }
        let grown = |of: &dyn Fn(&str) -> f64| of(&after) - of(&before);
        let sweeps = |page: &str, name: &str| scrape::sum_with(page, name, ("server", "kafka"));
        let of_sweeps = |name: &str| Some(sweeps(&after, name)? - sweeps(&before, name).unwrap_or(0.0));
        let over = |later: Option<Duration>, earlier: Option<Duration>| Some(later?.saturating_sub(earlier?));
        Ok(Rest {
            watched: now.at - used.at,
            cpu: Duration::from_micros(now.operator.cpu_us.saturating_sub(used.operator.cpu_us)),
            brokers_cpu: over(now.brokers, used.brokers),
            api_server_cpu: over(now.api_server, used.api_server),
            resident: self.resident(),
            peak: now.operator.peak_bytes,
            swept: ended - began,
            rounds: of_sweeps(SWEEPS).unwrap_or(0.0),
            failed: grown(&failed),
            round_seconds: of_sweeps(SWEEP_SUM)
                .zip(of_sweeps(SWEEP_COUNT).filter(|count| *count > 0.0))
                .map(|(seconds, count)| seconds / count),
            requests: less(
                scrape::sums_by(&after, REQUESTS, "request"),
                &scrape::sums_by(&before, REQUESTS, "request"),
            ),
            reconciles: grown(&|page: &str| sum(page, RECONCILES)),
            warnings: self.operator.log().lines().filter(|line| line.contains("\"level\":\"WARN\"")).count(),
            changed: changed(&versions, &self.fleet.versions()?),
        })
    }

    fn restart(&mut self) -> Outcome<Restart> {
        let versions = self.fleet.versions()?;
        self.operator.kill();
        self.operator.run();
        let began = Instant::now();
        if !poll(AGAIN, GLANCE, || Ok(self.lags() == self.all_lags()))? {
            return Err(format!("after {} s the sweep has {} partitions", AGAIN.as_secs(), self.lags()).into());
        }
        let (swept, cpu) = (began.elapsed(), self.used()?.operator.cpu_us);
        println!("after a kill the sweep has all again in {:.0} s", swept.as_secs_f64());
        let requests = requests(&self.page()?);
        // The autoscaler decides after a round, and what it has decided is written before the next one ends.
        self.end_of_round()?;
        self.end_of_round()?;
        let written = changed(&versions, &self.fleet.versions()?);
        let (deployments, pipelines) = written.into_iter().partition(|object| object.starts_with("deployment"));
        Ok(Restart {
            swept,
            cpu: Duration::from_micros(cpu),
            requests,
            resident: self.resident(),
            peak: self.used()?.operator.peak_bytes,
            pipelines,
            deployments,
        })
    }

    fn delete(&mut self) -> Outcome<Deletion> {
        if !self.operator.is_running() {
            // Users are its business.
            self.operator.kill();
            self.operator.run();
        }
        let began = Instant::now();
        self.fleet.delete()?;
        let mut deletion = Deletion { gone: began.elapsed(), ..Deletion::default() };
        poll(GONE, LOOK, || {
            let after = began.elapsed();
            let (users, [pipelines, deployments, _]) = match (self.users(), self.fleet.counts()) {
                (Ok(users), Ok(counts)) => (users, counts),
                // Everybody is busy with removing: the next look will do.
                (Err(error), _) | (_, Err(error)) => {
                    println!("deleting, {:5.0} s: {error}", after.as_secs_f64());
                    return Ok(false);
                }
            };
            println!(
                "deleting, {:5.0} s: {pipelines} pipelines, {users} users, {deployments} Deployments",
                after.as_secs_f64()
            );
            if pipelines > 0 {
                deletion.gone = after;
            }
            if users == 0 {
                deletion.users.get_or_insert(after);
            }
            if deployments == 0 {
                deletion.deployments.get_or_insert(after);
            }
            Ok(deletion.users.is_some() && deletion.deployments.is_some())
        })?;
        Ok(deletion)
    }

    /// Users of the pipelines on Kafka.
    fn users(&self) -> Outcome<usize> {
        let prefix = format!("sluice/{}/", self.operator.name);
        let users = self.fleet.runtime.block_on(self.kafka.describe_scram_users(None))?;
        Ok(users.keys().filter(|user| user.starts_with(&prefix)).count())
    }

    /// Removes what deletion retains. What fails is said: the measurement is over.
    fn clean_up(&mut self) {
        self.operator.kill();
        let name = &self.operator.name;
        let groups: Vec<String> = self
            .fleet
            .names()
            .map(|pipeline| format!("sluice.{name}.{name}.eventpipeline.{pipeline}.processor"))
            .collect();
        for groups in groups.chunks(GROUPS) {
            if let Err(error) = self.fleet.runtime.block_on(self.kafka.delete_groups(groups)) {
                println!("groups: {error}");
            }
        }
        let topics = self.topics();
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        if let Err(error) = kafka::delete_topics(self.operator.kafka, &names) {
            println!("topics: {error}");
        }
        // Faster than one owner after the other, and the next test finds a cluster that is idle.
        let gone = self.operator.kube.kubectl().args(["delete", "namespace", name, "--timeout=900s"]).output();
        if !gone.is_ok_and(|gone| gone.status.success()) {
            println!("the namespace {name} is still there");
        }
    }

    fn page(&self) -> Outcome<String> {
        Ok(self.operator.admin_page("/metrics").ok_or("the operator answers nothing")?)
    }

    /// Partitions of the pipelines' groups whose lag the sweep knows; none while the operator does not answer.
    fn lags(&self) -> usize {
        let prefix = format!("sluice.{}.", self.operator.name);
        let page = self.page().unwrap_or_default();
        let ours = |labels: &str| scrape::label(labels, "group").is_some_and(|group| group.starts_with(&prefix));
        scrape::samples(&page, LAGS).filter(|(labels, _)| ours(labels)).count()
    }

    fn all_lags(&self) -> usize {
        self.fleet.count * PARTITIONS
    }

    /// Waits until a round of the sweep has ended; when that was, and the metrics right after it.
    fn end_of_round(&self) -> Outcome<(Instant, String)> {
        let rounds = |page: &str| scrape::sum_with(page, SWEEPS, ("server", "kafka")).unwrap_or(0.0);
        let (before, mut page) = (rounds(&self.page()?), String::new());
        let ended = poll(ROUND, BLINK, || {
            page = self.page()?;
            Ok(rounds(&page) > before)
        })?;
        let late = || format!("no round of the sweep has ended in {} s", ROUND.as_secs());
        if ended { Ok((Instant::now(), page)) } else { Err(late().into()) }
    }

    fn used(&self) -> Outcome<Used> {
        let kafka = self.operator.kafka;
        let brokers = pids((1..=kafka.broker_count()).filter_map(|id| kafka.broker(id).ok()));
        let api_server = pids(self.operator.kube.component("apiserver").into_iter());
        let of = |pids: &[i32]| (!pids.is_empty()).then(|| Duration::from_micros(cpu_us(pids)));
        Ok(Used {
            at: Instant::now(),
            operator: self.operator.pid().and_then(usage_of).ok_or("the operator is gone")?,
            brokers: of(&brokers),
            api_server: of(&api_server),
        })
    }

    fn resident(&self) -> u64 {
        self.operator.pid().and_then(ProcessId::of).map_or(0, ProcessId::resident_bytes)
    }

    fn end_of_log(&self) -> String {
        let log = self.operator.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(50)..].join("\n")
    }
}

/// Sum of all samples of a metric.
fn sum(page: &str, name: &str) -> f64 {
    scrape::samples(page, name).map(|(_, value)| value).sum()
}

/// Requests to Kafka since the operator's start, if it counts them.
fn requests(page: &str) -> Option<f64> {
    scrape::samples(page, REQUESTS).next().map(|_| sum(page, REQUESTS))
}

/// Rounds over Kafka that have failed.
fn failed(page: &str) -> f64 {
    let kafka = scrape::samples(page, SWEEPS).filter(|(labels, _)| scrape::label(labels, "server") == Some("kafka"));
    kafka.filter(|(labels, _)| scrape::label(labels, "outcome") != Some("ok")).map(|(_, value)| value).sum()
}

/// Counts less what they were before.
fn less(after: BTreeMap<String, f64>, before: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    after.into_iter().map(|(api, count)| (api.clone(), count - before.get(&api).copied().unwrap_or(0.0))).collect()
}
