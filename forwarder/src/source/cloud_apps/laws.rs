//! The law of the cursor over generated histories: where nothing breaks, every record is delivered exactly once.
//!
//! A history has records that come late, share a millisecond, lie in the past or in the future, and arrive during a
//! walk; an API that breaks pages anywhere, with or without a cursor of its own; stops and starts at any point of a page
//! with the state kept; and clocks on both sides that are wrong in every way that was seen or feared.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::list::RETENTION;
use super::query::{Next, Query};
use crate::event::Stream;
use crate::record::{Mark, RecordKey};
use crate::source::listing::cursor::Cursor;
use crate::source::listing::schedule::{Due, PollKind, Schedule, lateness};
use crate::source::listing::stream_state::{Answer, Limits, StreamState};
use crate::source::listing::walk::Admission;
use crate::time::{Millis, Now};

/// The true time when the steady clock began.
const BEGAN: Millis = 1_790_000_000_000;
const MINUTE: Millis = 60_000;
const HOUR: Millis = 60 * MINUTE;
const DAY: Millis = 24 * HOUR;
const YEAR: Millis = 365 * DAY;

const N_HISTORIES: u64 = 2_000;

#[derive(Debug, Clone, Copy)]
struct Record {
    id: u64,
    listed: Millis,
    visible: Millis,
}

/// What the nodes of the API say of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dates {
    /// All the same, this much ahead.
    Off(Millis),
    /// None at all.
    Missing,
    /// Every fourth node this much ahead.
    OneOfFour(Millis),
    /// All this much ahead between these minutes.
    Jump(Millis, Millis, Millis),
    /// This many parts in ten thousand faster.
    Drift(Millis),
    /// 1970.
    Epoch,
}

impl Dates {
    fn of(self, truth: Millis, n_answers: u64) -> Option<Millis> {
        let date = match self {
            Self::Off(by) => truth + by,
            Self::Missing => return None,
            Self::OneOfFour(by) => truth + if n_answers % 4 == 1 { by } else { 0 },
            Self::Jump(by, from, to) => {
                let is_within = (from * MINUTE..to * MINUTE).contains(&(truth - BEGAN));
                truth + if is_within { by } else { 0 }
            }
            Self::Drift(parts) => truth + (truth - BEGAN) * parts / 10_000,
            Self::Epoch => truth - BEGAN,
        };
        Some(date / 1_000 * 1_000)
    }

    /// How far ahead the server's time may be believed to be: what all nodes say, and no more than a day beyond ours
    /// where ours is a time at all; by ours where they say nothing, or nearly the same.
    fn ahead(self, elapsed: Millis, ours: Millis) -> Millis {
        let all = match self {
            Self::Off(by) | Self::Jump(by, ..) => by,
            Self::Drift(parts) => parts * elapsed / 10_000,
            Self::OneOfFour(_) => 0,
            Self::Missing | Self::Epoch => ours,
        };
        let limit = if is_unset(ours) { Millis::MAX } else { ours.max(DAY) };
        let near = if ours.abs() <= MINUTE { ours } else { 0 };
        all.min(limit).max(near).max(0)
    }
}

/// Whether a clock of ours that is this far off was never set.
fn is_unset(ours: Millis) -> bool {
    Now { steady: 0, wall: BEGAN + ours }.time_of_day().is_none()
}

