//! Records beside the lines that they become: `fixtures/<kind>/*.json` and `*.cef`, and `*.strict.cef`.
//!
//! `UPDATE_EXPECT=1` rewrites the lines; read the difference before you commit it.

#![expect(clippy::unwrap_used, reason = "a helper of a test ends the test")]

#[path = "reader/records.rs"]
mod records;

use std::fs;
use std::path::Path;

use siem_agent_forwarder::event::{Event, Stream};
use siem_agent_forwarder::map::{self, Dialect};
use siem_agent_forwarder::source::cloud_apps::parse;
use siem_agent_forwarder::syslog::{
    self, Error, Frame, Framing, Header, Layout, TimeFormat, host_name,
};

const VERSION: &str = "0.1.0";

fn layout() -> Layout {
    Layout {
        header: Header::Legacy,
        time_format: TimeFormat::Rfc5424,
        pri: Some(109),
        host: Some("soc".to_owned()),
        framing: Framing::Newline,
        max_message_bytes: 65_536,
    }
}

fn frame(event: &Event, layout: &Layout) -> Result<Frame, Error> {
    syslog::frame(map::record(event, Dialect::Legacy, VERSION), event.timestamp(), layout)
}

fn line(event: &Event, layout: &Layout) -> Result<String, Error> {
    syslog::line(map::record(event, Dialect::Legacy, VERSION), event.timestamp(), layout)
}

fn check(path: &Path, actual: &str) {
    #[expect(clippy::disallowed_methods, reason = "a test asks whether to rewrite what it expects")]
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(path, format!("{actual}\n")).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(expected.trim_end_matches('\n'), actual, "{}", path.display());
}

#[test]
fn every_record_becomes_its_golden_line() {
    for (_, path, event) in records::all(Path::new("fixtures")) {
        check(&path.with_extension("cef"), &line(&event, &layout()).unwrap());
        let strict = map::record(&event, Dialect::Strict, VERSION);
        let strict = syslog::line(strict, event.timestamp(), &layout()).unwrap();
        check(&path.with_extension("strict.cef"), &strict);
    }
}

#[test]
fn headers_and_framings_are_those_of_their_standards() {
    let json =
        br#"{"_id": "a", "timestamp": 1677791402022, "eventTypeName": "EVENT_CATEGORY_LOGIN"}"#;
    let event = parse::record(Stream::Activities, json).unwrap();
    let begins = |layout: Layout, start: &str| {
        let line = line(&event, &layout).unwrap();
        assert!(line.starts_with(start), "{line}");
    };
    begins(
        layout(),
        "<109>2023-03-02T21:10:02.022Z soc CEF:0|MCAS|SIEM_Agent|0.1.0|EVENT_CATEGORY_LOGIN|",
    );
    begins(Layout { pri: None, host: None, ..layout() }, "2023-03-02T21:10:02.022Z CEF:0|");
    begins(
        Layout { time_format: TimeFormat::Rfc3164, ..layout() },
        "<109>Mar 02 21:10:02 soc CEF:0|",
    );
    begins(
        Layout { time_format: TimeFormat::Rfc3164WithYear, ..layout() },
        "<109>Mar 02 2023 21:10:02 soc CEF:0|",
    );
    begins(Layout { header: Header::Rfc3164, ..layout() }, "<109>Mar  2 21:10:02 soc CEF:0|");
    let rfc5424 =
        "<109>1 2023-03-02T21:10:02.022Z soc siem-forwarder - EVENT_CATEGORY_LOGIN - CEF:0|";
    begins(Layout { header: Header::Rfc5424, ..layout() }, rfc5424);
    for (signature, msgid) in [
        ("A".repeat(32), "A".repeat(32)),
        ("A".repeat(33), "-".to_owned()),
        ("NOT ONE WORD".to_owned(), "-".to_owned()),
        (" PADDED\\t".to_owned(), "PADDED".to_owned()),
        ("NÖN_ASCII".to_owned(), "-".to_owned()),
    ] {
        let json = format!(r#"{{"_id": "a", "timestamp": 0, "eventTypeName": "{signature}"}}"#);
        let event = parse::record(Stream::Activities, json.as_bytes()).unwrap();
        let line = line(&event, &Layout { header: Header::Rfc5424, ..layout() }).unwrap();
        let start = "<109>1 1970-01-01T00:00:00.000Z soc siem-forwarder";
        assert!(line.starts_with(&format!("{start} - {msgid} - CEF:0|")), "{line}");
    }
    let message = line(&event, &layout()).unwrap();
    let framed = |framing| frame(&event, &Layout { framing, ..layout() }).unwrap().bytes;
    assert_eq!(framed(Framing::Newline), format!("{message}\n").into_bytes());
    let counted = format!("{} {message}\n", message.len() + 1);
    assert_eq!(framed(Framing::OctetCounting), counted.into_bytes(), "the line feed is counted");
    assert_eq!(framed(Framing::Datagram), message.into_bytes());
}

#[test]
fn neither_a_signature_nor_a_name_forges_a_header() {
    for (signature, msgid) in [
        ("EVENT_1.x-y", "EVENT_1.x-y"),
        ("CEF:0|MCAS|SIEM_Agent|1|X|Y|9|", "-"),
        ("<13>1", "-"),
        ("A=B", "-"),
        ("[id@1]", "-"),
        ("A\"B", "-"),
        ("", "-"),
        ("A\u{202E}B", "AB"),
        ("A\u{9B}B", "-"),
    ] {
        let json = serde_json::json!({"_id": "a", "timestamp": 0, "eventTypeName": signature});
        let event = parse::record(Stream::Activities, json.to_string().as_bytes()).unwrap();
        let line = line(&event, &Layout { header: Header::Rfc5424, ..layout() }).unwrap();
        let header = line.split(" - CEF:0|").next().unwrap();
        // Without a signature there is a default one, which is a word.
        let msgid = if signature.is_empty() { "EVENT_CATEGORY_UNSPECIFIED" } else { msgid };
        assert_eq!(header.rsplit(' ').next(), Some(msgid), "{line}");
    }
    for (name, host) in [("soc", "soc"), ("a b\nc", "a-b-c"), ("é\u{202E}", "--"), ("", "-")] {
        assert_eq!(host_name(name), host);
    }
    assert_eq!(host_name(&"x".repeat(300)).len(), 255);
}

#[test]
fn a_long_record_is_shortened_by_field_to_any_limit() {
    let text = "é=\\x ".repeat(4_000);
    let json = format!(
        r#"{{"_id": "1793000113000_5f2c8a1e-7b60-4c1d-9e35-0a4d6be1f7c2", "timestamp": 1793000113000, "description": "{0}", "device": {{"userAgent": "{0}"}},
        "mainInfo": {{"eventObjects": [{{"name": "{0}"}}]}}, "appName": "{0}", "user": {{"userName": "{0}"}}}}"#,
        text.replace('\\', "\\\\")
    );
    let event = parse::record(Stream::Activities, json.as_bytes()).unwrap();
    for max_message_bytes in (600..80_000).step_by(997) {
        let layout = Layout { max_message_bytes, ..layout() };
        let line = line(&event, &layout).unwrap();
        assert!(line.len() < max_message_bytes, "{} for {max_message_bytes}", line.len());
        assert!(line.contains(
            "externalId=1793000113000_5f2c8a1e-7b60-4c1d-9e35-0a4d6be1f7c2 rt=1793000113000 "
        ));
        assert!(line.contains("... "), "what was shortened says so");
        assert!(frame(&event, &layout).unwrap().trimmed);
        let whole_escapes =
            line.split("CEF:0").nth(1).unwrap().replace("\\\\", "").replace("\\=", "");
        assert!(!whole_escapes.contains('\\'), "no escape is cut");
    }
}

