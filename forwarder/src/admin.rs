//! The admin port: `/livez`, `/readyz`, `/metrics`, `/status`.
//!
//! Ready means that configuration and state are loaded: this listens only then. It never means that the token is good
//! or the SIEM there, because restarting the program would mend neither. Nothing here shows a record or a secret.
//! While there is no configuration, which only a sidecar lives with, all but `/livez` answer 503.

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

/// What is shown, once there is something.
pub type Current = watch::Receiver<Option<Arc<Progress>>>;

#[derive(Debug, Clone)]
struct Shown {
    current: Current,
    metrics: Scrape,
    status: Recent,
}

/// Serves until `stop` turns true.
pub async fn serve(listener: TcpListener, current: Current, mut stop: watch::Receiver<bool>) {
    let routes = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(Shown { current, metrics: Scrape::default(), status: Recent::default() });
    let stopped = async move {
        // A dropped sender means that the program ends as well.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    admin::serve(listener, routes, stopped).await;
}

async fn ready(State(shown): State<Shown>) -> impl IntoResponse {
    shown.progress().map(|_| "ok\n")
}

async fn metrics(State(shown): State<Shown>, headers: HeaderMap) -> impl IntoResponse {
    let progress = shown.progress()?;
    let encode = || progress.metrics.encode(&progress);
    Ok::<_, StatusCode>(shown.metrics.answer(&headers, encode).into_response())
}

async fn status(State(shown): State<Shown>) -> impl IntoResponse {
    let progress = shown.progress()?;
    let json = || {
        let mut report = progress.report(clock::now());
        report.make_printable();
        serde_json::to_string(&report)
    };
    match shown.status.or_make(json) {
        Ok(json) => Ok(([(header::CONTENT_TYPE, "application/json")], json)),
        Err(_unwritable) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

impl Shown {
    fn progress(&self) -> Result<Arc<Progress>, StatusCode> {
        self.current.borrow().clone().ok_or(StatusCode::SERVICE_UNAVAILABLE)
    }
}
