//! All that one stream knows of itself: its cursor, its polls, the server's clock, and what each page means for them.
//!
//! Owned by the one task that follows the stream. It asks nothing and sends nothing: the loop brings answers and
//! proofs, and takes where the next question begins. What a question looks like, `Q`, it does not know. Pure.

use std::time::Duration;

use super::cursor::Cursor;
use super::notices::{Gap, Notices};
use super::schedule::{Due, PollKind, Schedule};
use super::server_clock::{Heard, ServerClock};
use super::walk::{Evidence, Walk};
use crate::event::Stream;
use crate::record::RecordKey;
use crate::time::{Millis, Now, millis};

/// A start may lie this far ahead of the server's clock before it is mistrusted.
const AHEAD: Millis = 5 * 60_000;

/// When a page was asked for and answered, and what time the server gave.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// By the steady clock.
    pub asked: Millis,
    /// When its head had come.
    pub answered: Now,
    /// `Date`.
    pub date: Option<Millis>,
}

/// What a whole page meant.
#[derive(Debug, PartialEq)]
pub struct PageRead {
    /// What its date was worth.
    pub heard: Heard,
    /// The server's clock minus ours, where it is believed.
    pub skew: Option<Millis>,
    /// What was asked for and the API does not hold any more, as far as it is not counted yet.
    pub gap: Option<Gap>,
    /// The start could not be true: where the stream starts instead. The walk is over.
    pub restarted: Option<Millis>,
}

/// What a source says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long it keeps records.
    pub retention: Millis,
    /// The most records that a page can have.
    pub largest_page: usize,
}

/// One stream, whose rescan's next question is a `Q`.
#[derive(Debug)]
pub struct StreamState<Q> {
    stream: Stream,
    limits: Limits,
    start_from: Duration,
    /// Where it stands.
    pub cursor: Cursor,
    schedule: Schedule,
    clock: ServerClock,
    evidence: Evidence,
    rescan: Option<(Walk, Q)>,
    unasked: Option<Millis>,
    /// What is counted or logged once.
    pub notices: Notices,
    /// Records asked for a page: fewer where the API's pages grow too large.
    page_limit: usize,
}

/// A page of this many records stays below the limit, however long each is: a record above 4 MiB is skipped.
const SMALLEST_PAGE: usize = 10;

impl<Q> StreamState<Q> {
    /// A stream that has asked nothing in this life.
    pub fn new(
        stream: Stream,
        limits: Limits,
        cursor: Cursor,
        schedule: Schedule,
        start_from: Duration,
    ) -> Self {
        Self {
            stream,
            limits,
            start_from,
            unasked: Some(cursor.watermark()),
            cursor,
            schedule,
            clock: ServerClock::default(),
            evidence: Evidence::default(),
            rescan: None,
            notices: Notices::default(),
            page_limit: limits.largest_page,
        }
    }

    /// Which stream it is.
    pub fn stream(&self) -> Stream {
        self.stream
    }

    /// What is due.
    pub fn due(&mut self, now: Millis) -> Due {
        self.schedule.due(self.rescan.is_some(), now)
    }

    /// The walk of a poll that is due, with its question: `ask` makes one from a time on, of so many records a page.
    pub fn set_out(
        &mut self,
        kind: PollKind,
        now: Millis,
        ask: impl FnOnce(Millis, usize) -> Q,
    ) -> (Walk, Q) {
        let begun = self.rescan.take_if(|_| kind == PollKind::RescanPage);
        begun.filter(|(walk, _)| !walk.is_overtaken(&self.cursor)).unwrap_or_else(|| {
            let from = self.schedule.from(kind, &self.cursor);
            let late = self.schedule.late();
            let evident = self.evidence.settled(now, late);
            let query = ask(from, self.page_limit);
            (Walk::new(&self.cursor, from, now, late, evident), query)
        })
    }

    /// Keeps a rescan for its next page.
    pub fn put_off(&mut self, walk: Walk, query: Q) {
        self.rescan = Some((walk, query));
    }

    /// A poll failed: the next one is due as soon as the pause is over.
    pub fn failed(&mut self, now: Millis) {
        self.schedule.again(now);
    }

    /// A page was given up because it is larger than any may be: the next ones have fewer records.
    pub fn page_too_large(&mut self) {
        self.page_limit = (self.page_limit / 4).max(SMALLEST_PAGE);
    }

    /// A page was read to its end, and all of it is accounted for.
    pub fn page_read(
        &mut self,
        walk: &mut Walk,
        answer: Answer,
        has_next: bool,
        now: Now,
    ) -> PageRead {
        self.page_limit = (self.page_limit * 2).min(self.limits.largest_page);
        let heard = self.clock.hear(answer.asked, answer.answered, answer.date);
        let sure = self.clock.sure(now, now.steady);
        let gap = sure.and_then(|sure| {
            let asked = self.unasked.take().unwrap_or_else(|| self.cursor.watermark());
            self.notices.gap(asked, sure - self.limits.retention)
        });
        let restarted = self.correction(now);
        if let Some(start) = restarted {
            self.cursor.restart(start);
            self.rescan = None;
            self.schedule.again(now.steady);
        } else {
            let proven = if has_next {
                walk.page(&self.clock, now)
            } else {
                walk.end(&self.clock, answer.asked, now)
            };
            if let Some(passed) = proven {
                self.cursor.advance(passed);
            }
            if let Some(highest) = walk.highest() {
                let listed = highest.min(self.clock.limit(now).unwrap_or(highest));
                self.evidence.note(answer.answered.steady, listed, self.schedule.late());
            }
            if !has_next {
                self.schedule.ended(walk.is_whole(), now.steady);
            }
        }
        if self.clock.is_undecided(now) {
            self.schedule.look_at_the_clock(now.steady);
        }
        PageRead { heard, skew: self.clock.skew(now), gap, restarted }
    }

    /// An admitted record is not sent: the cursor passes it, so that it is counted once. `listed` is its time, where it says.
    pub fn skip(&mut self, walk: &mut Walk, key: RecordKey, listed: Option<Millis>, now: Now) {
        walk.settle(1);
        let time = listed.unwrap_or_else(|| self.unlisted(walk, now));
        self.cursor.skip(key, time);
    }

    /// The time that places a record which the API lists without one: late enough to be remembered.
    pub fn unlisted(&self, walk: &Walk, now: Now) -> Millis {
        let listed = walk.highest().unwrap_or_else(|| walk.from()).max(self.cursor.watermark());
        self.clock.limit(now).map_or(listed, |limit| limit.max(listed))
    }

    /// A start that lies in the future would silence the stream: where to start instead. What the API itself has listed
    /// is not in the future, so only both clocks together can say so of it.
    fn correction(&self, now: Now) -> Option<Millis> {
        let server = self.clock.now(now)?;
        let is_ahead = |of: Millis| self.cursor.settled() > of + AHEAD;
        let is_ahead_of_ours = now.time_of_day().is_some_and(is_ahead);
        (is_ahead(server) && (!self.cursor.is_exact() || is_ahead_of_ours))
            .then(|| server - millis(self.start_from))
    }
}
