//! One stream of an API that lists, as a pipeline reads it: brings answers and the time to the stream's state, and its
//! questions to the [`List`]. What a page means is decided in `stream_state`.

use std::sync::Arc;
use std::time::Duration;

use siem_agent_crds::position::Position;
use siem_agent_edge::clock;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use serde_json::Value;

use super::schedule::{self, PollKind, Schedule};
use super::server_clock::Heard;
use super::stream_state::{Answer, StreamState};
use super::walk::{Admission, Walk};
use super::{List, Next, position};
use crate::delivery::Delivered;
use crate::event::Stream;
use crate::plan::Pace;
use crate::record::{Mark, RecordKey};
use crate::reject::RejectReason;
use crate::source::http::api::{Arrived, Page};
use crate::source::http::error::Error;
use crate::source::http::split::{self, Piece};
use crate::source::{self, Due, Failed, Listed, Offer, PageRead, Read, Start};
use crate::time::{Millis, Now, millis};

/// A watermark that is older than this leaves a backlog to be read.
const BACKLOG: Millis = 3_600_000;

/// Reads one stream.
#[derive(Debug)]
pub struct Reader<L: List> {
    list: Arc<L>,
    state: StreamState<L::Query>,
    began: Instant,
    due: PollKind,
    poll: Option<Poll<L::Query>>,
}

/// A poll under way.
#[derive(Debug)]
struct Poll<Q> {
    kind: PollKind,
    walk: Walk,
    query: Q,
    page: Option<UnderWay>,
}

/// The page that is read.
#[derive(Debug)]
struct UnderWay {
    page: Page,
    answer: Answer,
    n_listed: usize,
    n_repeated: usize,
    end: Option<Value>,
}

impl<L: List> Reader<L> {
    /// What reads the list from here on.
    pub(in crate::source) fn new(list: L, pace: &Pace, start: &Start) -> Self {
        let Pace { poll_interval, overlap, start_from } = *pace;
        let stream = list.stream();
        let cursor = position::restore(stream, start, overlap);
        let schedule = Schedule::new(stream, poll_interval, overlap, 0);
        let state = StreamState::new(stream, list.limits(), cursor, schedule, start_from);
        let (began, due) = (Instant::now(), PollKind::Poll);
        Self { list: Arc::new(list), state, began, due, poll: None }
    }

    /// The moment on both clocks; the steady one counts from the reader's beginning.
    fn now(&self) -> Now {
        Now { steady: millis(self.began.elapsed()), wall: clock::millis(clock::now()) }
    }

    fn failure(&mut self, error: &Error) -> Failed {
        if matches!(error, Error::Body(split::Error::Endless)) {
            self.state.page_too_large();
        }
        self.list.api().failed(error)
    }

    /// Reads a piece of a page and says whether it is to be sent; a bad one is counted once and never touches its
    /// neighbours.
    fn admit(&mut self, piece: &Piece, now: Now) -> Option<Listed> {
        let poll = self.poll.as_mut()?;
        let (json, read) = match piece {
            Piece::Record(json) => (json.as_slice(), self.list.read(json)),
            Piece::TooLarge => (&[][..], Err(RejectReason::TooLarge)),
        };
        let event = match read {
            Ok(Read::Event(event)) => event,
            Ok(Read::Filtered { key, listed }) => {
                let admission = poll.walk.admit(&self.state.cursor, key, listed);
                let is_new = admission != Admission::Repeated;
                if is_new {
                    self.state.skip(&mut poll.walk, key, listed, now);
                }
                return is_new.then_some(Listed::Filtered);
            }
            Err(reason) => {
                let key = RecordKey::of(json);
                let is_new = poll.walk.admit(&self.state.cursor, key, None) != Admission::Repeated;
                if is_new {
                    self.state.skip(&mut poll.walk, key, None, now);
                }
                return is_new.then_some(Listed::Unusable(reason));
            }
        };
        let listed = self.list.listed(&event);
        let key = RecordKey::of(event.id().as_bytes());
        let admission = poll.walk.admit(&self.state.cursor, key, listed);
        if admission == Admission::Repeated {
            return None;
        }
        let time = listed.unwrap_or_else(|| self.state.unlisted(&poll.walk, now));
        if self.state.notices.begins() && now.wall - self.state.cursor.watermark() >= BACKLOG {
            log_backlog(self.state.stream(), self.list.from(&poll.query), time);
        }
        let mark = Mark::with_event_time(key, time, event.timestamp());
        Some(Listed::New { event, mark, is_late: admission == Admission::Late })
    }

    /// What follows the page: the next one of this poll, or nothing for now.
    fn next_page(&mut self, end: &Value, n_listed: usize) -> Result<bool, Error> {
        let Some(mut poll) = self.poll.take() else { return Ok(false) };
        if !self.list.has_next(&poll.query, end, n_listed) {
            return Ok(false);
        }
        let next = self.list.next(&poll.query, end, poll.walk.highest(), n_listed);
        let Next { query, cursor } = next?;
        poll.walk.go_on(cursor.as_deref().map(str::as_bytes)).map_err(Error::Endless)?;
        poll.query = query;
        if poll.kind == PollKind::Poll {
            self.poll = Some(poll);
            return Ok(true);
        }
        self.state.put_off(poll.walk, poll.query);
        Ok(false)
    }

