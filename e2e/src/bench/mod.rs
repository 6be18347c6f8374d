//! `make bench`: scenario S1 at full speed and at a fixed rate, next to what the parts could do alone on the same machine.
//!
//! ```text
//! run.rs      load, run a worker, measure: events/s, CPU, memory; then at a fixed rate: latency
//! latency.rs  record timestamp → visible output, record timestamp → Redis
//! floors.rs   consume only and transactional produce only by Kafka's own tools, Redis only by pipelined SETs
//! report.rs   the tables of docs/bench.md
//! ```
//!
//! Everything shares the machine's cores: brokers, Redis, worker, and whoever measures. The figures say what one small
//! machine does with all of it, not what a worker could do with brokers of its own.

mod floors;
mod latency;
mod report;
mod run;

pub use floors::Floors;
pub use latency::Latency;
pub(crate) use report::whole;
pub use report::{Machine, render};
pub use run::{Measured, Plan, cpu_us, measure, pids};
