//! Metrics of the processor, for people. Labels are bounded: categories, never names of keys, topics or records.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// `Produced`, `Filtered`, `Discarded`, `DeadLetter`.
    pub outcome: &'static str,
}

/// Why something happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// CamelCase word from a fixed set.
    pub reason: &'static str,
}

/// Which lane.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LaneLabel {
    /// Its index.
    pub lane: u64,
}

/// The metrics. Cheap to clone; all are atomics.
#[derive(Clone)]
pub struct ProcessorMetrics {
    /// Source records committed, by what became of them.
    pub records: Family<OutcomeLabel, Counter>,
    /// Records produced and committed (a source record may give several).
    pub outputs: Counter,
    /// Dead letters by reason.
    pub dead_letters: Family<ReasonLabel, Counter>,
    /// Transactions committed.
    pub transactions: Counter,
    /// Transactions aborted, by verdict.
    pub aborted: Family<ReasonLabel, Counter>,
    /// From the begin of a transaction to its commit.
    pub commit_seconds: Histogram,
    /// From a record's timestamp to its commit.
    pub latency_seconds: Histogram,
    /// Keys looked up, by `Hit` (cache) and `Miss`.
    pub lookups: Family<ReasonLabel, Counter>,
    /// Reading keys from Redis, per batch.
    pub lookup_seconds: Histogram,
    /// Batches of lookups that failed, by category.
    pub lookup_errors: Family<ReasonLabel, Counter>,
    /// Records in lanes' hands.
    pub in_flight: Family<LaneLabel, Gauge>,
    /// Partitions owned.
    pub partitions: Gauge,
    /// Partitions that stand still, by reason.
    pub stalled: Family<ReasonLabel, Gauge>,
    /// Rebalances, by `Assign`, `Revoke` and `Lost`.
    pub rebalances: Family<ReasonLabel, Counter>,
    /// Producers made anew, by reason.
    pub producers: Family<ReasonLabel, Counter>,
    /// Microseconds spent on steps and lookups' results (not waiting).
    pub busy_micros: Counter<u64, AtomicU64>,
}

impl ProcessorMetrics {
    /// Registers all of them as `sluice_processor_…`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            records: Family::default(),
            outputs: Counter::default(),
            dead_letters: Family::default(),
            transactions: Counter::default(),
            aborted: Family::default(),
            commit_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            latency_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 18)),
            lookups: Family::default(),
            lookup_seconds: Histogram::new(exponential_buckets(0.000_25, 2.0, 14)),
            lookup_errors: Family::default(),
            in_flight: Family::default(),
            partitions: Gauge::default(),
            stalled: Family::default(),
            rebalances: Family::default(),
            producers: Family::default(),
            busy_micros: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("processor");
        registry.register("records", "Source records committed, by outcome", metrics.records.clone());
        registry.register("output_records", "Records produced and committed", metrics.outputs.clone());
        registry.register("dead_letters", "Dead letters, by reason", metrics.dead_letters.clone());
        registry.register("transactions", "Transactions committed", metrics.transactions.clone());
        registry.register("aborted_transactions", "Transactions aborted, by verdict", metrics.aborted.clone());
        registry.register("commit_seconds", "Begin to commit of a transaction", metrics.commit_seconds.clone());
        registry.register("latency_seconds", "Record timestamp to commit", metrics.latency_seconds.clone());
        registry.register("lookups", "Keys looked up, by cache result", metrics.lookups.clone());
        registry.register("lookup_seconds", "Reading a batch of keys from Redis", metrics.lookup_seconds.clone());
        registry.register("lookup_errors", "Failed batches of lookups", metrics.lookup_errors.clone());
        registry.register("in_flight_records", "Records in a lane's hands", metrics.in_flight.clone());
        registry.register("partitions", "Partitions owned", metrics.partitions.clone());
        registry.register("stalled_partitions", "Partitions that stand still", metrics.stalled.clone());
        registry.register("rebalances", "Rebalances", metrics.rebalances.clone());
        registry.register("producers_replaced", "Producers made anew", metrics.producers.clone());
        registry.register("busy_microseconds", "Time spent on steps", metrics.busy_micros.clone());
        metrics
    }
}

/// A reason label.
pub fn reason(reason: &'static str) -> ReasonLabel {
    ReasonLabel { reason }
}
