//! The port that shows how the operator is doing: `/livez`, `/readyz`, `/metrics`.
//!
//! Ready means that the caches are complete, on the leader and on one that waits alike. Alive means that it answers.

mod fleet;
mod metrics;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use siem_agent_edge::admin::{self, Scrape};
use tokio::net::TcpListener;

use crate::context::Context;
use crate::workqueue::Work;

#[derive(Debug, Clone)]
struct Shown {
    context: Arc<Context>,
    work: Arc<Work>,
    metrics: Scrape,
}

/// Serves until the program ends.
pub(crate) async fn serve(listener: TcpListener, context: Arc<Context>, work: Arc<Work>) {
    let routes = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(show))
        .with_state(Shown { context, work, metrics: Scrape::default() });
    admin::serve(listener, routes, std::future::pending()).await;
}

async fn readyz(State(shown): State<Shown>) -> impl IntoResponse {
    let metrics = &shown.context.metrics;
    if !metrics.is_warm() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the caches are not complete yet\n");
    }
    if metrics.is_crd_outdated() {
        return (StatusCode::OK, "ok, but the CRD on the server is older than this operator\n");
    }
    (StatusCode::OK, "ok\n")
}

async fn show(State(shown): State<Shown>, headers: HeaderMap) -> impl IntoResponse {
    let Shown { context, work, metrics: scrape } = shown;
    scrape.answer(&headers, || metrics::encode(&context, &work))
}
