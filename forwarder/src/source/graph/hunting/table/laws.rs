//! The law of hunting over generated histories: every row that shows within the overlap is delivered exactly once.
//!
//! A history has rows that share an instant, show late or behind rows that were shown before, and come while a backlog is
//! read; answers that break off anywhere, are too large or take too long; and stops at any row with the state kept.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use siem_agent_crds::position::{Position, StreamPosition};

use super::super::key::TICKS;
use super::super::position;
use super::*;
use crate::source::Start;

/// The time at Graph when the steady clock began.
const BEGAN: Millis = 1_790_000_000_000;
const MINUTE: Millis = 60_000;
const HOUR: Millis = 60 * MINUTE;
const N_HISTORIES: u64 = 600;

#[derive(Debug, Clone)]
struct Row {
    key: Key,
    visible: Millis,
}

#[derive(Debug)]
struct History {
    rows: Vec<Row>,
    overlap: Millis,
    interval: Millis,
    most_rows: usize,
    most_missing: usize,
    /// One of so many answers breaks off; of as many more one is refused as too much.
    faults: u32,
    /// Each stop comes after this many rows, and lasts this long.
    stops: Vec<(usize, Millis)>,
    knows_the_time: bool,
    seed: u64,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let overlap = rng.choice([2 * MINUTE, 30 * MINUTE]).unwrap();
        let grain = rng.choice([1, TICKS, 1_000 * TICKS, 60_000 * TICKS]).unwrap();
        let n_rows = rng.u32(0..400);
        let mut rows: Vec<Row> = (0..n_rows)
            .map(|id| {
                let at = match rng.u8(0..3) {
                    0 => rng.i64(0..40 * MINUTE),
                    1 => rng.i64(-47 * HOUR..0),
                    _ => rng.i64(-20 * MINUTE..0),
                };
                let ticks = ((BEGAN + at) * TICKS + rng.i64(0..TICKS)) / grain * grain;
                // A look begins at the latest a third of the overlap after the last one, and takes a while.
                let late = if rng.u8(0..4) == 0 { rng.i64(0..overlap / 3) } else { 0 };
                let key = Key { ticks, id: Some(format!("{:03}", id * 7 % 1_000)) };
                Row { visible: key.millis() + 1 + late, key }
            })
            .collect();
        rows.sort_by(|one, two| one.key.cmp(&two.key));
        rows.dedup_by(|one, two| one.key.id == two.key.id);
        let n_stops = if rng.bool() { 0 } else { rng.usize(1..5) };
        Self {
            rows,
            overlap,
            interval: rng.choice([1_000, 30_000]).unwrap(),
            most_rows: rng.choice([3, 20, 5_000]).unwrap(),
            most_missing: rng.choice([1, 10, 20_000]).unwrap(),
            faults: rng.choice([0, 5, 20]).unwrap(),
            stops: (0..n_stops)
                .map(|_| (rng.usize(0..300), rng.choice([1_000, MINUTE, 3 * HOUR]).unwrap()))
                .collect(),
            knows_the_time: rng.u8(0..6) > 0,
            seed,
        }
    }

    /// The answer to a query at this time.
    fn answer(&self, query: &Query, now: Millis) -> Vec<&Row> {
        let is_asked = |row: &&Row| {
            row.visible <= now
                && row.key.is_behind(&query.after)
                && query.until.as_ref().is_none_or(|until| !row.key.is_behind(until))
                && match &query.select {
                    Select::These(ids) => row.key.id.as_ref().is_some_and(|id| ids.contains(id)),
                    Select::Rows(_) | Select::Ids(_) => true,
                }
        };
        let rows = self.rows.iter().filter(is_asked);
        match query.select {
            Select::Rows(limit) | Select::Ids(limit) => rows.take(limit).collect(),
            Select::These(_) => rows.collect(),
        }
    }

    fn table(&self, start: &Start) -> Table {
        let overlap = Duration::from_millis(self.overlap.try_into().unwrap());
        let interval = Duration::from_millis(self.interval.try_into().unwrap());
        let tables = [xdr::Table::CloudAppEvents];
        let (mut tables, _) = position::restore(&tables, start, overlap, interval);
        let mut table = tables.pop().unwrap();
        (table.n_rows, table.most_rows) = (self.most_rows, self.most_rows);
        table.most_missing = self.most_missing;
        table
    }
}

