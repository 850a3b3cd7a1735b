//! The syslog message around a record, and the frame around the message.
//!
//! Headers: the vendor's agent's own (`[<PRI>]TIME [HOST ]CEF:…`), RFC 5424 section 6.2, RFC 3164 section 4.1. Framing:
//! RFC 6587 section 3.4.1 (octet counting) and 3.4.2 (a line feed), RFC 5426 (a datagram each). The time of a message is
//! the event's, in UTC: receivers that cannot read `rt` take it from there.
//!
//! A counted message ends with a line feed too, which its count includes: a listener that reads lines then still keeps
//! one event a line. No frame is longer than the limit, because a receiver that cuts makes an event of what is left.

mod time;
mod trim;

use std::fmt::Write as _;

use thiserror::Error;

use self::time::Style;
use crate::cef::Record;
use crate::cef::escape::sanitized;
use crate::event::Event;
use crate::map::{self, Dialect};
use crate::time::Millis;

/// APP-NAME of RFC 5424.
const APP_NAME: &str = "siem-forwarder";
/// HOSTNAME of RFC 5424 has at most this many characters.
const MAX_HOST: usize = 255;
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

impl TimeFormat {
    fn style(self) -> Style {
        match self {
            Self::Rfc5424 => Style::Rfc5424,
            Self::Rfc3164 => Style::ZeroPadded,
            Self::Rfc3164WithYear => Style::ZeroPaddedWithYear,
        }
    }
}

/// How messages are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// A line feed after each.
    Newline,
    /// The length and a space before each, and a line feed at its end that the length includes.
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
    /// The most bytes of a frame: header, record, line feed and count together.
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

/// Why an event has no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Error {
    /// What is never shortened is longer than the limit.
    #[error(
        "identifier, times, addresses and header make a frame of {bytes} bytes, more than the {limit} of spec.syslog.maxMessageBytes"
    )]
    TooLong {
        /// The shortest frame of this event.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

impl Framing {
    /// How many bytes the frame of a message takes.
    fn frame_len(self, message: &str) -> usize {
        let line = message.len() + 1;
        match self {
            Self::Datagram => message.len(),
            Self::Newline => line,
            Self::OctetCounting => line.to_string().len() + 1 + line,
        }
    }
}

/// The frame of an event, never longer than the layout's limit.
///
/// # Errors
/// [`Error::TooLong`] when the event cannot be shortened to the limit.
pub fn frame(event: &Event, layout: &Layout) -> Result<Frame, Error> {
    let (message, trimmed) = message(event, layout)?;
    let bytes = match layout.framing {
        Framing::Datagram => message.into_bytes(),
        Framing::Newline => {
            let mut bytes = message.into_bytes();
            bytes.push(b'\n');
            bytes
        }
        Framing::OctetCounting => format!("{} {message}\n", message.len() + 1).into_bytes(),
    };
    Ok(Frame { bytes, trimmed })
}

/// The message of an event without any framing: what `render` prints.
///
/// # Errors
/// As [`frame`].
pub fn line(event: &Event, layout: &Layout) -> Result<String, Error> {
    message(event, layout).map(|(message, _trimmed)| message)
}

fn message(event: &Event, layout: &Layout) -> Result<(String, bool), Error> {
    let limit = layout.max_message_bytes;
    let mut record = map::record(event, layout.dialect, &layout.version);
    let mut message = write(&record, event.timestamp(), layout);
    let mut trimmed = false;
    // More than once only where a shorter SIGNATURE makes a longer MSGID; each turn makes the record shorter.
    loop {
        let bytes = layout.framing.frame_len(&message);
        if bytes <= limit {
            return Ok((message, trimmed));
        }
        if !trim::shorten(&mut record, bytes - limit) {
            return Err(Error::TooLong { bytes, limit });
        }
        trimmed = true;
        message = write(&record, event.timestamp(), layout);
    }
}

fn write(record: &Record<'_>, at: Millis, layout: &Layout) -> String {
    let mut line = String::with_capacity(1_024);
    if let Some(pri) = layout.pri {
        // A string takes whatever is written to it.
        let _ = write!(line, "<{pri}>");
    }
    let host = layout.host.as_deref();
    match layout.header {
        Header::Agent => {
            time::write(at, layout.time_format.style(), &mut line);
            line.push(' ');
            if let Some(host) = host {
                line.push_str(host);
                line.push(' ');
            }
        }
        Header::Rfc5424 => {
            line.push_str("1 ");
            time::write(at, Style::Rfc5424, &mut line);
            let host = host.unwrap_or("-");
            let signature = sanitized(&record.signature);
            let id = msgid(&signature);
            let _ = write!(line, " {host} {APP_NAME} - {id} - ");
        }
        Header::Rfc3164 => {
            time::write(at, Style::SpacePadded, &mut line);
            let _ = write!(line, " {} ", host.unwrap_or("-"));
        }
    }
    record.write(&mut line);
    line
}

/// A name as a header can carry it: printable ASCII without spaces (RFC 5424, section 6.2.4).
pub fn host_name(name: &str) -> String {
    let part = |char: char| if char.is_ascii_graphic() { char } else { '-' };
    let host: String = name.chars().map(part).take(MAX_HOST).collect();
    if host.is_empty() { "-".to_owned() } else { host }
}

/// A signature that is more than a word could pass for the beginning of another message.
fn msgid(signature: &str) -> &str {
    let fits = (1..=MAX_MSGID).contains(&signature.len())
        && signature.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if fits { signature } else { "-" }
}
