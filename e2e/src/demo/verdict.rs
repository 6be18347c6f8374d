//! Whether it held: sums, exactly once, and Redis equal to the committed topics.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use sluice_crds::names::{InstanceId, Kind, Namespace, ResourceId, ResourceName};

use super::traffic::{SOURCE_TOPIC, STATE_TOPIC};
use super::{INSTANCE, NAMESPACE};
use crate::checker::{
    Fate, PipelineHistory, Record, Report, TopicDump, ViewKind, ViewSpec, check_lag, check_pipeline, check_view, fold,
};
use crate::datapath::loader::Loaded;
use crate::datapath::redis::RedisReader;
use crate::datapath::{HarnessError, console, kafka, wait_for};
use crate::generator::{RecordId, Route};
use crate::stack::{Kafka, Stack};

/// Clocks and expiry times may be this far apart.
const SLACK_MS: i64 = 2_000;

/// What was found.
pub(super) struct Verdict {
    orders: usize,
    sums: [(&'static str, usize); 4],
    reasons: BTreeMap<String, usize>,
    doubled: usize,
    missing: usize,
    reports: Vec<(&'static str, Report)>,
}

impl Verdict {
    /// Whether everything held.
    pub(super) fn holds(&self) -> bool {
        self.orders == self.sums.iter().map(|(_, count)| count).sum::<usize>()
            && self.doubled == 0
            && self.missing == 0
            && self.reports.iter().all(|(_, report)| report.is_clean())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.sums.iter().map(|(name, count)| format!("{count} {name}")).collect();
        writeln!(f, "orders    {} in = {}", self.orders, parts.join(" + "))?;
        let reasons: Vec<String> = self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        writeln!(f, "          dead letters: {}", reasons.join(", "))?;
        writeln!(f, "projected {} doubled, {} missing in order.read-model", self.doubled, self.missing)?;
        for (name, report) in &self.reports {
            write!(f, "{name:<9} {report}")?;
        }
        Ok(())
    }
}

/// The groups of the example and what each reads.
fn groups() -> Result<Vec<(String, &'static str)>, HarnessError> {
    let id = |kind, name: &str| -> Option<ResourceId> {
        Some(ResourceId {
            instance: InstanceId::parse(INSTANCE).ok()?,
            namespace: Namespace::parse(NAMESPACE).ok()?,
            kind,
            name: ResourceName::parse(name).ok()?,
        })
    };
    let all = || {
        let enrich = id(Kind::EventPipeline, "enrich-orders")?;
        let project = id(Kind::EventPipeline, "project-orders")?;
        let cache = id(Kind::CacheSync, "order-cache")?;
        Some(vec![
            (enrich.processor_group().as_str().to_owned(), SOURCE_TOPIC),
            (project.processor_group().as_str().to_owned(), "order.enriched"),
            (project.applier_group().as_str().to_owned(), "order.read-model"),
            (cache.applier_group().as_str().to_owned(), STATE_TOPIC),
        ])
    };
    all().ok_or_else(|| HarnessError::Process {
        name: "demo".into(),
        message: "a name of the example is not valid".into(),
    })
}

/// Waits until every group has committed the end of what it reads, transaction markers included.
pub(super) fn wait_done(stack: &Stack, limit: Duration) -> Result<(), HarnessError> {
    let kafka = stack.kafka()?;
    for (group, topic) in groups()? {
        // Made once: a login costs as much as many questions, and the workers need the machine.
        let (member, reader) = (kafka::grouped(kafka, &group, "committed")?, kafka::reader(kafka, "uncommitted")?);
        wait_for(&format!("group {group} at the end of {topic}"), limit, || {
            let (committed, ends) = (kafka::committed_by(&member, topic)?, kafka::ends_by(&reader, topic)?);
            Ok(check_lag(&group, &committed, &ends).is_clean().then_some(()))
        })?;
    }
    Ok(())
}

/// Who reads the topics back.
pub(super) fn witness(stack: &Stack) -> Result<&'static str, HarnessError> {
    let console = stack.kafka()?.broker_count() > 0;
    Ok(if console { "kafka-console-consumer, read_committed" } else { "librdkafka, read_committed" })
}

/// Reads everything back with other people's clients and judges it.
pub(super) fn judge(stack: &Stack, loaded: &Loaded) -> Result<Verdict, HarnessError> {
    let kafka = stack.kafka()?;
    let topics = [SOURCE_TOPIC, "order.enriched", "order.review", "order.rejected", "order.read-model", STATE_TOPIC];
    let [input, enriched, review, rejected, model, state] = dump_all(kafka, topics)?;
    let fates: BTreeMap<RecordId, Fate> =
        loaded.expected.iter().map(|(id, (key, expected))| (*id, Fate::of(key, expected, topic))).collect();
    let committed = kafka::committed(kafka, &groups()?[0].0, SOURCE_TOPIC)?;
    let outputs = [enriched.clone(), review.clone()];
    let history = PipelineHistory {
        input: &input,
        fates: &fates,
        outputs: &outputs,
        dead_letters: Some(&rejected),
        committed: &committed,
    };
    let (doubled, missing) = compare(&enriched, &model);
    let reports = vec![
        ("pipeline", check_pipeline(&history)),
        ("order:*", redis(stack, &model, view("order:{", ViewKind::Json, Some(1_800_000), None))?),
        ("state:*", redis(stack, &state, view("state:{", ViewKind::Hash, None, Some(open)))?),
    ];
    let filtered = fates.values().filter(|fate| matches!(fate, Fate::Filtered)).count();
    Ok(Verdict {
        orders: loaded.expected.len(),
        sums: sums(&enriched, &review, filtered, &rejected),
        reasons: reasons(&rejected),
        doubled,
        missing,
        reports,
    })
}

/// All topics at once: most of the time a console consumer starts, or waits whether more comes.
fn dump_all<const N: usize>(kafka: &Kafka, topics: [&str; N]) -> Result<[TopicDump; N], HarnessError> {
    let read = std::thread::scope(|scope| {
        topics
            .map(|topic| scope.spawn(move || dump(kafka, topic)))
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let read: Vec<TopicDump> = read.into_iter().collect::<Result<_, _>>()?;
    let count = read.len();
    read.try_into().map_err(|_| HarnessError::Process { name: "demo".into(), message: format!("{count} topics read") })
}

/// A topic as Kafka's console consumer sees it; elsewhere than on this machine, as librdkafka does.
fn dump(kafka: &Kafka, topic: &str) -> Result<TopicDump, HarnessError> {
    let other = kafka::dump(kafka, topic)?;
    if kafka.broker_count() == 0 {
        return Ok(other);
    }
    let seen = console::dump(kafka, topic, &other)?;
    Ok(TopicDump { ends: other.ends, ..seen })
}

fn topic(route: Route) -> String {
    if route == Route::Review { "order.review".into() } else { "order.enriched".into() }
}

/// Where the orders are, in the order of the example's picture.
fn sums(enriched: &TopicDump, review: &TopicDump, filtered: usize, rejected: &TopicDump) -> [(&'static str, usize); 4] {
    [
        ("enriched", enriched.records.len()),
        ("review", review.records.len()),
        ("filtered", filtered),
        ("dead-lettered", rejected.records.len()),
    ]
}

/// How many dead letters give which reason.
fn reasons(rejected: &TopicDump) -> BTreeMap<String, usize> {
    let mut reasons = BTreeMap::new();
    for record in &rejected.records {
        let reason = record.header("sluice-error-reason").map(String::from_utf8_lossy).unwrap_or_default();
        *reasons.entry(reason.into_owned()).or_default() += 1;
    }
    reasons
}

/// How many of `source`'s records are more than once, and not at all, in `projected`.
fn compare(source: &TopicDump, projected: &TopicDump) -> (usize, usize) {
    let ids: BTreeSet<RecordId> = projected.records.iter().filter_map(Record::id).collect();
    let missing = source.records.iter().filter_map(Record::id).filter(|id| !ids.contains(id)).count();
    (projected.records.len() - ids.len(), missing)
}

fn view(before: &str, kind: ViewKind, ttl_ms: Option<i64>, when: Option<fn(&Record) -> bool>) -> ViewSpec {
    ViewSpec { before: before.into(), after: "}".into(), kind, ttl_ms, when }
}

/// `value.state != "CLOSED"`.
fn open(record: &Record) -> bool {
    let value: Option<serde_json::Value> = record.value.as_deref().and_then(|value| serde_json::from_slice(value).ok());
    value.is_some_and(|value| value["state"] != "CLOSED")
}

/// Every key of a view against the fold of its topic.
fn redis(stack: &Stack, topic: &TopicDump, view: ViewSpec) -> Result<Report, HarnessError> {
    let pattern = format!("{}*", view.before);
    let folded = fold(topic, &[view]);
    let held = RedisReader::new(stack.redis()?)?.dump(&pattern)?;
    Ok(check_view(&folded, &held, SLACK_MS))
}
