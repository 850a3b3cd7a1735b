//! What holds for every record, whatever it says: laws, tried with hostile records.
//!
//! Lines are read back by `reader/cef.rs`, which knows the standard and nothing of the writer.

#![expect(clippy::unwrap_used, reason = "a helper of a test ends the test")]

#[path = "reader/cef.rs"]
mod reader;

use std::ops::Deref;

use proptest::prelude::*;
use serde_json::{Value, json};
use siem_agent_forwarder::event::{Event, Stream};
use siem_agent_forwarder::format::cef::escape::{self, sanitized};
use siem_agent_forwarder::map::{self, Dialect};
use siem_agent_forwarder::reject::RejectReason;
use siem_agent_forwarder::source::cloud_apps::parse;
use siem_agent_forwarder::source::http::split::{Piece, Splitter};
use siem_agent_forwarder::source::xdr::{self, Table};
use siem_agent_forwarder::syslog::{self, Error, Frame, Framing, Header, TimeFormat};

const VERSION: &str = "0.1.0";
/// Never shortened, whatever the limit.
const UNTOUCHED: [&str; 8] = ["externalId", "rt", "start", "end", "dvc", "src", "c6a1", "cs5"];
/// Whatever some reader takes for the end of a line.
const LINE_BREAKS: [char; 8] =
    ['\n', '\r', '\u{B}', '\u{C}', '\u{85}', '\u{2028}', '\u{2029}', '\0'];

fn text() -> BoxedStrategy<String> {
    prop_oneof![
        4 => any::<String>(),
        2 => forged(),
        4 => "[a-c=|\\\\\r\n\t ]{0,40}",
        2 => "(é|=|\\\\|\r\n|\u{2028}|\u{85}|\u{0}| |x|\u{1F600}|<b>|&lt;|CEF:0\\|){0,40}",
        1 => ("(é|=|\\\\|\n|x| ){1,9}", 1_usize..700).prop_map(|(unit, n)| unit.repeat(n)),
        1 => Just("null".to_owned()),
    ]
    .boxed()
}

/// An event of its own for a receiver that cuts before it, in each framing.
fn forged() -> BoxedStrategy<String> {
    let event =
        "<109>Nov 28 10:00:00 dc1 CEF:0|MCAS|SIEM_Agent|0|ALERT_X|forged|9|externalId=forged ";
    let n_before = prop_oneof![0..200_usize, 1_500..2_100_usize, 7_500..8_300_usize];
    let begin =
        prop::sample::select(vec!["", "\n", "\r\n", "\0", "\u{2028}", "\u{FEFF}", "123 ", "\n80 "]);
    (n_before, begin, 1_usize..4)
        .prop_map(move |(n, begin, n_times)| {
            "p".repeat(n) + &format!("{begin}{event}").repeat(n_times)
        })
        .boxed()
}

fn id() -> BoxedStrategy<String> {
    prop_oneof![
        6 => "[0-9]{13}_[0-9a-f-]{36}",
        6 => "[!-~]{1,60}",
        6 => "[a=|\\\\\n é]{0,20}x",
        1 => ("(é|=|a)", 61_usize..2_000).prop_map(|(unit, n)| unit.repeat(n)),
    ]
    .boxed()
}

fn address() -> BoxedStrategy<String> {
    prop_oneof![
        any::<std::net::IpAddr>().prop_map(|address| address.to_string()),
        text(),
        Just("2001:DB8:0::1".to_owned())
    ]
    .boxed()
}

prop_compose! {
    fn activity()(
        id in id(), time in 0..253_402_300_800_000_i64, texts in prop::collection::vec(text(), 9),
        names in prop::collection::vec(text(), 0..4), ip in address(), app in any::<Option<u32>>()
    ) -> Value {
        json!({"_id": id, "timestamp": time, "eventTypeName": texts[0], "description": texts[1],
            "description_metadata": {"event_category": texts[2], "operation_name": texts[3]},
            "user": {"userName": texts[4]}, "failedUserData": {"userName": texts[5]},
            "resolvedActor": {"name": texts[6], "id": 7}, "appName": texts[7], "appId": app,
            "device": {"clientIP": ip, "userAgent": texts[8]},
            "mainInfo": {"eventObjects": names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()}})
    }
}

