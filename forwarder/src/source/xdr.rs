//! Records of Microsoft Defender XDR, whoever delivers them: the alerts of Microsoft Graph, and the rows of the hunting
//! tables that hold activities, which hunting and Event Hubs have in common. Pure: it asks nobody for anything.

mod alert;
mod fields;
mod row;

use jiff::Timestamp;

use crate::json::object::Raw;
use crate::json::text;
use crate::time::Millis;

pub use alert::alert;
pub use row::{Table, row};

/// A time in ISO 8601 with `Z` or an offset: its milliseconds, cut. None before 1970.
fn time(json: Raw<'_>) -> Option<Millis> {
    if !json?.get().starts_with('"') {
        return None;
    }
    let time: Timestamp = text(json)?.trim().parse().ok()?;
    (time >= Timestamp::UNIX_EPOCH).then(|| time.as_millisecond())
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
