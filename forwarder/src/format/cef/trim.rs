//! Shortens a record that is too long, field by field, so that no character and no escape is cut. Pure.
//!
//! Free text goes first, then names and lists; what was shortened ends in `...`. Where not even that is enough, whole
//! pairs are left out. The identifier of the event, its times and its addresses are never touched. Pure.

use std::borrow::Cow;

use super::escape::{escaped_len, header_escaped_len, sanitized};
use super::{Field, Record};

/// In the order in which they are shortened.
const FREE_TEXT: [&str; 3] = ["msg", "cs3", "requestClientApplication"];
/// Shortened after the name, when all the free text has given way.
const LAST_RESORT: [&str; 6] = ["suser", "destinationServiceName", "cs2", "cs4", "cs1", "cn1"];
/// Left out with their labels, the empty ones of the record first.
const LEFT_OUT: [&str; 9] = [
    "cn1",
    "cs4",
    "cs2",
    "destinationServiceName",
    "requestClientApplication",
    "cs3",
    "cs1",
    "suser",
    "msg",
];
const MARK: &str = "...";

/// Takes at least `excess` bytes off the record's line, as far as there is something to take; whether there was any.
pub(crate) fn shorten(record: &mut Record<'_>, excess: usize) -> bool {
    let before = excess;
    let mut excess = excess;
    for key in FREE_TEXT {
        shorten_field(record, key, &mut excess);
    }
    if excess > 0 {
        record.name = shortened_header(&record.name, &mut excess).into();
    }
    for key in LAST_RESORT {
        shorten_field(record, key, &mut excess);
    }
    if excess > 0 {
        record.signature = shortened_header(&record.signature, &mut excess).into();
    }
    let empty = record.extension.iter().filter(|field| sanitized(&field.value).is_empty());
    let empty: Vec<&'static str> = empty.map(|field| field.key).collect();
    for key in empty.into_iter().chain(LEFT_OUT) {
        leave_out(record, key, &mut excess);
    }
    excess < before
}

fn shorten_field(record: &mut Record<'_>, key: &str, excess: &mut usize) {
    if *excess > 0
        && let Some(field) = record.extension.iter_mut().find(|field| field.key == key)
    {
        field.value = Cow::Owned(shortened(&field.value, excess, escaped_len));
    }
}

/// A line break is one space in the header, however it is made.
fn shortened_header(value: &str, excess: &mut usize) -> String {
    shortened(&value.replace("\r\n", " "), excess, header_escaped_len)
}

/// The value, shorter by `excess` escaped bytes or down to the mark; `excess` is what is still to take elsewhere.
fn shortened(value: &str, excess: &mut usize, length: fn(char) -> usize) -> String {
    let value = sanitized(value);
    let whole: usize = value.chars().map(length).sum();
    if whole <= MARK.len() {
        return value.into_owned();
    }
    let room = whole.saturating_sub(*excess).saturating_sub(MARK.len());
    let mut used = 0;
    let fits = |char: &char| {
        used += length(*char);
        used <= room
    };
    let kept: String = value.chars().take_while(fits).collect();
    let kept = kept.trim_end();
    let left: usize = kept.chars().map(length).sum::<usize>() + MARK.len();
    *excess = excess.saturating_sub(whole.saturating_sub(left));
    format!("{kept}{MARK}")
}

/// Takes a pair and its label out of the record.
fn leave_out(record: &mut Record<'_>, key: &str, excess: &mut usize) {
    if *excess == 0 {
        return;
    }
    record.extension.retain(|field| {
        let goes = field.key == key || field.key.strip_suffix("Label") == Some(key);
        if goes {
            *excess = excess.saturating_sub(length(field));
        }
        !goes
    });
}

/// How many bytes a pair takes on the line, with its equals sign and the space before it.
fn length(field: &Field<'_>) -> usize {
    field.key.len() + sanitized(&field.value).chars().map(escaped_len).sum::<usize>() + 2
}
