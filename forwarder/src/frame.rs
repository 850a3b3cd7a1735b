//! The syslog message around a record, and the frame around the message.
//!
//! Headers: the vendor's agent's own (`[<PRI>]TIME [HOST ]CEF:…`), RFC 5424 section 6.2, RFC 3164 section 4.1. Framing:
//! RFC 6587 section 3.4.1 (octet counting) and 3.4.2 (a line feed), RFC 5426 (a datagram each). The time of a message is
//! the event's, in UTC: receivers that cannot read `rt` take it from there.

mod trim;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::cef::Record;
use crate::event::Event;
use crate::map::{self, Dialect};

/// APP-NAME of RFC 5424.
const APP_NAME: &str = "siem-forwarder";
/// MSGID of RFC 5424 has at most this many characters.
const MAX_MSGID: usize = 32;

/// Which header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The vendor's agent's.
    Agent,
    /// RFC 5424.
    Rfc5424,
    /// RFC 3164.
    Rfc3164,
}

/// The style of the time in the agent's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeFormat {
    /// `2023-03-02T21:10:02.022Z`.
    Rfc5424,
    /// `Mar 02 21:10:02`.
    Rfc3164,
    /// `Mar 02 2023 21:10:02`.
    Rfc3164WithYear,
}

/// How messages are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// A line feed after each.
    Newline,
    /// The length and a space before each.
    OctetCounting,
    /// One datagram each.
    Datagram,
}

/// The form of the lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Which header.
    pub header: Header,
    /// The style of its time; the real headers have their own.
    pub time_format: TimeFormat,
    /// The priority, where there is one.
    pub pri: Option<u8>,
    /// The host, where it is named.
    pub host: Option<String>,
    /// How messages are told apart.
    pub framing: Framing,
    /// The longest message in bytes, without the framing.
    pub max_message_bytes: usize,
    /// The dialect of the CEF part.
    pub dialect: Dialect,
    /// Device Version.
    pub version: String,
}

/// A message ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What goes on the wire.
    pub bytes: Vec<u8>,
    /// Whether a value was shortened.
    pub trimmed: bool,
}

/// The frame of an event.
pub fn frame(event: &Event, layout: &Layout) -> Frame {
    let (message, trimmed) = message(event, layout);
    let bytes = match layout.framing {
        Framing::Datagram => message.into_bytes(),
        Framing::Newline => {
            let mut bytes = message.into_bytes();
            bytes.push(b'\n');
            bytes
        }
        Framing::OctetCounting => format!("{} {message}", message.len()).into_bytes(),
    };
    Frame { bytes, trimmed }
}

/// The message of an event without any framing: what `render` prints.
pub fn line(event: &Event, layout: &Layout) -> String {
    message(event, layout).0
}

fn message(event: &Event, layout: &Layout) -> (String, bool) {
    let mut record = map::record(event, layout.dialect, &layout.version);
    let message = write(&record, event.timestamp(), layout);
    if message.len() <= layout.max_message_bytes {
        return (message, false);
    }
    trim::shorten(&mut record, message.len() - layout.max_message_bytes);
    (write(&record, event.timestamp(), layout), true)
}

fn write(record: &Record, time: i64, layout: &Layout) -> String {
    let mut line = String::with_capacity(1_024);
    if let Some(pri) = layout.pri {
        line.push_str(&format!("<{pri}>"));
    }
    let host = layout.host.as_deref();
    match layout.header {
        Header::Agent => {
            line.push_str(&format_time(time, layout.time_format));
            line.push(' ');
            if let Some(host) = host {
                line.push_str(host);
                line.push(' ');
            }
        }
        Header::Rfc5424 => {
            let time = format_time(time, TimeFormat::Rfc5424);
            let host = host.unwrap_or("-");
            let id = msgid(&record.signature);
            line.push_str(&format!("1 {time} {host} {APP_NAME} - {id} - "));
        }
        Header::Rfc3164 => {
            // The day of the month is padded with a space there.
            line.push_str(&utc(time).strftime("%b %e %H:%M:%S").to_string());
            line.push(' ');
            line.push_str(host.unwrap_or("-"));
            line.push(' ');
        }
    }
    record.write(&mut line);
    line
}

fn msgid(signature: &str) -> &str {
    let fits = (1..=MAX_MSGID).contains(&signature.len())
        && signature.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { signature } else { "-" }
}

fn format_time(time: i64, format: TimeFormat) -> String {
    let format = match format {
        TimeFormat::Rfc5424 => "%Y-%m-%dT%H:%M:%S.%3fZ",
        TimeFormat::Rfc3164 => "%b %d %H:%M:%S",
        TimeFormat::Rfc3164WithYear => "%b %d %Y %H:%M:%S",
    };
    utc(time).strftime(format).to_string()
}

fn utc(time: i64) -> jiff::Zoned {
    // Parsing has refused every time that is out of range.
    Timestamp::from_millisecond(time).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::UTC)
}
