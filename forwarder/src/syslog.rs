//! The syslog message around a record, and the frame around the message. Pure.
//!
//! Headers: the vendor's agent's own (`[<PRI>]TIME [HOST ]CEF:…`), RFC 5424 section 6.2, RFC 3164 section 4.1. Framing:
//! RFC 6587 section 3.4.1 (octet counting) and 3.4.2 (a line feed), RFC 5426 (a datagram each). The time of a message is
//! the event's, in UTC: receivers that cannot read `rt` take it from there.
//!
//! A counted message ends with a line feed too, which its count includes: a listener that reads lines then still keeps
//! one event a line. No frame is longer than the limit, because a receiver that cuts makes an event of what is left.
//! It knows no event: it takes a record that is mapped, and its time. Pure.

mod framing;
mod header;
mod layout;
mod time;

use thiserror::Error;

use crate::format::cef::{Record, trim};
use crate::time::Millis;

pub use framing::Framing;
pub use header::host_name;
pub use layout::{Header, Layout, TimeFormat};

/// A message ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What goes on the wire.
    pub bytes: Vec<u8>,
    /// Whether a value was shortened.
    pub trimmed: bool,
}

/// Why a record has no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Error {
    /// What is never shortened is longer than the limit.
    #[error(
        "identifier, times, addresses and header make a frame of {bytes} bytes, more than the {limit} of spec.syslog.maxMessageBytes"
    )]
    TooLong {
        /// The shortest frame of this record.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

/// The frame of a record of this time, never longer than the layout's limit.
///
/// # Errors
/// [`Error::TooLong`] when the record cannot be shortened to the limit.
pub fn frame(record: Record<'_>, at: Millis, layout: &Layout) -> Result<Frame, Error> {
    let (message, trimmed) = message(record, at, layout)?;
    Ok(Frame { bytes: layout.framing.frame(message), trimmed })
}

/// The message of a record without any framing: what `render` prints.
///
/// # Errors
/// As [`frame`].
pub fn line(record: Record<'_>, at: Millis, layout: &Layout) -> Result<String, Error> {
    message(record, at, layout).map(|(message, _trimmed)| message)
}

fn message(mut record: Record<'_>, at: Millis, layout: &Layout) -> Result<(String, bool), Error> {
    let limit = layout.max_message_bytes;
    let mut message = write(&record, at, layout);
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
        message = write(&record, at, layout);
    }
}

fn write(record: &Record<'_>, at: Millis, layout: &Layout) -> String {
    let mut message = String::with_capacity(1_024);
    header::write(record, at, layout, &mut message);
    record.write(&mut message);
    message
}
