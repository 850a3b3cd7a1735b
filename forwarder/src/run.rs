//! The loop: poll -> parse -> map -> frame -> deliver -> advance -> save -> report, once for each stream.
//!
//! Both streams run side by side and share the budget, the connection and the checkpoint, so neither waits for the
//! other's page. A stream asks for its next page only when everything of the last one is confirmed.

mod schedule;
mod steps;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tracing::warn;

use crate::batch::BatchBuilder;
use crate::checkpoint::{Millis, Scan};
use crate::clock;
use crate::event::Stream;
use crate::frame::{self, Layout};
use crate::ledger::Ledger;
use crate::parse::RejectReason;
use crate::parse::split::Envelope;
use crate::progress::Progress;
use crate::sink::{Sink, Stopped};
use crate::source::gate::Gate;
use crate::source::query::Query;
use crate::source::{self, Arrived, Source};
use schedule::{Look, Reach, Schedule};

/// Everything that the loop needs, made once by `settings`.
#[derive(Debug)]
pub struct Forwarder {
    /// What to follow, and how.
    pub plan: Plan,
    /// Where records come from.
    pub source: Source,
    /// When they may be asked for.
    pub gate: Arc<Gate>,
    /// Where they go.
    pub sink: Sink,
    /// What was delivered.
    pub ledger: Ledger,
    /// What is told about it.
    pub progress: Arc<Progress>,
}

/// What to follow, and how.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The enabled streams with the user's filters in the API's own form.
    pub streams: Vec<(Stream, serde_json::Map<String, serde_json::Value>)>,
    /// How often each is asked where the budget allows.
    pub poll_interval: Duration,
    /// How far behind the watermark each poll of activities looks again.
    pub overlap: Duration,
    /// How far back an export begins, at most, when it starts anew.
    pub start_from: Duration,
    /// The form of the lines.
    pub layout: Layout,
}

/// A look under way: what is asked next, and what was seen.
#[derive(Debug)]
struct Walk {
    reach: Reach,
    scan: Scan,
    query: Query,
}

/// Why a scan ended early.
#[derive(Debug)]
enum Interrupted {
    Source(source::Error),
    Stopped,
}

impl From<Stopped> for Interrupted {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<source::Error> for Interrupted {
    fn from(error: source::Error) -> Self {
        Self::Source(error)
    }
}

/// Follows every stream until `stop` turns true, then saves. Records on their way are confirmed first.
pub async fn run(forwarder: &Forwarder, stop: watch::Receiver<bool>) {
    let streams =
        forwarder.plan.streams.iter().map(|(stream, _)| forwarder.follow(*stream, stop.clone()));
    tokio::select! {
        _ = join_all(streams) => {}
        () = forwarder.watch_token() => {}
    }
    forwarder.ledger.save().await;
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

impl Forwarder {
    /// One stream, for ever: look when it is due, and wait out what fails.
    async fn follow(&self, stream: Stream, mut stop: watch::Receiver<bool>) {
        let Plan { poll_interval, overlap, .. } = self.plan;
        let mut schedule = Schedule::new(stream, poll_interval, overlap);
        let mut rescan = None;
        let (mut n_failures, mut last) = (0, None);
        while !*stop.borrow() {
            match self.look(stream, &mut schedule, &mut rescan, &mut stop).await {
                Ok(()) => (n_failures, last) = (0, None),
                Err(Interrupted::Stopped) => return,
                Err(Interrupted::Source(error)) => {
                    // Another kind of failure is news, and waits as a first one.
                    let kind = Some(std::mem::discriminant(&error.failure()));
                    n_failures = if kind == last { n_failures + 1 } else { 0 };
                    last = kind;
                    let pause = self.take_note(stream, &error, n_failures);
                    schedule.again();
                    tokio::select! {
                        () = pause => {}
                        _ = stop.wait_for(|stop| *stop) => return,
                    }
                }
            }
        }
    }

    /// Waits until a look is due and the target takes records, then reads all that the API has to show; of a rescan one
    /// page, so that a poll never waits long for it.
    async fn look(
        &self,
        stream: Stream,
        schedule: &mut Schedule,
        rescan: &mut Option<Walk>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), Interrupted> {
        let look = unless_stopped(stop, schedule.due(rescan.is_some())).await?;
        unless_stopped(stop, self.sink.reachable()).await??;
        let mut walk = match rescan.take_if(|_| look == Look::RescanPage) {
            Some(walk) => walk,
            None => self.set_out(stream, schedule, look).await,
        };
        loop {
            unless_stopped(stop, self.gate.enter(stream, look.purpose())).await?;
            let (envelope, server_now, n_listed) =
                self.page(&walk.query, &mut walk.scan, stop).await?;
            let scan = &walk.scan;
            let proven =
                if envelope.has_next { scan.page(server_now) } else { scan.end(server_now) };
            self.pass(stream, proven, schedule).await;
            if !envelope.has_next {
                schedule.ended(walk.reach);
                return Ok(());
            }
            let Some(next) = walk.query.next(envelope.next_query_filters, scan.highest(), n_listed)
            else {
                warn!(%stream, "more records of one millisecond than the API lets anyone read");
                self.progress.rejected(stream, RejectReason::SkipLimit);
                return Ok(());
            };
            walk.query = next;
            if look != Look::Poll {
                *rescan = Some(walk);
                return Ok(());
            }
        }
    }

    /// One page, from the question to the last confirmation.
    async fn page(
        &self,
        query: &Query,
        scan: &mut Scan,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(Envelope, Millis, usize), Interrupted> {
        let mut page = unless_stopped(stop, self.source.fetch(query)).await??; //     E  Page
        self.answered(query.stream, &page).await?;
        let mut unconfirmed = Vec::new();
        let mut n_listed = 0;
        let ended = loop {
            let pieces = match unless_stopped(stop, page.next()).await {
                Ok(Ok(Arrived::Pieces(pieces))) => pieces,
                Ok(Ok(Arrived::End(envelope))) => {
                    self.progress.read_whole(query.stream, clock::now());
                    break Ok(envelope);
                }
                Ok(Err(error)) => break Err(Interrupted::Source(error)),
                Err(Stopped) => break Err(Interrupted::Stopped),
            };
            n_listed += pieces.len();
            let mut batch = BatchBuilder::new(query.stream);
            for piece in pieces {
                if let Some((event, mark)) =
                    self.admit(query.stream, &piece, scan, page.server_now).await
                {
                    let frame = frame::frame(&event, &self.plan.layout); //      P  map, CEF, frame
                    if frame.trimmed {
                        self.progress.metrics.trimmed(query.stream);
                    }
                    batch.push(&frame.bytes, mark);
                }
            }
            if let Some(batch) = batch.take() {
                let pending = self.send(batch, &mut page).await?; //             E  Pending
                unconfirmed.push(pending);
            }
            self.settle(&mut unconfirmed, scan, false).await?;
        };
        self.settle(&mut unconfirmed, scan, true).await?; //                     E  Delivered -> advance -> save
        Ok((ended?, page.server_now, n_listed))
    }
}
