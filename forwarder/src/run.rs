//! The loop: poll -> parse -> map -> frame -> deliver -> advance -> save -> report, once for each stream.
//!
//! Both streams run side by side and share the budget, the connection and the checkpoint, so neither waits for the
//! other's page. A stream asks for its next page only when everything of the last one is confirmed.

pub mod clearance;
pub mod credential;
pub mod notices;
pub mod schedule;
pub mod stream_state;
pub mod walk;
mod steps;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use siem_agent_edge::clock;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{Instrument as _, debug, debug_span, warn};

use crate::checkpoint::Checkpoint;
use crate::delivery::BatchBuilder;
use crate::delivery::pending::Stopped;
use crate::delivery::sink::Sink;
use crate::event::Stream;
use crate::parse::split::Envelope;
use crate::parse::{RejectReason, split};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::saver::Saver;
use crate::source::query::{Next, Query};
use crate::source::{self, Arrived, Offer, Source};
use crate::time::{Now, millis};
use clearance::Clearance;
use schedule::{Due, PollKind, Schedule};
use steps::Rejects;
use stream_state::{Answer, StreamState};
use walk::Walk;

/// Everything that the loop needs, made once by `settings`.
#[derive(Debug)]
pub struct Forwarder {
    /// The agent that it serves, as logs name it: `NAMESPACE/NAME`.
    pub agent: String,
    /// What to follow, and how.
    pub plan: Plan,
    /// Where records come from.
    pub source: Source,
    /// When they may be asked for.
    pub clearance: Clearance,
    /// Where they go.
    pub sink: Sink,
    /// Where the streams stand at the start.
    pub checkpoint: Checkpoint,
    /// Who saves it.
    pub saver: Saver,
    /// What is reported about it.
    pub progress: Arc<Progress>,
}

