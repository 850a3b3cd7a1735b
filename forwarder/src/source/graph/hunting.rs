//! Activities by advanced hunting (`security/runHuntingQuery`): brings answers and the time to the tables' states, and
//! their questions to Graph. What is asked next is decided in `table`.
//!
//! <https://learn.microsoft.com/graph/api/security-security-runhuntingquery>

mod key;
mod position;
pub(super) mod query;
pub(super) mod rows;
mod table;
mod turn;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use siem_agent_crds::position::Position;
use siem_agent_edge::clock;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::filter::Activities;
use crate::delivery::Delivered;
use crate::event::Stream;
use crate::plan::Pace;
use crate::record::{Mark, RecordKey};
use crate::reject::RejectReason;
use crate::source::http::api::{Api, Arrived, Page, Request};
use crate::source::http::client;
use crate::source::http::error::Error;
use crate::source::http::split::{self, List, Piece, Splitter};
use crate::source::listing::notices::Notices;
use crate::source::listing::server_clock::{Heard, ServerClock};
use crate::source::purpose::Purpose;
use crate::source::{self, Due, Failed, Listed, Offer, PageRead, Start, xdr};
use crate::time::{Millis, Now, millis};
use key::Key;
use query::Query;
use table::{Answered, Kind, Table, TooMuch};
use turn::Turns;

/// What the application needs.
const PERMISSION: &str = "ThreatHunting.Read.All";
/// Hunting looks back this far (Microsoft Graph, "security: runHuntingQuery").
const RETENTION: Millis = 30 * 24 * 3_600_000;
/// A query may take three minutes.
const SILENCE: Duration = Duration::from_secs(190);
/// A start may lie this far ahead of Graph's clock before it is mistrusted.
const AHEAD: Millis = 5 * 60_000;

/// Where queries are sent, and with which filters.
#[derive(Debug, Clone)]
pub(crate) struct Hunting {
    pub(super) url: Arc<str>,
    pub(super) api: Arc<Api>,
    pub(super) filter: Arc<Activities>,
}

impl Hunting {
    pub(super) async fn ask(&self, query: &Query, offer: Offer) -> Result<Page, Error> {
        let url = format!("{}/v1.0/security/runHuntingQuery", self.url);
        let request = Request {
            url: &url,
            body: Some(&query.body(&self.filter)),
            prefer: None,
            silence: SILENCE,
            splitter: Splitter::of(List::Results),
            permission: Some(PERMISSION),
        };
        self.api.ask(request, offer).await
    }
}

/// Reads the activities of all tables.
#[derive(Debug)]
pub struct Reader {
    hunting: Hunting,
    tables: Vec<Table>,
    start_from: Duration,
    last_event: Option<Millis>,
    clock: ServerClock,
    notices: Notices,
    began: Instant,
    /// The table that is due, and what of it.
    due: (usize, Kind),
    /// When that came to its turn.
    begun: Millis,
    turns: Turns,
    is_start_checked: bool,
    asked: Option<Asked>,
}

/// A question under way.
#[derive(Debug)]
struct Asked {
    query: Query,
    page: Option<Page>,
    asked: Millis,
    answered: Now,
    n_rows: usize,
    n_repeated: usize,
    last: Option<Key>,
    is_ascending: bool,
    /// What it has shown.
    keys: BTreeSet<RecordKey>,
    /// What is on its way to the target, with its place.
    outstanding: VecDeque<(RecordKey, Option<Key>)>,
    is_whole: bool,
}

impl Reader {
    pub(super) fn new(hunting: Hunting, tables: &[xdr::Table], pace: &Pace, start: &Start) -> Self {
        let Pace { poll_interval, overlap, start_from } = *pace;
        let (tables, last_event) = position::restore(tables, start, overlap, poll_interval);
        Self {
            hunting,
            tables,
            start_from,
            last_event,
            clock: ServerClock::default(),
            notices: Notices::default(),
            began: Instant::now(),
            due: (0, Kind::Live),
            begun: 0,
            turns: Turns::default(),
            is_start_checked: false,
            asked: None,
        }
    }

    /// The moment on both clocks; the steady one counts from the reader's beginning.
    fn now(&self) -> Now {
        Now { steady: millis(self.began.elapsed()), wall: clock::millis(clock::now()) }
    }

    fn table(&mut self) -> Option<&mut Table> {
        self.tables.get_mut(self.due.0)
    }

    fn failure(&mut self, error: &Error) -> Failed {
        let too_much = match error {
            Error::ResultTooLarge { .. } => Some(TooMuch::Size),
            Error::Status { code: 502..=504 | 408, .. }
            | Error::Body(split::Error::Endless)
            | Error::Slow
            | Error::Request(client::Failed::Silent(_)) => Some(TooMuch::Time),
            _ => None,
        };
        let (now, kind) = (self.now(), self.due.1);
        let sure = self.clock.sure(now, now.steady);
        if let (Some(table), Some(too_much)) = (self.table(), too_much) {
            table.failed(kind, too_much, sure);
        }
        self.hunting.api.failed(error)
    }

