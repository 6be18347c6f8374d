//! `/livez`: the process answers. `/readyz`: everything was listed and the settings are good; says by name what is
//! waited for. `/metrics`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::controller::context::Context;

/// Serves until the listener fails.
pub async fn serve(listener: TcpListener, ctx: Arc<Context>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(ctx);
    axum::serve(listener, router).await
}

async fn ready(State(ctx): State<Arc<Context>>) -> impl IntoResponse {
    let mut waiting = Vec::new();
    if !ctx.claims.is_complete() {
        waiting.push("resources are being listed".to_owned());
    }
    if waiting.is_empty() {
        // Settings that a change has broken do not make a working operator unready; they are said and measured.
        let note = ctx.settings.broken().map_or_else(String::new, |why| format!("; settings not in use: {why}"));
        // Nor does somebody else who holds the APIService.
        let api = ctx.external_metrics.note().map_or_else(String::new, |why| format!("; external metrics API: {why}"));
        (StatusCode::OK, format!("ok{note}{api}"))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, waiting.join(", "))
    }
}

async fn metrics(State(ctx): State<Arc<Context>>) -> impl IntoResponse {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match ctx.metrics.encode(&ctx) {
        Ok(text) => (StatusCode::OK, [(CONTENT_TYPE, content_type)], text),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "text/plain")], String::new()),
    }
}
