//! How far one table is read, and what is asked of it next. Pure.
//!
//! Three things are read of a table. **Live**: what was ingested since the last poll, from the newest row on. **Backlog**:
//! what lies further back, window by window. **Look**: now and then the ids of all that was ingested within the overlap, of
//! which those that no poll has shown are fetched, because rows are not shown in the order in which they are ingested.
//! Every delivered row is remembered while a look may meet it. Times are Graph's own; moments are of the steady clock.

use std::collections::{BTreeMap, BTreeSet};

use super::key::Key;
use super::query::{By, MOST_FETCHED, MOST_IDS, MOST_ROWS, Query, Select};
use crate::record::{Mark, RecordKey};
use crate::source::xdr;
use crate::time::Millis;

/// What lies further back than this is read as backlog, so that what is new does not wait for it.
const BACKLOG: Millis = 10 * 60_000;
/// A look comes at least this often.
const LOOK: Millis = 10 * 60_000;
const LEAST_WINDOW: Millis = 1_000;
const FIRST_WINDOW: Millis = 6 * 3_600_000;
const LARGEST_WINDOW: Millis = 24 * 3_600_000;
const LEAST_ROWS: usize = 10;
/// After a question of a look that was not answered.
const LOOK_AGAIN: Millis = 30_000;
/// So many ids take less than a row does.
const IDS_A_ROW: usize = MOST_IDS / MOST_ROWS;
/// Where a look has found so many rows missing, they are fetched before more ids are listed: 4 MB with one more page of them.
const MOST_MISSING: usize = MOST_IDS;

/// What is read; the earlier goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// What is new.
    Live,
    /// The ids within the overlap.
    Look,
    /// Rows that a look has missed.
    Fetch,
    /// What lies further back.
    Backlog,
}

/// Why less is to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TooMuch {
    /// The answer has more bytes than Graph gives: so many rows will have again.
    Size,
    /// The answer took too long: Graph may have been busy.
    Time,
}

/// What lies further back and is not read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backlog {
    /// Everything up to here is delivered.
    pub(super) after: Key,
    /// It ends here.
    pub(super) until: Key,
}

/// A look under way.
#[derive(Debug)]
struct Look {
    /// What is asked for next lies behind this.
    after: Key,
    /// Graph's time when it began, as far as that is sure.
    began: Millis,
    /// Ids that were not shown before.
    missing: BTreeSet<String>,
    /// Whether all ids have been seen.
    is_listed: bool,
}

/// What an answer was, once all of it is accounted for.
#[derive(Debug, Clone, Default)]
pub(super) struct Answered {
    /// How many rows it had.
    pub(super) n_rows: usize,
    /// The farthest of them.
    pub(super) last: Option<Key>,
    /// When its turn came, by the steady clock: before it waited for the budget and for Graph.
    pub(super) begun: Millis,
    /// Graph's time when it was asked for, where that is believed.
    pub(super) asked_at: Option<Millis>,
    /// The same, and had passed by our clock too.
    pub(super) sure: Option<Millis>,
    /// No row is believed to be of a later time.
    pub(super) limit: Option<Millis>,
}

/// One table.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) table: xdr::Table,
    pub(super) live: Key,
    pub(super) through: Millis,
    pub(super) settled: Millis,
    pub(super) backlog: Option<Backlog>,
    pub(super) seen: BTreeMap<RecordKey, Millis>,
    overlap: Millis,
    interval: Millis,
    look: Option<Look>,
    newest: Millis,
    window: Millis,
    n_rows: usize,
    most_rows: usize,
    most_missing: usize,
    /// So many rows were too large. It grows slowly, because rows differ.
    too_many: usize,
    next_poll: Millis,
    next_look: Millis,
}