    /// Reads a row and says whether it is to be sent; a bad one is counted once and never touches its neighbours.
    fn admit(&mut self, piece: &Piece) -> Option<Listed> {
        let limit = self.clock.limit(self.now());
        let (index, kind) = self.due;
        let (asked, table) = (self.asked.as_mut()?, self.tables.get_mut(index)?);
        asked.n_rows += 1;
        let json = match piece {
            Piece::Record(json) => json.as_slice(),
            Piece::TooLarge => &[],
        };
        let place = key::of(json);
        if let Some(place) = &place {
            asked.is_ascending &= asked.last.as_ref().is_none_or(|last| !last.is_behind(place));
            if asked.last.as_ref().is_none_or(|last| place.is_behind(last)) {
                asked.last = Some(place.clone());
            }
        }
        if kind == Kind::Look {
            if let Some(id) = place.and_then(|place| place.id) {
                table.list(&id);
            }
            return None;
        }
        let end = asked.query.until.as_ref().unwrap_or(&asked.query.after);
        let time = place.as_ref().or(asked.last.as_ref()).unwrap_or(end).millis();
        let row = match piece {
            Piece::Record(json) => xdr::row(table.table, json).map_err(|reject| reject.reason),
            Piece::TooLarge => Err(RejectReason::TooLarge),
        };
        // By its own name, which a look lists; a row without one by all that it holds.
        let named = place.as_ref().and_then(|place| place.id.as_ref()).filter(|id| !id.is_empty());
        let of_row = named.map_or(json, String::as_bytes);
        let Ok(Some(event)) = row else {
            let key = RecordKey::of(of_row);
            if table.has_seen(key) || !asked.keys.insert(key) {
                asked.n_repeated += 1;
                return None;
            }
            table.remember(&Mark::with_event_time(key, time, time), limit);
            return Some(row.err().map_or(Listed::Filtered, Listed::Unusable));
        };
        let key = RecordKey::of(event.id().as_bytes());
        if table.has_seen(key) || !asked.keys.insert(key) {
            asked.n_repeated += 1;
            return None;
        }
        let mark = Mark::with_event_time(key, time, event.timestamp());
        if !self.hunting.filter.passes(&event) {
            table.remember(&mark, limit);
            return Some(Listed::Filtered);
        }
        asked.outstanding.push_back((key, place));
        Some(Listed::New { event, mark, is_late: kind == Kind::Fetch })
    }

    /// A row is accounted for; so is every one before it, where they come in order.
    fn settle(&mut self, mark: &Mark) {
        let limit = self.clock.limit(self.now());
        let (index, kind) = self.due;
        let (Some(asked), Some(table)) = (&mut self.asked, self.tables.get_mut(index)) else {
            return;
        };
        table.remember(mark, limit);
        if asked.outstanding.front().is_none_or(|(key, _)| *key != mark.key()) {
            asked.outstanding.retain(|(key, _)| *key != mark.key());
        } else if let Some((_, Some(place))) = asked.outstanding.pop_front()
            && asked.is_ascending
        {
            table.reached(kind, &place, limit);
        }
    }

    /// What Graph does not hold any more is left out, and counted.
    fn cut(&mut self, now: Now) -> Option<f64> {
        let kept_from = self.clock.sure(now, now.steady)? - RETENTION;
        let watermark = source::Reader::through(self);
        for table in &mut self.tables {
            table.cut(kept_from);
        }
        let gap = self.notices.gap(watermark, kept_from)?;
        if gap.is_another {
            let gap_seconds = gap.seconds;
            warn!(stream = %Stream::Activities, gap_seconds, "events lost: older than the 30 days that hunting looks back");
        }
        Some(gap.seconds)
    }

    /// A start that lies in the future by both clocks would silence the stream: where to start instead. Asked once in a
    /// life, as soon as the time is known.
    fn correction(&mut self, now: Now) -> Option<Millis> {
        let graph = self.clock.now(now).filter(|_| !self.is_start_checked)?;
        self.is_start_checked = true;
        let passed = now.time_of_day().map_or(graph, |ours| ours.max(graph));
        let is_ahead = self.tables.iter().any(|table| table.live.millis() > passed + AHEAD);
        is_ahead.then(|| graph - millis(self.start_from))
    }
}

impl source::Reader for Reader {
    fn due(&mut self) -> Due {
        let now = self.now().steady;
        match self.turns.next(&self.tables, now) {
            Ok(due @ (_, kind)) => {
                self.due = due;
                Due::Poll(if kind == Kind::Live { Purpose::Poll } else { Purpose::Rescan })
            }
            Err(later) => {
                let wait = later.saturating_sub(now).clamp(1, 3_600_000);
                Due::In(Duration::from_millis(wait.try_into().unwrap_or(1)))
            }
        }
    }

