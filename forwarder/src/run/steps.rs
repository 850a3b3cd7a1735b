//! The steps of the loop: what a record, a confirmation and a page mean for cursor, metrics and report.

use std::collections::BTreeMap;
use std::time::Duration;

use siem_agent_edge::clock;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::Forwarder;
use super::notices::Gap;
use super::stream_state::{Answer, StreamState};
use super::walk::{Admission, Walk};
use crate::delivery::pending::{Pending, Stopped};
use crate::delivery::{Batch, Delivered};
use crate::event::Stream;
use crate::map::{self, Format};
use crate::parse::split::Piece;
use crate::parse::{self, RejectReason};
use crate::record::{Mark, RecordKey};
use crate::saver::Change;
use crate::server_clock::Heard;
use crate::source;
use crate::source::query::Query;
use crate::syslog::{self, Frame};
use crate::time::Now;

/// A target that takes nothing for this long in the middle of a page: the page is let go and asked for again later.
const PATIENCE: Duration = Duration::from_secs(10);
/// After the program was asked to stop, a target gets this long to confirm; Kubernetes kills after 30 s.
const LAST_CONFIRMATIONS: Duration = Duration::from_secs(20);
/// A watermark that is older than this leaves a backlog to be read.
const BACKLOG_MS: i64 = 3_600_000;