    /// Logs once when the API's clock and ours begin or cease to differ, and when its answers contradict each other.
    fn compare_clocks(&mut self, heard: Heard, skew: Option<Millis>) {
        let stream = self.state.stream();
        let skew_seconds = skew.unwrap_or_default() / 1_000;
        let turned = skew.and_then(|skew| self.state.notices.skew(skew));
        match turned.filter(|is_wrong| self.list.api().finds_clock(*is_wrong)) {
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
        if heard == Heard::Differs && self.state.notices.contradicts() {
            warn!(
                %stream,
                "an answer's Date differs from the API's other answers and is ignored: a node, a cache or a proxy on the way has a wrong clock"
            );
        }
    }
}

/// Logs from when on the API has something: it may keep less than was asked for.
fn log_backlog(stream: Stream, from: Millis, first: Millis) {
    let time = |millis| jiff::Timestamp::from_millisecond(millis).unwrap_or_default();
    info!(
        %stream,
        asked_from = %time(from),
        first_event = %time(first),
        "reading a backlog: the API lists nothing older than its first event"
    );
}

impl<L: List> source::Reader for Reader<L> {
    fn due(&mut self) -> Due {
        let now = self.now().steady;
        match self.state.due(now) {
            schedule::Due::Poll(kind) => {
                self.due = kind;
                Due::Poll(kind.purpose())
            }
            schedule::Due::At(later) => {
                Due::In(Duration::from_millis((later - now).try_into().unwrap_or(0)))
            }
        }
    }

    fn begin(&mut self) {
        let (kind, now) = (self.due, self.now().steady);
        let ask = |from, limit| self.list.question(from, None, limit);
        let (walk, query) = self.state.set_out(kind, now, ask);
        debug!(stream = %self.state.stream(), ?kind, from = self.list.from(&query), whole = walk.is_whole(), "poll");
        self.poll = Some(Poll { kind, walk, query, page: None });
    }

    async fn ask(&mut self, offer: Offer) -> Result<(), Failed> {
        let asked = self.now().steady;
        let Some(query) = self.poll.as_ref().map(|poll| poll.query.clone()) else {
            return Err(self.failure(&Error::Abandoned));
        };
        match self.list.ask(&query, offer).await {
            Ok(page) => {
                let answer = Answer { asked, answered: self.now(), date: page.date };
                if let Some(poll) = &mut self.poll {
                    poll.page =
                        Some(UnderWay { page, answer, n_listed: 0, n_repeated: 0, end: None });
                }
                Ok(())
            }
            Err(error) => Err(self.failure(&error)),
        }
    }

    async fn next(&mut self) -> Result<Option<Vec<Listed>>, Failed> {
        let under_way = self.poll.as_mut().and_then(|poll| poll.page.as_mut());
        let Some(under_way) = under_way else { return Err(self.failure(&Error::Abandoned)) };
        let arrived = under_way.page.next().await;
        match arrived {
            Ok(Arrived::Pieces(pieces)) => {
                under_way.n_listed += pieces.len();
                let now = self.now();
                let listed: Vec<_> =
                    pieces.iter().filter_map(|piece| self.admit(piece, now)).collect();
                if let Some(under_way) = self.poll.as_mut().and_then(|poll| poll.page.as_mut()) {
                    under_way.n_repeated += pieces.len() - listed.len();
                }
                Ok(Some(listed))
            }
            Ok(Arrived::End(end)) => {
                under_way.end = Some(end);
                Ok(None)
            }
            Err(error) => Err(self.failure(&error)),
        }
    }

    fn abandon(&mut self) {
        if let Some(under_way) = self.poll.as_mut().and_then(|poll| poll.page.as_mut()) {
            under_way.page.abandon();
        }
    }

    fn skip(&mut self, mark: &Mark) {
        let now = self.now();
        if let Some(poll) = &mut self.poll {
            self.state.skip(&mut poll.walk, mark.key(), None, now);
        }
    }

    fn delivered(&mut self, delivered: Delivered) {
        if let Some(poll) = &mut self.poll {
            poll.walk.settle(delivered.marks().len());
        }
        self.state.cursor.record_delivered(delivered);
    }

    fn page_read(&mut self) -> PageRead {
        let (now, stream) = (self.now(), self.state.stream());
        let mut means = PageRead::default();
        let Some(poll) = &mut self.poll else { return means };
        let Some(UnderWay { answer, n_listed, n_repeated, end: Some(end), .. }) = poll.page.take()
        else {
            return means;
        };
        (means.n_listed, means.n_repeated) = (n_listed, n_repeated);
        let has_next = self.list.has_next(&poll.query, &end, n_listed);
        let read = self.state.page_read(&mut poll.walk, answer, has_next, now);
        self.compare_clocks(read.heard, read.skew);
        means.is_date_ignored = read.heard == Heard::Differs;
        means.skew = read.skew;
        if let Some(gap) = read.gap {
            means.gap_seconds = Some(gap.seconds);
            if gap.is_another {
                let gap_seconds = gap.seconds;
                warn!(%stream, gap_seconds, "events lost: older than the API's retention");
            }
        }
        if let Some(start) = read.restarted {
            warn!(%stream, start, "checkpoint rejected: it lies in the API's future; restarting from {start}");
            means.next = Err(self.failure(&Error::Abandoned));
            return means;
        }
        means.next = match self.next_page(&end, n_listed) {
            Ok(more) => Ok(more),
            Err(Error::SkipLimit) => {
                warn!(%stream, "more records of one millisecond than the API lets anyone read");
                means.unreadable = Some(RejectReason::SkipLimit);
                Ok(false)
            }
            Err(error) => Err(self.failure(&error)),
        };
        means
    }

    fn failed(&mut self) {
        let now = self.now().steady;
        self.poll = None;
        self.state.failed(now);
    }

    fn through(&self) -> Millis {
        self.state.cursor.watermark()
    }

    fn last_event(&self) -> Option<Millis> {
        self.state.cursor.last_event()
    }

    fn position(&self) -> Position {
        position::whole(&self.state.cursor)
    }

    fn kept(&self) -> Position {
        position::kept(self.state.stream(), &self.state.cursor)
    }
}
