//! `bench`: measures and writes `docs/bench.md`. Run inside the stack: `stack exec -- bench`.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sluice_e2e::bench::{Machine, Plan, measure, render};
use sluice_e2e::datapath::HarnessError;
use sluice_e2e::stack::Stack;
use sluice_e2e::stack::kafka::KafkaOptions;
use sluice_e2e::stack::redis::RedisOptions;

/// Measures S1 on one plaintext broker and on the stack's three brokers with TLS.
#[derive(Parser)]
struct Arguments {
    /// Orders of the run at full speed
    #[arg(long, default_value_t = 400_000)]
    events: usize,
    /// Size of an order's value in bytes
    #[arg(long, default_value_t = 600)]
    value_bytes: usize,
    /// Orders a second while latency is measured
    #[arg(long, default_value_t = 3_000)]
    steady_rate: u32,
    /// Seconds of measuring latency
    #[arg(long, default_value_t = 20)]
    steady_seconds: u32,
    /// Only the first table
    #[arg(long)]
    plaintext_only: bool,
    /// Where the tables go
    #[arg(long, default_value = "docs/bench.md")]
    out: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), HarnessError> {
    let plan = Plan {
        events: arguments.events,
        value_bytes: arguments.value_bytes,
        steady_rate: arguments.steady_rate,
        steady_seconds: arguments.steady_seconds,
    };
    let machine = Machine::here();
    let stack = Stack::attach()?;
    let mut tables = Vec::new();
    {
        eprintln!("bench: one broker, replication factor 1, plaintext; one Redis, plaintext");
        let kafka = stack.start_kafka(&KafkaOptions::bench("bench-kafka"))?;
        let redis = stack.start_redis(&RedisOptions::standalone("bench-redis"))?;
        tables.push((
            "One broker, replication factor 1, plaintext; one Redis, plaintext",
            measure(&kafka, &redis, &plan)?,
        ));
    }
    if !arguments.plaintext_only {
        eprintln!("bench: three brokers, replication factor 3, TLS; Redis Cluster of 3 + 3, TLS");
        let title = "Three brokers, replication factor 3, two in sync, TLS and SCRAM; Redis Cluster of 3 + 3, TLS";
        tables.push((title, measure(stack.kafka()?, stack.redis()?, &plan)?));
    }
    let page = render(&plan, machine, &tables);
    if let Some(folder) = arguments.out.parent() {
        std::fs::create_dir_all(folder).map_err(|source| HarnessError::File { path: folder.to_owned(), source })?;
    }
    std::fs::write(&arguments.out, &page)
        .map_err(|source| HarnessError::File { path: arguments.out.clone(), source })?;
    print!("{page}");
    Ok(())
}
