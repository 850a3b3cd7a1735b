//! `run --sidecar-of`: follows a configuration that changes, in a pod that is somebody else's.
//!
//! It never ends by itself, whatever is wrong: a container that ends makes the whole pod not ready. While there is no
//! configuration that can be used it waits, and the log says why. What it cannot use after it has exported leaves the
//! export as it is; a configuration that is gone, suspends, or is meant for another place, stops it: a copy of the
//! container, or one that is left somewhere, exports nothing.

use std::io::ErrorKind;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt as _;
use siem_agent_crds::config::{ADMIN_PORT, Config};
use siem_agent_crds::siem_agent::BundleKind;
use siem_agent_edge::listen;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use super::super::Failure;
use super::super::load::{self, Loaded};
use super::Signals;
use super::export::{self, Export};
use crate::admin;
use crate::files;
use crate::pipeline::Budgets;
use crate::progress::Progress;
use crate::state_folder;
use crate::telemetry::LevelHandle;

/// How often the configuration is looked at. The kubelet takes up to a minute and a half to bring a change.
const INTERVAL: Duration = Duration::from_secs(2);
/// An export that could not be started, or has ended, is started again after this, and after twice as long each time.
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// Where the port is not free, whoever has it may leave it.
const LISTEN_INTERVAL: Duration = Duration::from_secs(5);

/// What runs, and of what it was made.
enum Stand {
    /// Nothing is exported, and nothing is to be.
    Idle,
    /// It could not be started, or has ended, and is tried again.
    Stuck { until: Instant },
    /// This runs.
    Running { export: Box<Export>, made_of: Identity },
}

/// What must be the same for an export to continue with another configuration.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    agent: String,
    source: String,
}

/// What is found where the configuration is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Text(String),
    /// It cannot be read: why.
    Unreadable(String),
    Gone,
}

/// Follows the configuration until SIGTERM.
///
/// # Errors
/// When signals cannot be heard, which no program lives without.
pub(super) async fn follow(
    path: &Path,
    of: String,
    listen: Option<String>,
    level: LevelHandle,
) -> Result<ExitCode, Failure> {
    siem_agent_edge::limits::raise_open_files();
    let mut signals = Signals::new()?;
    let (stop, stopping) = watch::channel(false);
    let (shown, current) = watch::channel(None);
    let listen = listen.unwrap_or_else(|| format!("[::]:{ADMIN_PORT}"));
    let admin = tokio::spawn(async move {
        let listener = listen_at_last(&listen).await;
        admin::serve(listener, current, stopping).await;
    });
    let watching = tokio::spawn(level.clone().watch_files());
    info!(version = env!("CARGO_PKG_VERSION"), config = %path.display(), "started, following the configuration");
    let mut follower = Follower {
        path: path.to_owned(),
        of,
        level,
        shown,
        budgets: None,
        stand: Stand::Idle,
        known: None,
        complaint: None,
        retry: FIRST_RETRY,
    };
    loop {
        follower.look().await;
        tokio::select! {
            () = sleep(INTERVAL) => {}
            () = follower.ended() => {
                error!("the export has ended by itself; it is started again");
                follower.stick().await;
            }
            () = signals.end() => break,
        }
    }
    info!("stopping: confirming what was sent, then saving");
    stop.send_replace(true);
    follower.idle().await;
    watching.abort();
    admin.abort();
    Ok(ExitCode::SUCCESS)
}

struct Follower {
    path: PathBuf,
    /// The workload whose pod this is, `KIND/NAME`.
    of: String,
    level: LevelHandle,
    shown: watch::Sender<Option<Arc<Progress>>>,
    /// The tenant's budgets and pauses, which outlive an export; of this source.
    budgets: Option<(String, Budgets)>,
    stand: Stand,
    /// What was last acted upon.
    known: Option<Found>,
    /// What was last complained of, so that it is said once.
    complaint: Option<String>,
    retry: Duration,
}

impl Follower {
    /// Looks at the configuration, and acts where it has changed or something is to be tried again.
    async fn look(&mut self) {
        let mut found = self.read();
        // The kubelet changes folders: what is missing for a moment is not gone.
        if found == Found::Gone && !matches!(self.stand, Stand::Idle) {
            sleep(INTERVAL).await;
            found = self.read();
        }
        let is_due = matches!(self.stand, Stand::Stuck { until } if until <= Instant::now());
        if is_due || self.known.as_ref() != Some(&found) {
            self.known = Some(found.clone());
            self.act(found).await;
        }
    }

    fn read(&self) -> Found {
        match std::fs::metadata(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Found::Gone,
            _ => match load::read(&self.path) {
                Ok(text) => Found::Text(text),
                Err(failure) => Found::Unreadable(failure.to_string()),
            },
        }
    }

    async fn act(&mut self, found: Found) {
        let text = match found {
            Found::Text(text) => text,
            Found::Unreadable(reason) => return self.refuse(reason),
            Found::Gone => {
                self.complain("there is no configuration: nothing is exported".to_owned());
                self.idle().await;
                self.shown.send_replace(None);
                return;
            }
        };
        let loaded = match load::from_config_text(&self.path, &text) {
            Ok(loaded) => loaded,
            Err(failure) => return self.refuse(failure.to_string()),
        };
        if loaded.config.sidecar_of.as_ref() != Some(&self.of) {
            let place = loaded.config.sidecar_of.as_deref().unwrap_or("a Deployment of its own");
            self.complain(format!(
                "the agent's forwarder runs in {place} now: nothing is exported here"
            ));
            self.idle().await;
            self.shown.send_replace(None);
            return;
        }
        if loaded.config.suspend {
            self.complaint = None;
            info!("suspended: nothing is exported");
            self.idle().await;
            // Who is asked says whose it is, and nothing of what it did before.
            let identity = export::identity(&loaded);
            self.shown.send_replace(Some(Progress::new(identity, [])));
            return;
        }
        if let (Stand::Running { .. }, Some(folder)) = (&self.stand, unmounted(&loaded.config)) {
            let folder = folder.display();
            return self
                .refuse(format!("this pod does not mount {folder}: it comes with the next one"));
        }
        Box::pin(self.run(loaded)).await;
    }

