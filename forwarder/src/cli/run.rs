//! `siem-forwarder run`: puts everything together, runs until SIGTERM, and ends in order.

use std::io::ErrorKind;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use siem_agent_crds::config::{Config, Live};
use siem_agent_crds::printable::printable;
use siem_agent_edge::error_chain::chain;
use siem_agent_edge::{clock, listen};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use super::load::{self, Loaded};
use super::{Failure, RunArguments, runtime};
use crate::admin;
use crate::checkpoint::Checkpoint;
use crate::pipeline::{Pipeline, Shared, State};
use crate::progress::{Identity, Progress};
use crate::resume::{self, Kept};
use crate::source::http::gate::Gate;
use crate::state_folder::{self, StateFolder};
use crate::store::Store;
use crate::telemetry::{self, LevelHandle};
use siem_agent_crds::checkpoint as kept;

/// How often the live file is looked at.
const LIVE_INTERVAL: Duration = Duration::from_secs(2);

pub(super) fn run(arguments: RunArguments) -> Result<ExitCode, Failure> {
    let RunArguments { config, manifest, overrides, state_dir, listen, logs_directory, log_format } =
        arguments;
    let loaded = match (config, manifest) {
        (Some(config), _) => load::from_config(&config)?,
        (None, Some(manifest)) => load::from_manifest(&manifest, &overrides, state_dir)?,
        (None, None) => return Err(Failure::Settings("give --config or --manifest".to_owned())),
    };
    siem_agent_edge::limits::raise_open_files();
    let listen = listen.unwrap_or_else(|| loaded.config.listen.clone());
    let level = telemetry::start(loaded.config.log_level, log_format, logs_directory.as_deref())
        .map_err(|error| Failure::settings(&error))?;
    loaded.tell_overridden();
    runtime()?.block_on(serve(loaded, &listen, level))
}

async fn serve(loaded: Loaded, listen: &str, level: LevelHandle) -> Result<ExitCode, Failure> {
    let Loaded { config, settings, text, .. } = loaded;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| Failure::world(&error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| Failure::world(&error))?;
    let identity = Identity {
        agent: config.agent.clone(),
        pod_uid: pod_uid(),
        config_hash: Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect(),
        started_at: clock::now(),
        source: settings.source.url.clone(),
    };
    let progress = Progress::new(identity, settings.streams());
    let agent = state_folder::agent(&config);
    let _state_folder = StateFolder::open(&config.paths.state, &agent)
        .map_err(|error| Failure::settings(&error))?;
    let (store, found) =
        Store::open(&config.paths.state).map_err(|error| Failure::settings(&error))?;
    for path in &found.set_aside {
        progress.metrics.state_damaged();
        warn!(path = %path.display(), "a damaged state file was set aside, the other generation is used");
    }
    refuse_another_source(&config, &settings.source.url, found.checkpoint.as_ref())?;
    let listener = listen::listen(listen).await.map_err(|error| cannot_listen(listen, &error))?;
    let life = resume::Life {
        source: &settings.source.url,
        created: config.agent.creation_timestamp.map(clock::millis),
        now: clock::millis(clock::now()),
        start_from: settings.plan.start_from,
    };
    let (checkpoint, begins) =
        resume::resume(found.checkpoint, kept(&config), &life, settings.streams());
    for begins in &begins {
        info!(stream = %begins.stream, from = begins.origin.as_str(), "resuming stream");
    }
    let starts = begins.into_iter().map(|begins| (begins.stream, begins.start)).collect();

    let (stop, stopping) = watch::channel(false);
    let admin = tokio::spawn(admin::serve(listener, Arc::clone(&progress), stopping));
    let watching = tokio::spawn(level.clone().watch_files());
    let gate = Arc::new(Gate::new(settings.requests_per_minute));
    progress.metrics.budget(settings.requests_per_minute);
    let live = config.paths.live.clone().map(|path| {
        tokio::spawn(follow_live(path, level, Arc::clone(&gate), Arc::clone(&progress)))
    });
    info!(version = env!("CARGO_PKG_VERSION"), agent = config.agent.name, listen, "started");
    let agent = format!("{}/{}", config.agent.namespace, config.agent.name);
    let shared = Shared { agent, gate, progress };
    let mut pipeline = Pipeline::start(shared, settings, State { checkpoint, starts, store });
    tokio::select! {
        () = pipeline.ended() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("stopping: confirming what was sent, then saving");
    stop.send_replace(true);
    pipeline.stop().await;
    if let Some(live) = live {
        live.abort();
    }
    watching.abort();
    admin.abort();
    Ok(ExitCode::SUCCESS)
}

/// In a cluster whoever changes an agent's source wants a new export. On a server the manifest of another source is more
/// likely a copy with the old name in it, and would have no record of the first source's where it ended.
fn refuse_another_source(
    config: &Config,
    source: &str,
    found: Option<&Checkpoint>,
) -> Result<(), Failure> {
    let other = found.map(Checkpoint::source).filter(|found| *found != source);
    match other {
        Some(other) if config.paths.checkpoint.is_none() => Err(Failure::Settings(format!(
            "the state folder {} belongs to the source {}, not to {source}: give each source its own folder \
             (--state-dir); to export anew from another source, remove the folder",
            config.paths.state.display(),
            printable(other),
        ))),
        Some(_) | None => Ok(()),
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

/// What the operator keeps for a forwarder without a file, where there is an operator.
fn kept(config: &Config) -> Kept {
    let (Some(folder), Some(agent_uid)) = (&config.paths.checkpoint, &config.agent.uid) else {
        return Kept::Nothing;
    };
    let text = match std::fs::read_to_string(folder.join(kept::KEY)) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Kept::Nothing,
        Err(error) => {
            warn!(reason = %error, "the operator's checkpoint cannot be read");
            return Kept::Nothing;
        }
    };
    // Its times are held against the server's clock once that is known; ours may be wrong.
    let source = config.source.cloud_apps.url.trim_end_matches('/');
    match kept::Checkpoint::read(&text, agent_uid, source, jiff::Timestamp::MAX) {
        Ok(checkpoint) => Kept::Here(checkpoint),
        Err(kept::Refusal::OtherSource) => Kept::OtherSource,
        Err(refusal) => {
            warn!(reason = %refusal, "the operator's checkpoint is not used");
            Kept::Nothing
        }
    }
}

/// The pod's UID, where the operator passes it on.
#[expect(clippy::disallowed_methods, reason = "cli reads the environment")]
fn pod_uid() -> Option<String> {
    std::env::var("POD_UID").ok().filter(|uid| !uid.is_empty())
}

/// What may change without a restart: our share of the requests, and the level of the logs.
async fn follow_live(
    path: std::path::PathBuf,
    level: LevelHandle,
    gate: Arc<Gate>,
    progress: Arc<Progress>,
) {
    let mut last = None;
    loop {
        if let Ok(text) = tokio::fs::read_to_string(&path).await
            && last.as_ref() != Some(&text)
        {
            match Live::read(&text) {
                Ok(live) => {
                    gate.set_per_minute(live.requests_per_minute);
                    progress.metrics.budget(live.requests_per_minute);
                    level.set(live.log_level);
                    info!(requests_per_minute = live.requests_per_minute, "live settings applied");
                }
                Err(problems) => warn!(
                    reason = chain(&problems),
                    "the live settings cannot be used, keeping the old ones"
                ),
            }
            last = Some(text);
        }
        sleep(LIVE_INTERVAL).await;
    }
}