#[derive(Debug)]
struct History {
    stream: Stream,
    records: Vec<Record>,
    page_size: usize,
    has_cursor: bool,
    dates: Dates,
    ours: Millis,
    interval: Duration,
    overlap: Duration,
    /// Each stop comes after this many records, and lasts this long.
    stops: Vec<(usize, Millis)>,
    seed: u64,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let stream = if rng.bool() { Stream::Alerts } else { Stream::Activities };
        let overlap = Duration::from_secs(rng.choice([30, 300, 1_800]).unwrap());
        let late = lateness(stream, overlap).min(3 * HOUR);
        let n_records = match rng.u8(0..200) {
            0..140 => rng.u64(0..60),
            140..199 => rng.u64(60..500),
            _ => rng.u64(4_000..7_000),
        };
        let wrong = |rng: &mut Rng| {
            let by = rng.choice([20_000, 4 * MINUTE, HOUR, 3 * DAY, 73 * YEAR]).unwrap();
            if rng.bool() { by } else { -by }
        };
        let dates = match rng.u8(0..9) {
            0 => Dates::Missing,
            1 => Dates::OneOfFour(wrong(&mut rng)),
            2 => {
                let from = rng.i64(0..20);
                let by = rng.choice([-HOUR, -MINUTE, MINUTE, HOUR, YEAR]).unwrap();
                Dates::Jump(by, from, from + rng.i64(1..10))
            }
            3 => Dates::Drift(rng.i64(-20..20)),
            4 => Dates::Off(wrong(&mut rng)),
            5 => Dates::Epoch,
            _ => Dates::Off(0),
        };
        let ours = match rng.u8(0..6) {
            0 => wrong(&mut rng),
            1 => rng.i64(-50_000..50_000),
            2 if ![Dates::Missing, Dates::Epoch].contains(&dates) => -BEGAN,
            _ => 0,
        };
        // Two clocks that are wrong in the same way are right to each other.
        let ours = if matches!(dates, Dates::Off(1..) | Dates::Jump(1.., ..)) {
            ours.min(0)
        } else {
            ours
        };
        // A clock that is ahead believes a record that is, too: no more than one of the two is generated.
        let is_alone = [Dates::Missing, Dates::Epoch].contains(&dates);
        let is_known = matches!(dates, Dates::Off(_) | Dates::Drift(_));
        let jumps = matches!(dates, Dates::Jump(1.., ..));
        let may_be_ahead = !(is_alone && ours > 0 || is_unset(ours) && !is_known || jumps);
        let grain = rng.choice([1, 1, 500, 20_000]).unwrap();
        let is_burst = rng.bool();
        let records = (0..n_records).map(|id| {
            let listed = BEGAN
                + match (is_burst, rng.u8(0..3)) {
                    (true, _) => rng.i64(-300_000..0),
                    (false, 0) => rng.i64(0..30 * MINUTE),
                    (false, _) => rng.i64(-47 * HOUR..0),
                };
            let listed = listed / grain * grain;
            let is_from_the_future = may_be_ahead && rng.u16(0..400) == 0;
            let visible = match rng.u8(0..5) {
                0 => listed + rng.i64(0..=late),
                1 => listed + rng.i64(0..=late.min(40_000)),
                _ => listed,
            };
            let visible = if is_from_the_future { BEGAN + rng.i64(0..MINUTE) } else { visible };
            let ahead = if is_from_the_future { rng.i64(MINUTE..3 * YEAR) } else { 0 };
            Record { id, listed: listed + ahead, visible }
        });
        let mut records: Vec<_> = records.collect();
        records.sort_by_key(|record| (record.listed, record.id));
        let small = if n_records < 100 { 7 } else { 100 };
        let page_size = rng.choice([small, 40.max(small), 100, 500, 5_000]).unwrap();
        let last = records.iter().map(|record| record.visible - BEGAN).max().unwrap_or(0).max(0);
        let longest = u64::try_from((last + HOUR) / 60_000).unwrap();
        let interval = Duration::from_secs(rng.choice([4, 30, 200]).unwrap().max(longest));
        let n_stops = if rng.bool() { 0 } else { rng.usize(1..6) };
        let stops = (0..n_stops)
            .map(|_| (rng.usize(0..400), rng.choice([1_000, MINUTE, 3 * HOUR, DAY]).unwrap()))
            .collect();
        let has_cursor = stream == Stream::Activities && rng.bool();
        Self { stream, records, page_size, has_cursor, dates, ours, interval, overlap, stops, seed }
    }

    /// The page that the API gives at this time: the records with the number of the first, and the envelope.
    fn page(&self, query: &Value, truth: Millis) -> (Vec<Record>, bool, Option<Value>) {
        let asked = &query["filters"];
        let (from, after) = match asked.get("after") {
            Some(after) => {
                (after[0].as_i64().unwrap(), Some((after[0].as_i64(), after[1].as_u64())))
            }
            None => {
                let window = asked.get("created").or_else(|| asked.get("date")).unwrap();
                (window["gte"].as_i64().unwrap(), None)
            }
        };
        let skip = query.get("skip").and_then(Value::as_u64).unwrap_or(0);
        let limit = usize::try_from(query["limit"].as_u64().unwrap()).unwrap().min(self.page_size);
        let first = self.records.partition_point(|record| record.listed < from);
        let mut listed = self.records[first..]
            .iter()
            .filter(|record| record.visible <= truth)
            .filter(|record| {
                after.is_none_or(|after| (Some(record.listed), Some(record.id)) > after)
            })
            .skip(usize::try_from(skip).unwrap());
        let page: Vec<_> = listed.by_ref().take(limit).copied().collect();
        let has_next = listed.next().is_some();
        let is_scan = query.get("isScan") == Some(&json!(true));
        let cursor = page.last().filter(|_| has_next && self.has_cursor && is_scan);
        let cursor = cursor.map(|last| json!({"after": [last.listed, last.id]}));
        (page, has_next, cursor)
    }
}

/// What came of a history.
#[derive(Debug, Default)]
struct Outcome {
    /// How often each id was delivered.
    delivered: BTreeMap<u64, u32>,
    n_polls: usize,
    furthest_ahead: Millis,
}