/// Why a walk ended early.
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
    let began = Instant::now();
    let streams = forwarder.plan.streams.iter().map(|(stream, _)| {
        let follow = forwarder.follow(*stream, began, stop.clone());
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

/// The moment on both clocks; the steady one counts from `began`.
fn now(began: Instant) -> Now {
    Now { steady: millis(began.elapsed()), wall: clock::millis(clock::now()) }
}

impl Forwarder {
    /// One stream until the program stops: poll when it is due, and wait out what fails.
    async fn follow(&self, stream: Stream, began: Instant, mut stop: watch::Receiver<bool>) {
        let mut state = self.state(stream, began);
        let (mut n_failures, mut last) = (0, None);
        while !*stop.borrow() {
            match self.poll(&mut state, began, &mut stop).await {
                Ok(()) => (n_failures, last) = (0, None),
                Err(Interrupted::Stopped) => break,
                Err(Interrupted::Source(error)) => {
                    // Another kind of failure is news, and waits as a first one.
                    let kind = Some(std::mem::discriminant(&error.failure()));
                    n_failures = if kind == last { n_failures + 1 } else { 0 };
                    last = kind;
                    let pause = self.take_note(stream, &error, n_failures);
                    state.failed(now(began).steady);
                    if matches!(error, source::Error::Body(split::Error::Endless)) {
                        state.page_too_large();
                    }
                    match unless_stopped(&mut stop, pause).await {
                        // What another secret meets is a first failure.
                        Ok(true) => (n_failures, last) = (0, None),
                        Ok(false) => {}
                        Err(_) => break,
                    }
                }
            }
        }
        self.saver.save(stream, &state.cursor);
    }

    fn state(&self, stream: Stream, began: Instant) -> StreamState {
        let Plan { poll_interval, overlap, start_from, .. } = self.plan;
        let filters = self.plan.streams.iter().find(|(of, _)| *of == stream);
        let filters = filters.map(|(_, filters)| filters.clone()).unwrap_or_default();
        let cursor = self.checkpoint.cursor(stream).cloned().unwrap_or_default();
        let schedule = Schedule::new(stream, poll_interval, overlap, now(began).steady);
        StreamState::new(stream, filters, cursor, schedule, start_from)
    }

    /// Waits until a poll is due and the target takes records, then reads all that the API has to show; of a rescan one
    /// page, so that a poll never waits long for it.
    async fn poll(
        &self,
        state: &mut StreamState,
        began: Instant,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), Interrupted> {
        let stream = state.stream();
        let kind = loop {
            match state.due(now(began).steady) {
                Due::Poll(kind) => break kind,
                Due::At(later) => {
                    let wait = later - now(began).steady;
                    let wait = Duration::from_millis(wait.try_into().unwrap_or(0));
                    unless_stopped(stop, sleep(wait)).await?;
                }
            }
        };
        unless_stopped(stop, self.sink.reachable()).await??;
        let (mut walk, mut query) = state.set_out(kind, now(began).steady);
        debug!(%stream, ?kind, from = query.from(), whole = walk.is_whole(), "poll");
        loop {
            let entering = self.clearance.enter(&self.source, stream, kind.purpose());
            let offer = unless_stopped(stop, entering).await?;
            let (envelope, n_listed) =
                self.page(state, &mut walk, &query, offer, began, stop).await?;
            if !envelope.has_next {
                return Ok(());
            }
            let cursor = envelope.next_query_filters;
            let cursor_text = cursor.as_ref().map(serde_json::Value::to_string);
            walk.go_on(cursor_text.as_deref().map(str::as_bytes))
                .map_err(source::Error::Endless)?;
            query = match query.next(cursor, walk.highest(), n_listed) {
                Next::Page(next) => next,
                Next::Nowhere => return Err(source::Error::Nowhere.into()),
                Next::SkipUsedUp => {
                    warn!(%stream, "more records of one millisecond than the API lets anyone read");
                    self.progress.rejected(stream, RejectReason::SkipLimit);
                    return Ok(());
                }
            };
            if kind != PollKind::Poll {
                state.put_off(walk, query);
                return Ok(());
            }
        }
    }

    /// One page, from the question to the last confirmation, and what it proves.
    async fn page(
        &self,
        state: &mut StreamState,
        walk: &mut Walk,
        query: &Query,
        offer: Offer,
        began: Instant,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(Envelope, usize), Interrupted> {
        let asked = now(began).steady;
        let mut page = unless_stopped(stop, self.source.fetch(query, offer)).await??; // E Page
        let answer = Answer { asked, answered: now(began), date: page.date };
        self.answered(query.stream);
        let mut unconfirmed = Vec::new();
        let (mut n_listed, mut rejects, mut is_first) = (0, Rejects::default(), true);
        let ended = loop {
            let pieces = match unless_stopped(stop, page.next()).await {
                Ok(Ok(Arrived::Pieces(pieces))) => pieces,
                Ok(Ok(Arrived::End(envelope))) => break Ok(envelope),
                Ok(Err(error)) => break Err(Interrupted::Source(error)),
                Err(Stopped) => break Err(Interrupted::Stopped),
            };
            n_listed += pieces.len();
            let mut batch = BatchBuilder::new(query.stream);
            for piece in pieces {
                if let Some((frame, mark)) =
                    self.admit(state, walk, &piece, &mut rejects, now(began))
                {
                    if std::mem::take(&mut is_first) {
                        Self::begin(query, state, mark.time(), now(began).wall);
                    }
                    batch.push(&frame.bytes, mark);
                }
            }
            if let Some(batch) = batch.take() {
                let sending = self.send(batch, &mut page); //                    E  Pending
                // Whatever was sent before may be confirmed all the same.
                match unless_stopped(stop, sending).await.flatten() {
                    Ok(pending) => unconfirmed.push(pending),
                    Err(Stopped) => break Err(Interrupted::Stopped),
                }
            }
            self.settle(&mut unconfirmed, state, walk, None).await?;
        };
        self.settle(&mut unconfirmed, state, walk, Some(stop)).await?; //        E  Delivered -> advance -> save
        rejects.log(query.stream);
        let envelope = ended?;
        self.read_whole(state, walk, answer, envelope.has_next, now(began))?; // P  Passed -> advance -> save
        debug!(stream = %query.stream, n_listed, has_next = envelope.has_next, watermark = state.cursor.watermark(), "page delivered");
        Ok((envelope, n_listed))
    }
}
