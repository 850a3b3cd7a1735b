//! Every field of every record absent, `null`, of another type, hostile or 1 MiB long: what comes of it is one line or one
//! reject, and only an id or a time may cost the record. Its neighbours on the page are untouched.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper of a test ends the test")]

#[path = "reader/cef.rs"]
mod reader;
#[path = "reader/records.rs"]
mod records;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use siem_agent_forwarder::event::Event;
use siem_agent_forwarder::map::{self, Dialect};
use siem_agent_forwarder::source::http::split::{List, Piece, Splitter};
use siem_agent_forwarder::syslog::{self, Error, Framing, Header, Layout, TimeFormat};

const MAX_MESSAGE_BYTES: usize = 8_192;
/// A field that may cost its record: by it the record is recognised, or it says when the record was made.
const NEEDED: [&str; 7] =
    ["_id", "timestamp", "id", "providerAlertId", "createdDateTime", "ReportId", "Timestamp"];

/// Where a value lies: keys and indices from the record on.
type Place = Vec<String>;

fn places(value: &Value, at: &Place, found: &mut Vec<Place>) {
    let within: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(all) => {
            all.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect()
        }
        _ => Vec::new(),
    };
    for (step, value) in within {
        let place: Place = at.iter().cloned().chain([step]).collect();
        places(value, &place, found);
        found.push(place);
    }
}

/// The record with something else at this place, or with nothing there.
fn changed(record: &Value, place: &Place, other: Option<&str>) -> Vec<u8> {
    const MARK: &str = "\u{1}here";
    let mut record = record.clone();
    let (last, before) = place.split_last().unwrap();
    let holder = before.iter().fold(&mut record, |value, step| match value {
        Value::Array(all) => all.get_mut(step.parse::<usize>().unwrap()).unwrap(),
        value => value.get_mut(step).unwrap(),
    });
    match (holder, other) {
        (Value::Array(all), None) => drop(all.remove(last.parse().unwrap())),
        (Value::Array(all), Some(_)) => all[last.parse::<usize>().unwrap()] = json!(MARK),
        (Value::Object(fields), None) => drop(fields.remove(last)),
        (Value::Object(fields), Some(_)) => drop(fields.insert(last.clone(), json!(MARK))),
        _ => panic!("{place:?} is in no object or array"),
    }
    let mark = json!(MARK).to_string();
    record.to_string().replacen(&mark, other.unwrap_or_default(), 1).into_bytes()
}

fn layout() -> Layout {
    Layout {
        header: Header::Legacy,
        time_format: TimeFormat::Rfc5424,
        pri: Some(109),
        host: Some("soc".to_owned()),
        framing: Framing::Newline,
        max_message_bytes: MAX_MESSAGE_BYTES,
    }
}

/// Whether a record arrives as one line that a reader of CEF takes.
fn arrives(event: &Event, layout: &Layout) -> bool {
    let record = map::record(event, Dialect::Legacy, "0.1.0");
    match syslog::frame(record, event.timestamp(), layout) {
        Ok(frame) => {
            let line = std::str::from_utf8(&frame.bytes).unwrap();
            let line = line.strip_suffix('\n').unwrap();
            assert!(line.len() < MAX_MESSAGE_BYTES && !line.contains('\n'), "{line}");
            let cef = line.get(line.find("CEF:0").unwrap()..).unwrap();
            let read = reader::read(cef).unwrap_or_else(|refusal| panic!("{refusal:?}: {cef}"));
            assert!(read.header.iter().any(|part| part == "SIEM_Agent"), "{cef}");
            true
        }
        Err(Error::TooLong { .. }) => false,
    }
}

/// The page `good, bad, good`, and what becomes of its middle.
fn among_others(kind: &str, good: &[u8], bad: &[u8]) -> Option<Event> {
    let mut page = br#"{"value": ["#.to_vec();
    for (index, record) in [good, bad, good].iter().enumerate() {
        page.extend(if index == 0 { b"" as &[u8] } else { b"," });
        page.extend(*record);
    }
    page.extend(b"]}");
    let mut splitter = Splitter::of(List::Value);
    let mut all = Vec::new();
    for chunk in page.chunks(64 * 1_024) {
        splitter.feed(chunk).unwrap();
        while let Some(piece) = splitter.next() {
            let Piece::Record(json) = piece else { panic!("none is too large") };
            all.push(records::read(kind, &json));
        }
    }
    splitter.finish().unwrap();
    let expected = records::read(kind, good).unwrap();
    let [before, middle, after] = all.try_into().unwrap();
    assert_eq!((before.unwrap(), after.unwrap()), (expected.clone(), expected), "the neighbours");
    middle.ok().flatten()
}

#[test]
fn no_field_costs_more_than_its_record_and_few_cost_that() {
    let long = format!("\"{}\"", "long \\n | = ".repeat(100_000));
    let hostile = r#""a|b=c\\ \n\r\u0000\u2028\ud800 </x>CEF:0|Evil|E|1|2|3|4|""#;
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let others = [
        "null",
        "true",
        "-1",
        "0",
        "1e400",
        "NaN",
        "\"\"",
        "\"null\"",
        "[]",
        "{}",
        "[null, 1]",
        r#"{"a": {"b": "c"}}"#,
        hostile,
        &deep,
    ];
    let layout = layout();
    let mut n_tried = 0;
    for kind in records::KINDS {
        let mut is_first = true;
        for (name, path, _) in records::all(Path::new("fixtures")) {
            if !name.starts_with(&format!("{kind}/")) {
                continue;
            }
            let good = fs::read(&path).unwrap();
            let Ok(record) = serde_json::from_slice::<Value>(&good) else { continue };
            let mut found = Vec::new();
            places(&record, &Vec::new(), &mut found);
            for place in &found {
                let each = others.iter().map(|other| Some(*other)).chain([None]);
                for other in each.chain(is_first.then_some(Some(long.as_str()))) {
                    let bad = changed(&record, place, other);
                    let read = among_others(kind, &good, &bad);
                    let is_sent = read.as_ref().is_some_and(|event| arrives(event, &layout));
                    let may_cost = place.iter().any(|step| {
                        // Without an id of its own a row has the one of its event.
                        NEEDED.contains(&step.as_str())
                            || step == "RawEventData"
                                && record.get("ReportId").is_none_or(Value::is_null)
                    });
                    let other = other.map(|other| other.get(..other.len().min(60)));
                    assert!(is_sent || may_cost, "{name}: {place:?} as {other:?}");
                    n_tried += 1;
                }
            }
            is_first = false;
        }
    }
    assert!(n_tried > 10_000, "{n_tried}");
}
