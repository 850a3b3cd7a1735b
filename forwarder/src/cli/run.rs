//! `siem-forwarder run`: puts everything together, runs until SIGTERM, and ends in order.

mod export;
mod sidecar;

use std::io::ErrorKind;
use std::process::ExitCode;

use siem_agent_crds::siem_agent::LogLevel;
use siem_agent_edge::listen;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::info;

use super::given::Given;
use super::load::{self, Loaded};
use super::{Failure, RunArguments, runtime};
use crate::admin;
use crate::pipeline::Budgets;
use crate::telemetry::{self, LevelHandle};
use export::Export;

pub(super) fn run(arguments: RunArguments) -> Result<ExitCode, Failure> {
    let RunArguments { agent, sidecar_of, state_dir, listen, logs_directory, log_format } =
        arguments;
    let given = agent.given(state_dir.is_some())?;
    if let (Some(of), Given::Config(config)) = (sidecar_of, given) {
        let level = telemetry::start(LogLevel::default(), log_format, logs_directory.as_deref())
            .map_err(|error| Failure::settings(&error))?;
        return runtime()?.block_on(sidecar::follow(config, of, listen, level));
    }
    let loaded = load::agent(given, state_dir)?;
    if loaded.config.suspend {
        return Err(Failure::Settings("spec.suspend is true: there is nothing to run".to_owned()));
    }
    siem_agent_edge::limits::raise_open_files();
    let listen = listen.unwrap_or_else(|| loaded.config.listen.clone());
    let level = telemetry::start(loaded.config.log_level, log_format, logs_directory.as_deref())
        .map_err(|error| Failure::settings(&error))?;
    loaded.tell_overridden();
    runtime()?.block_on(serve(loaded, &listen, level))
}

async fn serve(loaded: Loaded, listen: &str, level: LevelHandle) -> Result<ExitCode, Failure> {
    let mut signals = Signals::new()?;
    let agent = loaded.config.agent.name.clone();
    let listener = listen::listen(listen).await.map_err(|error| cannot_listen(listen, &error))?;
    let budgets = Budgets::new(loaded.settings.budget);
    let mut export = Export::start(loaded, &level, budgets)?;
    let (stop, stopping) = watch::channel(false);
    let (_shown, current) = watch::channel(Some(export.progress.clone()));
    let admin = tokio::spawn(admin::serve(listener, current, stopping));
    let watching = tokio::spawn(level.watch_files());
    info!(version = env!("CARGO_PKG_VERSION"), agent, listen, "started");
    tokio::select! {
        () = export.ended() => {}
        () = signals.end() => {}
    }
    info!("stopping: confirming what was sent, then saving");
    stop.send_replace(true);
    export.stop().await;
    watching.abort();
    admin.abort();
    Ok(ExitCode::SUCCESS)
}

/// What asks the program to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let signal = |kind| signal(kind).map_err(|error| Failure::world(&error));
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// An invalid address is a wrong setting; one that is in use is a fault at run time.
fn cannot_listen(listen: &str, error: &std::io::Error) -> Failure {
    let text = format!("cannot listen on {listen} (--listen): {error}");
    match error.kind() {
        ErrorKind::InvalidInput => Failure::Settings(format!("{text}; give ADDRESS:PORT")),
        ErrorKind::AddrInUse => {
            Failure::World(format!("{text}; another forwarder may run, give this one another port"))
        }
        _ => Failure::World(text),
    }
}
