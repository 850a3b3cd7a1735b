//! One agent's export with all that it stands on: identity, state folder, checkpoint, live settings, pipeline.
//!
//! It is made of a checked configuration and knows nothing of where that came from.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use siem_agent_crds::checkpoint as kept;
use siem_agent_crds::config::{Config, Live};
use siem_agent_crds::printable::printable;
use siem_agent_crds::siem_agent::kind_of;
use siem_agent_edge::clock;
use siem_agent_edge::error_chain::chain;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::super::Failure;
use super::super::load::Loaded;
use crate::checkpoint::Checkpoint;
use crate::pipeline::{Budgets, Pipeline, Shared, State};
use crate::progress::{Identity, Progress};
use crate::resume::{self, Kept};
use crate::settings::{Budget, Served};
use crate::state_folder::{self, StateFolder};
use crate::store::Store;
use crate::telemetry::LevelHandle;

/// How often the live file is looked at.
const LIVE_INTERVAL: Duration = Duration::from_secs(2);

/// An export that runs.
pub(super) struct Export {
    pub(super) progress: Arc<Progress>,
    pub(super) began: Instant,
    budgets: Budgets,
    pipeline: Pipeline,
    live: Option<LiveFile>,
    state_folder: StateFolder,
}

/// The file of what may change without a restart, while it is followed.
struct LiveFile {
    path: PathBuf,
    task: AbortHandle,
}

impl Drop for LiveFile {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Export {
    /// Resumes where the state says.
    pub(super) fn start(
        loaded: Loaded,
        level: &LevelHandle,
        budgets: Budgets,
    ) -> Result<Self, Failure> {
        let identity = identity(&loaded);
        let Loaded { config, settings, .. } = loaded;
        let served = settings.served.iter().map(|served| (served.stream, served.source));
        let progress = Progress::new(identity, served);
        let agent = state_folder::agent(&config);
        let state_folder = StateFolder::open(&config.paths.state, &agent)
            .map_err(|error| Failure::settings(&error))?;
        let (store, found) =
            Store::open(&config.paths.state).map_err(|error| Failure::settings(&error))?;
        for path in &found.set_aside {
            progress.metrics.state_damaged();
            warn!(path = %path.display(), "a damaged state file was set aside, the other generation is used");
        }
        refuse_another_source(&config, &settings.served, found.checkpoint.as_ref())?;
        let life = resume::Life {
            source: &settings.sources.main,
            created: config.agent.creation_timestamp.map(clock::millis),
            now: clock::millis(clock::now()),
            start_from: settings.start_from,
        };
        let served = settings.served.iter().map(|served| (served.stream, served.name.as_str()));
        let (checkpoint, begins) = resume::resume(found.checkpoint, kept(&config), &life, served);
        for begins in &begins {
            info!(stream = %begins.stream, from = begins.origin.as_str(), "resuming stream");
        }
        let starts = begins.into_iter().map(|begins| (begins.stream, begins.start)).collect();
        let live = live(&config, level, &budgets);
        let agent = format!("{}/{}", config.agent.namespace, config.agent.name);
        let shared = Shared { agent, budgets: budgets.clone(), progress: Arc::clone(&progress) };
        let pipeline = Pipeline::start(shared, settings, State { checkpoint, starts, store });
        Ok(Self { progress, began: Instant::now(), budgets, pipeline, live, state_folder })
    }

    /// Goes on with another configuration of the same agent, source and folders, at the same cursors.
    pub(super) async fn reload(self, loaded: Loaded, level: &LevelHandle) -> Self {
        let Self { progress, began, budgets, pipeline, live: before, state_folder } = self;
        let identity = identity(&loaded);
        let Loaded { config, settings, .. } = loaded;
        let budget = settings.budget;
        let stays = before.as_ref().map(|live| &live.path) == config.paths.live.as_ref();
        let live = if stays { before } else { live(&config, level, &budgets) };
        if live.is_none() {
            budgets.set(budget);
            level.set(config.log_level);
        }
        // What is known of the old settings is nothing of the new ones.
        let configured = || progress.configured(identity);
        let pipeline = pipeline.reload(settings, configured).await;
        Self { progress, began, budgets, pipeline, live, state_folder }
    }

    /// Waits until it has ended by itself.
    pub(super) async fn ended(&mut self) {
        self.pipeline.ended().await;
    }

    /// Confirms what was sent, and saves.
    pub(super) async fn stop(self) {
        self.pipeline.stop().await;
    }
}

/// Who reports, by this configuration.
pub(super) fn identity(loaded: &Loaded) -> Identity {
    Identity {
        agent: loaded.config.agent.clone(),
        pod_uid: pod_uid(),
        config_hash: Sha256::digest(&loaded.text)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        started_at: clock::now(),
        source: loaded.settings.sources.main.clone(),
    }
}

fn live(config: &Config, level: &LevelHandle, budgets: &Budgets) -> Option<LiveFile> {
    let path = config.paths.live.clone()?;
    let follow = follow_live(path.clone(), level.clone(), budgets.clone());
    Some(LiveFile { path, task: tokio::spawn(follow).abort_handle() })
}

/// In a cluster whoever changes an agent's tenant wants a new export. On a server the manifest of another tenant is more
/// likely a copy with the old name in it, and would have no record of the first one's where it ended.
fn refuse_another_source(
    config: &Config,
    served: &[Served],
    found: Option<&Checkpoint>,
) -> Result<(), Failure> {
    if config.paths.checkpoint.is_some() {
        return Ok(());
    }
    let other = served.iter().find_map(|served| {
        let of = found?.source_of(served.stream)?;
        (of != served.name && kind_of(of) == served.source).then_some((of, &served.name))
    });
    let Some((other, name)) = other else { return Ok(()) };
    Err(Failure::Settings(format!(
        "the state folder {} belongs to the source {}, not to {name}: give each source its own folder \
         (--state-dir); to export anew from another source, remove the folder",
        config.paths.state.display(),
        printable(other),
    )))
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
    match kept::Checkpoint::read(&text, agent_uid, jiff::Timestamp::MAX) {
        Ok(checkpoint) => Kept::Here(checkpoint),
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
async fn follow_live(path: PathBuf, level: LevelHandle, budgets: Budgets) {
    let mut last = None;
    loop {
        if let Ok(text) = tokio::fs::read_to_string(&path).await
            && last.as_ref() != Some(&text)
        {
            match Live::read(&text) {
                Ok(live) => {
                    budgets.set(Budget::given(&live));
                    level.set(live.log_level);
                    info!(
                        requests_per_minute = live.requests_per_minute,
                        hunting_per_minute = live.hunting_per_minute,
                        "live settings applied"
                    );
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
