//! The time of a message, in UTC and in English whatever the machine's locale. Pure.
//!
//! By the calendar rather than by an instant's type: that ends hours before the year 10000 does, for the sake of zones.
//! Pure.

use jiff::SignedDuration;
use jiff::civil::{DateTime, date};

use crate::time::Millis;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// `2023-03-02T21:10:02.022Z`, always with three decimals.
    Rfc5424,
    /// `Mar 02 21:10:02`.
    ZeroPadded,
    /// `Mar 02 2023 21:10:02`.
    ZeroPaddedWithYear,
    /// `Mar  2 21:10:02`, as RFC 3164 itself wants it.
    SpacePadded,
}

/// Appends the time of these milliseconds.
pub(super) fn write(time: Millis, style: Style, line: &mut String) {
    let at = utc(time);
    let month = usize::try_from(at.month()).ok().and_then(|month| MONTHS.get(month - 1));
    match style {
        Style::Rfc5424 => {
            digits(at.year(), 4, line);
            line.push('-');
            digits(at.month().into(), 2, line);
            line.push('-');
            digits(at.day().into(), 2, line);
            line.push('T');
            clock(at, line);
            line.push('.');
            digits(at.millisecond(), 3, line);
            line.push('Z');
        }
        Style::ZeroPadded | Style::ZeroPaddedWithYear | Style::SpacePadded => {
            line.push_str(month.copied().unwrap_or_default());
            line.push(' ');
            if style == Style::SpacePadded && at.day() < 10 {
                line.push(' ');
                digits(at.day().into(), 1, line);
            } else {
                digits(at.day().into(), 2, line);
            }
            line.push(' ');
            if style == Style::ZeroPaddedWithYear {
                digits(at.year(), 4, line);
                line.push(' ');
            }
            clock(at, line);
        }
    }
}

fn clock(at: DateTime, line: &mut String) {
    digits(at.hour().into(), 2, line);
    line.push(':');
    digits(at.minute().into(), 2, line);
    line.push(':');
    digits(at.second().into(), 2, line);
}

/// The last `n` decimal digits of a number that is not negative.
fn digits(number: i16, n: u32, line: &mut String) {
    for place in (0..n).rev() {
        let digit = (u32::from(number.unsigned_abs()) / 10_u32.pow(place)) % 10;
        line.push(char::from_digit(digit, 10).unwrap_or('0'));
    }
}

fn utc(time: Millis) -> DateTime {
    let epoch = date(1970, 1, 1).at(0, 0, 0, 0);
    // Parsing has refused every time that is out of range.
    epoch.checked_add(SignedDuration::from_millis(time)).unwrap_or(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use proptest::prelude::*;

    fn written(time: Millis, style: Style) -> String {
        let mut line = String::new();
        write(time, style, &mut line);
        line
    }

    #[test]
    fn the_last_millisecond_before_the_year_10000_has_its_time() {
        assert_eq!(written(253_402_300_799_999, Style::Rfc5424), "9999-12-31T23:59:59.999Z");
        assert_eq!(written(0, Style::SpacePadded), "Jan  1 00:00:00");
    }

    proptest! {
        #[test]
        fn times_are_those_of_the_library(time in 0..253_402_207_200_000_i64) {
            let instant = Timestamp::from_millisecond(time).unwrap();
            for (style, format) in [
                (Style::Rfc5424, "%Y-%m-%dT%H:%M:%S.%3fZ"),
                (Style::ZeroPadded, "%b %d %H:%M:%S"),
                (Style::ZeroPaddedWithYear, "%b %d %Y %H:%M:%S"),
                (Style::SpacePadded, "%b %e %H:%M:%S"),
            ] {
                prop_assert_eq!(written(time, style), instant.strftime(format).to_string());
            }
        }
    }
}
