//! Where a row stands in its table: when it was ingested, and its id among those of the same instant. Pure.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::json::text;
use crate::source::parse::{MAX_ID_BYTES, object};
use crate::source::xdr;
use crate::time::Millis;

/// Ticks of 100 ns in a millisecond: what a `datetime` of KQL counts.
pub(super) const TICKS: i64 = 10_000;

/// A place in a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Key {
    /// When the row was ingested, in ticks since the epoch.
    pub(super) ticks: i64,
    /// `ReportId`; absent: behind all rows of the instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
}

impl Key {
    /// Behind everything that was ingested up to and including this millisecond.
    pub(super) fn after(millis: Millis) -> Self {
        Self { ticks: millis.saturating_mul(TICKS).saturating_add(TICKS - 1), id: None }
    }

    /// Before everything that was ingested in this millisecond or later.
    pub(super) fn before(millis: Millis) -> Self {
        Self { ticks: millis.saturating_mul(TICKS).saturating_sub(1), id: None }
    }

    /// The millisecond, cut.
    pub(super) fn millis(&self) -> Millis {
        self.ticks.div_euclid(TICKS)
    }

    /// What is certainly passed once this row is: others of its instant that have no id either may follow it.
    pub(super) fn passed(&self) -> Self {
        match &self.id {
            Some(id) if id.is_empty() => Self { ticks: self.ticks - 1, id: None },
            Some(_) | None => self.clone(),
        }
    }

    /// Whether it lies behind another; what is behind all rows of an instant is behind each of them.
    pub(super) fn is_behind(&self, other: &Self) -> bool {
        match self.ticks.cmp(&other.ticks) {
            std::cmp::Ordering::Equal => match (&self.id, &other.id) {
                (None, other) => other.is_some(),
                (Some(_), None) => false,
                (Some(one), Some(two)) => one > two,
            },
            order => order.is_gt(),
        }
    }
}

/// A time as KQL writes it.
pub(super) fn datetime(ticks: i64) -> String {
    let (seconds, fraction) = (ticks.div_euclid(TICKS * 1_000), ticks.rem_euclid(TICKS * 1_000));
    let second = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    format!("datetime({}.{fraction:07}Z)", second.strftime("%FT%T"))
}

/// What our own queries add to a row.
#[derive(Deserialize)]
struct Added<'a> {
    #[serde(rename = "IngestionTime", borrow, default)]
    ingested: Option<&'a RawValue>,
    #[serde(rename = "ReportId", borrow, default)]
    id: Option<&'a RawValue>,
}

/// The place of a row, where it says one.
pub(super) fn of(json: &[u8]) -> Option<Key> {
    let added: Added<'_> = object(std::str::from_utf8(json).ok()?).ok()?;
    let ticks = xdr::ticks(added.ingested)?;
    let mut id = text(added.id).unwrap_or_default();
    // What is no id of an event is no part of a question either; its beginning places it.
    id.truncate(id.floor_char_boundary(MAX_ID_BYTES));
    Some(Key { ticks, id: Some(id) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_where_it_stands() {
        let key = of(br#"{"IngestionTime": "2026-10-03T11:30:02.4866667Z", "ReportId": "b"}"#);
        let key = key.unwrap();
        assert_eq!(datetime(key.ticks), "datetime(2026-10-03T11:30:02.4866667Z)");
        assert_eq!((key.millis(), key.id.as_deref()), (1_791_027_002_486, Some("b")));
        assert_eq!(of(br#"{"IngestionTime": null}"#), None);
        assert_eq!(of(br#"{"IngestionTime": "2026-10-03T11:30:02Z"}"#).unwrap().id.unwrap(), "");
    }

    #[test]
    fn behind_is_by_time_and_then_by_id() {
        let key = |ticks, id: Option<&str>| Key { ticks, id: id.map(str::to_owned) };
        for (one, two) in [
            (key(2, Some("a")), key(1, None)),
            (key(1, None), key(1, Some("z"))),
            (key(1, Some("b")), key(1, Some("a"))),
            (Key::after(5), key(5 * TICKS + 9_999, Some("z"))),
            (key(5 * TICKS, Some("")), Key::before(5)),
        ] {
            assert!(one.is_behind(&two) && !two.is_behind(&one), "{one:?} {two:?}");
        }
        assert!(!key(1, None).is_behind(&key(1, None)));
    }
}
