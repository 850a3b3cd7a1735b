//! Times of Graph in ticks of 100 ns since 1970: read from ISO 8601, printed with as many fraction digits as wanted. Pure.

use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;

const EPOCH: DateTime = jiff::civil::datetime(1970, 1, 1, 0, 0, 0, 0);
/// Ticks of a millisecond.
pub(crate) const MILLISECOND: i64 = 10_000;
/// Ticks of a second.
pub(crate) const SECOND: i64 = 10_000_000;
/// Ticks of a day.
pub(crate) const DAY: i64 = 86_400 * SECOND;

/// Which parts of a time may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Date, time and offset are there.
    Whole,
    /// The time and the offset may be missing: midnight, and UTC.
    Loose,
}

/// Reads a time; digits beyond 100 ns are cut.
pub(crate) fn parse(text: &str, form: Form) -> Option<i64> {
    let pieces = Pieces::parse(text.trim()).ok()?;
    let (time, offset) = match form {
        Form::Whole => (pieces.time()?, pieces.to_numeric_offset()?.seconds()),
        Form::Loose => (
            pieces.time().unwrap_or_else(jiff::civil::Time::midnight),
            pieces.to_numeric_offset().map_or(0, jiff::tz::Offset::seconds),
        ),
    };
    let local = pieces.date().to_datetime(time);
    let since =
        local.duration_since(EPOCH).checked_sub(SignedDuration::from_secs(offset.into()))?;
    i64::try_from(since.as_nanos().div_euclid(100)).ok()
}

/// A time in UTC with this many fraction digits, 7 at most; what lies beyond them is cut.
pub(crate) fn print(ticks: i64, n_digits: usize) -> String {
    let seconds = ticks.div_euclid(SECOND);
    let fraction = format!("{:07}", ticks.rem_euclid(SECOND));
    let fraction = fraction.get(..n_digits.min(7)).unwrap_or_default();
    let point = if fraction.is_empty() { "" } else { "." };
    let time = EPOCH.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(EPOCH);
    format!("{}{point}{fraction}Z", time.strftime("%Y-%m-%dT%H:%M:%S"))
}

/// The fewest fraction digits that show the whole time.
pub(crate) fn n_digits(ticks: i64) -> usize {
    format!("{:07}", ticks.rem_euclid(SECOND)).trim_end_matches('0').len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_seven_digits() {
        let ticks = parse("2026-11-01T10:00:00.1234567Z", Form::Whole).unwrap();
        assert_eq!(print(ticks, 7), "2026-11-01T10:00:00.1234567Z");
        assert_eq!(print(ticks, 0), "2026-11-01T10:00:00Z");
        assert_eq!(n_digits(ticks), 7);
        assert_eq!(parse("2026-11-01T11:00:00.12345679+01:00", Form::Whole), Some(ticks));
        assert_eq!(parse("2026-11-01", Form::Whole), None);
        let midnight = parse("2026-11-01", Form::Loose).unwrap();
        assert_eq!((print(midnight, 1), n_digits(midnight)), ("2026-11-01T00:00:00.0Z".into(), 0));
        assert_eq!(parse("yesterday", Form::Loose), None);
    }
}