impl Table {
    /// A table of which everything before `start` is left out.
    pub(super) fn starting_at(
        table: xdr::Table,
        start: Millis,
        overlap: Millis,
        interval: Millis,
    ) -> Self {
        Self {
            table,
            live: Key::before(start),
            through: start,
            settled: start,
            backlog: None,
            seen: BTreeMap::new(),
            overlap,
            interval,
            look: None,
            newest: start,
            window: FIRST_WINDOW,
            n_rows: MOST_ROWS,
            most_rows: MOST_ROWS,
            most_missing: MOST_MISSING,
            too_many: usize::MAX,
            next_poll: 0,
            next_look: LOOK.min(overlap / 3).max(interval),
        }
    }

    /// Everything that was ingested up to this time and shown is delivered.
    pub(super) fn through(&self) -> Millis {
        self.backlog.as_ref().map_or(self.through, |backlog| backlog.after.millis())
    }

    /// What is due at this moment, and what is not before another.
    pub(super) fn due(&self, now: Millis) -> Result<Kind, Millis> {
        if self.next_poll <= now { Ok(Kind::Live) } else { self.due_beside(now) }
    }

    /// Whether what is new comes due within this time, or half an interval where that is less.
    pub(super) fn polls_soon(&self, now: Millis, within: Millis) -> bool {
        self.next_poll <= now.saturating_add(within.min(self.interval / 2))
    }

    /// What is due beside what is new, and when something is.
    pub(super) fn due_beside(&self, now: Millis) -> Result<Kind, Millis> {
        match &self.look {
            _ if self.next_look > now || self.overlap == 0 => {}
            Some(look) if look.is_listed || look.missing.len() >= self.most_missing => {
                return Ok(Kind::Fetch);
            }
            Some(_) | None => return Ok(Kind::Look),
        }
        if self.backlog.is_some() {
            return Ok(Kind::Backlog);
        }
        let look = if self.overlap > 0 { self.next_look } else { Millis::MAX };
        Err(self.next_poll.min(look))
    }

    /// Leaves what lies far behind this time, which has passed at Graph, to the backlog.
    pub(super) fn split(&mut self, now: Millis) {
        if self.backlog.is_none() && now - self.live.millis() > BACKLOG {
            self.split_at(now);
        }
    }

    fn split_at(&mut self, now: Millis) {
        let settled = self.settled.min(self.live.millis().saturating_add(1));
        self.backlog = Some(Backlog { after: Key::before(settled), until: Key::after(now) });
        self.live = Key::after(now);
        self.through = self.through.max(now);
        self.settled = self.settled.max(now - self.overlap);
        self.look = None;
    }

    /// The question of this kind.
    pub(super) fn question(&mut self, kind: Kind, sure: Option<Millis>) -> Query {
        let query = |after, until, select| Query {
            table: self.table,
            by: By::Ingestion,
            after,
            until,
            select,
        };
        match kind {
            Kind::Live => query(self.live.clone(), None, Select::Rows(self.n_rows)),
            Kind::Backlog => {
                let backlog = self.backlog.clone();
                let Backlog { after, until } = backlog.unwrap_or_else(|| Backlog {
                    after: self.live.clone(),
                    until: self.live.clone(),
                });
                let end = Key::after(after.millis().saturating_add(self.window));
                let end = if end.is_behind(&until) { until } else { end };
                query(after, Some(end), Select::Rows(self.n_rows))
            }
            Kind::Look => {
                let from = match &self.backlog {
                    Some(backlog) => backlog.until.clone(),
                    None => Key::before(self.settled),
                };
                let began = sure.unwrap_or(Millis::MIN).max(self.newest);
                let look = self.look.get_or_insert_with(|| Look {
                    after: from,
                    began,
                    missing: BTreeSet::new(),
                    is_listed: false,
                });
                let after = look.after.clone();
                query(after, Some(self.live.clone()), Select::Ids(self.n_rows * IDS_A_ROW))
            }
            Kind::Fetch => {
                let missing = self.look.iter().flat_map(|look| &look.missing);
                let ids = missing.take(MOST_FETCHED.min(self.n_rows));
                let from = Key::before(self.settled);
                query(from, Some(self.live.clone()), Select::These(ids.cloned().collect()))
            }
        }
    }

