//! Real workers under a load that changes, from none to several to none, with the operator killed in the middle; readers that share no
//! code with the workers judge what came out. `make scaling` runs it and writes `docs/autoscaling/live.md`.

mod operator;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use operator::servers::clean_up;
use operator::watch::{self, Watch};
use operator::{Operator, PATIENCE};
use serde_json::Value;
use sluice_e2e::bench::Machine;
use sluice_e2e::checker::{
    Fate, FaultLog, PipelineHistory, Record, Report, ViewKind, ViewSpec, check_lag, check_pipeline, check_samples,
    check_view, fold,
};
use sluice_e2e::datapath::loader::{Loaded, Loader};
use sluice_e2e::datapath::redis::{RedisReader, load_reference};
use sluice_e2e::datapath::sampler::{SampledKey, Sampler, Sampling};
use sluice_e2e::datapath::{HarnessError, kafka, now_ms};
use sluice_e2e::generator::{Generator, Profile, RecordId, Route, order_key};
use sluice_e2e::scaling::{Move, Phase, Run, Tracer, render};
use sluice_e2e::stack::{Group, require, wait_for};

/// The generator's pipeline, which may sleep, and one that puts what it makes into Redis, which may not. Workers have little CPU, so
/// that one is soon not enough.
const PIPELINES: &str = r#"
apiVersion: sluice.dev/v1alpha1
kind: EventPipeline
metadata: {name: orders}
spec:
  topics:
  - {name: NAME.created, partitions: 4}
  - {name: NAME.enriched, partitions: 4}
  - {name: NAME.review, partitions: 4}
  - {name: NAME.rejected, partitions: 4}
  source: {topics: [{name: NAME.created}]}
  steps:
  - {name: onlyCreated, filter: {keepWhen: 'value.status == "CREATED"'}}
  - {name: price, lookup: {key: "'NAME:price:' + value.sku", type: Json, onMiss: DeadLetter}}
  - {name: stock, lookup: {key: "'NAME:stock:{' + value.sku + '}'", type: Hash, onMiss: Continue}}
  - name: totals
    set:
    - {field: total, expression: "double(value.quantity) * double(price.amount)"}
    - {field: inStock, expression: "stock != null && int(stock.onHand) >= int(value.quantity)"}
  - {name: pii, mask: {fields: [customer.email], method: Redact}}
  - {name: tidy, remove: {fields: [internal]}}
  routing:
    match: First
    onNoMatch: DeadLetter
    routes:
    - {name: review, topic: NAME.review, when: "value != null && value.total > 10000.0"}
    - {name: enriched, topic: NAME.enriched}
  deadLetter: {topic: NAME.rejected}
  worker: {replicas: 1, resources: {requests: {cpu: 50m, memory: 64Mi}, limits: {cpu: 150m, memory: 128Mi}}}
  autoscaling:
    mode: Recommend
    minReplicas: 0
    maxReplicas: 4
    sleepAfterSeconds: 20
    targetLagSeconds: 5
    catchUpSeconds: 20
    scaleDownWindowSeconds: 10
---
apiVersion: sluice.dev/v1alpha1
kind: EventPipeline
metadata: {name: project}
spec:
  topics: [{name: NAME.model, partitions: 4, config: {cleanup.policy: compact}}]
  source: {topics: [{name: NAME.enriched}]}
  routing:
    routes:
    - {name: model, topic: NAME.model, views: [{name: order, key: "'NAME:order:{' + key + '}'", type: Json}]}
  worker: {replicas: 1, resources: {requests: {cpu: 50m, memory: 64Mi}, limits: {cpu: 150m, memory: 128Mi}}}
  autoscaling: {minReplicas: 1, maxReplicas: 4, targetLagSeconds: 5, catchUpSeconds: 20, scaleDownWindowSeconds: 10}
"#;
const TARGET_SECONDS: f64 = 5.0;
const SETTINGS: &str = "4 partitions; `targetLagSeconds: 5, catchUpSeconds: 20, scaleDownWindowSeconds: 10`, 0 to 4 workers with 150 thousandths \
    of a core each, `sleepAfterSeconds: 20`, a sweep every 5 s. A second pipeline, 1 to 4 workers, puts what comes out into Redis and \
    scales by itself. The table is of the first.";