    fn begin(&mut self) {
        let now = self.now();
        self.begun = now.steady;
        let sure = self.clock.sure(now, now.steady);
        if let (Some(table), Some(sure)) = (self.table(), sure) {
            table.split(sure);
        }
    }

    async fn ask(&mut self, offer: Offer) -> Result<(), Failed> {
        let now = self.now();
        let sure = self.clock.sure(now, now.steady);
        let kind = self.due.1;
        let Some(query) = self.table().map(|table| table.question(kind, sure)) else {
            return Err(self.failure(&Error::Abandoned));
        };
        debug!(table = query.table.as_str(), ?kind, after = query.after.millis(), "hunting query");
        match self.hunting.ask(&query, offer).await {
            Ok(page) => {
                self.asked = Some(Asked {
                    query,
                    page: Some(page),
                    asked: now.steady,
                    answered: self.now(),
                    n_rows: 0,
                    n_repeated: 0,
                    last: None,
                    is_ascending: true,
                    keys: BTreeSet::new(),
                    outstanding: VecDeque::new(),
                    is_whole: false,
                });
                Ok(())
            }
            Err(error) => Err(self.failure(&error)),
        }
    }

    async fn next(&mut self) -> Result<Option<Vec<Listed>>, Failed> {
        let page = self.asked.as_mut().and_then(|asked| asked.page.as_mut());
        let Some(page) = page else { return Err(self.failure(&Error::Abandoned)) };
        match page.next().await {
            Ok(Arrived::Pieces(pieces)) => {
                Ok(Some(pieces.iter().filter_map(|piece| self.admit(piece)).collect()))
            }
            // Something that is no answer must not prove that there are no rows.
            Ok(Arrived::End(end)) if !end.get("schema").is_some_and(Value::is_array) => {
                Err(self.failure(&Error::NoSchema))
            }
            Ok(Arrived::End(_)) => {
                if let Some(asked) = &mut self.asked {
                    asked.is_whole = true;
                }
                Ok(None)
            }
            Err(error) => Err(self.failure(&error)),
        }
    }

    fn abandon(&mut self) {
        if let Some(page) = self.asked.as_mut().and_then(|asked| asked.page.as_mut()) {
            page.abandon();
        }
    }

    fn skip(&mut self, mark: &Mark) {
        self.settle(mark);
    }

    fn delivered(&mut self, delivered: Delivered) {
        for mark in delivered.marks() {
            self.last_event = self.last_event.max(Some(mark.happened()));
            self.settle(mark);
        }
    }

    fn page_read(&mut self) -> PageRead {
        let (now, kind) = (self.now(), self.due.1);
        let mut means = PageRead::default();
        let Some(asked) = self.asked.take().filter(|asked| asked.is_whole) else { return means };
        (means.n_listed, means.n_repeated) = (asked.n_rows, asked.n_repeated);
        let date = asked.page.as_ref().and_then(|page| page.date);
        let heard = self.clock.hear(asked.asked, asked.answered, date);
        means.is_date_ignored = heard == Heard::Differs;
        means.skew = self.clock.skew(now);
        if !asked.is_ascending {
            means.next = Err(self.failure(&Error::Unordered));
            return means;
        }
        if !asked.outstanding.is_empty() {
            return means;
        }
        if let Some(start) = self.correction(now) {
            warn!(stream = %Stream::Activities, start, "checkpoint rejected: it lies in Graph's future; restarting from {start}");
            for table in &mut self.tables {
                table.restart(start);
            }
            return means;
        }
        let answered = Answered {
            n_rows: asked.n_rows,
            last: asked.last,
            begun: self.begun,
            asked_at: self.clock.now(now).map(|graph| graph - (now.steady - asked.asked)),
            sure: self.clock.sure(now, asked.asked),
            limit: self.clock.limit(now),
        };
        self.turns.answered(kind, self.begun, now.steady);
        if let Some(table) = self.table() {
            means.next = Ok(table.answered(&asked.query, kind, &answered, now.steady));
        }
        means.gap_seconds = self.cut(now);
        means
    }

    fn failed(&mut self) {
        self.asked = None;
        let (now, kind) = (self.now().steady, self.due.1);
        if let Some(table) = self.table() {
            table.again(kind, now);
        }
    }

    fn through(&self) -> Millis {
        self.tables.iter().map(Table::through).min().unwrap_or_default()
    }

    fn last_event(&self) -> Option<Millis> {
        self.last_event
    }

    fn position(&self) -> Position {
        position::whole(&self.tables, self.last_event)
    }

    fn kept(&self) -> Position {
        position::kept(&self.tables)
    }
}
