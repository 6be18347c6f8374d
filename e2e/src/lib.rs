//! Tests of Sluice on the real thing, and the local stack they run on.
//!
//! - [`generator`]: orders with a known outcome. [`checker`]: the judge of what became of them.
//! - [`datapath`]: loads, dumps and trials under faults. [`demo`]: `make demo`.
//! - [`scaling`]: what a change of the number of workers costs. [`many`]: what thousands of pipelines cost.
//! - [`chart`]: what the Helm chart is told.
//! - [`stack`]: starts, stops, kills and freezes a Kubernetes cluster, a Kafka cluster and a Redis Cluster on this machine,
//!   and tells tests how to reach them, or an existing cluster.
#![forbid(unsafe_code)]

pub mod bench;
pub mod chart;
pub mod checker;
pub mod datapath;
pub mod demo;
pub mod generator;
pub mod many;
pub mod scaling;
pub mod stack;
pub mod worker_process;