prop_compose! {
    fn alert()(
        id in id(), time in 0..253_402_300_800_000_i64, texts in prop::collection::vec(text(), 8),
        audits in prop::collection::vec(text(), 0..4), ip in address(), severity in -1..5
    ) -> Value {
        json!({"_id": id, "timestamp": time, "title": texts[0], "description": texts[1], "URL": texts[2],
            "idValue": texts[3], "threatScore": texts[4], "severityValue": severity, "audits": audits,
            "entities": [{"type": "policyRule", "id": texts[5], "label": texts[0]}, {"type": "ip", "id": ip},
                {"type": "service", "id": texts[6], "label": texts[6]}, {"type": "account", "pa": texts[7]}]})
    }
}

prop_compose! {
    fn graph_alert()(
        id in id(), time in iso_time(), texts in prop::collection::vec(text(), 9), ip in address(),
        policy in any::<Option<u32>>()
    ) -> Value {
        json!({"id": id, "providerAlertId": texts[0], "createdDateTime": time, "title": texts[1], "description": texts[2],
            "alertWebUrl": texts[3], "detectorId": texts[4], "alertPolicyId": policy, "evidence": [
                {"@odata.type": "#microsoft.graph.security.userEvidence", "userAccount": {"accountName": texts[5], "domainName": texts[6]}},
                {"@odata.type": "#microsoft.graph.security.ipEvidence", "ipAddress": ip},
                {"@odata.type": "#microsoft.graph.security.cloudApplicationEvidence", "appId": texts[7], "displayName": texts[8]}]})
    }
}

prop_compose! {
    fn cloud_app_event()(
        id in id(), time in iso_time(), texts in prop::collection::vec(text(), 9), ip in address(), is_text in any::<bool>()
    ) -> Value {
        let objects = json!([{"Role": "Target object", "Type": texts[0], "Name": texts[1]}, {"Name": texts[2]},
            {"Role": "Parameter", "Type": "Structured object", "ServiceObjectType": texts[3]}]);
        let objects = if is_text { json!(objects.to_string()) } else { objects };
        json!({"ReportId": id, "Timestamp": time, "ActionType": texts[4], "Application": texts[5], "ApplicationId": texts[6],
            "AccountDisplayName": texts[7], "IPAddress": ip, "UserAgent": texts[8], "ActivityObjects": objects})
    }
}

prop_compose! {
    fn identity_logon_event()(
        id in id(), time in iso_time(), texts in prop::collection::vec(text(), 5), ip in address()
    ) -> Value {
        json!({"ReportId": id, "Timestamp": time, "ActionType": texts[0], "FailureReason": texts[1], "AccountName": texts[2],
            "AccountDomain": texts[3], "Application": format!("a{}", texts[4]), "IPAddress": ip})
    }
}

/// With up to seven digits of a second, which are cut.
fn iso_time() -> BoxedStrategy<String> {
    let ticks = 0..2_534_021_784_000_000_000_i64;
    let text = |ticks: i64| {
        let nanoseconds = i128::from(ticks) * 100;
        jiff::Timestamp::from_nanosecond(nanoseconds).unwrap().to_string()
    };
    ticks.prop_map(text).boxed()
}

fn event() -> BoxedStrategy<Event> {
    let json = |json: Value| json.to_string().into_bytes();
    let portal = move |stream| move |it| parse::record(stream, &json(it)).unwrap();
    let row = move |table| move |it| xdr::row(table, &json(it)).unwrap().unwrap();
    prop_oneof![
        activity().prop_map(portal(Stream::Activities)),
        alert().prop_map(portal(Stream::Alerts)),
        graph_alert().prop_map(move |it| xdr::alert(&json(it)).unwrap()),
        cloud_app_event().prop_map(row(Table::CloudAppEvents)),
        identity_logon_event().prop_map(row(Table::IdentityLogonEvents)),
    ]
    .boxed()
}

/// How a record is mapped, and the message around it.
#[derive(Debug, Clone)]
struct Layout {
    dialect: Dialect,
    layout: syslog::Layout,
}

impl Deref for Layout {
    type Target = syslog::Layout;

    fn deref(&self) -> &syslog::Layout {
        &self.layout
    }
}

fn frame(event: &Event, layout: &Layout) -> Result<Frame, Error> {
    let record = map::record(event, layout.dialect, VERSION);
    syslog::frame(record, event.timestamp(), layout)
}

