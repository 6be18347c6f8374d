//! The operator's own metrics. Labels are bounded: no names of objects, no messages.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use sluice_clients::kafka::admin::Requests;
use sluice_crds::names::Kind;

use crate::controller::context::Context;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Sweep {
    server: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfServer {
    server: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Turn {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

/// The operator's own metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: Family<Outcome, Counter>,
    seconds: Family<OfKind, Histogram>,
    last_success: Family<OfKind, Gauge<f64, AtomicU64>>,
    sweeps: Family<Sweep, Counter>,
    sweep_seconds: Family<OfServer, Histogram>,
    settings_broken: Gauge,
    asked: Family<Asked, Counter>,
    roll_outs: Family<Turn, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("sluice_operator");
        let reconciles = Family::<Outcome, Counter>::default();
        registry.register("reconciles", "Reconciles by kind and outcome", reconciles.clone());
        let seconds =
            Family::<OfKind, Histogram>::new_with_constructor(|| Histogram::new(exponential_buckets(0.005, 2.0, 14)));
        registry.register("reconcile_seconds", "Time of a reconcile", seconds.clone());
        let last_success = Family::<OfKind, Gauge<f64, AtomicU64>>::default();
        registry.register(
            "last_success_time_seconds",
            "Unix time of the last reconcile without error",
            last_success.clone(),
        );
        let sweeps = Family::<Sweep, Counter>::default();
        registry.register("sweeps", "Rounds over a connection", sweeps.clone());
        let sweep_seconds =
            Family::<OfServer, Histogram>::new_with_constructor(|| Histogram::new(exponential_buckets(0.01, 2.0, 13)));
        registry.register("sweep_seconds", "Time of a round over a connection", sweep_seconds.clone());
        let settings_broken = Gauge::default();
        registry.register("settings_broken", "1 while the settings file cannot be used", settings_broken.clone());
        let asked = Family::<Asked, Counter>::default();
        let help = "Requests to the external metrics API by outcome";
        registry.register("external_metrics_requests", help, asked.clone());
        let roll_outs = Family::<Turn, Gauge>::default();
        registry.register(
            "roll_outs",
            "Resources that replace their workers, or wait for their turn",
            roll_outs.clone(),
        );
        Self { registry, reconciles, seconds, last_success, sweeps, sweep_seconds, settings_broken, asked, roll_outs }
    }
}

/// Names of connections are the settings', names of requests librdkafka's.
fn encode_requests(connections: &BTreeMap<String, Requests>, text: &mut String) -> std::fmt::Result {
    let name = "sluice_operator_kafka_requests";
    writeln!(text, "# HELP {name} Requests sent to Kafka, as librdkafka counts them.\n# TYPE {name} counter")?;
    for (connection, requests) in connections {
        for (request, sent) in requests {
            writeln!(text, "{name}_total{{connection=\"{connection}\",request=\"{request}\"}} {sent}")?;
        }
    }
    Ok(())
}

impl Metrics {
    /// A reconcile ended. `outcome`: `ok` or the category of its error.
    pub fn reconciled(&self, kind: Kind, outcome: &'static str, seconds: f64, now: f64) {
        let kind = kind.as_str();
        self.reconciles.get_or_create(&Outcome { kind, outcome }).inc();
        self.seconds.get_or_create(&OfKind { kind }).observe(seconds);
        if outcome == "ok" {
            self.last_success.get_or_create(&OfKind { kind }).set(now);
        }
    }

    /// A round of a sweep ended.
    pub fn sweep(&self, server: &'static str, ok: bool, took: Duration) {
        self.sweeps.get_or_create(&Sweep { server, outcome: if ok { "ok" } else { "failed" } }).inc();
        self.sweep_seconds.get_or_create(&OfServer { server }).observe(took.as_secs_f64());
    }

    /// A request to the external metrics API was answered; `outcome`: `ok`, the sort of refusal, or `no_handshake`.
    pub fn external_metrics(&self, outcome: &'static str) {
        self.asked.get_or_create(&Asked { outcome }).inc();
    }

    /// Everything in the text format.
    pub fn encode(&self, ctx: &Context) -> Result<String, std::fmt::Error> {
        self.settings_broken.set(i64::from(ctx.settings.broken().is_some()));
        let (running, queued) = ctx.turns.counts();
        for (state, count) in [("running", running), ("queued", queued)] {
            self.roll_outs.get_or_create(&Turn { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        if let Some(registered) = ctx.external_metrics.is_registered() {
            let name = "sluice_operator_external_metrics_registered";
            writeln!(text, "# HELP {name} 1 while the API server asks us for external metrics.\n# TYPE {name} gauge")?;
            writeln!(text, "{name} {}", u8::from(registered))?;
        }
        encode_requests(&ctx.connections.kafka_requests(), &mut text)?;
        ctx.board.encode_lag(&mut text);
        encode_eof(&mut text)?;
        text.write_str("")?;
        Ok(text)
    }
}
