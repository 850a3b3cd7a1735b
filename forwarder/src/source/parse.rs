//! From one record's JSON to what a source makes of it: what the parsers of all sources share. Pure.
//!
//! A field of an unexpected kind counts as absent; it never costs the record, and a bad record never costs its
//! neighbours. Of keys that come twice the last one counts, nothing is too deep and no number is too large.

use serde_json::value::RawValue;

use crate::json::repair;
use crate::reject::RejectReason;
use crate::time::Millis;

/// The first millisecond of the year 10000, which no time format of ours can write.
pub(super) const YEAR_10000: Millis = 253_402_300_800_000;
/// An identifier is never shortened; this is what the longest field of CEF holds of one.
pub(crate) const MAX_ID_BYTES: usize = 4_000;

/// A record that cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reject {
    /// What kind of trouble.
    pub reason: RejectReason,
}

/// Reads one record. Bytes that are nearly JSON get a second chance.
pub(super) fn record<T>(
    json: &[u8],
    read: impl Fn(&str) -> Result<T, RejectReason>,
) -> Result<T, Reject> {
    let first = match std::str::from_utf8(json) {
        Ok(json) => read(json),
        Err(_utf8) => Err(RejectReason::Malformed),
    };
    let outcome = match first {
        Err(RejectReason::Malformed) => read(&repair(json)),
        Err(_) | Ok(_) => first,
    };
    outcome.map_err(|reason| Reject { reason })
}

/// The fields of a record.
pub(super) fn object<'a, T: serde::Deserialize<'a>>(json: &'a str) -> Result<T, RejectReason> {
    if !json.trim_ascii_start().starts_with('{') {
        return Err(trouble(json));
    }
    serde_json::from_str(json).map_err(|_no_json| RejectReason::Malformed)
}

/// An identifier that a field of CEF can hold.
pub(super) fn identifier(id: Option<String>) -> Result<String, RejectReason> {
    let id = id.ok_or(RejectReason::MissingId)?;
    if id.len() > MAX_ID_BYTES { Err(RejectReason::TooLarge) } else { Ok(id) }
}

fn trouble(json: &str) -> RejectReason {
    match serde_json::from_str::<&RawValue>(json) {
        Ok(value) if !value.get().starts_with('{') => RejectReason::NotAnObject,
        Ok(_) | Err(_) => RejectReason::Malformed,
    }
}
