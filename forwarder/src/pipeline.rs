//! One agent's export while the program runs: started, stopped, and reloaded with other settings.
//!
//! A pipeline owns its source, its target and its state. To stop it confirms what it has written, saves, and closes the
//! connection; to reload it stops, and another one resumes at the same cursors. So a reload loses no record, and repeats
//! none that the receiver confirms in time. It must never read the configuration's files or listen on a port.

pub mod clearance;
pub mod credential;
pub mod on_failure;
pub mod stream;

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use siem_agent_edge::clock;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;
use tracing::info;

use crate::checkpoint::Checkpoint;
use crate::delivery::sink::Sink;
use crate::event::Stream;
use crate::progress::Progress;
use crate::resume::{self, Kept};
use crate::saver::Saver;
use crate::settings::Settings;
use crate::source::cloud_apps::CloudApps;
use crate::source::http::gate::Gate;
use crate::source::{Reader as _, Source as _, Start};
use crate::store::Store;
use clearance::Clearance;
use stream::Forwarder;

/// A connection whose records are confirmed, or will not be in time, gets this long to close.
const GOODBYE: Duration = Duration::from_secs(3);

/// What outlives a reload.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The agent that is served, as logs name it: `NAMESPACE/NAME`.
    pub agent: String,
    /// When the API may be asked: the budget is the tenant's, whatever the settings.
    pub gate: Arc<Gate>,
    /// What is reported.
    pub progress: Arc<Progress>,
}

/// Where the streams stand, and where that is saved.
#[derive(Debug)]
pub struct State {
    /// The positions.
    pub checkpoint: Checkpoint,
    /// Where each stream that is exported begins.
    pub starts: Vec<(Stream, Start)>,
    /// The file of the positions.
    pub store: Store,
}

/// An export that runs.
#[derive(Debug)]
pub struct Pipeline {
    shared: Shared,
    stop: watch::Sender<bool>,
    ended: watch::Receiver<()>,
    export: JoinHandle<Saver>,
    sink: JoinHandle<()>,
}

impl Pipeline {
    /// Starts an export where the streams stand.
    pub fn start(shared: Shared, settings: Settings, state: State) -> Self {
        let Settings { plan, source, sink, requests_per_minute: _ } = settings;
        let State { checkpoint, starts, store } = state;
        let Shared { agent, gate, progress } = shared.clone();
        progress.follow(plan.streams.iter().map(|(stream, _)| *stream));
        let source = CloudApps::new(source, plan.clone());
        // Those that are not exported stand still, and are kept as they are.
        for (stream, at) in checkpoint.positions() {
            let start = Start::At { at: at.clone(), floor: 0, not_before: None };
            let reader = source.reader(*stream, &start);
            progress.moved(*stream, reader.through(), reader.last_event());
            progress.remembered(*stream, reader.kept());
        }
        let streams = plan.streams.iter().map(|(stream, _)| *stream).collect::<Vec<_>>();
        let (stop, stopping) = watch::channel(false);
        let (sink, sink_task) = Sink::start(sink, Arc::clone(&progress) as _, stopping.clone());
        progress.watch(sink.clone());
        let forwarder = Forwarder {
            agent,
            plan,
            source,
            clearance: Clearance::new(gate, streams),
            sink,
            starts,
            saver: Saver::new(checkpoint, store, progress.metrics.clone()),
            progress,
        };
        let (running, ended) = watch::channel(());
        let export = tokio::spawn(async move {
            stream::run(&forwarder, stopping).await;
            drop(running);
            forwarder.saver
        });
        Self { shared, stop, ended, export, sink: sink_task }
    }

    /// Waits until the export has ended by itself.
    pub async fn ended(&mut self) {
        while self.ended.changed().await.is_ok() {}
    }

    /// Confirms what was written, saves, and closes the connection. What the target does not confirm in time is sent
    /// again by whoever resumes at this state.
    ///
    /// # Panics
    /// As the export did, where it has.
    pub async fn stop(self) -> (Checkpoint, Store) {
        let Self { shared, stop, ended: _, export, mut sink } = self;
        stop.send_replace(true);
        let saver = export.await.unwrap_or_else(panicked);
        shared.progress.unwatch();
        // It has nothing left to say, or will not say it in time.
        if timeout(GOODBYE, &mut sink).await.is_err() {
            sink.abort();
        }
        saver.into_parts()
    }

    /// Stops, and resumes with these settings at the same cursors. A stream that was not exported before starts as the
    /// settings say, and so does every stream of another source. `stopped` is called between the two.
    ///
    /// # Panics
    /// As [`Pipeline::stop`].
    pub async fn reload(self, settings: Settings, stopped: impl FnOnce()) -> Self {
        let shared = self.shared.clone();
        let (checkpoint, store) = self.stop().await;
        stopped();
        let life = resume::Life {
            source: &settings.source.url,
            created: None,
            now: clock::millis(clock::now()),
            start_from: settings.plan.start_from,
        };
        let (checkpoint, begins) =
            resume::resume(Some(checkpoint), Kept::Nothing, &life, settings.streams());
        for begins in &begins {
            let from = begins.origin.as_str();
            info!(stream = %begins.stream, from, "settings reloaded, resuming stream");
        }
        let starts = begins.into_iter().map(|begins| (begins.stream, begins.start)).collect();
        Self::start(shared, settings, State { checkpoint, starts, store })
    }
}

/// A defect ends the program, as it would have done in its main task.
fn panicked<T>(error: JoinError) -> T {
    resume_unwind(error.into_panic())
}
