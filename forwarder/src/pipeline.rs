//! One agent's export while the program runs: started, stopped, and reloaded with other settings.
//!
//! A pipeline owns its source, its target and its state. To stop it confirms what it has written, saves, and closes the
//! connection; to reload it stops, and another one resumes at the same cursors. So a reload loses no record, and repeats
//! none that the receiver confirms in time. It must never read the configuration's files or listen on a port.

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
use crate::run::clearance::Clearance;
use crate::run::{self, Forwarder};
use crate::saver::Saver;
use crate::settings::Settings;
use crate::source::Source;
use crate::source::gate::Gate;
use crate::store::Store;

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
    /// The cursors.
    pub checkpoint: Checkpoint,
    /// Their file.
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
        let State { checkpoint, store } = state;
        let Shared { agent, gate, progress } = shared.clone();
        progress.follow(plan.streams.iter().map(|(stream, _)| *stream));
        for (stream, cursor) in checkpoint.cursors() {
            progress.moved(stream, cursor);
            if stream == Stream::Alerts {
                progress.remembered(cursor);
            }
        }
        let streams = plan.streams.iter().map(|(stream, _)| *stream).collect::<Vec<_>>();
        let (stop, stopping) = watch::channel(false);
        let (sink, sink_task) = Sink::start(sink, Arc::clone(&progress) as _, stopping.clone());
        progress.watch(sink.clone());
        let forwarder = Forwarder {
            agent,
            plan,
            source: Source::new(source),
            clearance: Clearance::new(gate, streams),
            sink,
            saver: Saver::new(checkpoint.clone(), store, progress.metrics.clone()),
            checkpoint,
            progress,
        };
        let (running, ended) = watch::channel(());
        let export = tokio::spawn(async move {
            run::run(&forwarder, stopping).await;
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
    pub async fn stop(self) -> State {
        let Self { shared, stop, ended: _, export, mut sink } = self;
        stop.send_replace(true);
        let saver = export.await.unwrap_or_else(panicked);
        shared.progress.unwatch();
        // It has nothing left to say, or will not say it in time.
        if timeout(GOODBYE, &mut sink).await.is_err() {
            sink.abort();
        }
        let (checkpoint, store) = saver.into_parts();
        State { checkpoint, store }
    }

    /// Stops, and resumes with these settings at the same cursors. A stream that was not exported before starts as the
    /// settings say, and so does every stream of another source.
    ///
    /// # Panics
    /// As [`Pipeline::stop`].
    pub async fn reload(self, settings: Settings) -> Self {
        let shared = self.shared.clone();
        let State { checkpoint, store } = self.stop().await;
        let start = resume::Start {
            source: &settings.source.url,
            created: None,
            now: clock::millis(clock::now()),
            start_from: settings.plan.start_from,
            overlap: settings.plan.overlap,
        };
        let (checkpoint, origins) =
            resume::resume(Some(checkpoint), Kept::Nothing, &start, settings.streams());
        for (stream, origin) in origins {
            info!(%stream, from = origin.as_str(), "settings reloaded, resuming stream");
        }
        Self::start(shared, settings, State { checkpoint, store })
    }
}

/// A defect ends the program, as it would have done in its main task.
fn panicked<T>(error: JoinError) -> T {
    resume_unwind(error.into_panic())
}
