//! Whose turn it is: of all tables, which one is asked next, and what of it. Pure.
//!
//! What is new goes first, of every table; where the budget has no room for all polls, the rest gets its turn after each
//! round of them. One question is asked at a time, so a page of a backlog holds up what is new: a poll that would come due
//! while such a page is read goes before it.

use super::table::{Kind, Table};
use crate::time::Millis;

/// The order of turns; moments are of the steady clock.
#[derive(Debug, Default)]
pub(super) struct Turns {
    n_polls_in_a_row: usize,
    /// How long the last question beside the polls took, from its turn to its end.
    took: Millis,
}

impl Turns {
    /// The table that is due, and what of it; or when something is.
    pub(super) fn next(&mut self, tables: &[Table], now: Millis) -> Result<(usize, Kind), Millis> {
        let mut later = Millis::MAX;
        let mut first: Option<(usize, Kind)> = None;
        let is_round = self.n_polls_in_a_row >= tables.len();
        let yields = is_round && tables.iter().any(|table| table.due_beside(now).is_ok());
        for (index, table) in tables.iter().enumerate() {
            match if yields { table.due_beside(now) } else { table.due(now) } {
                Ok(kind) if first.is_none_or(|(_, of)| kind < of) => first = Some((index, kind)),
                Ok(_) => {}
                Err(at) => later = later.min(at),
            }
        }
        let (index, kind) = first.ok_or(later)?;
        let soon = tables.iter().position(|table| table.polls_soon(now, self.took));
        let due = match soon {
            Some(soon) if kind != Kind::Live && !yields => (soon, Kind::Live),
            Some(_) | None => (index, kind),
        };
        self.n_polls_in_a_row = if due.1 == Kind::Live { self.n_polls_in_a_row + 1 } else { 0 };
        Ok(due)
    }

    /// A question of this kind that came to its turn then was answered, and all of it is delivered.
    pub(super) fn answered(&mut self, kind: Kind, begun: Millis, now: Millis) {
        if kind != Kind::Live {
            self.took = now.saturating_sub(begun);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::Key;
    use super::super::table::{Answered, Backlog};
    use super::*;
    use crate::source::xdr;

    const INTERVAL: Millis = 30_000;
    const PAGE: Millis = 9_000;

    fn tables(has_backlog: bool) -> Vec<Table> {
        let of = [xdr::Table::CloudAppEvents, xdr::Table::IdentityLogonEvents];
        let table = |table| Table::starting_at(table, 0, 0, INTERVAL);
        let mut tables: Vec<Table> = of.into_iter().map(table).collect();
        if has_backlog && let Some(last) = tables.last_mut() {
            let until = Key::after(Millis::MAX / 100_000);
            last.backlog = Some(Backlog { after: Key::before(0), until });
        }
        tables
    }

    /// Who has its turn at which moment, where each poll takes a second and each page of the backlog nine.
    fn turns(tables: &mut [Table], until: Millis) -> Vec<(Millis, usize, Kind)> {
        let (mut order, mut now, mut turns) = (Turns::default(), 0, Vec::new());
        while now < until {
            match order.next(tables, now) {
                Err(at) => now = at,
                Ok((index, kind)) => {
                    turns.push((now, index, kind));
                    let begun = now;
                    now += if kind == Kind::Live { 1_000 } else { PAGE };
                    let query = tables[index].question(kind, None);
                    // The backlog is never at its end.
                    let backlog = tables[index].backlog.clone();
                    let is = Answered { begun, ..Answered::default() };
                    tables[index].answered(&query, kind, &is, now);
                    tables[index].backlog = backlog;
                    order.answered(kind, begun, now);
                }
            }
        }
        turns
    }

    #[test]
    fn a_page_of_a_backlog_holds_up_no_poll_of_any_table() {
        let turns = turns(&mut tables(true), 600_000);
        for table in 0..2 {
            let polls = turns.iter().filter(|(_, of, kind)| *of == table && *kind == Kind::Live);
            let polls: Vec<Millis> = polls.map(|(at, ..)| *at).collect();
            let apart = polls.windows(2).map(|two| two[1] - two[0]);
            // The other table's poll may stand before it.
            let wrong: Vec<_> = apart
                .filter(|apart| !(INTERVAL - PAGE..=INTERVAL + 1_000).contains(apart))
                .collect();
            assert!(polls.len() >= 20 && wrong.is_empty(), "table {table}: {wrong:?} {polls:?}");
        }
        let n_pages = turns.iter().filter(|(.., kind)| *kind == Kind::Backlog).count();
        assert!(n_pages >= 55, "{n_pages} pages: a poll takes no time that it does not need");
    }

    #[test]
    fn without_a_backlog_no_poll_comes_early() {
        let turns = turns(&mut tables(false), 300_000);
        let first = turns.iter().filter(|(_, of, _)| *of == 0).map(|(at, ..)| *at);
        assert_eq!(first.collect::<Vec<_>>(), (0..10).map(|n| n * INTERVAL).collect::<Vec<_>>());
    }

    #[test]
    fn a_backlog_is_read_where_polls_alone_would_take_all_the_time() {
        let mut tables = tables(true);
        let slow = |kind| if kind == Kind::Live { INTERVAL } else { PAGE };
        let (mut order, mut now, mut n_pages) = (Turns::default(), 0, 0);
        for _ in 0..30 {
            let (index, kind) = order.next(&tables, now).unwrap();
            let (begun, backlog) = (now, tables[index].backlog.clone());
            now += slow(kind);
            n_pages += usize::from(kind == Kind::Backlog);
            let query = tables[index].question(kind, None);
            tables[index].answered(&query, kind, &Answered { begun, ..Answered::default() }, now);
            tables[index].backlog = backlog;
            order.answered(kind, begun, now);
        }
        assert_eq!(n_pages, 10, "one after each round");
    }
}
