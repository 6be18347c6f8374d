//! The worker: two engines, and nothing else touches data.
//!
//! ```text
//! args.rs, config.rs  command line, WorkerConfig file and mounted secrets → Settings
//! engine.rs           what the process hands to each engine
//! processor/          consume → look up → steps → produce, one Kafka transaction a batch
//! applier/            committed topic → Redis by compare-and-advance
//! admin.rs            /livez /readyz /metrics, from health.rs and the metrics registry
//! reexec.rs           the way out of a call that never returns: this process starts itself anew
//! failpoint.rs        places where tests let the process die
//! ```
//!
//! The process: [`run`] reads arguments and configuration, starts the admin endpoints, then the engines; SIGTERM
//! raises [`engine::Shutdown`], the engines finish or abort what they hold, and the process exits 0.
//! The operator reads what a worker does from the offset metadata (`sluice_crds::report`); metrics are for people.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

pub mod admin;
pub mod applier;
pub mod args;
pub mod config;
pub mod engine;
pub mod failpoint;
pub mod health;
pub mod processor;
pub mod reexec;
mod telemetry;

use args::Args;
use config::Settings;
use engine::{EngineContext, EngineError, Shutdown};

/// Exit code for a configuration that no restart can repair.
const EXIT_CONFIG: u8 = 2;

/// Runs the worker as the command line says.
pub fn run() -> ExitCode {
    sluice_clients::kafka::bound_memory();
    // Two crates bring rustls without a provider: install exactly one before the first connection.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("a rustls crypto provider is already installed");
        return ExitCode::from(EXIT_CONFIG);
    }
    let args = Args::from_command_line();
    telemetry::init(&args.log);
    let settings = match Settings::load(&args.config, args.pod.clone()) {
        Ok(settings) => settings,
        Err(error) => {
            tracing::error!(%error, category = error.category(), "the configuration is not usable");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the async runtime");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(supervise(settings, Duration::from_secs(args.grace_seconds)));
    // Tasks still pending hold nothing that matters: the engines have returned or overstayed the grace period.
    runtime.shutdown_background();
    code
}

/// Starts admin endpoints and engines, waits for a signal or the first engine to fail, and stops everything.
async fn supervise(settings: Settings, grace: Duration) -> ExitCode {
    let (stop, shutdown) = Shutdown::new();
    let context = EngineContext::new(&settings, shutdown);
    let admin = match admin::serve(&settings.config.admin_listen, context.health.clone(), context.metrics.clone()).await
    {
        Ok(admin) => admin,
        Err(error) => {
            tracing::error!(%error, listen = settings.config.admin_listen, "cannot serve the admin endpoints");
            return ExitCode::FAILURE;
        }
    };
    reexec::wait_out_backoff(&context.shutdown).await;
    let mut engines = start_engines(&settings, &context);
    let failed = tokio::select! {
        signal = terminated() => {
            tracing::info!(signal, "stopping");
            false
        }
        outcome = engines.join_next() => report_end(outcome),
    };
    stop.raise();
    let finished = tokio::time::timeout(grace, async {
        let mut failed = failed;
        while let Some(outcome) = engines.join_next().await {
            failed |= report_end(Some(outcome));
        }
        failed
    })
    .await;
    admin.abort();
    match finished {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => ExitCode::FAILURE,
        Err(_) => {
            tracing::error!(grace_seconds = grace.as_secs(), "an engine did not stop in the grace period");
            // Its threads may sit in a call that never returns; leaving through `main` would wait for them.
            std::process::exit(1);
        }
    }
}

/// An engine's name and how it ended.
type Ended = (&'static str, Result<(), EngineError>);
type Engines = tokio::task::JoinSet<Ended>;

fn start_engines(settings: &Settings, context: &EngineContext) -> Engines {
    let mut engines = Engines::new();
    if let Some(processor) = settings.config.processor.clone() {
        let context = context.clone();
        engines.spawn(async move { ("processor", processor::run(processor, context).await) });
    }
    if let Some(applier) = settings.config.applier.clone() {
        let context = context.clone();
        engines.spawn(async move { ("applier", applier::run(applier, context).await) });
    }
    engines
}

/// Logs how an engine ended; true when it failed.
fn report_end(outcome: Option<Result<Ended, tokio::task::JoinError>>) -> bool {
    match outcome {
        None => false,
        Some(Ok((engine, Ok(())))) => {
            tracing::info!(engine, "engine stopped");
            false
        }
        Some(Ok((engine, Err(error)))) => {
            tracing::error!(engine, category = error.category, error = error.message, "engine failed");
            true
        }
        Some(Err(error)) => {
            tracing::error!(%error, "engine panicked");
            true
        }
    }
}

/// Waits for SIGTERM or SIGINT and names it.
async fn terminated() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        tracing::error!("cannot install signal handlers");
        return "none";
    };
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    }
}
