//! Records of Microsoft Defender XDR, whoever delivers them: the alerts of Microsoft Graph, and the rows of the hunting
//! tables that hold activities, which hunting and Event Hubs have in common. Pure: it asks nobody for anything.

mod alert;
mod fields;
mod row;

use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;

use crate::json::object::Raw;
use crate::json::text;
use crate::source::parse::YEAR_10000;
use crate::time::Millis;

pub use alert::alert;
pub use row::{Table, row};

const EPOCH: DateTime = jiff::civil::datetime(1970, 1, 1, 0, 0, 0, 0);

/// A time in ISO 8601 with `Z` or an offset: its milliseconds, cut, from 1970 to before the year 10000.
fn time(json: Raw<'_>) -> Option<Millis> {
    let millis = Millis::try_from(since_epoch(json)?.as_millis()).ok()?;
    (millis < YEAR_10000).then_some(millis)
}

/// The same in units of 100 ns, which are all that Kusto knows.
pub(super) fn ticks(json: Raw<'_>) -> Option<i64> {
    i64::try_from(since_epoch(json)?.as_nanos() / 100).ok()
}

fn since_epoch(json: Raw<'_>) -> Option<SignedDuration> {
    if !json?.get().starts_with('"') {
        return None;
    }
    let text = text(json)?;
    // A time of the last day of 9999, which is how .NET writes that there is no end, is beyond `jiff::Timestamp`.
    let pieces = Pieces::parse(text.trim()).ok()?;
    let offset = SignedDuration::from_secs(pieces.to_numeric_offset()?.seconds().into());
    let local = pieces.date().to_datetime(pieces.time()?);
    let since = local.duration_since(EPOCH).checked_sub(offset)?;
    (!since.is_negative()).then_some(since)
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::time;

    #[test]
    fn a_time_is_iso_8601_cut_to_milliseconds() {
        for (json, millis) in [
            ("\"2026-10-03T11:30:02.4866667Z\"", Some(1_791_027_002_486)),
            ("\"2026-10-03T11:30:02.9999999Z\"", Some(1_791_027_002_999)),
            ("\"2026-10-03T11:30:02Z\"", Some(1_791_027_002_000)),
            ("\"2026-10-03T13:30:02.5+02:00\"", Some(1_791_027_002_500)),
            ("\" 2026-10-03T11:30:02Z \"", Some(1_791_027_002_000)),
            ("\"1970-01-01T00:00:00Z\"", Some(0)),
            ("\"9999-12-31T23:59:59.9999999Z\"", Some(253_402_300_799_999)),
            ("\"9999-12-31T23:59:59.9999999-00:01\"", None),
            ("\"0001-01-01T00:00:00Z\"", None),
            ("\"1969-12-31T23:59:59.9999999Z\"", None),
            ("\"2026-10-03T11:30:02\"", None),
            ("\"2026-10-03\"", None),
            ("\"yesterday\"", None),
            ("\"\"", None),
            ("null", None),
            ("1791027002486", None),
            ("{}", None),
        ] {
            let raw: &RawValue = serde_json::from_str(json).unwrap();
            assert_eq!(time(Some(raw)), millis, "{json}");
        }
        assert_eq!(time(None), None);
    }
}
