//! The dialect that follows the CEF standard to the letter: lengths in bytes, no empty values, no stray quotes.

use sha2::{Digest as _, Sha256};

use super::{IPV6_LABEL, field};
use crate::cef::escape::sanitized;
use crate::cef::{Field, Record};

const EXTERNAL_ID: usize = 40;
const SIGNATURE: usize = 1_023;
const NAME: usize = 512;
const VERSION: usize = 31;

pub(super) fn record(record: Record) -> Record {
    let Record { version, signature, name, severity, extension } = record;
    let mut strict: Vec<Field> = Vec::with_capacity(extension.len() + 2);
    let mut event_id = None;
    for Field { key, value } in extension {
        let value = if value == IPV6_LABEL { IPV6_LABEL.trim_matches('"').into() } else { value };
        if key == "externalId" && sanitized(&value).len() > EXTERNAL_ID {
            strict.push(field("externalId", digest(&value)));
            event_id = Some(value);
            continue;
        }
        let value = cut(&value, max_bytes(key));
        if value.is_empty() {
            // The label stands before its value; it goes with it.
            if strict.last().is_some_and(|label| label.key.strip_suffix("Label") == Some(key)) {
                strict.pop();
            }
            continue;
        }
        strict.push(field(key, value));
    }
    if let Some(id) = event_id {
        let at = strict.iter().position(|field| field.key == "c6a1Label").unwrap_or(strict.len());
        strict.splice(
            at..at,
            [field("cs5Label", "eventId"), field("cs5", cut(&id, max_bytes("cs5")))],
        );
    }
    Record {
        version: cut(&version, VERSION),
        signature: cut(&signature, SIGNATURE),
        name: cut(&name, NAME),
        severity,
        extension: strict,
    }
}

/// The dictionary's length of a key's value, bytes.
fn max_bytes(key: &str) -> usize {
    match key {
        "externalId" => EXTERNAL_ID,
        "cs1" | "cs2" | "cs3" | "cs4" | "cs5" | "cs6" => 4_000,
        "msg" | "suser" | "destinationServiceName" | "requestClientApplication" => 1_023,
        _ if key.ends_with("Label") => 1_023,
        // Times, numbers and addresses are short by their nature.
        _ => usize::MAX,
    }
}

/// The first 40 hexadecimal digits of the SHA-256: the same id gives the same digest, always.
fn digest(id: &str) -> String {
    Sha256::digest(id).iter().take(EXTERNAL_ID / 2).map(|byte| format!("{byte:02x}")).collect()
}

fn cut(value: &str, max: usize) -> String {
    let value = sanitized(value);
    value.get(..value.floor_char_boundary(max)).unwrap_or_default().trim_end().to_owned()
}
