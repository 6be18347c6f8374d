//! `/livez` (loops tick), `/readyz` (what the worker waits for), `/metrics` (`OpenMetrics` text).

use std::sync::{Arc, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::engine::Metrics;
use crate::health::Health;

#[derive(Clone)]
struct Admin {
    health: Arc<Health>,
    metrics: Metrics,
}

/// Binds `listen` (`host:port`) and serves until the handle is aborted.
pub async fn serve(listen: &str, health: Arc<Health>, metrics: Metrics) -> std::io::Result<JoinHandle<()>> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    tracing::info!(%address, "serving /livez /readyz /metrics");
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .with_state(Admin { health, metrics });
    Ok(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "admin endpoints stopped");
        }
    }))
}

async fn livez(State(admin): State<Admin>) -> Response {
    let silent = admin.health.silent();
    if silent.is_empty() {
        return "alive\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("silent: {}\n", silent.join(", "))).into_response()
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let waiting = admin.health.waiting();
    if waiting.is_empty() {
        return "ready\n".into_response();
    }
    let lines: Vec<String> = waiting.iter().map(|(part, reason)| format!("{part} waits for {reason}")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines.join("\n") + "\n").into_response()
}

async fn metrics_text(State(admin): State<Admin>) -> Response {
    let mut text = String::new();
    let registry = admin.metrics.lock().unwrap_or_else(PoisonError::into_inner);
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
