//! Logs, and the port that shows how the operator is doing: `/livez`, `/readyz`, `/metrics`.
//!
//! Ready means that the caches are complete, on the leader and on one that waits alike. Alive means that it answers.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use siem_agent_edge::admin::{self, Scrape};
use siem_agent_edge::log::OneLine;
use tokio::net::TcpListener;
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use crate::controller::Work;
use crate::world::World;

/// The form of the logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    #[default]
    Text,
}

/// What is logged of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum LogLevel {
    /// Someone must act.
    Error,
    /// Someone may need to.
    Warn,
    /// State changed.
    #[default]
    Info,
    /// Each reconcile with its outcome, and why a status is held.
    Debug,
    /// What the libraries log as well.
    Trace,
}

impl LogLevel {
    /// What this program says, and the libraries' complaints; but for the API's client, which repeats an answer that it
    /// cannot read as a whole.
    fn directives(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn,kube_client=error",
            Self::Info => "warn,kube_client=error,siem_operator=info",
            Self::Debug => "warn,kube_client=error,siem_operator=debug",
            Self::Trace => "trace,kube_client=error",
        }
    }
}

/// Starts logging. `directives` are those of `RUST_LOG`, such as `warn,siem_operator=debug`, and win over the level.
///
/// # Errors
/// When they are none.
pub(crate) fn start(
    format: LogFormat,
    level: LogLevel,
    directives: Option<&str>,
) -> Result<(), ParseError> {
    let filter: Targets = directives.unwrap_or_else(|| level.directives()).parse()?;
    let layer = match format {
        LogFormat::Json => {
            fmt::layer().json().flatten_event(true).with_writer(OneLine(std::io::stderr)).boxed()
        }
        LogFormat::Text => {
            fmt::layer().with_writer(OneLine(std::io::stderr)).with_ansi(false).boxed()
        }
    };
    // A second start keeps the first.
    let _ = tracing_subscriber::registry().with(filter).with(layer).try_init();
    Ok(())
}

#[derive(Debug, Clone)]
struct Shown {
    world: Arc<World>,
    work: Arc<Work>,
    metrics: Scrape,
}

/// Serves until the program ends.
pub(crate) async fn serve(listener: TcpListener, world: Arc<World>, work: Arc<Work>) {
    let routes = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Shown { world, work, metrics: Scrape::default() });
    admin::serve(listener, routes, std::future::pending()).await;
}

async fn readyz(State(shown): State<Shown>) -> impl IntoResponse {
    let metrics = &shown.world.metrics;
    if !metrics.is_warm() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the caches are not complete yet\n");
    }
    if metrics.is_crd_outdated() {
        return (StatusCode::OK, "ok, but the CRD on the server is older than this operator\n");
    }
    (StatusCode::OK, "ok\n")
}

async fn metrics(State(shown): State<Shown>, headers: HeaderMap) -> impl IntoResponse {
    let Shown { world, work, metrics } = shown;
    metrics.answer(&headers, || crate::metrics::encode(&world, &work))
}