fn line(event: &Event, layout: &Layout) -> Result<String, Error> {
    let record = map::record(event, layout.dialect, VERSION);
    syslog::line(record, event.timestamp(), layout)
}

prop_compose! {
    fn layout()(
        header in prop::sample::select(vec![Header::Legacy, Header::Rfc5424, Header::Rfc3164]),
        time_format in prop::sample::select(vec![TimeFormat::Rfc5424, TimeFormat::Rfc3164, TimeFormat::Rfc3164WithYear]),
        dialect in prop::sample::select(vec![Dialect::Legacy, Dialect::Strict]),
        framing in prop::sample::select(vec![Framing::Newline, Framing::OctetCounting, Framing::Datagram]),
        max_message_bytes in prop_oneof![480..2_048_usize, 480..65_536_usize, Just(2_048), Just(8_000), Just(1 << 20)],
        pri in any::<Option<u8>>(), host in prop_oneof![3 => Just("soc".to_owned()).boxed(), 1 => "[!-~]{1,255}".boxed()],
    ) -> Layout {
        let host = Some(host);
        let layout = syslog::Layout { header, time_format, pri, host, framing, max_message_bytes };
        Layout { dialect, layout }
    }
}

/// The CEF part of a message, read back.
fn read(message: &str) -> reader::Line {
    let at = message.find("CEF:0|MCAS|SIEM_Agent|").unwrap();
    reader::read(&message[at..]).map_err(|refusal| format!("{refusal:?}: {message}")).unwrap()
}

fn untrimmed(layout: &Layout) -> Layout {
    let whole = syslog::Layout { max_message_bytes: usize::MAX, ..layout.layout.clone() };
    Layout { dialect: layout.dialect, layout: whole }
}

/// The line, where the event has one under this limit.
fn fitting(event: &Event, layout: &Layout) -> Option<String> {
    match line(event, layout) {
        Ok(line) => Some(line),
        Err(Error::TooLong { bytes, limit }) => {
            // Only what is never shortened is the reason: the id, escaped, in each place that holds it, and the host.
            let n_id = 2 * event.id().len() + 40;
            let n_host = layout.host.as_ref().map_or(0, String::len);
            assert!(limit == layout.max_message_bytes && bytes > limit, "{bytes} for {limit}");
            assert!(
                bytes < n_id + n_host + 400,
                "{bytes} with an id of {n_id} and a host of {n_host}"
            );
            assert_eq!(frame(event, layout), Err(Error::TooLong { bytes, limit }));
            None
        }
    }
}

/// A value that was shortened: a prefix of the whole, and the mark.
fn is_shortened(short: &str, whole: &str) -> bool {
    short.strip_suffix("...").is_some_and(|kept| whole.starts_with(kept))
}

