//! Wiring: settings, clients, loops, signals.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use sluice_crds::names::FIELD_MANAGER;
use sluice_crds::v1alpha1::{CacheSync, EventPipeline};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::args::{Arguments, Command, RunArguments};
use crate::autoscale::ScalingBook;
use crate::connections::Connections;
use crate::controller::backoff::Backoff;
use crate::controller::context::{ClaimBook, Context, EpochMemo, RedisUserMemo};
use crate::controller::redis_keys::KeySweeps;
use crate::controller::streams;
use crate::controller::turns::Turns;
use crate::kube_ext::timed;
use crate::metrics::Metrics;
use crate::secrets::{InstallKey, WeakInstallKey};
use crate::settings::{LoadError, load, reload_loop, say_unusable};
use crate::sweep::{self, Board, Triggers};
use crate::{admin, metrics_api, release, telemetry};

/// How often it is looked whether `PodMonitors` can be made.
const POD_MONITORS_EVERY: Duration = Duration::from_secs(60);

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The settings cannot be used.
    #[error(transparent)]
    Settings(#[from] LoadError),
    /// The install key cannot be read.
    #[error("cannot read the install key {path}: {source}")]
    ReadInstallKey {
        /// Its file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The install key is too short.
    #[error(transparent)]
    InstallKey(#[from] WeakInstallKey),
    /// Neither in a cluster nor with a usable kubeconfig.
    #[error("no way to kubernetes: {0}")]
    Kubernetes(String),
    /// The admin endpoints cannot be served.
    #[error("admin endpoints: {0}")]
    Admin(std::io::Error),
    /// The external metrics API cannot be served.
    #[error("external metrics API: {0}")]
    ExternalMetrics(std::io::Error),
    /// The runtime cannot be made.
    #[error("runtime: {0}")]
    Runtime(std::io::Error),
    /// Finalizers could not be removed.
    #[error(transparent)]
    Release(release::ReleaseError),
}

/// Does what the command line says.
pub fn run(arguments: Arguments) -> Result<(), RunError> {
    telemetry::init(&arguments.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .map_err(RunError::Runtime)?;
    runtime.block_on(async {
        match arguments.command {
            // It holds the futures of every loop there is.
            Command::Run(arguments) => Box::pin(operate(arguments)).await,
            Command::ReleaseFinalizers(arguments) => {
                release::run(&client().await?, arguments.watch_namespace).await.map_err(RunError::Release)
            }
        }
    })
}

async fn client() -> Result<Client, RunError> {
    let mut config = kube::Config::infer().await.map_err(|error| RunError::Kubernetes(error.to_string()))?;
    // Reconciles are repeated with a back-off of their own: a call that fails says so at once.
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    Client::try_from(config).map_err(|error| RunError::Kubernetes(error.to_string()))
}

fn install_key(path: &Path) -> Result<InstallKey, RunError> {
    let read = |source| RunError::ReadInstallKey { path: path.display().to_string(), source };
    Ok(InstallKey::new(&std::fs::read(path).map_err(read)?)?)
}

async fn operate(arguments: RunArguments) -> Result<(), RunError> {
    let settings = load(&arguments.settings)?;
    say_unusable(&settings);
    let install_key = install_key(&arguments.install_key)?;
    let listener = TcpListener::bind(arguments.admin_listen).await.map_err(RunError::Admin)?;
    let external_metrics = external_metrics(&arguments).await?;
    let client = client().await?;
    let (settings, reloading) = reload_loop(arguments.settings, settings);
    let (triggers, pipelines, syncs) = Triggers::new();
    let (monitors_found, pod_monitors) = watch::channel(false);
    let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(arguments.pod) };
    let ctx = Arc::new(Context {
        recorder: Recorder::new(client.clone(), reporter),
        client,
        settings,
        install_key,
        connections: Connections::default(),
        claims: ClaimBook::default(),
        metrics: Metrics::default(),
        backoff: Backoff::default(),
        board: Board::new(triggers),
        redis_users: RedisUserMemo::default(),
        epochs: EpochMemo::default(),
        key_sweeps: KeySweeps::default(),
        scaling: ScalingBook::default(),
        turns: Turns::default(),
        external_metrics: if external_metrics.is_some() {
            metrics_api::Standing::expected()
        } else {
            metrics_api::Standing::default()
        },
        pod_monitors,
        started: jiff::Timestamp::now(),
        sweep_every: Duration::from_secs(arguments.sweep_seconds.into()),
        watched: arguments.watch_namespace,
    });
    let (stopping, stopped) = watch::channel(false);
    let until = |mut stopped: watch::Receiver<bool>| async move {
        // An error means that the sender is gone: that is an end too.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let concurrency = arguments.concurrency;
    let controllers = async {
        tokio::join!(
            streams::run::<EventPipeline>(Arc::clone(&ctx), pipelines, concurrency, until(stopped.clone())),
            streams::run::<CacheSync>(Arc::clone(&ctx), syncs, concurrency, until(stopped.clone())),
        );
    };
    let background = async {
        tokio::join!(
            reloading,
            streams::watch_children(Arc::clone(&ctx)),
            sweep::run(Arc::clone(&ctx)),
            look_for_pod_monitors(ctx.client.clone(), monitors_found),
            serve_external_metrics(external_metrics, Arc::clone(&ctx)),
        );
    };
    tracing::info!(instance = %ctx.settings.current().instance, "the operator runs");
    tokio::select! {
        () = controllers => Ok(()),
        () = background => Ok(()),
        served = admin::serve(listener, Arc::clone(&ctx)) => served.map_err(RunError::Admin),
        () = end_on_signal(stopping) => Ok(()),
    }
}

/// Where the external metrics API is served, if it is.
async fn external_metrics(arguments: &RunArguments) -> Result<Option<(TcpListener, metrics_api::Options)>, RunError> {
    let RunArguments { external_metrics_listen, external_metrics_name, pod_namespace, .. } = arguments;
    // The parser has seen to it that the first does not come without the others.
    let (Some(listen), Some(name), Some(namespace)) = (external_metrics_listen, external_metrics_name, pod_namespace)
    else {
        return Ok(None);
    };
    let listener = TcpListener::bind(listen).await.map_err(RunError::ExternalMetrics)?;
    Ok(Some((listener, metrics_api::Options { name: name.clone(), namespace: namespace.clone() })))
}

async fn serve_external_metrics(served: Option<(TcpListener, metrics_api::Options)>, ctx: Arc<Context>) {
    if let Some((listener, options)) = served {
        metrics_api::run(listener, options, ctx).await;
    }
}

/// Longest wait for reconciles that are under way.
const DRAIN: Duration = Duration::from_secs(10);

/// On SIGTERM or SIGINT no new reconcile starts; the select above ends with the controllers, or here after a while.
async fn end_on_signal(stopping: watch::Sender<bool>) {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut term), Ok(mut int)) = signals else { return std::future::pending().await };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("asked to end");
    stopping.send_replace(true);
    tokio::time::sleep(DRAIN).await;
}

async fn look_for_pod_monitors(client: Client, found: watch::Sender<bool>) {
    loop {
        let listed = timed("discover PodMonitor", client.list_api_group_resources("monitoring.coreos.com/v1")).await;
        let there = listed.is_ok_and(|list| list.resources.iter().any(|resource| resource.name == "podmonitors"));
        found.send_if_modified(|known| std::mem::replace(known, there) != there);
        tokio::time::sleep(POD_MONITORS_EVERY).await;
    }
}
