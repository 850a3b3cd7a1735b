//! The dialect that follows the CEF standard to the letter: lengths in bytes, no empty values, no stray quotes. Pure.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use sha2::{Digest as _, Sha256};

use super::escape::sanitized;
use super::{Field, Record};

/// A label that the vendor's agent writes with quotes around it.
const QUOTED_LABEL: &str = "c6a1Label";
const EXTERNAL_ID: usize = 40;
/// The longest SIGNATURE.
pub const SIGNATURE: usize = 1_023;
/// The longest NAME.
pub const NAME: usize = 512;
/// The longest VERSION.
pub const VERSION: usize = 31;

/// The record as the standard wants it.
pub fn record(record: Record<'_>) -> Record<'_> {
    let Record { version, signature, name, severity, extension } = record;
    let mut strict: Vec<Field<'_>> = Vec::with_capacity(extension.len() + 2);
    let mut event_id = None;
    for Field { key, value } in extension {
        let value = if key == QUOTED_LABEL { unquoted(value) } else { value };
        if key == "externalId" && sanitized(&value).len() > EXTERNAL_ID {
            strict.push(Field::new("externalId", digest(&value)));
            event_id = Some(value);
            continue;
        }
        let value = cut(value, max_bytes(key));
        if value.is_empty() || !is_of_type(key, &value) {
            // The label stands before its value; it goes with it.
            if strict.last().is_some_and(|label| label.key.strip_suffix("Label") == Some(key)) {
                strict.pop();
            }
            continue;
        }
        strict.push(Field::new(key, value));
    }
    if let Some(id) = event_id {
        let at = strict.iter().position(|field| field.key == "c6a1Label").unwrap_or(strict.len());
        strict.splice(
            at..at,
            [Field::new("cs5Label", "eventId"), Field::new("cs5", cut(id, max_bytes("cs5")))],
        );
    }
    Record {
        version: cut(version, VERSION),
        signature: cut(signature, SIGNATURE),
        name: cut(name, NAME),
        severity,
        extension: strict,
    }
}

/// The dictionary's lengths of values, bytes; times, numbers and addresses are short by their nature.
pub const LENGTHS: [(&str, usize); 10] = [
    ("externalId", EXTERNAL_ID),
    ("msg", 1_023),
    ("suser", 1_023),
    ("destinationServiceName", 1_023),
    ("requestClientApplication", 1_023),
    ("cs1", 4_000),
    ("cs2", 4_000),
    ("cs3", 4_000),
    ("cs4", 4_000),
    ("cs5", 4_000),
];

/// What a value of a key's type is.
#[derive(Debug, Clone, Copy)]
enum Type {
    Long,
    Ipv4,
    Ipv6,
}

/// The keys whose values are not any text; a time is a number of milliseconds here.
const TYPES: [(&str, Type); 7] = [
    ("rt", Type::Long),
    ("start", Type::Long),
    ("end", Type::Long),
    ("cn1", Type::Long),
    ("dvc", Type::Ipv4),
    ("src", Type::Ipv4),
    ("c6a1", Type::Ipv6),
];

fn is_of_type(key: &str, value: &str) -> bool {
    let value = value.trim();
    match TYPES.iter().find(|(own, _)| *own == key) {
        None => true,
        Some((_, Type::Long)) => !value.starts_with('+') && value.parse::<i64>().is_ok(),
        Some((_, Type::Ipv4)) => value.parse::<Ipv4Addr>().is_ok(),
        Some((_, Type::Ipv6)) => value.parse::<Ipv6Addr>().is_ok(),
    }
}

fn unquoted(value: Cow<'_, str>) -> Cow<'_, str> {
    match value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => Cow::Owned(inner.to_owned()),
        None => value,
    }
}

fn max_bytes(key: &str) -> usize {
    LENGTHS.iter().find(|(own, _)| *own == key).map_or(usize::MAX, |(_, length)| *length)
}

/// The first 40 hexadecimal digits of the SHA-256: the same id gives the same digest, always.
fn digest(id: &str) -> String {
    Sha256::digest(id).iter().take(EXTERNAL_ID / 2).map(|byte| format!("{byte:02x}")).collect()
}

fn cut(value: Cow<'_, str>, max: usize) -> Cow<'_, str> {
    let clean = sanitized(&value);
    if clean.len() == value.len() && value.len() <= max {
        return value;
    }
    let kept = clean.get(..clean.floor_char_boundary(max)).unwrap_or_default().trim_end();
    Cow::Owned(kept.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_another_type_than_its_key_is_left_out_with_its_label() {
        let kept = |key, label: Option<(&'static str, &'static str)>, value: &'static str| {
            let mut extension = vec![Field::new("externalId", "a")];
            extension.extend(label.map(|(key, text)| Field::new(key, text)));
            extension.push(Field::new(key, value));
            extension.push(Field::new("msg", "m"));
            let (version, signature, name) = ("0".into(), "S".into(), "N".into());
            let whole = Record { version, signature, name, severity: 0, extension };
            let keys: Vec<_> = record(whole).extension.iter().map(|field| field.key).collect();
            keys == ["externalId", "msg"]
        };
        let risk = Some(("cn1Label", "riskScore"));
        for (key, label, value, is_left_out) in [
            ("cn1", risk, "34", false),
            ("cn1", risk, "-34", false),
            ("cn1", risk, " 34 ", false),
            ("cn1", risk, "34.5", true),
            ("cn1", risk, "34.0", true),
            ("cn1", risk, "1e3", true),
            ("cn1", risk, "+34", true),
            ("cn1", risk, "n/a", true),
            ("cn1", risk, "123456789012345678901234567890", true),
            ("rt", None, "1677791402022", false),
            ("rt", None, "soon", true),
            ("start", None, "1.5", true),
            ("end", None, "", true),
            ("dvc", None, "192.0.2.1", false),
            ("dvc", None, "2001:db8::1", true),
            ("src", None, "host", true),
            ("c6a1", Some(("c6a1Label", "\"Device IPv6 Address\"")), "192.0.2.1", true),
            ("c6a1", Some(("c6a1Label", "\"Device IPv6 Address\"")), "2001:db8::1", false),
            ("suser", None, "n/a", false),
        ] {
            assert_eq!(kept(key, label, value), is_left_out, "{key}={value}");
        }
    }
}