    async fn run(&mut self, mut loaded: Loaded) {
        let wanted = Identity {
            // One folder, whatever the agent is called.
            agent: state_folder::agent(&loaded.config).replace('/', "."),
            source: loaded.settings.sources.main.clone(),
        };
        // The pod outlives an agent that is made anew, and so does its folder.
        let of_agents = loaded.config.paths.state.clone();
        loaded.config.paths.state = of_agents.join(&wanted.agent);
        match std::mem::replace(&mut self.stand, Stand::Idle) {
            Stand::Running { export, made_of } if made_of == wanted => {
                info!("the configuration has changed");
                // A defect of the export is caught, because it must not end the container.
                match AssertUnwindSafe(export.reload(loaded, &self.level)).catch_unwind().await {
                    Ok(export) => {
                        self.complaint = None;
                        self.stand = Stand::Running { export: Box::new(export), made_of };
                    }
                    Err(_panic) => self.stick().await,
                }
            }
            other => {
                self.stand = other;
                self.idle().await;
                let budgets = self.budgets_of(&loaded, &wanted.source);
                match Export::start(loaded, &self.level, budgets) {
                    Ok(export) => {
                        files::remove_other_folders(&of_agents, &wanted.agent);
                        self.complaint = None;
                        self.shown.send_replace(Some(Arc::clone(&export.progress)));
                        self.stand = Stand::Running { export: Box::new(export), made_of: wanted };
                    }
                    Err(failure) => {
                        self.complain(format!(
                            "the export cannot be started; it is tried again: {failure}"
                        ));
                        self.stick().await;
                    }
                }
            }
        }
    }

    fn budgets_of(&mut self, loaded: &Loaded, source: &str) -> Budgets {
        if let Some((of, budgets)) = &self.budgets
            && of == source
        {
            return budgets.clone();
        }
        let budgets = Budgets::new(loaded.settings.budget);
        self.budgets = Some((source.to_owned(), budgets.clone()));
        budgets
    }

    /// What cannot be used changes nothing.
    fn refuse(&mut self, reason: String) {
        let then = match self.stand {
            Stand::Running { .. } => "the export continues with the one before",
            Stand::Idle | Stand::Stuck { .. } => "nothing is exported",
        };
        self.complain(format!("the configuration cannot be used, and {then}: {reason}"));
    }

    fn complain(&mut self, reason: String) {
        if self.complaint.as_ref() != Some(&reason) {
            warn!(reason, "waiting");
            self.complaint = Some(reason);
        }
    }

    /// Waits until the export has ended by itself.
    async fn ended(&mut self) {
        match &mut self.stand {
            Stand::Running { export, .. } => export.ended().await,
            Stand::Idle | Stand::Stuck { .. } => std::future::pending().await,
        }
    }

    /// Tries again later, and later each time.
    async fn stick(&mut self) {
        self.idle().await;
        self.shown.send_replace(None);
        self.stand = Stand::Stuck { until: Instant::now() + self.retry };
        self.retry = (2 * self.retry).min(LAST_RETRY);
    }

    /// Stops what runs.
    async fn idle(&mut self) {
        if let Stand::Running { export, .. } = std::mem::replace(&mut self.stand, Stand::Idle) {
            let began = export.began;
            if AssertUnwindSafe(export.stop()).catch_unwind().await.is_err() {
                error!("the export has ended by a defect, which the lines above show");
            }
            if began.elapsed() > LAST_RETRY {
                self.retry = FIRST_RETRY;
            }
        }
    }
}

/// A folder that the configuration names and that is not there at all: what is mounted is, if empty.
fn unmounted(config: &Config) -> Option<PathBuf> {
    let (source, paths) = (&config.source, &config.paths);
    let tls = config.syslog.tls.as_ref();
    let application = source.auth.client_credentials.as_ref();
    let secrets = [
        source.auth.token_secret_ref.as_ref().map(|token| &token.name),
        application.and_then(|client| Some(&client.client_secret_ref.as_ref()?.name)),
        source.proxy.as_ref().and_then(|proxy| Some(&proxy.credentials_secret_ref.as_ref()?.name)),
        tls.and_then(|tls| Some(&tls.client_certificate_secret_ref.as_ref()?.name)),
    ];
    let bundles = [source.ca_bundle_ref.as_ref(), tls.and_then(|tls| tls.ca_bundle_ref.as_ref())];
    let bundles = bundles.into_iter().flatten().map(|bundle| match bundle.kind {
        BundleKind::Secret => paths.secrets.join(&bundle.name),
        BundleKind::ConfigMap => paths.config_maps.join(&bundle.name),
    });
    let folders = secrets.into_iter().flatten().map(|name| paths.secrets.join(name));
    folders.chain(bundles).find(|folder| !folder.is_dir())
}

/// The admin port is shared with the other containers of the pod: while one of them has it, there is no report, and the
/// export runs all the same.
async fn listen_at_last(listen: &str) -> TcpListener {
    let mut is_said = false;
    loop {
        match listen::listen(listen).await {
            Ok(listener) => return listener,
            Err(error) if !is_said => {
                warn!(listen, reason = %error, "the admin port is not free: no report and no metrics until it is");
                is_said = true;
            }
            Err(_) => {}
        }
        sleep(LISTEN_INTERVAL).await;
    }
}
