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

use futures_util::future::join;
use siem_agent_crds::checkpoint::MAX_ALERT_IDS;
use siem_agent_crds::position::Position;
use siem_agent_crds::siem_agent::{StreamSource, kind_of};
use siem_agent_edge::clock;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;
use tracing::info;

use crate::checkpoint::Checkpoint;
use crate::delivery::sink::Sink;
use crate::event::Stream;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::resume::{self, Kept};
use crate::saver::Saver;
use crate::settings::{Budget, Served, Settings};
use crate::source::cloud_apps::CloudApps;
use crate::source::graph::Graph;
use crate::source::http::gate::Gate;
use crate::source::{Reader as _, Source, Start, seen};
use crate::store::Store;
use crate::time::Millis;
use clearance::{Clearance, Gates};
use stream::Forwarder;

/// A connection whose records are confirmed, or will not be in time, gets this long to close.
const GOODBYE: Duration = Duration::from_secs(3);

/// Graph allows an application 150 requests for alerts a minute in a tenant; two agents of one have room, and others.
const ALERTS_PER_MINUTE: u32 = 60;

/// What each API may be asked.
#[derive(Debug, Clone)]
pub struct Budgets {
    /// The portal's.
    pub portal: Arc<Gate>,
    /// Hunting queries.
    pub hunting: Arc<Gate>,
    graph_alerts: Arc<Gate>,
}

impl Budgets {
    /// So many requests a minute.
    pub fn new(budget: Budget) -> Self {
        let gate = |per_minute| Arc::new(Gate::new(per_minute));
        let (portal, hunting) = (gate(budget.portal), gate(budget.hunting));
        Self { portal, hunting, graph_alerts: gate(ALERTS_PER_MINUTE) }
    }

    /// Changes the shares for all that follows.
    pub fn set(&self, budget: Budget) {
        self.portal.set_per_minute(budget.portal);
        self.hunting.set_per_minute(budget.hunting);
    }

    /// The budgets of the streams of a source.
    pub fn of(&self, source: StreamSource) -> Gates {
        let (alerts, activities) = match source {
            StreamSource::CloudApps => (&self.portal, &self.portal),
            StreamSource::Graph => (&self.graph_alerts, &self.hunting),
        };
        Gates { alerts: Arc::clone(alerts), activities: Arc::clone(activities) }
    }
}

/// What outlives a reload.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The agent that is served, as logs name it: `NAMESPACE/NAME`.
    pub agent: String,
    /// When the sources may be asked: the budgets are the tenant's, whatever the settings.
    pub budgets: Budgets,
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
    export: JoinHandle<Arc<Saver>>,
    sink: JoinHandle<()>,
}

impl Pipeline {
    /// Starts an export where the streams stand.
    pub fn start(shared: Shared, settings: Settings, state: State) -> Self {
        let Settings { plan, served, sources, sink, .. } = settings;
        let State { checkpoint, starts, store } = state;
        let Shared { agent, budgets, progress } = shared.clone();
        progress.follow(served.iter().map(|served| {
            let budget = budgets.of(served.source).of(served.stream);
            (served.stream, served.source, budget)
        }));
        let cloud_apps = sources.cloud_apps.map(CloudApps::new);
        let graph = sources.graph.map(Graph::new);
        stand_still(&checkpoint, cloud_apps.as_ref(), graph.as_ref(), &progress);
        let (stop, stopping) = watch::channel(false);
        let (sink, sink_task) = Sink::start(sink, Arc::clone(&progress) as _, stopping.clone());
        progress.watch(sink.clone());
        let saver = Arc::new(Saver::new(checkpoint, store, progress.metrics.clone()));
        let own = Exports { agent, plan, budgets, served, starts, main: sources.main };
        let cloud_apps = own.of(StreamSource::CloudApps, cloud_apps, &sink, &saver, &progress);
        let graph = own.of(StreamSource::Graph, graph, &sink, &saver, &progress);
        let (running, ended) = watch::channel(());
        let export = tokio::spawn(async move {
            // A source that has nothing to follow has ended.
            join(run(cloud_apps, stopping.clone()), run(graph, stopping)).await;
            drop(running);
            saver
        });
        drop(sink);
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
        saver.parts()
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
            source: &settings.sources.main,
            created: None,
            now: clock::millis(clock::now()),
            start_from: settings.start_from,
        };
        let served = settings.served.iter().map(|served| (served.stream, served.name.as_str()));
        let (checkpoint, begins) = resume::resume(Some(checkpoint), Kept::Nothing, &life, served);
        for begins in &begins {
            let from = begins.origin.as_str();
            info!(stream = %begins.stream, from, "settings reloaded, resuming stream");
        }
        let starts = begins.into_iter().map(|begins| (begins.stream, begins.start)).collect();
        Self::start(shared, settings, State { checkpoint, starts, store })
    }
}

