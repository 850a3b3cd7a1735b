//! Shortens a record that is too long, field by field, so that no character and no escape is cut.
//!
//! Free text goes first, the longest kinds before the short ones; identifiers, times and addresses never. A value that
//! was shortened ends in `...`.

use std::borrow::Cow;

use crate::cef::Record;
use crate::cef::escape::{escaped_len, header_escaped_len, sanitized};

/// In the order in which they are shortened.
const FREE_TEXT: [&str; 3] = ["msg", "cs3", "requestClientApplication"];
/// Shortened after the name, when all the free text has given way.
const LAST_RESORT: [&str; 5] = ["suser", "destinationServiceName", "cs2", "cs4", "cs1"];
const MARK: &str = "...";

/// Takes at least `excess` bytes off the record's line, as far as there is something to take.
pub(super) fn shorten(record: &mut Record, excess: usize) {
    let mut excess = excess;
    for key in FREE_TEXT {
        shorten_field(record, key, &mut excess);
    }
    if excess > 0 {
        let name = record.name.replace("\r\n", " ");
        record.name = shortened(&name, &mut excess, header_escaped_len);
    }
    for key in LAST_RESORT {
        shorten_field(record, key, &mut excess);
    }
}

fn shorten_field(record: &mut Record, key: &str, excess: &mut usize) {
    if *excess > 0
        && let Some(field) = record.extension.iter_mut().find(|field| field.key == key)
    {
        field.value = Cow::Owned(shortened(&field.value, excess, escaped_len));
    }
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
