//! The form of the messages, as the settings ask for it. Pure.

use super::framing::Framing;

/// Which header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The vendor's agent's.
    Legacy,
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

/// The form of the messages.
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
    /// How messages are separated.
    pub framing: Framing,
    /// The most bytes of a frame: header, record, line feed and count together.
    pub max_message_bytes: usize,
}
