//! `siem-operator run`: puts everything together, runs until SIGTERM, and ends in order: what is under way is finished,
//! then the Lease is given back.

use std::io::ErrorKind;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderValue, header};
use kube::client::{ClientBuilder, DynBody};
use kube::config::AuthInfo;
use kube::{Client, Config};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use siem_agent_edge::listen;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tower::timeout::TimeoutLayer;
use tower::util::MapResponseLayer;
use tracing::info;

use super::{Failure, RunArguments, variable};
use crate::admin;
use crate::api::Server;
use crate::apply::expectations::Expectations;
use crate::caches::Scope;
use crate::checkpoint::Keeper;
use crate::client_metrics::ClientMetrics;
use crate::context::Context;
use crate::controller;
use crate::error_chain::chain;
use crate::forwarders::report::Reports;
use crate::hosts::Hosts;
use crate::leader_election::{Candidate, Leadership};
use crate::metrics::{Metrics, OfRequest};
use crate::platform::{Place, Platform};
use crate::release::Settings;
use crate::shallow::shallow;
use crate::telemetry;
use crate::tenants::Tenants;
use crate::turns::Turns;
use crate::workqueue::Work;

/// A connection to the API server takes no longer.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// An answer begins within this, that of a watch too; one that has begun may last. A reconcile waits for less.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn run(arguments: RunArguments) -> Result<(), Failure> {
    let RunArguments { namespaces, listen, forwarder_image, tenants, log_level, log_format } =
        arguments;
    let tenants = Tenants::read(&tenants)
        .map_err(|error| Failure::Given(format!("--tenant: {}", chain(&error))))?;
    telemetry::start(log_format, log_level, variable("RUST_LOG").as_deref()).map_err(|error| {
        Failure::Given(format!("RUST_LOG: {error}; give levels such as warn,siem_operator=debug"))
    })?;
    siem_agent_edge::limits::raise_open_files();
    // Somebody else may have chosen the same already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::world(&error))?;
    runtime.block_on(serve(namespaces, &listen, forwarder_image, tenants))
}

async fn serve(
    mut namespaces: Vec<String>,
    listen: &str,
    forwarder_image: String,
    tenants: Tenants,
) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| Failure::world(&error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| Failure::world(&error))?;
    let listener = listen::listen(listen).await.map_err(|error| cannot_listen(listen, &error))?;
    let requests = Family::default();
    let instance = identity();
    let client = client(requests.clone(), &instance).await?;
    let lease_namespace =
        variable("POD_NAMESPACE").unwrap_or_else(|| client.default_namespace().to_owned());

    namespaces.sort();
    namespaces.dedup();
    let scopes: Vec<_> = if namespaces.is_empty() {
        vec![Scope::new(&client, None)]
    } else {
        namespaces.into_iter().map(|name| Scope::new(&client, Some(name))).collect()
    };
    let (scopes, sights) = scopes.into_iter().unzip();
    let settings = |platform| {
        let place = Place { platform, namespace: lease_namespace.clone() };
        Settings::new(forwarder_image.clone(), place).map_err(|error| Failure::world(&error))
    };
    let leadership = Arc::new(Leadership::new());
    let context = Arc::new(Context {
        scopes,
        server: Server::new(client.clone(), Arc::clone(&leadership)),
        leadership,
        settings: [settings(Platform::Kubernetes)?, settings(Platform::OpenShift)?],
        is_openshift: AtomicBool::new(false),
        tenants,
        turns: Turns::default(),
        reports: Reports::default(),
        expectations: Expectations::default(),
        hosts: Hosts::default(),
        keeper: Keeper::default(),
        metrics: Metrics::new(requests),
        instance: instance.clone(),
        shares: Mutex::default(),
        twins: Mutex::default(),
        told_twins: Mutex::default(),
    });
    let work = Arc::new(Work::default());
    let admin = tokio::spawn(admin::serve(listener, Arc::clone(&context), Arc::clone(&work)));
    info!(version = env!("CARGO_PKG_VERSION"), instance, listen, "started");

    let candidate = Candidate::new(client.clone(), &lease_namespace, instance);
    let (stop, stopping) = watch::channel(false);
    let running = controller::run(Arc::clone(&context), work, sights, client, stopping);
    tokio::pin!(running);
    let ended = tokio::select! {
        ended = &mut running => Some(ended),
        () = candidate.run(&context.leadership) => None,
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    info!("stopping: finishing reconciles, then releasing the lease");
    stop.send_replace(true);
    let ended = match ended {
        Some(ended) => ended,
        None => running.await,
    };
    candidate.release(&context.leadership).await;
    admin.abort();
    ended.map_err(|error| Failure::world(&error))
}

/// No retries of the client's own: the queue has them, and a call must end in time.
pub(super) async fn client(
    requests: Family<OfRequest, Counter>,
    instance: &str,
) -> Result<Client, Failure> {
    let mut config = Config::infer().await.map_err(|error| {
        Failure::World(format!(
            "find the API server, in the cluster or by KUBECONFIG: {}",
            chain(&error)
        ))
    })?;
    if !has_sendable_token(&config.auth_info) {
        return Err(Failure::World(
            "the token of the kubeconfig holds characters that no HTTP header can carry; log on again, such as with kubectl"
                .to_owned(),
        ));
    }
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_PATIENCE);
    // The server's audit log then tells which of several operators asked.
    let agent = format!("siem-operator/{} {instance}", env!("CARGO_PKG_VERSION"));
    if let Ok(agent) = HeaderValue::from_str(&agent) {
        config.headers.push((header::USER_AGENT, agent));
    }
    let builder = ClientBuilder::try_from(config).map_err(|error| Failure::world(&error))?;
    let in_time = TimeoutLayer::new(ANSWER_PATIENCE);
    let shallow = MapResponseLayer::new(shallow::<Box<DynBody>>);
    Ok(builder
        .with_layer(&in_time)
        .with_layer(&ClientMetrics(requests))
        .with_layer(&shallow)
        .build())
}

/// The client would panic over another one.
fn has_sendable_token(credentials: &AuthInfo) -> bool {
    let fields = serde_json::to_value(credentials).unwrap_or_default();
    let token = fields.get("token").and_then(serde_json::Value::as_str);
    token.is_none_or(|token| HeaderValue::from_str(token).is_ok())
}

/// An invalid address is a wrong setting; one that is in use is a fault at run time.
fn cannot_listen(listen: &str, error: &std::io::Error) -> Failure {
    let text = format!("cannot listen on {listen} (--listen): {error}");
    match error.kind() {
        ErrorKind::InvalidInput => Failure::Given(format!("{text}; give ADDRESS:PORT")),
        _ => Failure::World(text),
    }
}

/// Another one at each start, so that a restart is seen as another holder.
fn identity() -> String {
    let name = variable("POD_NAME").or_else(|| variable("HOSTNAME"));
    format!("{}_{:016x}", name.as_deref().unwrap_or("siem-operator"), fastrand::u64(..))
}
