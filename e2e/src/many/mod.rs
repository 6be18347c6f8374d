//! `make many`: what one operator costs with thousands of pipelines, measured on the real stack.
//!
//! ```text
//! tests/operator_many.rs  makes the pipelines, measures
//! scrape.rs               figures out of the operator's metrics
//! report.rs               docs/autoscaling/many.md
//! ```

mod report;
pub mod scrape;

pub use report::{Deletion, First, Report, Rest, Restart, render};