/// How often each row was delivered.
fn live(history: &History) -> BTreeMap<String, u32> {
    let mut rng = Rng::with_seed(!history.seed);
    let mut delivered: BTreeMap<String, u32> = BTreeMap::new();
    let mut steady: Millis = 0;
    let last = history.rows.iter().map(|row| row.visible - BEGAN).max().unwrap_or(0).max(0);
    let mut start = Start::Anew(BEGAN - 48 * HOUR);
    let mut stops = history.stops.iter();
    loop {
        let stop = stops.next();
        let mut left = stop.map_or(usize::MAX, |(n_rows, _)| *n_rows);
        let mut table = history.table(&start);
        let (began, mut n_answers) = (steady, 0);
        let end = last.max(steady) + 3 * history.overlap + 20 * MINUTE;
        let known = |steady: Millis| history.knows_the_time.then_some(BEGAN + steady);
        'life: while steady < end {
            let kind = match table.due(steady - began) {
                Ok(kind) => kind,
                Err(at) => {
                    steady = began + at;
                    continue;
                }
            };
            // As the reader has it: what is new does not starve the rest.
            let kind =
                if rng.bool() { table.due_beside(steady - began).unwrap_or(kind) } else { kind };
            // The time is known by the first answer.
            if let Some(now) = known(steady).filter(|_| n_answers > 0) {
                table.split(now);
            }
            let (begun, asked) = (steady - began, steady);
            let query = table.question(kind, known(asked));
            steady += rng.i64(20..3_000);
            let fault = |rng: &mut Rng| history.faults > 0 && rng.u32(0..history.faults) == 0;
            if fault(&mut rng) {
                table.failed(
                    kind,
                    rng.choice([TooMuch::Size, TooMuch::Time]).unwrap(),
                    known(steady),
                );
                table.again(kind, steady - began);
                continue;
            }
            let rows = history.answer(&query, BEGAN + steady);
            let cut = fault(&mut rng).then(|| rng.usize(0..=rows.len()));
            for row in rows.iter().take(cut.unwrap_or(usize::MAX)) {
                let id = row.key.id.clone().unwrap();
                if kind == Kind::Look {
                    table.list(&id);
                    continue;
                }
                let key = RecordKey::of(id.as_bytes());
                if !table.has_seen(key) {
                    *delivered.entry(id).or_default() += 1;
                    let limit = known(steady);
                    let time = row.key.millis();
                    table.remember(&Mark::with_event_time(key, time, time), limit);
                    table.reached(kind, &row.key, limit);
                }
                left = left.saturating_sub(1);
                if left == 0 {
                    break 'life;
                }
            }
            if cut.is_some() {
                table.again(kind, steady - began);
                continue;
            }
            n_answers += 1;
            let before = table.through();
            let answered = Answered {
                n_rows: rows.len(),
                last: rows.last().map(|row| row.key.clone()),
                begun,
                asked_at: known(asked),
                sure: known(asked),
                limit: known(steady),
            };
            table.answered(&query, kind, &answered, steady - began);
            assert!(table.through() >= before.min(BEGAN + steady), "{history:?}");
            assert!(table.through() <= BEGAN + steady, "ahead of the time: {history:?}");
        }
        let Some((_, pause)) = stop else { return delivered };
        let through = table.through();
        let position: Position = position::whole(std::slice::from_ref(&table), None);
        let at = StreamPosition { through, position, source: None };
        start = Start::At { at, floor: 0, not_before: None };
        steady += pause;
    }
}

#[test]
fn every_row_is_delivered_exactly_once_whatever_breaks() {
    let wrong = |seed| {
        let history = History::new(seed);
        let delivered = live(&history);
        let n_lost = history
            .rows
            .iter()
            .filter(|row| !delivered.contains_key(row.key.id.as_deref().unwrap_or_default()))
            .count();
        let n_repeated = delivered.values().filter(|count| **count > 1).count();
        let shown = History { rows: Vec::new(), stops: history.stops.clone(), ..history };
        (n_lost + n_repeated > 0)
            .then(|| format!("{n_lost} lost, {n_repeated} repeated: {shown:?}"))
    };
    let wrong: Vec<_> = (0..N_HISTORIES).filter_map(wrong).collect();
    assert!(wrong.is_empty(), "{} histories: {:#?}", wrong.len(), wrong);
}