/// Orders a second that are too many for one worker.
const FIRST_RATE: u32 = 3_000;
/// Longest wait for a change that the load asks for.
const LOAD_PATIENCE: Duration = Duration::from_secs(240);
/// Clocks and expiry times may be this far apart, in milliseconds.
const SLACK_MS: i64 = 5;

/// A run under way.
struct Live<'a> {
    operator: Operator<'a>,
    watch: Watch,
    begun: (Instant, i64),
    sent: usize,
    loaded: Loaded,
    run: Run,
}

fn profile() -> Profile {
    Profile::mixed(11, 4)
}

impl Live<'_> {
    fn now(&self) -> f64 {
        self.begun.0.elapsed().as_secs_f64()
    }

    fn named(&self, what: &str) -> String {
        format!("{}.{what}", self.operator.name)
    }

    fn group(&self, pipeline: &str) -> String {
        format!("sluice.{0}.{0}.eventpipeline.{pipeline}.processor", self.operator.name)
    }

    /// Starts a part of the load: so many orders a second for so many seconds.
    fn load(&mut self, rate: u32, seconds: u32) -> Loader {
        let count = usize::try_from(rate * seconds).expect("a number");
        let orders = Generator::new(profile()).skip(self.sent).take(count);
        self.sent += count;
        Loader::start(self.operator.kafka, &self.named("created"), orders, rate).expect("orders")
    }

    /// Waits until one worker has worked off what was sent. Orders a second that are too many for it and not for four: `RATE`, or
    /// by what it could do with records waiting, in the operator's words.
    fn rate(&mut self) -> u32 {
        let from = self.now();
        let (group, topic) = (self.group("orders"), self.named("created"));
        let lag = || {
            let ends = kafka::ends(self.operator.kafka, &topic, true).ok()?;
            let committed = kafka::committed(self.operator.kafka, &group, &topic).ok()?;
            check_lag(&group, &committed, &ends).is_clean().then_some(())
        };
        assert!(wait_for(LOAD_PATIENCE, lag).is_some(), "one worker is too slow\n{}", self.operator.log());
        self.ended("nothing is sent".to_owned(), from);
        let capacity = wait_for(PATIENCE, || {
            let orders = self.operator.get("evp", "orders")?;
            orders["status"]["autoscaling"]["inputs"]["capacityRecordsPerSecond"].as_u64().filter(|rate| *rate > 0)
        });
        println!("one worker can do {capacity:?} orders/s");
        let rate = std::env::var("RATE").ok().and_then(|rate| rate.parse().ok());
        rate.unwrap_or_else(|| u32::try_from(capacity.expect("known") * 3 / 2).expect("a rate").clamp(100, 6_000))
    }

    fn finish(&mut self, loader: Loader) {
        self.loaded.expected.extend(loader.finish().expect("acknowledged").expected);
    }

    /// A part of the load, and what is to happen meanwhile.
    fn phase(&mut self, about: &str, (rate, seconds): (u32, u32), meanwhile: impl FnOnce(&mut Self)) {
        let from = self.now();
        let loader = self.load(rate, seconds);
        meanwhile(self);
        self.finish(loader);
        self.ended(format!("{about}: {rate} orders/s"), from);
    }

    /// Nothing is sent until so many workers are asked for.
    fn rest(&mut self, about: &str, reached: impl Fn(u32) -> bool) {
        let from = self.now();
        self.wait(about, reached);
        self.ended(about.to_owned(), from);
    }

    fn ended(&mut self, about: String, from: f64) {
        let until = self.now();
        println!("{from:5.0} to {until:5.0} s  {about}: {}", self.watch.seen().join(" → "));
        self.run.phases.push(Phase { about, from, until });
    }

    fn wait(&self, what: &str, reached: impl Fn(u32) -> bool) {
        let there = wait_for(LOAD_PATIENCE, || self.watch.last().filter(|workers| reached(*workers)));
        let scaling = || self.operator.get("evp", "orders").map(|mut orders| orders["status"]["autoscaling"].take());
        assert!(there.is_some(), "{what}: {:?}\n{:#?}\n{}", self.watch.seen(), scaling(), self.operator.log());
    }

    /// The operator dies and is started again under load: workers work on, and none of them goes.
    fn lose_the_operator(&mut self) {
        self.wait("several", |workers| workers >= 2);
        let (before, level) = (self.watch.seen().len(), self.watch.last());
        self.keep_moves();
        self.operator.kill();
        self.operator.run();
        let ready = || self.operator.admin_page("/readyz")?.starts_with("HTTP/1.1 200").then_some(());
        wait_for(PATIENCE, ready).expect("the operator is ready again");
        // It has measured again.
        let lag = format!("kafka_consumer_lag{{topic=\"{}\",group=\"{}\"", self.named("created"), self.group("orders"));
        let measured = || self.operator.admin_page("/metrics")?.contains(&lag).then_some(());
        wait_for(PATIENCE, measured).expect("a sweep");
        let after = self.watch.seen()[before - 1..].iter().map(|seen| seen.parse::<u32>().ok()).min().flatten();
        assert!(after >= level, "fewer than {level:?} after the restart: {:?}", self.watch.seen());
    }

    /// Takes the moves out of the operator's log, which its next start begins anew.
    fn keep_moves(&mut self) {
        let log = self.operator.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let of_it = lines.filter(|line| line["message"] == "scaled" && line["name"] == "orders");
        let moves = of_it.filter_map(|line| {
            let at: Timestamp = line["timestamp"].as_str()?.parse().ok()?;
            Some(Move {
                at: (at.as_millisecond() - self.begun.1) as f64 / 1e3,
                note: line["note"].as_str()?.to_owned(),
            })
        });
        self.run.moves.extend(moves.collect::<Vec<_>>());
    }
}