proptest! {
    #[test]
    fn a_record_is_one_line(event in event(), layout in layout()) {
        let Some(message) = fitting(&event, &layout) else { return Ok(()) };
        prop_assert!(!message.contains(LINE_BREAKS), "{message:?}");
        prop_assert!(!message.chars().any(char::is_control), "{message:?}");
        let Frame { bytes, trimmed } = frame(&event, &layout).unwrap();
        prop_assert!(bytes.len() <= layout.max_message_bytes, "{} for {}", bytes.len(), layout.max_message_bytes);
        let first = bytes.iter().position(|byte| *byte == b'\n');
        let at_its_end = (layout.framing != Framing::Datagram).then(|| bytes.len() - 1);
        prop_assert_eq!(first, at_its_end, "one line feed, at the end");
        prop_assert_eq!(bytes, match layout.framing {
            Framing::Datagram => message.clone(),
            Framing::Newline => format!("{message}\n"),
            Framing::OctetCounting => format!("{} {message}\n", message.len() + 1),
        }.into_bytes());
        // The limit is for a receiver that counts everything, and nothing is shortened before it is reached.
        let whole = frame(&event, &untrimmed(&layout)).unwrap().bytes.len();
        prop_assert_eq!(trimmed, whole > layout.max_message_bytes);
    }

    #[test]
    fn what_is_written_is_what_a_reader_reads(event in event(), layout in layout()) {
        let record = map::record(&event, layout.dialect, VERSION);
        let read = read(&line(&event, &untrimmed(&layout)).unwrap());
        let meant: Vec<(String, String)> = record.extension.iter()
            .map(|field| (field.key.to_owned(), sanitized(&field.value).into_owned())).collect();
        prop_assert_eq!(&read.extension, &meant);
        let severity = record.severity.to_string();
        let in_header = |value: &str| sanitized(value).replace("\r\n", " ").replace(['\r', '\n'], " ");
        let meant = ["0", "MCAS", "SIEM_Agent", "0.1.0", &in_header(&record.signature), &in_header(&record.name), &severity];
        prop_assert_eq!(read.header, meant);
        prop_assert!((0..=10).contains(&record.severity));
    }

    #[test]
    fn escapes_come_back(text in text()) {
        let mut line = "CEF:0|v|p|1|".to_owned();
        escape::header(&text, &mut line);
        line.push_str("|n|0|msg=");
        escape::value(&text, &mut line);
        let read = reader::read(&line).unwrap();
        let meant = sanitized(&text).into_owned();
        prop_assert_eq!(&read.extension[0].1, &meant);
        let folded = sanitized(&text).replace("\r\n", " ").replace(['\r', '\n'], " ");
        prop_assert_eq!(&read.header[4], &folded);
    }

    #[test]
    fn strict_lengths_hold_after_escaping(event in event(), layout in layout()) {
        let strict = Layout { dialect: Dialect::Strict, ..untrimmed(&layout) };
        let read = read(&line(&event, &strict).unwrap());
        for (index, most) in [(1, 63), (2, 63), (3, 31), (4, 1_023), (5, 512)] {
            prop_assert!(read.header[index].len() <= most, "{}", read.header[index]);
        }
        for (key, value) in &read.extension {
            let most = match key.as_str() {
                "externalId" => 40,
                "cs1" | "cs2" | "cs3" | "cs4" | "cs5" => 4_000,
                // A number: the standard gives it no length.
                "cn1" => usize::MAX,
                _ => 1_023,
            };
            prop_assert!(value.len() <= most, "{key}: {} bytes", value.len());
            prop_assert!(!value.is_empty(), "{key} is empty");
        }
        // The whole id is there, and the digest of it depends on nothing else.
        let id = sanitized(event.id()).into_owned();
        let value = |wanted: &str| read.extension.iter().find(|(key, _)| key == wanted).map(|(_, value)| value);
        if id.len() <= 40 {
            prop_assert_eq!((value("externalId"), value("cs5")), (Some(&id), None));
        } else {
            prop_assert_eq!((value("externalId").unwrap().len(), value("cs5")), (40, Some(&id)));
        }
    }

    #[test]
    fn a_frame_is_never_longer_than_the_limit_and_loses_only_what_may_be_lost(event in event(), layout in layout()) {
        let Some(message) = fitting(&event, &layout) else { return Ok(()) };
        let Frame { trimmed, .. } = frame(&event, &layout).unwrap();
        let whole_message = line(&event, &untrimmed(&layout)).unwrap();
        let (short, whole) = (read(&message), read(&whole_message));
        let mut rest = whole.extension.iter();
        for (key, value) in &short.extension {
            let (_, before) = rest.find(|(own, _)| own == key).expect("pairs keep their order");
            let same = value == before;
            prop_assert!(same || is_shortened(value, before), "{key}={value} of {before}");
            prop_assert!(same || (trimmed && !UNTOUCHED.contains(&key.as_str()) && !key.ends_with("Label")), "{key}");
        }
        for key in UNTOUCHED {
            let value = |line: &reader::Line| line.extension.iter().find(|(own, _)| own == key).map(|(_, value)| value.clone()).filter(|value| !value.is_empty());
            prop_assert_eq!(value(&short), value(&whole), "{} is never lost", key);
        }
        for (value, before) in short.header.iter().zip(&whole.header) {
            prop_assert!(value == before || is_shortened(value, before), "{value} of {before}");
        }
    }

    #[test]
    fn octet_counts_delimit_whatever_stands_between(events in prop::collection::vec(event(), 1..6), layout in layout()) {
        let counted = syslog::Layout { framing: Framing::OctetCounting, ..layout.layout };
        let layout = Layout { dialect: layout.dialect, layout: counted };
        let events: Vec<(Frame, String)> = events.iter()
            .filter_map(|event| fitting(event, &layout).map(|line| (frame(event, &layout).unwrap(), line))).collect();
        let stream: Vec<u8> = events.iter().flat_map(|(frame, _)| frame.bytes.clone()).collect();
        let mut rest = stream.as_slice();
        for (_, message) in &events {
            let space = rest.iter().position(|byte| *byte == b' ').unwrap();
            let count = std::str::from_utf8(&rest[..space]).unwrap();
            prop_assert!(!count.starts_with('0'), "RFC 6587: MSG-LEN begins with no zero");
            let end = space + 1 + count.parse::<usize>().unwrap();
            let counted = format!("{message}\n");
            prop_assert_eq!(&rest[space + 1..end], counted.as_bytes());
            rest = &rest[end..];
        }
        prop_assert!(rest.is_empty());
        // Who reads lines has one event a line all the same.
        let lines: Vec<&[u8]> = stream.split_inclusive(|byte| *byte == b'\n').collect();
        prop_assert_eq!(lines, events.iter().map(|(frame, _)| frame.bytes.as_slice()).collect::<Vec<_>>());
    }
}