    /// Whether a row was delivered or skipped before.
    pub(super) fn has_seen(&self, key: RecordKey) -> bool {
        self.seen.contains_key(&key)
    }

    /// A look lists a row.
    pub(super) fn list(&mut self, id: &str) {
        let is_new = !id.is_empty() && !self.has_seen(RecordKey::of(id.as_bytes()));
        if let Some(look) = self.look.as_mut().filter(|_| is_new) {
            look.missing.insert(id.to_owned());
        }
    }

    /// A row was delivered or skipped, for good. No row is believed to be of a later time than `limit`.
    pub(super) fn remember(&mut self, mark: &Mark, limit: Option<Millis>) {
        let time = mark.time();
        self.newest = self.newest.max(limit.unwrap_or(time).min(time));
        if mark.time() >= self.settled {
            self.seen.insert(mark.key(), mark.time());
        }
    }

    /// Everything up to a row of an answer in order is delivered or skipped. A row from the future moves nothing.
    pub(super) fn reached(&mut self, kind: Kind, place: &Key, limit: Option<Millis>) {
        if limit.is_some_and(|limit| place.millis() > limit) {
            return;
        }
        let place = place.passed();
        match (kind, &mut self.backlog) {
            (Kind::Live, _) if place.is_behind(&self.live) => self.live = place,
            (Kind::Backlog, Some(backlog)) if place.is_behind(&backlog.after) => {
                backlog.after = place;
            }
            (Kind::Live | Kind::Look | Kind::Fetch | Kind::Backlog, _) => {}
        }
    }

    /// All of an answer is delivered or skipped. Says whether the same is to be asked for further on at once.
    pub(super) fn answered(
        &mut self,
        query: &Query,
        kind: Kind,
        is: &Answered,
        now: Millis,
    ) -> bool {
        let is_full = is.n_rows >= query.limit();
        let last = is.last.clone();
        let small_enough = (self.too_many / 4 * 3).max(LEAST_ROWS);
        self.n_rows = (self.n_rows * 2).min(self.most_rows).min(small_enough);
        self.too_many = self.too_many.saturating_add(self.too_many / 32);
        match kind {
            Kind::Live => {
                // From turn to turn: what a query takes must not come on top of every interval.
                let next_poll = is.begun.saturating_add(self.interval).max(now);
                let farthest = last.as_ref().map(Key::millis);
                let farthest = farthest.map(|it| it.min(is.limit.unwrap_or(it)));
                if let Some(last) = &last {
                    self.reached(kind, last, is.limit);
                }
                if is_full {
                    // A whole page of one instant without ids: nothing says where in it the rest is.
                    if let Some(last) = last.filter(|_| !self.live.is_behind(&query.after)) {
                        self.reached(kind, &Key { id: None, ..last }, is.limit);
                    }
                    let is_further = self.live.is_behind(&query.after);
                    self.through = self.through.max(farthest.unwrap_or(Millis::MIN));
                    // The rest is asked for at once, or left to the backlog.
                    self.next_poll = if is_further { now } else { next_poll };
                    return false;
                }
                let through = farthest.max(is.asked_at).unwrap_or(Millis::MIN);
                self.through = self.through.max(through);
                // A quiet table is not searched from its last row on for ever: looks find what is late.
                let behind = is.sure.filter(|_| self.overlap > 0);
                let behind = behind.map(|at| Key::after(at - self.overlap));
                if let Some(behind) = behind.filter(|behind| behind.is_behind(&self.live)) {
                    self.live = behind;
                }
                self.next_poll = next_poll;
                false
            }
            Kind::Backlog => {
                // A full answer is read on from its last row, whatever the window.
                let grown = if is_full { self.window } else { self.window * 2 };
                self.window = grown.min(LARGEST_WINDOW);
                let Some(backlog) = &mut self.backlog else { return false };
                let passed = last.as_ref().map(Key::passed);
                let passed = passed.filter(|it| it.is_behind(&query.after));
                // A whole page of one instant without ids: nothing says where in it the rest is.
                let stepped = || last.map(|last| Key { id: None, ..last });
                let reached = if is_full { passed.or_else(stepped) } else { query.until.clone() };
                if let Some(reached) = reached.filter(|it| it.is_behind(&backlog.after)) {
                    backlog.after = reached;
                }
                let passed = backlog.after.millis();
                if !backlog.until.is_behind(&backlog.after) {
                    self.backlog = None;
                }
                self.forget_before(self.settled.min(passed));
                false
            }
            Kind::Look => {
                let Some(look) = &mut self.look else { return false };
                if let Some(last) = last.filter(|_| is_full) {
                    look.after = last;
                    return false;
                }
                look.is_listed = true;
                if look.missing.is_empty() {
                    self.end_look(now);
                }
                false
            }
            Kind::Fetch => {
                let Select::These(ids) = &query.select else { return false };
                if let Some(look) = &mut self.look {
                    for id in ids {
                        look.missing.remove(id);
                    }
                    if look.missing.is_empty() && look.is_listed {
                        self.end_look(now);
                    }
                }
                false
            }
        }
    }

