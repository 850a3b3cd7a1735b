//! The position of a stream of this API as it is kept: only this file knows its form. Pure.
//!
//! One form for all places. The state file holds the whole cursor; what is kept elsewhere has no times, because the time
//! beside it is the watermark, and of what was delivered the digests of the newest alerts only.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use siem_agent_crds::checkpoint::MAX_ALERT_IDS;
use siem_agent_crds::position::Position;

use super::cursor::Cursor;
use super::schedule::lateness;
use crate::event::Stream;
use crate::record::RecordKey;
use crate::source::Start;
use crate::time::Millis;

const VERSION: u32 = 1;
/// Where another source was, by its own clock, may be so much further on than this one: hunting's rows are known by when they
/// were ingested.
const SWITCH: Millis = 30 * 60_000;

#[derive(Serialize, Deserialize, Default)]
struct Form {
    /// Absent in what the first versions wrote.
    #[serde(default = "first")]
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    floor: Option<Millis>,
    /// Absent in what the first versions wrote, and where times come from somebody's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settled: Option<Millis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    watermark: Option<Millis>,
    #[serde(default)]
    last_event: Option<Millis>,
    #[serde(default)]
    seen: Vec<(u64, Millis)>,
    /// Digests without their times, 16 hexadecimal digits each: they count as of the watermark, so they are remembered
    /// longer than they need be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ids: Vec<String>,
}

fn first() -> u32 {
    VERSION
}

/// The whole cursor.
pub(super) fn whole(cursor: &Cursor) -> Position {
    Position::of(&Form {
        version: VERSION,
        floor: Some(cursor.floor()),
        settled: cursor.is_exact().then_some(cursor.settled()),
        watermark: Some(cursor.watermark()),
        last_event: cursor.last_event(),
        seen: cursor.seen().map(|(key, time)| (key.bits(), time)).collect(),
        ids: Vec::new(),
    })
}

/// What is kept elsewhere: the newest alerts where it does not hold all.
pub(super) fn kept(stream: Stream, cursor: &Cursor) -> Position {
    let ids = match stream {
        Stream::Activities => Vec::new(),
        Stream::Alerts => {
            let since = cursor.newest(MAX_ALERT_IDS).unwrap_or(Millis::MIN);
            let newest = cursor.seen().filter(|(_, time)| *time >= since).take(MAX_ALERT_IDS);
            newest.map(|(key, _)| format!("{:016x}", key.bits())).collect()
        }
    };
    Position::of(&Form { version: VERSION, ids, ..Form::default() })
}

/// The cursor of a stream that begins here. `overlap` is how late activities may come.
pub(super) fn restore(stream: Stream, start: &Start, overlap: Duration) -> Cursor {
    let (at, floor, not_before) = match start {
        Start::Anew(from) => return Cursor::starting_at(*from),
        Start::At { at, floor, not_before } => (at, floor, not_before),
        Start::Switched { through, floor, seen, not_before } => {
            let seen = seen.iter().copied();
            let late = lateness(stream, overlap).max(SWITCH);
            let mut cursor = Cursor::restore(*floor, None, *through, late, None, seen);
            if let Some(not_before) = not_before {
                cursor.skip_to(*not_before);
            }
            return cursor;
        }
    };
    // What cannot be read remembers nothing, but everything up to its time is delivered all the same.
    let form: Form = at.position.read().unwrap_or_default();
    let form = if form.version == VERSION { form } else { Form::default() };
    let watermark = form.watermark.map_or(at.through, |watermark| watermark.min(at.through));
    let ids = form.ids.iter().filter_map(|id| u64::from_str_radix(id, 16).ok());
    let seen = form.seen.into_iter().chain(ids.map(|bits| (bits, watermark)));
    let mut cursor = Cursor::restore(
        form.floor.unwrap_or(*floor),
        form.settled,
        watermark,
        lateness(stream, overlap),
        form.last_event,
        seen.map(|(bits, time)| (RecordKey::from_bits(bits), time)),
    );
    if let Some(not_before) = not_before {
        cursor.skip_to(*not_before);
    }
    cursor
}

#[cfg(test)]
mod tests {
    use siem_agent_crds::position::StreamPosition;

    use super::*;

    const OVERLAP: Duration = Duration::from_secs(300);

    fn at(through: Millis, text: &str) -> Start {
        let position = serde_json::from_str(text).unwrap();
        Start::At {
            at: StreamPosition { through, position, source: None },
            floor: 10,
            not_before: None,
        }
    }

    #[test]
    fn the_whole_cursor_comes_back_and_what_is_kept_elsewhere_begins_at_the_time_beside_it() {
        let seen = [(RecordKey::from_bits(1), 880), (RecordKey::from_bits(255), 900)];
        let cursor = Cursor::restore(0, Some(850), 900, 0, Some(899), seen);
        for stream in [Stream::Alerts, Stream::Activities] {
            let again = |position: Position, through| {
                let at = StreamPosition { through, position, source: None };
                restore(stream, &Start::At { at, floor: 10, not_before: None }, OVERLAP)
            };
            assert_eq!(again(whole(&cursor), 900), cursor);
            assert_eq!(again(whole(&cursor), 890).watermark(), 890, "no later than is believed");
            let kept = again(kept(stream, &cursor), 1_000);
            assert_eq!((kept.watermark(), kept.settled(), kept.floor()), (1_000, 10, 10));
            let n_kept = if stream == Stream::Alerts { 2 } else { 0 };
            assert_eq!(kept.seen().len(), n_kept);
        }
    }

    /// As the first version wrote it, with what it could not say.
    #[test]
    fn a_position_of_the_first_version_looks_back_as_far_as_it_remembers() {
        let activities = r#"{"floor":0,"watermark":900000000,"last_event":899999999,"seen":[[1,899500000],[2,899999999]]}"#;
        let cursor = restore(Stream::Activities, &at(900_000_000, activities), OVERLAP);
        assert_eq!(cursor.settled(), 899_500_000, "the oldest that it knows");
        let alerts =
            r#"{"floor":0,"watermark":900000000,"last_event":null,"seen":[[5,850000000]]}"#;
        let cursor = restore(Stream::Alerts, &at(900_000_000, alerts), OVERLAP);
        assert_eq!(cursor.settled(), 900_000_000 - 86_400_000, "a day");
    }

    #[test]
    fn what_cannot_be_read_is_delivered_up_to_its_time_and_remembers_nothing() {
        for text in [r#"{"version":2,"seen":[[1,5]]}"#, "[]", r#"{"seen":5}"#] {
            let cursor = restore(Stream::Activities, &at(1_000_000, text), OVERLAP);
            assert_eq!((cursor.watermark(), cursor.settled()), (1_000_000, 700_000), "{text}");
            assert_eq!(cursor.seen().len(), 0);
        }
    }

    #[test]
    fn a_stream_that_was_switched_off_leaves_out_what_lies_too_far_back() {
        let Start::At { at, floor, .. } = at(1_000, "{}") else { panic!() };
        let start = Start::At { at, floor, not_before: Some(5_000) };
        let cursor = restore(Stream::Alerts, &start, OVERLAP);
        assert_eq!((cursor.watermark(), cursor.settled(), cursor.floor()), (5_000, 5_000, 5_000));
    }
}