/// The records of one page that cannot be mapped or framed, by reason: one line of log a page, however many there are.
#[derive(Debug, Default)]
pub(super) struct Rejects(BTreeMap<&'static str, u32>);

impl Rejects {
    /// Logs them, if there are any.
    pub(super) fn log(&self, stream: Stream) {
        if !self.0.is_empty() {
            let n_rejected: u32 = self.0.values().sum();
            let reasons = self.0.iter().map(|(reason, count)| format!("{reason}={count}"));
            let reasons = reasons.collect::<Vec<_>>().join(" ");
            warn!(%stream, n_rejected, reasons, "records skipped that cannot be mapped");
        }
    }
}

impl Forwarder {
    /// Parses a piece, decides whether it is to be sent, and frames it; a bad one is counted once and never touches its
    /// neighbours.
    pub(super) fn admit(
        &self,
        state: &mut StreamState,
        walk: &mut Walk,
        piece: &Piece,
        rejects: &mut Rejects,
        now: Now,
    ) -> Option<(Frame, Mark)> {
        let stream = state.stream();
        let (json, parsed) = match piece {
            Piece::Record(json) => {
                (json.as_slice(), parse::record(stream, json).map_err(|reject| reject.reason))
            }
            Piece::TooLarge => (&[][..], Err(RejectReason::TooLarge)),
        };
        let event = match parsed {
            Ok(event) => event,
            Err(reason) => {
                if self.reject(state, walk, reason, json, now) {
                    *rejects.0.entry(reason.as_str()).or_default() += 1;
                }
                return None;
            }
        };
        let listed = match stream {
            Stream::Alerts => Some(event.timestamp()),
            Stream::Activities => event.created(),
        };
        let key = RecordKey::of(event.id().as_bytes());
        match walk.admit(&state.cursor, key, listed) {
            Admission::Repeated => return None,
            Admission::Late => self.progress.metrics.late(stream),
            Admission::New => {}
        }
        let Format { dialect, version } = &self.plan.format;
        let record = map::record(&event, *dialect, version);
        let frame = match syslog::frame(record, event.timestamp(), &self.plan.layout) {
            Ok(frame) => frame,
            Err(error) => {
                let reason = RejectReason::MessageTooLong;
                self.skip(state, walk, reason, key, now);
                let n_of_page = rejects.0.entry(reason.as_str()).or_default();
                *n_of_page += 1;
                if *n_of_page == 1 {
                    warn!(%stream, reason = reason.as_str(), %error, "record skipped that cannot be shortened so far");
                }
                return None;
            }
        };
        self.progress.metrics.received(stream);
        if frame.trimmed {
            self.progress.metrics.trimmed(stream);
        }
        let time = listed.unwrap_or_else(|| state.unlisted(walk, now));
        let mark = Mark::with_event_time(key, time, event.timestamp());
        Some((frame, mark))
    }

    /// The first new record of a page. Where the first one since the start belongs to a backlog, logs once from when on the
    /// API has something: it may keep less than was asked for.
    pub(super) fn begin(query: &Query, state: &mut StreamState, first: i64, now: i64) {
        if !state.notices.begins() || now - state.cursor.watermark() < BACKLOG_MS {
            return;
        }
        let time = |millis| jiff::Timestamp::from_millisecond(millis).unwrap_or_default();
        info!(
            stream = %query.stream,
            asked_from = %time(query.from()),
            first_event = %time(first),
            "reading a backlog: the API lists nothing older than its first event"
        );
    }

    /// Counts a record that cannot be mapped, unless it was counted before.
    fn reject(
        &self,
        state: &mut StreamState,
        walk: &mut Walk,
        reason: RejectReason,
        json: &[u8],
        now: Now,
    ) -> bool {
        let key = RecordKey::of(json);
        let is_new = walk.admit(&state.cursor, key, None) != Admission::Repeated;
        if is_new {
            self.skip(state, walk, reason, key, now);
        }
        is_new
    }

    /// Counts an admitted record that has no message, and lets the cursor pass it.
    fn skip(
        &self,
        state: &mut StreamState,
        walk: &mut Walk,
        reason: RejectReason,
        key: RecordKey,
        now: Now,
    ) {
        walk.settle(1);
        let time = state.unlisted(walk, now);
        state.cursor.skip(key, time);
        self.saver.offer(state.stream(), &state.cursor, Change::Records);
        self.progress.rejected(state.stream(), reason);
    }

    /// Hands a batch to the sink. When the target takes nothing for long, the page is let go.
    pub(super) async fn send(
        &self,
        batch: Batch,
        page: &mut source::Page,
    ) -> Result<Pending, Stopped> {
        debug!(stream = %batch.stream(), n_records = batch.n_records(), n_bytes = batch.bytes().len(), "batch sent");
        let sending = self.sink.send(batch);
        tokio::pin!(sending);
        match timeout(PATIENCE, &mut sending).await {
            Ok(pending) => pending,
            Err(_elapsed) => {
                page.abandon();
                sending.await
            }
        }
    }

    /// Advances by what is confirmed. With `stop`, waits until everything is, or the time to stop has come.
    pub(super) async fn settle(
        &self,
        unconfirmed: &mut Vec<Pending>,
        state: &mut StreamState,
        walk: &mut Walk,
        stop: Option<&mut watch::Receiver<bool>>,
    ) -> Result<(), Stopped> {
        let mut n_settled = 0;
        match stop {
            None => {
                while let Some(pending) = unconfirmed.get_mut(n_settled)
                    && let Some(delivered) = pending.poll_confirmed()?
                {
                    n_settled += 1;
                    self.confirmed(delivered, state, walk);
                }
            }
            Some(stop) => {
                let too_late = async {
                    // A sender that is gone stops nobody.
                    let _ = stop.wait_for(|stop| *stop).await;
                    sleep(LAST_CONFIRMATIONS).await;
                };
                tokio::pin!(too_late);
                for pending in unconfirmed.iter_mut() {
                    let delivered = tokio::select! {
                        delivered = pending.confirmed() => delivered?,
                        () = &mut too_late => {
                            warn!(
                                stream = %state.stream(),
                                "the target did not confirm in time; what it did not confirm is sent again after the next start"
                            );
                            return Err(Stopped);
                        }
                    };
                    n_settled += 1;
                    self.confirmed(delivered, state, walk);
                }
            }
        }
        if n_settled > 0 && state.stream() == Stream::Alerts {
            self.progress.remembered(&state.cursor);
        }
        unconfirmed.drain(..n_settled);
        Ok(())
    }

    fn confirmed(&self, delivered: Delivered, state: &mut StreamState, walk: &mut Walk) {
        let stream = delivered.stream();
        walk.settle(delivered.marks().len());
        for mark in delivered.marks() {
            let latency = clock::millis(delivered.at()) - mark.time();
            let latency = Duration::from_millis(latency.try_into().unwrap_or(0));
            self.progress.metrics.latency(stream, latency.as_secs_f64());
        }
        debug!(%stream, n_delivered = delivered.n_delivered(), "batch confirmed");
        self.progress.delivered(stream, delivered.n_delivered() as u64);
        fail::fail_point!("after_confirmation", |_| std::process::abort());
        state.cursor.record_delivered(delivered);
        self.saver.offer(stream, &state.cursor, Change::Records);
    }

    /// A request was answered; the body may still break off.
    pub(super) fn answered(&self, stream: Stream) {
        self.progress.metrics.requested(stream, "200");
        self.clearance.accepted(stream);
        self.progress.answered(stream, clock::now());
    }

    /// A page was read to its end and all of it is delivered: moves the cursor to what that proves.
    pub(super) fn read_whole(
        &self,
        state: &mut StreamState,
        walk: &mut Walk,
        answer: Answer,
        has_next: bool,
        now: Now,
    ) -> Result<(), source::Error> {
        let stream = state.stream();
        self.progress.read_whole(stream, clock::now());
        let read = state.page_read(walk, answer, has_next, now);
        self.compare_clocks(state, read.heard, read.skew);
        if let Some(Gap { seconds: gap_seconds, is_another }) = read.gap {
            self.progress.gap(stream, gap_seconds);
            if is_another {
                warn!(%stream, gap_seconds, "events lost: older than the API's 180-day retention");
            }
        }
        self.progress.moved(stream, &state.cursor);
        self.saver.offer(stream, &state.cursor, Change::Watermark);
        match read.restarted {
            Some(start) => {
                warn!(%stream, start, "checkpoint rejected: it lies in the API's future; restarting from {start}");
                Err(source::Error::Abandoned)
            }
            None => Ok(()),
        }
    }

    /// Logs once when the server's clock and ours begin or cease to differ, and when its answers contradict each other.
    fn compare_clocks(&self, state: &mut StreamState, heard: Heard, skew: Option<i64>) {
        let stream = state.stream();
        if let Some(skew) = skew {
            self.progress.skewed(skew);
            let skew_seconds = skew / 1_000;
            match state.notices.skew(skew) {
                Some(true) => warn!(
                    %stream,
                    skew_seconds,
                    "the API's clock and ours differ; its clock is followed, set ours right"
                ),
                Some(false) => {
                    info!(%stream, skew_seconds, "the API's clock and ours agree again");
                }
                None => {}
            }
        }
        if heard == Heard::Differs {
            self.progress.metrics.date_ignored();
            if state.notices.contradicts() {
                warn!(
                    %stream,
                    "an answer's Date differs from the API's other answers and is ignored: a node, a cache or a proxy on the way has a wrong clock"
                );
            }
        }
    }
}