/// Minutes, so not a part of `make test`: `make scaling` runs it.
#[test]
#[ignore = "takes ten minutes; run by `make scaling`"]
fn workers_follow_the_load_from_none_to_several_to_none_and_nothing_is_lost_doubled_or_stale() {
    let Some(stack) = require(&[Group::Kafka, Group::Redis, Group::Kube]) else { return };
    let machine = Machine::here();
    let mut operator = Operator::start_with_workers(&stack, "load");
    // As it is installed.
    operator.kill();
    operator.sweep_seconds = None;
    operator.run();
    let reader = RedisReader::new(operator.redis).expect("a reader");
    let prefix = format!("{}:", operator.name);
    load_reference(&reader, &prefix, Generator::new(profile()).known_skus()).expect("reference data");
    operator.apply(PIPELINES);
    wait_for(PATIENCE, || operator.get("deployment", "evp-orders")).expect("a Deployment");
    let watch = Watch::start(&operator, "orders");
    let run = Run { target: TARGET_SECONDS, settings: SETTINGS.to_owned(), ..Run::default() };
    let begun = (Instant::now(), now_ms());
    let mut live = Live { operator, watch, begun, sent: 0, loaded: Loaded::default(), run };
    let keys = (0..profile().orders)
        .map(|number| SampledKey { key: view(&live).redis_key(&order_key(number)), kind: ViewKind::Json });
    let sampler = Sampler::start(reader.clone(), keys.collect(), 7);
    let seen = live.watch.file();
    let (group, topic) = (live.group("orders"), live.named("created"));
    let tracer = Tracer::start(live.operator.kafka, (&group, &topic, 4), begun.0, move || watch::last(&seen));
    let tracer = tracer.expect("a tracer");

    traces(&mut live);
    live.keep_moves();
    live.run.moments = tracer.finish().expect("Kafka answers");
    settle(&live);
    let report = judge(&live, &reader, &sampler.finish()).expect("everything can be read");
    live.run.verdict = report.to_string().lines().map(str::to_owned).collect();
    let page = render(&live.run, machine);
    println!("{page}");
    assert!(report.is_clean(), "{report}\n{}", live.operator.log());
    assert!(report.checked("inputs") >= 1_000 && report.checked("samples with a value") > 0, "too little: {report}");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/autoscaling/live.md");
    std::fs::write(file, page).expect("the report");
    leave(&live.operator, &reader);
}

