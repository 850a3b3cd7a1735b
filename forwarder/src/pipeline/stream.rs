//! The loop: poll -> parse -> map -> frame -> deliver -> advance -> save -> report, once for each stream.
//!
//! Both streams run side by side and share the budget, the connection and the checkpoint, so neither waits for the
//! other's page. A stream asks for its next page only when everything of the last one is confirmed.

mod steps;
mod trouble;

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{Instrument as _, debug, debug_span};

use super::clearance::Clearance;
use crate::delivery::BatchBuilder;
use crate::delivery::pending::Stopped;
use crate::delivery::sink::Sink;
use crate::event::Stream;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::saver::Saver;
use crate::source::{Due, Failed, Offer, Reader, Source, Start};
use steps::Rejects;

/// Everything that the loop needs, made once by `settings`.
#[derive(Debug)]
pub struct Forwarder<S> {
    /// The agent that it serves, as logs name it: `NAMESPACE/NAME`.
    pub agent: String,
    /// What events become.
    pub plan: Plan,
    /// Where records come from.
    pub source: S,
    /// The source's name, where it is not the one that stands for the whole agent.
    pub name: Option<String>,
    /// When they may be asked for.
    pub clearance: Clearance,
    /// Where they go.
    pub sink: Sink,
    /// Where the streams begin.
    pub starts: Vec<(Stream, Start)>,
    /// Who saves where they stand.
    pub saver: Arc<Saver>,
    /// What is reported about it.
    pub progress: Arc<Progress>,
}

/// Why a poll ended early.
#[derive(Debug)]
enum Interrupted {
    Source(Failed),
    Stopped,
}

impl From<Stopped> for Interrupted {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<Failed> for Interrupted {
    fn from(failed: Failed) -> Self {
        Self::Source(failed)
    }
}

/// Follows every stream until `stop` turns true, then saves. Records on their way are confirmed first.
pub async fn run<S: Source>(forwarder: &Forwarder<S>, stop: watch::Receiver<bool>) {
    let streams = forwarder.starts.iter().map(|(stream, start)| {
        let follow = forwarder.follow(*stream, start, stop.clone());
        follow.instrument(debug_span!("export", agent = forwarder.agent, %stream))
    });
    tokio::select! {
        _ = join_all(streams) => {}
        () = forwarder.watch_token() => {}
    }
}

/// Waits for something that may be given up when the program stops.
async fn unless_stopped<T>(
    stop: &mut watch::Receiver<bool>,
    waiting: impl Future<Output = T>,
) -> Result<T, Stopped> {
    tokio::select! {
        done = waiting => Ok(done),
        _ = stop.wait_for(|stop| *stop) => Err(Stopped),
    }
}

impl<S: Source> Forwarder<S> {
    /// One stream until the program stops: poll when it is due, and wait out what fails.
    async fn follow(&self, stream: Stream, start: &Start, mut stop: watch::Receiver<bool>) {
        let mut reader = self.source.reader(stream, start);
        self.saver.begin(stream, self.at(&reader));
        self.progress.moved(stream, reader.through(), reader.last_event());
        self.progress.remembered(stream, reader.kept(), self.name.clone());
        let (mut n_failures, mut last) = (0, None);
        while !*stop.borrow() {
            match self.poll(stream, &mut reader, &mut stop).await {
                Ok(()) => {
                    self.clearance.unheard(stream);
                    (n_failures, last) = (0, None);
                }
                Err(Interrupted::Stopped) => break,
                Err(Interrupted::Source(failed)) => {
                    // Another kind of failure is news, and waits as a first one.
                    let kind = Some(std::mem::discriminant(&failed.failure));
                    n_failures = if kind == last { n_failures + 1 } else { 0 };
                    last = kind;
                    let pause = self.take_note(stream, failed, n_failures);
                    reader.failed();
                    match unless_stopped(&mut stop, pause).await {
                        // What another secret meets is a first failure.
                        Ok(true) => (n_failures, last) = (0, None),
                        Ok(false) => {}
                        Err(_) => break,
                    }
                }
            }
        }
        self.saver.save(stream, || self.at(&reader));
    }

    /// Waits until a poll is due and the target takes records, then reads all that the source has to show.
    async fn poll(
        &self,
        stream: Stream,
        reader: &mut S::Reader,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), Interrupted> {
        let purpose = loop {
            match reader.due() {
                Due::Poll(purpose) => break purpose,
                Due::In(wait) => unless_stopped(stop, sleep(wait)).await?,
            }
        };
        unless_stopped(stop, self.sink.reachable()).await??;
        reader.begin();
        loop {
            let entering = self.clearance.enter(&self.source, stream, purpose);
            let offer = unless_stopped(stop, entering).await?;
            if !self.page(stream, reader, offer, stop).await? {
                return Ok(());
            }
        }
    }

    /// One page, from the question to the last confirmation, and what it proves. Says whether another one follows.
    async fn page(
        &self,
        stream: Stream,
        reader: &mut S::Reader,
        offer: Offer,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<bool, Interrupted> {
        unless_stopped(stop, reader.ask(offer)).await??; //                      E  request
        self.answered(stream);
        let mut unconfirmed = Vec::new();
        let mut rejects = Rejects::default();
        let ended = loop {
            let listed = match unless_stopped(stop, reader.next()).await {
                Ok(Ok(Some(listed))) => listed,
                Ok(Ok(None)) => break Ok(()),
                Ok(Err(failed)) => break Err(Interrupted::Source(failed)),
                Err(Stopped) => break Err(Interrupted::Stopped),
            };
            let mut batch = BatchBuilder::new(stream);
            for listed in &listed {
                if let Some((frame, mark)) = self.admit(stream, reader, listed, &mut rejects) {
                    batch.push(&frame.bytes, mark);
                }
            }
            if let Some(batch) = batch.take() {
                let sending = self.send(batch, reader); //                       E  Pending
                // Whatever was sent before may be confirmed all the same.
                match unless_stopped(stop, sending).await.flatten() {
                    Ok(pending) => unconfirmed.push(pending),
                    Err(Stopped) => break Err(Interrupted::Stopped),
                }
            }
            self.settle(&mut unconfirmed, stream, reader, None).await?;
        };
        self.settle(&mut unconfirmed, stream, reader, Some(stop)).await?; //     E  Delivered -> advance -> save
        rejects.log(stream);
        ended?;
        let read = self.read_whole(stream, reader); //                           P  proof -> advance -> save
        debug!(%stream, n_listed = read.n_listed, next = ?read.next, through = reader.through(), "page delivered");
        Ok(read.next?)
    }
}

#[cfg(test)]
mod memory;