#[test]
fn free_text_gives_way_one_field_after_the_other() {
    let [description, target, agent] = ["d", "t", "a"].map(|letter| letter.repeat(3_000));
    let user = "u".repeat(200);
    let json = format!(
        r#"{{"_id": "a", "timestamp": 1793000113000, "description": "{description}", "device": {{"userAgent": "{agent}"}},
        "description_metadata": {{"event_category": "Run command"}},
        "mainInfo": {{"eventObjects": [{{"name": "{target}"}}]}}, "user": {{"userName": "{user}"}}}}"#
    );
    let event = parse::record(Stream::Activities, json.as_bytes()).unwrap();
    let layout = || Layout { framing: Framing::Datagram, ..layout() };
    let whole = line(&event, &layout()).unwrap();
    for (excess, shortened) in [
        (1_000, vec!["msg"]),
        (5_000, vec!["msg", "cs3"]),
        (7_000, vec!["msg", "cs3", "requestClientApplication"]),
    ] {
        let max_message_bytes = whole.len() - excess;
        let short = line(&event, &Layout { max_message_bytes, ..layout() }).unwrap();
        assert_eq!(short.len(), max_message_bytes);
        let value = |key: &str| short.split(&format!(" {key}=")).nth(1)?.split(' ').next();
        for (key, text) in
            [("msg", &description), ("cs3", &target), ("requestClientApplication", &agent)]
        {
            let value = value(key).unwrap();
            assert_eq!(value == text, !shortened.contains(&key), "{excess}: {key}={value}");
            assert_eq!(value.ends_with("..."), shortened.contains(&key), "{excess}: {key}={value}");
        }
        assert_eq!(value("suser"), Some(&*user), "{excess}");
        assert!(short.contains("|Run command|0|"), "{excess}: {short}");
    }
}

/// A record of nothing but an id and a SIGNATURE: it is shortened only where the header leaves no room.
fn bare(id: &str, signature: &str) -> Event {
    let json = format!(r#"{{"_id": "{id}", "timestamp": 0, "eventTypeName": "{signature}"}}"#);
    parse::record(Stream::Activities, json.as_bytes()).unwrap()
}

/// A SIGNATURE that is too long for a MSGID becomes one when it is shortened: the header then grows.
#[test]
fn a_shortened_signature_never_lengthens_the_header_past_the_limit() {
    let event = bare("a", &"S".repeat(60));
    for n_host in 1..=255 {
        let host = Some("h".repeat(n_host));
        let layout = Layout { host, header: Header::Rfc5424, max_message_bytes: 480, ..layout() };
        let Frame { bytes, .. } = frame(&event, &layout).unwrap();
        assert!(bytes.len() <= 480, "{} bytes with a host of {n_host}", bytes.len());
    }
}

#[test]
fn what_is_never_shortened_is_refused_beyond_the_limit_with_its_length() {
    let event = bare(&"i".repeat(600), "EVENT_CATEGORY_LOGIN");
    for framing in [Framing::Newline, Framing::OctetCounting, Framing::Datagram] {
        let layout = |max_message_bytes| Layout { framing, max_message_bytes, ..layout() };
        let Err(Error::TooLong { bytes, limit: 480 }) = frame(&event, &layout(480)) else {
            panic!("{framing:?}: an identifier is never shortened");
        };
        assert_eq!(line(&event, &layout(480)), Err(Error::TooLong { bytes, limit: 480 }));
        let fits = frame(&event, &layout(bytes)).unwrap().bytes;
        assert!(
            fits.len() <= bytes,
            "{framing:?}: {} of the {bytes} that it asked for",
            fits.len()
        );
        assert!(frame(&event, &layout(bytes - 1)).is_err(), "{framing:?}: {bytes} is the least");
    }
}