    fn end_look(&mut self, now: Millis) {
        self.next_look = now + LOOK.min(self.overlap / 3).max(self.interval);
        // What the backlog passes is looked at after it.
        if let Some(look) = self.look.take().filter(|_| self.backlog.is_none()) {
            let settled = look.began.saturating_sub(self.overlap).min(self.live.millis());
            self.settled = self.settled.max(settled);
            self.forget_before(self.settled);
        }
    }

    fn forget_before(&mut self, time: Millis) {
        self.seen.retain(|_, of| *of >= time);
    }

    /// Graph does not hold anything before this time: what it would have had is left out. Says how much that is.
    pub(super) fn cut(&mut self, kept_from: Millis) -> Option<Millis> {
        let from = self.through();
        let lost = (kept_from - from).max(0);
        if lost == 0 {
            return None;
        }
        let cut = Key::before(kept_from);
        match &mut self.backlog {
            Some(backlog) if backlog.until.is_behind(&cut) => backlog.after = cut,
            _ => {
                self.backlog = None;
                if cut.is_behind(&self.live) {
                    self.live = cut;
                }
                self.through = self.through.max(kept_from);
                self.settled = self.settled.max(kept_from);
            }
        }
        Some(lost)
    }

    /// Starts again at another time, because its own cannot be true.
    pub(super) fn restart(&mut self, start: Millis) {
        let seen = std::mem::take(&mut self.seen);
        *self = Self { seen, ..Self::starting_at(self.table, start, self.overlap, self.interval) };
    }

    /// What is new is asked for as soon as the pause is over.
    pub(super) fn again(&mut self, kind: Kind, now: Millis) {
        self.next_poll = 0;
        // The rest goes before a look that was not answered.
        if matches!(kind, Kind::Look | Kind::Fetch) {
            self.next_look = now + LOOK_AGAIN.max(self.interval);
        }
    }

    /// A request of this kind failed because the answer was too large or took too long.
    pub(super) fn failed(&mut self, kind: Kind, too_much: TooMuch, now: Option<Millis>) {
        match too_much {
            TooMuch::Size => self.too_many = self.n_rows,
            TooMuch::Time => self.window = (self.window / 4).max(LEAST_WINDOW),
        }
        self.n_rows = (self.n_rows / 4).max(LEAST_ROWS);
        if let (Kind::Live, Some(now), None) = (kind, now, &self.backlog)
            && now - self.live.millis() > 2 * self.interval
        {
            self.split_at(now);
        }
    }
}

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
