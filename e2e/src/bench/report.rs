//! `docs/bench.md`.

use std::fmt::Write as _;

use super::run::{Measured, Plan};

/// The machine that was measured on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// Cores.
    pub cores: usize,
    /// Processes that wanted a core in the minute before the first measurement, on average.
    pub load: f64,
}

impl Machine {
    /// This one, now.
    pub fn here() -> Self {
        let load = std::fs::read_to_string("/proc/loadavg").ok();
        Self {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            load: load.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(f64::NAN),
        }
    }
}

/// The whole page.
pub fn render(plan: &Plan, machine: Machine, tables: &[(&str, Measured)]) -> String {
    let Machine { cores, load } = machine;
    let mut text = format!(
        "# Benchmark\n\n\
         Written by `make bench`. Scenario S1, the cache sync service: consume orders of {} bytes from 4 partitions, write them to\n\
         another topic together with the offsets in one transaction a batch (every 100 ms), and put each into Redis from that\n\
         committed topic, with a life of 30 minutes. One worker runs both engines. Brokers, Redis, worker and measurement share\n\
         {cores} cores of one machine: these are figures of all of it together.\n\n\
         The floors are of the same run on the same machine, one after the other: what the parts do alone, each with all the cores.\n\
         The roofline is the smallest of the floors and of the cores divided by the processor time that all parties need for an event.\n\n\
         The machine's load average was {load:.1} before the first measurement. Above the number of cores, something else ran too:\n\
         then rates and latencies are worse than the machine's, and only processor times say much.\n",
        plan.value_bytes
    );
    for (title, measured) in tables {
        let _ = write!(text, "\n## {title}\n\n{}", table(plan, cores, measured));
    }
    text
}

fn table(plan: &Plan, cores: usize, measured: &Measured) -> String {
    let all = measured.worker_us + measured.broker_us + measured.redis_us;
    let floors = measured.floors;
    let by_cores = cores as f64 * 1_000_000.0 / all;
    let roofline = floors.consume.min(floors.produce).min(floors.redis).min(by_cores);
    let through = measured.view_rate;
    let rows = [
        ("events/s, source → committed output", whole(measured.commit_rate)),
        ("events/s, source → committed output → Redis", whole(through)),
        ("processor time of the worker for an event", format!("{:.1} µs", measured.worker_us)),
        ("… of the brokers", format!("{:.1} µs", measured.broker_us)),
        ("… of Redis", format!("{:.1} µs", measured.redis_us)),
        ("largest memory of the worker (VmHWM)", format!("{:.1} MiB", measured.peak_bytes as f64 / f64::from(1 << 20))),
        (
            "record timestamp → committed output visible, p50 / p99",
            format!("{} / {} ms", measured.to_commit.p50_ms, measured.to_commit.p99_ms),
        ),
        (
            "record timestamp → Redis, p50 / p99",
            format!("{} / {} ms", measured.to_redis.p50_ms, measured.to_redis.p99_ms),
        ),
        ("floor: consume only (`kafka-consumer-perf-test`)", whole(floors.consume)),
        ("floor: transactional produce only (`kafka-producer-perf-test`, 100 ms)", whole(floors.produce)),
        ("floor: Redis only (pipelined `SET … PXAT`)", whole(floors.redis)),
        ("bound by the cores: cores / processor time of all parties", whole(by_cores)),
        ("achieved / roofline", format!("{:.0} %", 100.0 * through / roofline)),
    ];
    let mut text = String::from("| | |\n|---|---|\n");
    for (name, value) in rows {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    let threads: Vec<String> = measured.threads.iter().map(|(name, us)| format!("`{name}` {us:.1}")).collect();
    let _ = writeln!(text, "\nThe worker's processor time by thread, in µs for an event: {}.", threads.join(", "));
    let _ = writeln!(
        text,
        "\n{} events at full speed; latencies at {} events/s over {} s, every record measured ({} and {} records).",
        whole(measured.events as f64),
        whole(f64::from(measured.steady_rate)),
        plan.steady_seconds,
        measured.to_commit.records,
        measured.to_redis.records
    );
    text
}

/// A number with thousands set apart.
pub(crate) fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            (whole(999.4), whole(1_000.0), whole(1_234_567.0)),
            ("999".into(), "1,000".into(), "1,234,567".into())
        );
    }
}