/// What the exports from all sources have in common.
struct Exports {
    agent: String,
    plan: Plan,
    budgets: Budgets,
    served: Vec<Served>,
    starts: Vec<(Stream, Start)>,
    main: String,
}

impl Exports {
    /// The export of a source's streams; `None` where it serves none.
    fn of<S: Source>(
        &self,
        kind: StreamSource,
        source: Option<S>,
        sink: &Sink,
        saver: &Arc<Saver>,
        progress: &Arc<Progress>,
    ) -> Option<Forwarder<S>> {
        let is_of_it = |stream: Stream| {
            self.served.iter().any(|served| served.stream == stream && served.source == kind)
        };
        let starts = self.starts.iter().filter(|(stream, _)| is_of_it(*stream));
        let starts: Vec<_> = starts.cloned().collect();
        let name = self.served.iter().find(|served| served.source == kind)?.name.clone();
        let streams: Vec<_> = starts.iter().map(|(stream, _)| *stream).collect();
        Some(Forwarder {
            agent: self.agent.clone(),
            plan: self.plan.clone(),
            source: source?,
            name: Some(name).filter(|name| *name != self.main),
            clearance: Clearance::new(self.budgets.of(kind), streams),
            sink: sink.clone(),
            starts,
            saver: Arc::clone(saver),
            progress: Arc::clone(progress),
        })
    }
}

async fn run<S: Source>(forwarder: Option<Forwarder<S>>, stopping: watch::Receiver<bool>) {
    if let Some(forwarder) = forwarder {
        stream::run(&forwarder, stopping).await;
    }
}

/// The streams that are not exported stand where they are, and are kept so.
fn stand_still(
    checkpoint: &Checkpoint,
    cloud_apps: Option<&CloudApps>,
    graph: Option<&Graph>,
    progress: &Progress,
) {
    for (stream, at) in checkpoint.positions() {
        let start = Start::At { at: at.clone(), floor: 0, not_before: None };
        let (through, last_event, kept) =
            match (kind_of(checkpoint.source_of(*stream).unwrap_or_default()), cloud_apps, graph) {
                (StreamSource::CloudApps, Some(source), _) => stands(source, *stream, &start),
                (StreamSource::Graph, _, Some(source)) => stands(source, *stream, &start),
                // Nobody here reads its form, but for the ids that it remembers.
                (StreamSource::CloudApps | StreamSource::Graph, ..) => {
                    let seen = seen::of(&at.position, at.through).into_iter().take(MAX_ALERT_IDS);
                    let ids = seen.map(|(key, _)| format!("{:016x}", key.bits())).collect();
                    (at.through, None, Position::with_ids(ids))
                }
            };
        progress.moved(*stream, through, last_event);
        progress.remembered(*stream, kept, at.source.clone());
    }
}

fn stands<S: Source>(
    source: &S,
    stream: Stream,
    start: &Start,
) -> (Millis, Option<Millis>, Position) {
    let reader = source.reader(stream, start);
    (reader.through(), reader.last_event(), reader.kept())
}

/// A defect ends the program, as it would have done in its main task.
fn panicked<T>(error: JoinError) -> T {
    resume_unwind(error.into_panic())
}