/// The load, from nothing to nothing.
fn traces(live: &mut Live<'_>) {
    live.phase("for one worker, whose number is only recommended", (FIRST_RATE, 20), |_| ());
    let rate = live.rate();
    live.operator.in_namespace(&[
        "patch",
        "evp",
        "orders",
        "--type=merge",
        "-p",
        r#"{"spec":{"autoscaling":{"mode":"Operator"}}}"#,
    ]);
    live.rest("nothing is sent", |workers| workers == 0);
    live.operator.wait_condition("evp", "orders", "AutoscalingActive", ("True", "Sleeping"));
    live.phase("step up; the operator is killed and started again", (rate, 90), Live::lose_the_operator);
    live.phase("step down", (rate / 20, 60), |_| ());
    live.rest("nothing is sent", |workers| workers == 0);
    for _ in 0..3 {
        live.phase("burst", (rate, 20), |_| ());
        live.phase("between bursts", (rate / 10, 40), |_| ());
    }
    live.rest("nothing is sent", |workers| workers == 0);
    let most = live.watch.seen().iter().filter_map(|seen| seen.parse::<u32>().ok()).max();
    assert!(most >= Some(2), "the load asked for several: {:?}", live.watch.seen());
}

/// Waits until the second pipeline has read and applied everything.
fn settle(live: &Live<'_>) {
    let groups = [
        (live.group("project"), live.named("enriched")),
        (live.group("project").replace(".processor", ".applier"), live.named("model")),
    ];
    for (group, topic) in groups {
        let lag = || {
            let ends = kafka::dump_ends(live.operator.kafka, &topic).ok()?;
            let committed = kafka::committed(live.operator.kafka, &group, &topic).ok()?;
            check_lag(&group, &committed, &ends).is_clean().then_some(())
        };
        assert!(
            wait_for(PATIENCE, lag).is_some(),
            "{group} does not come to the end of {topic}\n{}",
            live.operator.log()
        );
    }
}

fn view(live: &Live<'_>) -> ViewSpec {
    let before = format!("{}:order:{{", live.operator.name);
    ViewSpec { before, after: "}".to_owned(), kind: ViewKind::Json, ttl_ms: None, when: None }
}

/// By clients that the workers do not use: each order came out as it must, once, the group has read all of them, and Redis never
/// showed anything but what was committed, and never went back.
fn judge(live: &Live<'_>, reader: &RedisReader, sampling: &Sampling) -> Result<Report, HarnessError> {
    let dump = |topic: &str| kafka::dump(live.operator.kafka, &live.named(topic));
    let (input, enriched, model) = (dump("created")?, dump("enriched")?, dump("model")?);
    let topic = |route| live.named(if route == Route::Review { "review" } else { "enriched" });
    let fates: BTreeMap<RecordId, Fate> =
        live.loaded.expected.iter().map(|(id, (key, expected))| (*id, Fate::of(key, expected, topic))).collect();
    let committed = kafka::committed(live.operator.kafka, &live.group("orders"), &input.topic)?;
    let ids = |records: &[Record]| records.iter().filter_map(Record::id).collect::<BTreeSet<RecordId>>();
    assert_eq!(model.records.len(), enriched.records.len(), "the second pipeline passes each record once");
    assert_eq!(ids(&model.records), ids(&enriched.records));
    let mut report = check_pipeline(&PipelineHistory {
        input: &input,
        fates: &fates,
        outputs: &[enriched, dump("review")?],
        dead_letters: Some(&dump("rejected")?),
        committed: &committed,
    });
    report.merge(check_lag(&live.group("orders"), &committed, &kafka::ends(live.operator.kafka, &input.topic, false)?));
    let folded = fold(&model, &[view(live)]);
    report.merge(check_view(&folded, &reader.dump(&format!("{}:order:*", live.operator.name))?, SLACK_MS));
    report.merge(check_samples(&folded, &sampling.samples, &FaultLog::default(), SLACK_MS));
    Ok(report)
}

fn leave(operator: &Operator<'_>, reader: &RedisReader) {
    operator.in_namespace(&["delete", "evp/orders", "evp/project", "--timeout=60s"]);
    clean_up(operator);
    for master in reader.masters().expect("masters") {
        reader.delete(&master, &format!("{}:*", operator.name)).expect("deleted");
    }
}
