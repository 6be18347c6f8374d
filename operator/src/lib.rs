//! The operator: turns `EventPipeline` and `CacheSync` objects into topics, users, rights, settings and worker pods.
//!
//! ```text
//! args.rs  runtime.rs  telemetry.rs  admin.rs  metrics.rs   the process around it
//! settings/       the administrator's file: connections, policies of namespaces, the worker image; hot-reloaded
//! secrets.rs      generated passwords, derived from the install key
//! connections.rs  one Kafka and Redis admin client a connection, failing fast while it is away
//! claims.rs       PURE: who may have which topic, group, key prefix and setting: the oldest that asks
//! release.rs      `release-finalizers`: what an uninstall needs
//! kube_ext.rs     apply only when needed, never over somebody else's object, every call bounded
//! controller/     the reconcile loop: dereference (IO) → validate (pure) → build (pure) → apply (IO) → status
//! metrics_api/    external.metrics.k8s.io: lag for autoscalers, off by default
//! sweep/          what is looked at all the time: lag, reports of workers, servers that are away, orphans
//! autoscale/      how many workers there are, by the load: measured after each sweep, written to `/scale`
//! ```
//! Watches and sweeps trigger reconciles; a reconcile reads what there is, plans without IO, carries the plan out and
//! writes one status. Nothing is written when nothing is to be changed.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

pub mod admin;
pub mod args;
pub mod autoscale;
pub mod claims;
pub mod connections;
pub mod controller;
pub mod kube_ext;
pub mod metrics;
pub mod metrics_api;
pub mod release;
pub mod runtime;
pub mod secrets;
pub mod settings;
pub mod sweep;
pub mod telemetry;

/// The process.
pub fn main() -> ExitCode {
    sluice_clients::kafka::bound_memory();
    // First of all: with several providers compiled in, rustls would not choose one.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("a crypto provider was installed before main");
        return ExitCode::FAILURE;
    }
    match runtime::run(args::Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the operator ends");
            eprintln!("sluice-operator: {error}");
            ExitCode::FAILURE
        }
    }
}
