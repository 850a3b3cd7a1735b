//! The steps of the loop: what a record, a confirmation and a page mean for position, metrics and report.

use std::collections::BTreeMap;
use std::time::Duration;

use siem_agent_crds::position::StreamPosition;
use siem_agent_edge::clock;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::Forwarder;
use crate::delivery::pending::{Pending, Stopped};
use crate::delivery::{Batch, Delivered};
use crate::event::Stream;
use crate::map::{self, Format};
use crate::record::Mark;
use crate::reject::RejectReason;
use crate::saver::Change;
use crate::source::{Listed, PageRead, Reader, Source};
use crate::syslog::{self, Frame};

/// A target that takes nothing for this long in the middle of a page: the page is let go and asked for again later.
const PATIENCE: Duration = Duration::from_secs(10);
/// After the program was asked to stop, a target gets this long to confirm; Kubernetes kills after 30 s.
const LAST_CONFIRMATIONS: Duration = Duration::from_secs(20);

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

impl<S: Source> Forwarder<S> {
    /// Frames what is listed; a bad record is counted once and never touches its neighbours.
    pub(super) fn admit(
        &self,
        stream: Stream,
        reader: &mut S::Reader,
        listed: &Listed,
        rejects: &mut Rejects,
    ) -> Option<(Frame, Mark)> {
        let (event, mark, is_late) = match listed {
            Listed::New { event, mark, is_late } => (event, mark, *is_late),
            Listed::Unusable(reason) => {
                self.skipped(stream, reader, *reason);
                *rejects.0.entry(reason.as_str()).or_default() += 1;
                return None;
            }
            Listed::Filtered => {
                self.saver.offer(stream, Change::Records, || self.at(reader));
                self.progress.metrics.filtered(stream);
                return None;
            }
        };
        if is_late {
            self.progress.metrics.late(stream);
        }
        let Format { dialect, version } = &self.plan.format;
        let record = map::record(event, *dialect, version);
        let frame = match syslog::frame(record, event.timestamp(), &self.plan.layout) {
            Ok(frame) => frame,
            Err(error) => {
                let reason = RejectReason::MessageTooLong;
                reader.skip(mark);
                self.skipped(stream, reader, reason);
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
        Some((frame, *mark))
    }

    /// Counts a record that has no message; its stream's position has passed it.
    fn skipped(&self, stream: Stream, reader: &S::Reader, reason: RejectReason) {
        self.saver.offer(stream, Change::Records, || self.at(reader));
        self.progress.rejected(stream, reason);
    }

    /// Hands a batch to the sink. When the target takes nothing for long, the page is let go.
    pub(super) async fn send(
        &self,
        batch: Batch,
        reader: &mut S::Reader,
    ) -> Result<Pending, Stopped> {
        debug!(stream = %batch.stream(), n_records = batch.n_records(), n_bytes = batch.bytes().len(), "batch sent");
        let sending = self.sink.send(batch);
        tokio::pin!(sending);
        match timeout(PATIENCE, &mut sending).await {
            Ok(pending) => pending,
            Err(_elapsed) => {
                reader.abandon();
                sending.await
            }
        }
    }

    /// Advances by what is confirmed. With `stop`, waits until everything is, or the time to stop has come.
    pub(super) async fn settle(
        &self,
        unconfirmed: &mut Vec<Pending>,
        stream: Stream,
        reader: &mut S::Reader,
        stop: Option<&mut watch::Receiver<bool>>,
    ) -> Result<(), Stopped> {
        let mut n_settled = 0;
        match stop {
            None => {
                while let Some(pending) = unconfirmed.get_mut(n_settled)
                    && let Some(delivered) = pending.poll_confirmed()?
                {
                    n_settled += 1;
                    self.confirmed(delivered, reader);
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
                                %stream,
                                "the target did not confirm in time; what it did not confirm is sent again after the next start"
                            );
                            return Err(Stopped);
                        }
                    };
                    n_settled += 1;
                    self.confirmed(delivered, reader);
                }
            }
        }
        if n_settled > 0 {
            self.progress.remembered(stream, reader.kept(), self.name.clone());
        }
        unconfirmed.drain(..n_settled);
        Ok(())
    }

    fn confirmed(&self, delivered: Delivered, reader: &mut S::Reader) {
        let stream = delivered.stream();
        for mark in delivered.marks() {
            let latency = clock::millis(delivered.at()) - mark.time();
            let latency = Duration::from_millis(latency.try_into().unwrap_or(0));
            self.progress.metrics.latency(stream, latency.as_secs_f64());
        }
        debug!(%stream, n_delivered = delivered.n_delivered(), "batch confirmed");
        self.progress.delivered(stream, delivered.n_delivered() as u64);
        fail::fail_point!("after_confirmation", |_| std::process::abort());
        reader.delivered(delivered);
        self.saver.offer(stream, Change::Records, || self.at(reader));
    }

    /// Where a stream stands.
    pub(super) fn at(&self, reader: &S::Reader) -> StreamPosition {
        let (through, position) = (reader.through(), reader.position());
        StreamPosition { through, position, source: self.name.clone() }
    }

    /// A request was answered; the body may still break off.
    pub(super) fn answered(&self, stream: Stream) {
        self.progress.metrics.requested(stream, "200");
        self.clearance.accepted(stream);
        self.progress.answered(stream, clock::now());
    }

    /// A page was read to its end and all of it is delivered: moves the position to what that proves.
    pub(super) fn read_whole(&self, stream: Stream, reader: &mut S::Reader) -> PageRead {
        self.progress.read_whole(stream, clock::now());
        let read = reader.page_read();
        self.progress.metrics.repeated(stream, read.n_repeated as u64);
        if read.is_date_ignored {
            self.progress.metrics.date_ignored();
        }
        if let Some(skew) = read.skew {
            self.progress.skewed(skew);
        }
        if let Some(seconds) = read.gap_seconds {
            self.progress.gap(stream, seconds);
        }
        if let Some(reason) = read.unreadable {
            self.progress.rejected(stream, reason);
        }
        self.progress.moved(stream, reader.through(), reader.last_event());
        self.saver.offer(stream, Change::Watermark, || self.at(reader));
        read
    }
}
