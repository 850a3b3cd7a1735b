//! What a receiver must be set up for, in words: framing and length. Pure.

use crate::syslog::{Framing, Header, Layout, TimeFormat};

/// Where rsyslog cuts a message unless its limit was raised: the lowest usual limit on TCP and TLS.
const USUAL_LIMIT: usize = 8_096;

/// How messages are separated, and which receivers take them so.
pub(super) fn framing(layout: &Layout) -> String {
    let limit = layout.max_message_bytes;
    match layout.framing {
        Framing::Datagram => format!("one message a datagram, {limit} bytes at most"),
        Framing::Newline => format!(
            "each message ends with a line feed, {limit} bytes at most with it. A listener that takes nothing but \
             octet counts, such as syslog-ng's syslog(), needs spec.syslog.framing OctetCounting"
        ),
        Framing::OctetCounting => format!(
            "each message begins with its length (RFC 6587 octet counting), {limit} bytes at most with it. The listener \
             must parse octet counts, as rsyslog's imtcp and syslog-ng's syslog() do; one that reads lines, such as \
             syslog-ng's network(), needs spec.syslog.framing Newline"
        ),
    }
}

/// What usual receivers get wrong with these settings: the field, and the words.
pub(super) fn warnings(layout: &Layout) -> Vec<(&'static str, String)> {
    let mut warnings = Vec::new();
    let limit = layout.max_message_bytes;
    if limit > USUAL_LIMIT {
        let rest = match layout.framing {
            Framing::Datagram => "loses the rest",
            Framing::Newline | Framing::OctetCounting => {
                "makes an event of the rest, so that a record can forge one"
            }
        };
        warnings.push((
            "maxMessageBytes",
            format!(
                "{limit} is above the usual limit: rsyslog cuts at {USUAL_LIMIT} bytes unless its maxMessageSize is \
                 raised, and {rest}. Raise the receiver's limit, or lower spec.syslog.maxMessageBytes to 8000"
            ),
        ));
    }
    let begins_with_a_digit = layout.pri.is_none()
        && layout.header == Header::Legacy
        && layout.time_format == TimeFormat::Rfc5424;
    if layout.framing == Framing::Newline && begins_with_a_digit {
        warnings.push((
            "framing",
            "without a priority each message begins with the digits of its year, which a listener that detects octet \
             counts by itself, such as rsyslog's imtcp, takes for a length. For such a listener set \
             spec.syslog.framing to OctetCounting"
                .to_owned(),
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(framing: Framing, max_message_bytes: usize) -> Layout {
        Layout {
            header: Header::Legacy,
            time_format: TimeFormat::Rfc5424,
            pri: Some(109),
            host: None,
            framing,
            max_message_bytes,
        }
    }

    #[test]
    fn a_limit_above_the_usual_one_is_warned_of_whatever_the_framing() {
        for framing in [Framing::Datagram, Framing::Newline, Framing::OctetCounting] {
            for (limit, n_expected) in [(2_048, 0), (8_000, 0), (8_096, 0), (8_097, 1), (65_507, 1)]
            {
                let warnings = warnings(&layout(framing, limit));
                assert_eq!(warnings.len(), n_expected, "{framing:?} {limit}: {warnings:?}");
            }
        }
    }

    #[test]
    fn a_line_that_begins_with_its_year_is_warned_of() {
        let without = |framing| Layout { pri: None, ..layout(framing, 8_000) };
        assert_eq!(warnings(&without(Framing::Newline))[0].0, "framing");
        assert_eq!(warnings(&without(Framing::OctetCounting)), []);
        let by_month = Layout { time_format: TimeFormat::Rfc3164, ..without(Framing::Newline) };
        assert_eq!(warnings(&by_month), []);
    }

    #[test]
    fn a_counted_frame_says_what_the_listener_must_parse() {
        let words = framing(&layout(Framing::OctetCounting, 8_000));
        assert!(words.contains("RFC 6587") && words.contains("must parse"), "{words}");
    }
}
