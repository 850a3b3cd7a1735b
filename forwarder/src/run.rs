//! The loop: poll -> parse -> map -> frame -> deliver -> advance -> save -> report, once for each stream.
//!
//! Both streams run side by side and share the budget, the connection and the checkpoint, so neither waits for the
//! other's page. A stream asks for its next page only when everything of the last one is confirmed.

mod schedule;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tracing::warn;

use crate::batch::{Batch, BatchBuilder};
use crate::checkpoint::{Admission, Mark, Millis, Passed, RecordKey, Scan};
use crate::clock;
use crate::error_chain::chain;
use crate::event::{Event, Stream};
use crate::frame::{self, Layout};
use crate::ledger::Ledger;
use crate::parse::split::{Envelope, Piece};
use crate::parse::{self, RejectReason};
use crate::progress::Progress;
use crate::sink::{Pending, Sink, Stopped};
use crate::source::gate::Gate;
use crate::source::query::Query;
use crate::source::{self, Arrived, Source};
use schedule::{Look, Reach, Schedule};

/// A target that takes nothing for this long in the middle of a page: the page is let go and asked for again later.
const PATIENCE: Duration = Duration::from_secs(10);

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
            let (envelope, server_now, n_listed) = self.page(&walk.query, &mut walk.scan).await?;
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
                self.progress.rejected(stream, "skip_limit");
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
    ) -> Result<(Envelope, Millis, usize), Interrupted> {
        let mut page = self.source.fetch(query).await?; //                       E  Page
        self.answered(query.stream, &page).await?;
        let mut unconfirmed = Vec::new();
        let mut n_listed = 0;
        let ended = loop {
            let pieces = match page.next().await {
                Ok(Arrived::Pieces(pieces)) => pieces,
                Ok(Arrived::End(envelope)) => break Ok(envelope),
                Err(error) => break Err(error),
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

    /// Parses a piece and decides whether it is to be sent; a bad one is counted once and never touches its neighbours.
    async fn admit(
        &self,
        stream: Stream,
        piece: &Piece,
        scan: &mut Scan,
        server_now: Millis,
    ) -> Option<(Event, Mark)> {
        let json = match piece {
            Piece::Record(json) => json,
            Piece::TooLarge => {
                return self.reject(stream, RejectReason::TooLarge, &[], scan, server_now).await;
            }
        };
        let event = match parse::record(stream, json) {
            Ok(event) => event,
            Err(reject) => return self.reject(stream, reject.reason, json, scan, server_now).await,
        };
        let listed = match stream {
            Stream::Alerts => Some(event.timestamp()),
            Stream::Activities => event.created(),
        };
        let key = RecordKey::of(event.id().as_bytes());
        match self.ledger.admit(scan, stream, key, listed).await {
            Admission::Repeated => return None,
            Admission::Late => self.progress.metrics.late(stream),
            Admission::New => {}
        }
        self.progress.metrics.received(stream);
        let mark = Mark::with_event_time(key, listed.unwrap_or(server_now), event.timestamp());
        Some((event, mark))
    }

    async fn reject(
        &self,
        stream: Stream,
        reason: RejectReason,
        json: &[u8],
        scan: &mut Scan,
        server_now: Millis,
    ) -> Option<(Event, Mark)> {
        let key = RecordKey::of(json);
        if self.ledger.admit(scan, stream, key, None).await != Admission::Repeated {
            scan.settle(1);
            self.ledger.skip(stream, key, server_now).await;
            self.progress.rejected(stream, reason.as_str());
            warn!(%stream, reason = reason.as_str(), "skip a record that cannot be mapped");
        }
        None
    }

    /// Hands a batch to the sink. When the target takes nothing for long, the page is let go.
    async fn send(&self, batch: Batch, page: &mut source::Page) -> Result<Pending, Stopped> {
        let sending = self.sink.send(batch);
        tokio::pin!(sending);
        match tokio::time::timeout(PATIENCE, &mut sending).await {
            Ok(pending) => pending,
            Err(_elapsed) => {
                page.abandon();
                sending.await
            }
        }
    }

    /// Advances by what is confirmed; with `all`, waits until everything is.
    async fn settle(
        &self,
        unconfirmed: &mut Vec<Pending>,
        scan: &mut Scan,
        all: bool,
    ) -> Result<(), Stopped> {
        let mut n_settled = 0;
        for pending in unconfirmed.iter_mut() {
            let delivered =
                if all { Some(pending.confirmed().await?) } else { pending.poll_confirmed()? };
            let Some(delivered) = delivered else { break };
            n_settled += 1;
            let stream = delivered.stream();
            scan.settle(delivered.marks().len());
            for mark in delivered.marks() {
                let latency = clock::millis(delivered.at()) - mark.time();
                self.progress.metrics.latency(
                    stream,
                    Duration::from_millis(latency.try_into().unwrap_or(0)).as_secs_f64(),
                );
            }
            self.progress.delivered(stream, delivered.n_delivered() as u64);
            self.ledger.advance(delivered).await;
        }
        if n_settled > 0 && scan.stream() == Stream::Alerts {
            self.ledger
                .with_cursor(Stream::Alerts, |alerts| self.progress.remembered(alerts))
                .await;
        }
        unconfirmed.drain(..n_settled);
        Ok(())
    }

    /// Moves the watermark to what is proven.
    async fn pass(&self, stream: Stream, proven: Option<Passed>, schedule: &Schedule) {
        if let Some(passed) = proven {
            let keep_from =
                self.ledger.with_cursor(stream, |cursor| schedule.keep_from(cursor)).await;
            self.ledger.pass(passed, keep_from).await;
        }
        self.ledger.with_cursor(stream, |cursor| self.progress.moved(stream, cursor)).await;
        self.ledger.with_checkpoint(|checkpoint| self.progress.checkpointed(checkpoint)).await;
    }

    /// A walk with its first question.
    async fn set_out(&self, stream: Stream, schedule: &Schedule, look: Look) -> Walk {
        let (scan, reach) = self
            .ledger
            .with_cursor(stream, |cursor| (Scan::new(stream, cursor), schedule.reach(look, cursor)))
            .await;
        let filters = self.plan.streams.iter().find(|(of, _)| *of == stream);
        let filters = filters.map(|(_, filters)| filters.clone()).unwrap_or_default();
        Walk { reach, scan, query: Query::since(stream, filters, reach.from) }
    }

    /// A request was answered: tells so, and mistrusts a watermark that lies ahead of the server's clock.
    async fn answered(&self, stream: Stream, page: &source::Page) -> Result<(), source::Error> {
        self.progress.metrics.requested(stream, "200");
        if self.progress.answered(stream, page.skew, clock::now()) {
            // The token lives again; the other stream need not wait for its own try.
            self.gate.resume();
        }
        let watermark = self.ledger.with_cursor(stream, super::checkpoint::Cursor::watermark).await;
        let Some(correction) = trouble::correct(watermark, page.server_now, self.plan.start_from)
        else {
            return Ok(());
        };
        warn!(%stream, ?correction, "the checkpoint cannot be right, start from elsewhere");
        match correction {
            trouble::Correction::Ahead { start } => {
                self.ledger.correct(|checkpoint| checkpoint.restart(stream, start)).await;
            }
            trouble::Correction::BeyondRetention { start, gap } => {
                self.progress.metrics.gap(stream, gap.as_secs_f64());
                self.ledger.correct(|checkpoint| checkpoint.skip_to(stream, start)).await;
            }
        }
        Err(source::Error::Abandoned)
    }
}