/// Lives through a history as the loop does. `forgets_early` is the fault that once was: keys behind the overlap were
/// forgotten as each page went by.
fn live(history: &History, forgets_early: bool) -> Outcome {
    let mut rng = Rng::with_seed(!history.seed);
    let mut outcome = Outcome::default();
    let start_from = Duration::from_secs(48 * 3_600);
    let mut cursor = Cursor::starting_at(BEGAN - 48 * HOUR);
    let mut steady: Millis = rng.i64(0..MINUTE);
    let late = lateness(history.stream, history.overlap);
    let last = history.records.iter().map(|record| record.visible).max().unwrap_or(BEGAN);
    let mut stops = history.stops.iter();
    let mut n_answers = rng.u64(0..4);
    loop {
        let stop = stops.next();
        let mut left = stop.map_or(usize::MAX, |(n_records, _)| *n_records);
        let schedule = Schedule::new(history.stream, history.interval, history.overlap, steady);
        let limits =
            Limits { largest_page: Query::largest_page(history.stream), retention: RETENTION };
        let mut state = StreamState::new(history.stream, limits, cursor, schedule, start_from);
        let end = (last - BEGAN).max(steady) + late.min(HOUR) + 20 * MINUTE;
        let now = |steady: Millis| Now { steady, wall: BEGAN + steady + history.ours };
        'life: while steady < end {
            let kind = match state.due(steady) {
                Due::Poll(kind) => kind,
                Due::At(later) => {
                    steady = later;
                    continue;
                }
            };
            let ask = |from, limit| Query::since(history.stream, Map::new(), from).at_most(limit);
            let (mut walk, mut query) = state.set_out(kind, steady, ask);
            loop {
                outcome.n_polls += 1;
                n_answers += 1;
                let asked = steady;
                steady += rng.i64(5..400);
                let truth = BEGAN + steady;
                let (page, has_next, next) = history.page(&query.body(), truth);
                let date = history.dates.of(truth, n_answers);
                let answer = Answer { asked, answered: now(steady), date };
                steady += rng.i64(1..1_500);
                let mut sent = Vec::new();
                for record in &page {
                    let key = RecordKey::from_bits(record.id);
                    if walk.admit(&state.cursor, key, Some(record.listed)) != Admission::Repeated {
                        sent.push(Mark::with_event_time(key, record.listed, record.listed));
                    }
                    left = left.saturating_sub(1);
                    if left == 0 {
                        break;
                    }
                }
                walk.settle(sent.len());
                for mark in sent {
                    *outcome.delivered.entry(mark.key().bits()).or_default() += 1;
                    state.cursor.remember(mark);
                }
                if left == 0 {
                    break 'life;
                }
                let before = state.cursor.watermark();
                let read = state.page_read(&mut walk, answer, has_next, now(steady));
                assert!(state.cursor.watermark() >= before || read.restarted.is_some());
                let allowed = history.dates.ahead(steady, history.ours);
                let ahead = state.cursor.watermark() - BEGAN - steady - allowed;
                outcome.furthest_ahead = outcome.furthest_ahead.max(ahead);
                if forgets_early {
                    state.cursor.forget_before(state.cursor.watermark() - late.min(HOUR));
                }
                if read.restarted.is_some() || !has_next {
                    break;
                }
                let text = next.as_ref().map(Value::to_string);
                walk.go_on(text.as_deref().map(str::as_bytes)).expect("progress");
                query = match query.next(next, walk.highest(), page.len()) {
                    Next::Page(query) => query,
                    other => panic!("{other:?}"),
                };
                if kind != PollKind::Poll {
                    state.put_off(walk, query);
                    break;
                }
            }
        }
        if stop.is_none() {
            return outcome;
        }
        // Saved and loaded; the steady clock of the next life begins elsewhere, which this one's numbers stand for.
        let saved = &state.cursor;
        cursor = Cursor::restore(
            saved.floor(),
            saved.is_exact().then_some(saved.settled()),
            saved.watermark(),
            late,
            saved.last_event(),
            saved.seen(),
        );
        steady += stop.map_or(0, |(_, pause)| *pause);
    }
}

/// What is wrong with the outcome, if anything.
fn broken(history: &History, outcome: &Outcome) -> Option<String> {
    let n_lost =
        history.records.iter().filter(|record| !outcome.delivered.contains_key(&record.id)).count();
    let n_repeated = outcome.delivered.values().filter(|count| **count > 1).count();
    let ahead = outcome.furthest_ahead;
    (n_lost + n_repeated > 0 || ahead > 0).then(|| {
        let shown = History { records: Vec::new(), stops: history.stops.clone(), ..*history };
        let n_records = history.records.len();
        format!("{n_lost} lost, {n_repeated} repeated of {n_records}, {ahead} ms ahead: {shown:?}")
    })
}

#[test]
fn every_record_is_delivered_exactly_once_whatever_the_pages_and_clocks() {
    let of_half = |half: u64| {
        let fault = |seed| {
            let history = History::new(seed);
            broken(&history, &live(&history, false))
        };
        (0..N_HISTORIES).filter(|seed| seed % 2 == half).filter_map(fault).collect::<Vec<_>>()
    };
    let faults = std::thread::scope(|scope| {
        let other = scope.spawn(|| of_half(1));
        let mut faults = of_half(0);
        faults.extend(other.join().unwrap());
        faults
    });
    assert!(faults.is_empty(), "{} histories: {:#?}", faults.len(), faults);
}

#[test]
fn the_law_notices_keys_that_are_forgotten_too_early() {
    let is_caught = |seed| {
        let history = History::new(seed);
        broken(&history, &live(&history, true)).is_some()
    };
    assert!((0..200).any(is_caught));
}
