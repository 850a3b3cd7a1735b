//! The position of hunting as it is kept: only this file knows its form. Pure.
//!
//! The state file holds every table whole. What is kept elsewhere has no rows: who resumes there reads the overlap again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use siem_agent_crds::position::Position;

use super::key::Key;
use super::table::{Backlog, Table};
use crate::record::RecordKey;
use crate::source::{Start, xdr};
use crate::time::{Millis, millis};

const VERSION: u32 = 1;

#[derive(Deserialize, Default)]
struct Form {
    version: u32,
    #[serde(default)]
    last_event: Option<Millis>,
    #[serde(default)]
    tables: BTreeMap<String, OfTable>,
}

#[derive(Deserialize)]
struct OfTable {
    live: Key,
    through: Millis,
    /// Absent where the rows are.
    #[serde(default)]
    settled: Option<Millis>,
    /// In its place where the rows are not: from here on looks had not seen everything yet.
    #[serde(default)]
    again_from: Option<Millis>,
    /// What is behind the first and up to the second is not read yet.
    #[serde(default)]
    backlog: Option<(Key, Key)>,
    #[serde(default)]
    seen: Vec<(u64, Millis)>,
}

/// The same as it is written. A busy table has hundreds of thousands of rows: they are written from where they are.
#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    last_event: Option<Millis>,
    tables: BTreeMap<&'a str, WrittenTable<'a>>,
}

#[derive(Serialize)]
struct WrittenTable<'a> {
    live: &'a Key,
    through: Millis,
    #[serde(skip_serializing_if = "Option::is_none")]
    settled: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    again_from: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backlog: Option<(&'a Key, &'a Key)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seen: Option<Rows<'a>>,
}

struct Rows<'a>(&'a BTreeMap<RecordKey, Millis>);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(key, time)| (key.bits(), time)))
    }
}

fn of(tables: &[Table], last_event: Option<Millis>, with_rows: bool) -> Position {
    let of_table = tables.iter().map(|table| {
        let seen = &table.seen;
        let written = WrittenTable {
            live: &table.live,
            through: table.through,
            settled: with_rows.then_some(table.settled),
            again_from: (!with_rows).then_some(table.settled),
            backlog: table.backlog.as_ref().map(|of| (&of.after, &of.until)),
            seen: (with_rows && !seen.is_empty()).then_some(Rows(seen)),
        };
        (table.table.as_str(), written)
    });
    let tables = of_table.collect();
    Position::of(&Written { version: VERSION, last_event, tables })
}

/// All of it.
pub(super) fn whole(tables: &[Table], last_event: Option<Millis>) -> Position {
    of(tables, last_event, true)
}

/// What is kept elsewhere.
pub(super) fn kept(tables: &[Table]) -> Position {
    of(tables, None, false)
}

/// The tables of a stream that begins here, and when its newest event happened.
pub(super) fn restore(
    tables: &[xdr::Table],
    start: &Start,
    overlap: Duration,
    interval: Duration,
) -> (Vec<Table>, Option<Millis>) {
    let (overlap, interval) = (millis(overlap), millis(interval));
    let starting = |table: &xdr::Table, from| Table::starting_at(*table, from, overlap, interval);
    match start {
        Start::Anew(from) => (tables.iter().map(|table| starting(table, *from)).collect(), None),
        Start::Switched { through, floor, seen, not_before } => {
            let from = (through - overlap).max(*floor).max(not_before.unwrap_or(Millis::MIN));
            let switched = |table: &xdr::Table| {
                let mut switched = starting(table, from);
                // A row is ingested a little later than the other way lists it.
                let seen = seen.iter().map(|(key, time)| (*key, time.saturating_add(overlap)));
                switched.seen = seen.collect();
                switched
            };
            (tables.iter().map(switched).collect(), None)
        }
        Start::At { at, floor, not_before } => {
            let form: Form = at.position.read().unwrap_or_default();
            let mut of_tables = form.tables;
            if form.version != VERSION {
                of_tables.clear();
            }
            let restored = tables.iter().map(|table| {
                // A table that was not read before begins where the stream is.
                let anew = || starting(table, (at.through - overlap).max(*floor));
                let known = of_tables.remove(table.as_str()).map(|of| {
                    let through = of.through.min(at.through.max(of.live.millis()));
                    let seen = of.seen.into_iter();
                    let seen = seen.map(|(bits, time)| (RecordKey::from_bits(bits), time));
                    // Without its rows all that a look could meet is read again.
                    let (live, settled) = match of.settled {
                        Some(settled) => (of.live, settled),
                        None => {
                            let behind = of.live.millis() - overlap;
                            let from = of.again_from.map_or(behind, |from| from.min(behind));
                            let from = from.max(*floor);
                            (Key::before(from), from)
                        }
                    };
                    let mut known = starting(table, settled);
                    (known.live, known.through) = (live, through);
                    known.backlog = of.backlog.map(|(after, until)| Backlog { after, until });
                    known.seen = seen.collect();
                    known
                });
                let mut table = known.unwrap_or_else(anew);
                if let Some(not_before) = not_before {
                    table.cut(*not_before);
                }
                table
            });
            (restored.collect(), form.last_event)
        }
    }
}
