//! `demo`: see `sluice_e2e::demo`. `make demo` starts it inside the stack's network.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use sluice_e2e::demo;

/// Shows Sluice from an applied EventPipeline to a Redis view, kills a worker in the middle, and proves that nothing was lost,
/// doubled or stale.
#[derive(Parser)]
#[command(name = "demo")]
struct Arguments {
    /// Orders to produce
    #[arg(long, env = "ORDERS", default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(100..=5_000_000))]
    orders: u64,
    /// Orders a second
    #[arg(long, env = "RATE", default_value_t = 2_500)]
    per_second: u32,
    /// Seed of the orders and of the moment of the kill; absent: the time
    #[arg(long, env = "SEED")]
    seed: Option<u64>,
    /// On an existing cluster: delete namespace `shop`, topics `order.*` and keys of the example's names that no demo has made
    #[arg(long, env = "OVERWRITE", num_args = 0..=1, default_missing_value = "true", default_value = "false")]
    overwrite: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(|| sluice_e2e::datapath::now_ms().unsigned_abs());
    println!("demo: {} orders, seed {seed}", arguments.orders);
    let Arguments { orders, per_second, overwrite, .. } = arguments;
    match demo::run(&demo::Options { orders, per_second, seed, overwrite }) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}
