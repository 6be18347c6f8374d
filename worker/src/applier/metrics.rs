//! Metrics of the applier, for people. Labels are bounded: categories, never names of keys, topics or records.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::engine::Stats;

/// Why something happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CauseLabel {
    /// CamelCase word from a fixed set.
    pub cause: &'static str,
}

/// The metrics. Cheap to clone; all are atomics.
#[derive(Clone)]
pub struct ApplierMetrics {
    records: Counter,
    mutations: Counter,
    batches: Counter,
    refused: Counter,
    repairs: Family<CauseLabel, Counter>,
    failed_mutations: Counter,
    /// Script calls that failed as a whole, by category.
    pub faults: Family<CauseLabel, Counter>,
    /// Slots over all partitions that are not at the head.
    pub slots_behind: Gauge,
    /// Shards that scripts cannot be sent to, by cause.
    pub shards_unusable: Family<CauseLabel, Gauge>,
    /// Partitions that stand, by cause.
    pub stalled: Family<CauseLabel, Gauge>,
    /// Records between the main lines and the high watermarks.
    pub lag: Gauge,
    /// Partitions owned.
    pub partitions: Gauge,
    /// From sending a script to its answer.
    pub apply_seconds: Histogram,
    /// From a record's timestamp to its value in Redis; the newest record of each batch.
    pub latency_seconds: Histogram,
    /// 1 while the applier is stopped for good, by cause.
    pub stopped: Family<CauseLabel, Gauge<f64, AtomicU64>>,
}

impl ApplierMetrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.000_25, 2.0, 18));
        let metrics = Self {
            records: Counter::default(),
            mutations: Counter::default(),
            batches: Counter::default(),
            refused: Counter::default(),
            repairs: Family::default(),
            failed_mutations: Counter::default(),
            faults: Family::default(),
            slots_behind: Gauge::default(),
            shards_unusable: Family::default(),
            stalled: Family::default(),
            lag: Gauge::default(),
            partitions: Gauge::default(),
            apply_seconds: seconds(),
            latency_seconds: seconds(),
            stopped: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("applier");
        registry.register("records", "View records handled", metrics.records.clone());
        registry.register("mutations", "Redis keys written or deleted", metrics.mutations.clone());
        registry.register("batches", "Scripts that wrote", metrics.batches.clone());
        registry.register("refused", "Scripts that met another watermark than expected", metrics.refused.clone());
        registry.register("repairs", "Shards or slots brought up again, by cause", metrics.repairs.clone());
        let help = "Mutations that Redis refused for good";
        registry.register("failed_mutations", help, metrics.failed_mutations.clone());
        registry.register("script_faults", "Script calls that failed as a whole, by category", metrics.faults.clone());
        registry.register("slots_behind", "Slots not at the head, over all partitions", metrics.slots_behind.clone());
        registry.register(
            "shards_unusable",
            "Shards that cannot be written, by cause",
            metrics.shards_unusable.clone(),
        );
        registry.register("stalled_partitions", "Partitions that stand, by cause", metrics.stalled.clone());
        registry.register("lag_records", "Records behind the end of the view topics", metrics.lag.clone());
        registry.register("partitions", "Partitions owned", metrics.partitions.clone());
        registry.register("apply_seconds", "From sending a script to its answer", metrics.apply_seconds.clone());
        let help = "From the newest record of a batch to Redis";
        registry.register("record_to_redis_seconds", help, metrics.latency_seconds.clone());
        registry.register("stopped", "1 while stopped for good, by cause", metrics.stopped.clone());
        metrics
    }

    /// Adds what the engine counted between two looks.
    pub fn add(&self, before: &Stats, after: &Stats) {
        self.records.inc_by(after.records - before.records);
        self.mutations.inc_by(after.mutations - before.mutations);
        self.batches.inc_by(after.batches - before.batches);
        self.refused.inc_by(after.refused - before.refused);
        self.failed_mutations.inc_by(after.failed_mutations - before.failed_mutations);
        for (cause, count) in [
            ("OlderRecord", after.replays - before.replays),
            ("MissingRecord", after.rebuilds - before.rebuilds),
            ("RepairLine", after.repairs - before.repairs),
            ("SlotsLeftBehind", after.slots_left_behind - before.slots_left_behind),
            ("ExpiredPosition", after.expired_positions - before.expired_positions),
            ("MissedDeletions", after.missed_deletions - before.missed_deletions),
        ] {
            self.repairs.get_or_create(&CauseLabel { cause }).inc_by(count);
        }
    }

    /// Sets a gauge of each cause to how often it is in `causes`; causes that are gone go to 0.
    pub fn count(family: &Family<CauseLabel, Gauge>, known: &mut Vec<&'static str>, causes: &[&'static str]) {
        for cause in causes {
            if !known.contains(cause) {
                known.push(cause);
            }
        }
        for cause in known.iter().copied() {
            let count = causes.iter().filter(|other| **other == cause).count();
            family.get_or_create(&CauseLabel { cause }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_go_back_to_zero() {
        let mut registry = Registry::default();
        let metrics = ApplierMetrics::register(&mut registry);
        let mut known = Vec::new();
        ApplierMetrics::count(&metrics.stalled, &mut known, &["InvalidJson", "InvalidJson"]);
        assert_eq!(metrics.stalled.get_or_create(&CauseLabel { cause: "InvalidJson" }).get(), 2);
        ApplierMetrics::count(&metrics.stalled, &mut known, &[]);
        assert_eq!(metrics.stalled.get_or_create(&CauseLabel { cause: "InvalidJson" }).get(), 0);
    }
}
