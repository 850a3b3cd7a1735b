//! The admin port: `/livez`, `/readyz`, `/metrics`, `/status`.
//!
//! Ready means that configuration and state are loaded: this listens only then. It never means that the token is good
//! or the SIEM there, because restarting the program would mend neither. Nothing here shows a record or a secret.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use siem_agent_edge::admin::{self, Recent, Scrape};
use siem_agent_edge::clock;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::progress::Progress;

#[derive(Debug, Clone)]
struct Shown {
    progress: Arc<Progress>,
    metrics: Scrape,
    status: Recent,
}

/// Serves until `stop` turns true.
pub async fn serve(
    listener: TcpListener,
    progress: Arc<Progress>,
    mut stop: watch::Receiver<bool>,
) {
    let routes = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async { "ok\n" }))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(Shown { progress, metrics: Scrape::default(), status: Recent::default() });
    let stopped = async move {
        // A dropped sender means that the program ends as well.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    admin::serve(listener, routes, stopped).await;
}

async fn metrics(State(shown): State<Shown>, headers: HeaderMap) -> impl IntoResponse {
    let Shown { progress, metrics, .. } = shown;
    metrics.answer(&headers, || progress.metrics.encode(&progress))
}

async fn status(State(shown): State<Shown>) -> impl IntoResponse {
    let json = || {
        let mut report = shown.progress.report(clock::now());
        report.make_printable();
        serde_json::to_string(&report)
    };
    match shown.status.or_make(json) {
        Ok(json) => Ok(([(header::CONTENT_TYPE, "application/json")], json)),
        Err(_unwritable) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}
