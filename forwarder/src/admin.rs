//! The admin port: `/livez`, `/readyz`, `/metrics`, `/status`.
//!
//! Ready means that configuration and state are loaded: this listens only then. It never means that the token is good
//! or the SIEM there, because restarting the program would mend neither. Nothing here shows a record or a secret.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use siem_agent_crds::exposition::Form;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::clock;
use crate::progress::Progress;

/// Serves until `stop` turns true.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    progress: Arc<Progress>,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async { "ok\n" }))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(progress);
    axum::serve(listener, routes)
        .with_graceful_shutdown(async move {
            // A dropped sender means that the program ends as well.
            let _ = stop.wait_for(|stop| *stop).await;
        })
        .await
}

async fn metrics(State(progress): State<Arc<Progress>>, headers: HeaderMap) -> impl IntoResponse {
    match progress.metrics.encode(&progress) {
        Ok(open_metrics) => {
            let accept = headers.get_all(header::ACCEPT).iter();
            let form = Form::accepted(accept.filter_map(|value| value.to_str().ok()));
            Ok(([(header::CONTENT_TYPE, form.content_type())], form.of(open_metrics)))
        }
        Err(_unwritable) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

async fn status(State(progress): State<Arc<Progress>>) -> impl IntoResponse {
    Json(progress.report(clock::now()))
}
