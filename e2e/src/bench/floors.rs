//! What the parts can do alone, on the same machine in the same run.

use std::fmt::Write as _;
use std::time::Instant;

use super::run::Plan;
use crate::checker::slot_of;
use crate::datapath::HarnessError;
use crate::datapath::kafka::{self, TopicSpec};
use crate::datapath::redis::Master;
use crate::datapath::scenario::Scenario;
use crate::stack::Kafka;

/// Records a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Floors {
    /// `kafka-consumer-perf-test` over the source topic.
    pub consume: f64,
    /// `kafka-producer-perf-test`, one transaction each 100 ms.
    pub produce: f64,
    /// Pipelined `SET key value PXAT …`, one connection for each master.
    pub redis: f64,
}

/// Measures all of them.
pub fn measure(kafka: &Kafka, scenario: &Scenario<'_>, plan: &Plan) -> Result<Floors, HarnessError> {
    Ok(Floors {
        consume: consume(kafka, &scenario.source(), plan)?,
        produce: produce(kafka, scenario, plan)?,
        redis: redis(scenario, plan)?,
    })
}

fn output(kafka: &Kafka, tool: &'static str, arguments: &[&str]) -> Result<String, HarnessError> {
    let failed = |message: String| HarnessError::Process { name: tool.into(), message };
    let output = kafka.tool(tool)?.args(arguments).output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn consume(kafka: &Kafka, topic: &str, plan: &Plan) -> Result<f64, HarnessError> {
    let count = plan.events.to_string();
    let text =
        output(kafka, "kafka-consumer-perf-test", &["--topic", topic, "--messages", &count, "--timeout", "30000"])?;
    parse_consumer(&text).ok_or(HarnessError::Unreadable { witness: "kafka-consumer-perf-test", message: text })
}

/// The last column, `fetch.nMsg.sec`: without the time that joining a group takes.
fn parse_consumer(text: &str) -> Option<f64> {
    text.lines().rfind(|line| line.matches(',').count() == 9)?.rsplit(',').next()?.trim().parse().ok()
}

fn produce(kafka: &Kafka, scenario: &Scenario<'_>, plan: &Plan) -> Result<f64, HarnessError> {
    let topic = format!("{}-floor", scenario.source());
    let partitions = kafka::ends(kafka, &scenario.source(), false)?.len();
    let partitions = i32::try_from(partitions).unwrap_or(1);
    kafka::create_topics(kafka, &[TopicSpec { name: &topic, partitions, config: &[] }])?;
    let (count, size) = (plan.events.to_string(), plan.value_bytes.to_string());
    let text = output(
        kafka,
        "kafka-producer-perf-test",
        &[
            "--topic",
            &topic,
            "--num-records",
            &count,
            "--record-size",
            &size,
            "--throughput",
            "-1",
            "--transactional-id",
            &topic,
            "--transaction-duration-ms",
            "100",
        ],
    )?;
    kafka::delete_topics(kafka, &[&topic])?;
    parse_producer(&text).ok_or(HarnessError::Unreadable { witness: "kafka-producer-perf-test", message: text })
}

/// `400000 records sent, 123456.7 records/sec (70.6 MB/sec), …`, the last one.
fn parse_producer(text: &str) -> Option<f64> {
    let line = text.lines().rfind(|line| line.contains("records sent"))?;
    line.split(", ").nth(1)?.split_whitespace().next()?.parse().ok()
}

/// Commands in one pipeline.
const PIPELINE: usize = 256;

fn redis(scenario: &Scenario<'_>, plan: &Plan) -> Result<f64, HarnessError> {
    let masters = scenario.reader.masters()?;
    let each = plan.events / masters.len().max(1);
    let batches: Vec<Vec<u8>> = masters.iter().map(|master| batch(master, &scenario.key_prefix(), plan)).collect();
    let started = Instant::now();
    let outcomes: Vec<Result<(), HarnessError>> = std::thread::scope(|scope| {
        let threads: Vec<_> = masters
            .iter()
            .zip(&batches)
            .map(|(master, batch)| {
                scope.spawn(move || {
                    let mut connection = scenario.reader.connect(&master.address)?;
                    (0..each / PIPELINE).try_for_each(|_| connection.raw(batch, PIPELINE * b"+OK\r\n".len()))
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let seconds = started.elapsed().as_secs_f64();
    outcomes.into_iter().collect::<Result<(), _>>()?;
    Ok((each / PIPELINE * PIPELINE * masters.len()) as f64 / seconds)
}

/// One pipeline, written out once: what is measured is Redis, not who writes commands.
fn batch(master: &Master, prefix: &str, plan: &Plan) -> Vec<u8> {
    let owned = |key: &String| {
        let slot = slot_of(key);
        master.slots.iter().any(|&(first, last)| (first..=last).contains(&slot))
    };
    let keys = (0u32..).map(|number| format!("{prefix}floor:{{{number}}}")).filter(owned).take(PIPELINE);
    let value = "x".repeat(plan.value_bytes);
    let until = (crate::datapath::now_ms() + 1_800_000).to_string();
    let mut text = String::new();
    for key in keys {
        let words = ["SET", &key, &value, "PXAT", &until];
        let _ = write!(text, "*{}\r\n", words.len());
        for word in words {
            let _ = write!(text, "${}\r\n{word}\r\n", word.len());
        }
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_tools_print() {
        let producer = "50000 records sent, 9 records/sec (5 MB/sec), 1 ms avg latency, 2 ms max latency.\n\
                        400000 records sent, 123456.7 records/sec (70.60 MB/sec), 12.1 ms avg latency, 300.00 ms max latency.\n";
        assert_eq!(parse_producer(producer), Some(123_456.7));
        let consumer = "start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec\n\
                        2026-11-21 06:00:00:000, 2026-11-21 06:00:02:000, 228.8, 114.4, 400000, 200000.0, 300, 1700, 134.6, 235294.1\n";
        assert_eq!(parse_consumer(consumer), Some(235_294.1));
        assert_eq!((parse_producer(""), parse_consumer("")), (None, None));
    }
}
