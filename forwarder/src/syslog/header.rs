//! The header of a message, up to the record: priority, time, host, and what RFC 5424 puts between them. Pure.

use std::fmt::Write as _;

use super::layout::{Header, Layout, TimeFormat};
use super::time::{self, Style};
use crate::format::cef::Record;
use crate::format::cef::escape::sanitized;
use crate::time::Millis;

/// APP-NAME of RFC 5424.
const APP_NAME: &str = "siem-forwarder";
/// HOSTNAME of RFC 5424 has at most this many characters.
const MAX_HOST: usize = 255;
/// MSGID of RFC 5424 has at most this many characters.
const MAX_MSGID: usize = 32;

/// Appends the header of a message about this record; the record itself follows.
pub(super) fn write(record: &Record<'_>, at: Millis, layout: &Layout, line: &mut String) {
    if let Some(pri) = layout.pri {
        // A string takes whatever is written to it.
        let _ = write!(line, "<{pri}>");
    }
    let host = layout.host.as_deref();
    match layout.header {
        Header::Legacy => {
            time::write(at, style(layout.time_format), line);
            line.push(' ');
            if let Some(host) = host {
                line.push_str(host);
                line.push(' ');
            }
        }
        Header::Rfc5424 => {
            line.push_str("1 ");
            time::write(at, Style::Rfc5424, line);
            let host = host.unwrap_or("-");
            let signature = sanitized(&record.signature);
            let id = msgid(&signature);
            let _ = write!(line, " {host} {APP_NAME} - {id} - ");
        }
        Header::Rfc3164 => {
            time::write(at, Style::SpacePadded, line);
            let _ = write!(line, " {} ", host.unwrap_or("-"));
        }
    }
}

fn style(format: TimeFormat) -> Style {
    match format {
        TimeFormat::Rfc5424 => Style::Rfc5424,
        TimeFormat::Rfc3164 => Style::ZeroPadded,
        TimeFormat::Rfc3164WithYear => Style::ZeroPaddedWithYear,
    }
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
