//! The steps of the loop: what a record, a confirmation and an answer mean for the ledger, the metrics and the report.

use std::time::Duration;

use tracing::warn;

use super::schedule::{Look, Schedule};
use super::{Forwarder, Walk, trouble};
use crate::batch::Batch;
use crate::checkpoint::{Admission, Cursor, Mark, Millis, Passed, RecordKey, Scan};
use crate::clock;
use crate::event::{Event, Stream};
use crate::parse::split::Piece;
use crate::parse::{self, RejectReason};
use crate::sink::{Pending, Stopped};
use crate::source;
use crate::source::query::Query;

/// A target that takes nothing for this long in the middle of a page: the page is let go and asked for again later.
const PATIENCE: Duration = Duration::from_secs(10);

impl Forwarder {
    /// Parses a piece and decides whether it is to be sent; a bad one is counted once and never touches its neighbours.
    pub(super) async fn admit(
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
            self.progress.rejected(stream, reason);
            warn!(%stream, reason = reason.as_str(), "skip a record that cannot be mapped");
        }
        None
    }

    /// Hands a batch to the sink. When the target takes nothing for long, the page is let go.
    pub(super) async fn send(
        &self,
        batch: Batch,
        page: &mut source::Page,
    ) -> Result<Pending, Stopped> {
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
    pub(super) async fn settle(
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
    pub(super) async fn pass(&self, stream: Stream, proven: Option<Passed>, schedule: &Schedule) {
        if let Some(passed) = proven {
            let keep_from =
                self.ledger.with_cursor(stream, |cursor| schedule.keep_from(cursor)).await;
            self.ledger.pass(passed, keep_from).await;
        }
        self.ledger.with_cursor(stream, |cursor| self.progress.moved(stream, cursor)).await;
        self.ledger.with_checkpoint(|checkpoint| self.progress.checkpointed(checkpoint)).await;
    }

    /// A walk with its first question.
    pub(super) async fn set_out(&self, stream: Stream, schedule: &Schedule, look: Look) -> Walk {
        let (scan, reach) = self
            .ledger
            .with_cursor(stream, |cursor| (Scan::new(stream, cursor), schedule.reach(look, cursor)))
            .await;
        let filters = self.plan.streams.iter().find(|(of, _)| *of == stream);
        let filters = filters.map(|(_, filters)| filters.clone()).unwrap_or_default();
        Walk { reach, scan, query: Query::since(stream, filters, reach.from) }
    }

    /// A request was answered: tells so, and mistrusts a watermark that lies ahead of the server's clock.
    pub(super) async fn answered(
        &self,
        stream: Stream,
        page: &source::Page,
    ) -> Result<(), source::Error> {
        self.progress.metrics.requested(stream, "200");
        if self.progress.answered(stream, page.skew, clock::now()) {
            // The token lives again; the other stream need not wait for its own try.
            self.gate.resume();
        }
        let watermark = self.ledger.with_cursor(stream, Cursor::watermark).await;
        let kept_from = trouble::kept_from(page.server_now);
        if let Some(gap_seconds) = self.progress.asked_from(stream, watermark, kept_from) {
            warn!(
                %stream,
                gap_seconds,
                "a gap: what happened in it lies beyond the API's retention and cannot be asked for any more"
            );
        }
        let Some(correction) = trouble::correct(watermark, page.server_now, self.plan.start_from)
        else {
            return Ok(());
        };
        warn!(%stream, ?correction, "the checkpoint cannot be right, start from elsewhere");
        match correction {
            trouble::Correction::Ahead { start } => {
                self.ledger.correct(|checkpoint| checkpoint.restart(stream, start)).await;
            }
            trouble::Correction::BeyondRetention { start } => {
                self.ledger.correct(|checkpoint| checkpoint.skip_to(stream, start)).await;
            }
        }
        Err(source::Error::Abandoned)
    }
}
