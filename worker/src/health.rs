//! What `/livez` and `/readyz` answer: each engine reports that its loops tick and what it is waiting for. What holds a
//! loop up later, without a word about readiness, is a metric: `sluice_worker_waiting`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// The health of the process: the sum of what is registered.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    parts: Mutex<Vec<Arc<Part>>>,
}

impl Default for Health {
    fn default() -> Self {
        Self { started: Instant::now(), parts: Mutex::default() }
    }
}

#[derive(Debug)]
struct Part {
    name: String,
    max_silence: Duration,
    /// Milliseconds after `started` of the last tick.
    last_tick: AtomicU64,
    waiting_for: Mutex<Option<&'static str>>,
    held_up_by: Mutex<Option<&'static str>>,
}

/// One loop's handle on the process's health. Cheap to clone; dropping it does not unregister the loop.
#[derive(Clone, Debug)]
pub struct HealthHandle {
    started: Instant,
    part: Arc<Part>,
}

impl Health {
    /// Registers a loop that promises to tick at least every `max_silence` and that starts not ready.
    pub fn register(
        &self,
        name: impl Into<String>,
        max_silence: Duration,
        waiting_for: Option<&'static str>,
    ) -> HealthHandle {
        let part = Arc::new(Part {
            name: name.into(),
            max_silence,
            last_tick: AtomicU64::new(millis(self.started.elapsed())),
            waiting_for: Mutex::new(waiting_for),
            held_up_by: Mutex::default(),
        });
        lock(&self.parts).push(part.clone());
        HealthHandle { started: self.started, part }
    }

    /// Names of loops that have been silent for longer than they promised. Empty: alive.
    pub fn silent(&self) -> Vec<String> {
        let now = millis(self.started.elapsed());
        let parts = lock(&self.parts);
        let late =
            |part: &&Arc<Part>| now.saturating_sub(part.last_tick.load(Ordering::Relaxed)) > millis(part.max_silence);
        parts.iter().filter(late).map(|part| part.name.clone()).collect()
    }

    /// What the process waits for, as `(part, reason)`. Empty and something registered: ready.
    pub fn waiting(&self) -> Vec<(String, &'static str)> {
        let parts = lock(&self.parts);
        if parts.is_empty() {
            return vec![("worker".to_owned(), "Starting")];
        }
        parts.iter().filter_map(|part| lock(&part.waiting_for).map(|reason| (part.name.clone(), reason))).collect()
    }

    /// Everything that is waited for, as `(part, reason)`, whether readiness depends on it or not.
    fn waits(&self) -> Vec<(String, &'static str)> {
        let mut waits = self.waiting();
        let parts = lock(&self.parts);
        waits.extend(parts.iter().filter_map(|part| lock(&part.held_up_by).map(|reason| (part.name.clone(), reason))));
        waits.sort();
        waits.dedup();
        waits
    }

    /// Exports every wait as a gauge. Labels are bounded: parts are the process's loops, reasons are from fixed sets.
    pub fn register_waits(self: &Arc<Self>, registry: &mut Registry) {
        registry.sub_registry_with_prefix("worker").register_collector(Box::new(Waits(self.clone())));
    }
}

#[derive(Debug)]
struct Waits(Arc<Health>);

impl Collector for Waits {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "1 for each loop that waits, by what for";
        let mut metric = encoder.encode_descriptor("waiting", help, None, MetricType::Gauge)?;
        for (part, reason) in self.0.waits() {
            ConstGauge::new(1_i64).encode(metric.encode_family(&[("part", part.as_str()), ("reason", reason)])?)?;
        }
        Ok(())
    }
}

impl HealthHandle {
    /// Says that the loop runs.
    pub fn tick(&self) {
        self.part.last_tick.store(millis(self.started.elapsed()), Ordering::Relaxed);
    }

    /// Says that the loop is ready.
    pub fn ready(&self) {
        *lock(&self.part.waiting_for) = None;
    }

    /// Says what holds the loop up, or that nothing does any more. For people: it changes no probe, since starting the
    /// process anew, or taking it out of a roll-out, would not help. `reason` is a CamelCase word.
    pub fn held_up(&self, reason: Option<&'static str>) {
        *lock(&self.part.held_up_by) = reason;
    }

    /// Says what the loop waits for; `reason` is a CamelCase word.
    pub fn wait_for(&self, reason: &'static str) {
        *lock(&self.part.waiting_for) = Some(reason);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A panic elsewhere must not take the probes with it: the data behind these locks is always whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_registered_is_alive_and_not_ready() {
        let health = Health::default();
        assert!(health.silent().is_empty());
        assert_eq!(health.waiting(), [("worker".to_owned(), "Starting")]);
    }

    #[test]
    fn ready_when_every_part_is() {
        let health = Health::default();
        let one = health.register("consumer", Duration::from_secs(1), Some("Assignment"));
        let two = health.register("lane 0", Duration::from_secs(1), None);
        assert_eq!(health.waiting(), [("consumer".to_owned(), "Assignment")]);
        one.ready();
        assert!(health.waiting().is_empty());
        two.wait_for("Redis");
        assert_eq!(health.waiting(), [("lane 0".to_owned(), "Redis")]);
    }

    #[test]
    fn every_wait_is_a_metric_and_not_every_one_a_matter_of_readiness() {
        let health = Arc::new(Health::default());
        let mut registry = Registry::with_prefix("sluice");
        health.register_waits(&mut registry);
        let text = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).expect("encoded");
            text
        };
        let lane = health.register("lane 0", Duration::from_secs(1), Some("Assignment"));
        assert!(text().contains("sluice_worker_waiting{part=\"lane 0\",reason=\"Assignment\"} 1"), "{}", text());
        lane.ready();
        lane.held_up(Some("Redis"));
        assert!(health.waiting().is_empty());
        assert!(text().contains("sluice_worker_waiting{part=\"lane 0\",reason=\"Redis\"} 1"), "{}", text());
        lane.held_up(None);
        assert!(!text().contains("waiting{"), "{}", text());
    }

    #[test]
    fn a_loop_that_does_not_tick_is_named() {
        let health = Health::default();
        let handle = health.register("consumer", Duration::ZERO, None);
        let deadline = Instant::now() + Duration::from_secs(5);
        while health.silent().is_empty() {
            assert!(Instant::now() < deadline, "silence was never noticed");
            std::thread::yield_now();
        }
        assert_eq!(health.silent(), ["consumer"]);
        handle.tick();
    }
}