/// An element of a page, and what must become of it: an id, or a kind of trouble.
fn element() -> BoxedStrategy<(Vec<u8>, Result<String, RejectReason>)> {
    let bad = |json: &str, reason| Just((json.as_bytes().to_vec(), Err(reason)));
    prop_oneof![
        6 => activity().prop_map(|json| {
            let id = json["_id"].as_str().unwrap().to_owned();
            (json.to_string().into_bytes(), Ok(id))
        }),
        1 => text().prop_map(|text| {
            (json!({"timestamp": 1, "description": text}).to_string().into_bytes(), Err(RejectReason::MissingId))
        }),
        1 => text().prop_filter("a time", |text| text.trim().parse::<i64>().is_err()).prop_map(|text| {
            (json!({"_id": "x", "timestamp": text}).to_string().into_bytes(), Err(RejectReason::MissingTimestamp))
        }),
        1 => text().prop_map(|text| (json!(text).to_string().into_bytes(), Err(RejectReason::NotAnObject))),
        1 => text().prop_map(|text| (json!([text, {"_id": text}]).to_string().into_bytes(), Err(RejectReason::NotAnObject))),
        1 => bad("null", RejectReason::NotAnObject),
        1 => bad(r#"{"_id": , "timestamp": 1}"#, RejectReason::Malformed),
        1 => bad(r#"{"_id" "x"]"#, RejectReason::Malformed),
        1 => bad(r#"{"_id": "x", "timestamp": 1, "a": nul, "data": [}}"#, RejectReason::Malformed),
        1 => Just((b"{\"_id\": \"lone \xff \\ud800\", \"timestamp\": 1}".to_vec(), Ok("lone \u{FFFD} \u{FFFD}".to_owned()))),
    ]
    .boxed()
}

proptest! {
    #[test]
    fn a_bad_record_never_costs_its_neighbours(
        elements in prop::collection::vec(element(), 0..12), n_bytes in 1_usize..4_000, is_last in any::<bool>()
    ) {
        let mut body = if is_last { br#"{"hasNext": true, "data": ["#.to_vec() } else { br#"{"data":["#.to_vec() };
        for (index, (json, _)) in elements.iter().enumerate() {
            body.extend(if index == 0 { b"" as &[u8] } else { b", " });
            body.extend(json);
        }
        body.extend(if is_last { b"]}" as &[u8] } else { br#"], "hasNext": true}"# });
        let mut splitter = Splitter::new();
        let mut outcomes = Vec::new();
        for chunk in body.chunks(n_bytes) {
            splitter.feed(chunk).unwrap();
            while let Some(piece) = splitter.next() {
                outcomes.push(match piece {
                    Piece::Record(json) => parse::record(Stream::Activities, &json)
                        .map(|event| event.id().to_owned()).map_err(|reject| reject.reason),
                    Piece::TooLarge => Err(RejectReason::TooLarge),
                });
            }
        }
        prop_assert_eq!(outcomes, elements.into_iter().map(|(_, expected)| expected).collect::<Vec<_>>());
        prop_assert_eq!(&splitter.finish().unwrap()["hasNext"], true);
    }
}
