//! A tenant's records as Microsoft Graph gives them: made from the portal's own, so that both have the same ids and times.
//! Pure.
//!
//! What the portal gives a record does not say is drawn from the record's own text: asked twice, it is the same.

mod alert;
mod row;

use std::cell::OnceCell;

use serde_json::Value;

use super::draw::Draw;
use super::ticks::{self, MILLISECOND};

pub(super) use alert::Alert;
pub(super) use row::{CLOUD_APP_EVENTS, Delay, Entry, IDENTITY_LOGON_EVENTS};

/// Stands for a lone surrogate, which no text of ours can hold.
const SURROGATE: char = '\u{F8FF}';

/// What a record is at Graph, made when it is first asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Derived {
    alerts: OnceCell<Vec<Alert>>,
    rows: OnceCell<Vec<Entry>>,
}

impl Derived {
    /// The alert, and one of another product by turns.
    pub(super) fn alerts(&self, json: &str, listed: i64) -> &[Alert] {
        self.alerts.get_or_init(|| alert::make(json, listed))
    }

    /// The row, and one that is no activity of this product by turns.
    pub(super) fn rows(&self, json: &str, times: Delay) -> &[Entry] {
        self.rows.get_or_init(|| row::make(json, times))
    }
}

/// A record's JSON; `null` where it is nothing that anybody can read.
fn read(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_else(|_python| {
        let known = ["-Infinity", "Infinity", "NaN"]
            .iter()
            .fold(json.to_owned(), |json, number| json.replace(number, "null"));
        let readable = known.replace("\\ud800", &SURROGATE.to_string());
        serde_json::from_str(&readable).unwrap_or_default()
    })
}

/// JSON as it is sent: lone surrogates are back.
pub(super) fn print(json: &Value) -> String {
    json.to_string().replace(SURROGATE, "\\ud800")
}

/// What is drawn for a record.
fn draw(json: &str) -> Draw {
    let hash = json.as_bytes().chunks(8).fold(0xCBF2_9CE4_8422_2325_u64, |hash, chunk| {
        let number = chunk.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        (hash.rotate_left(29) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    });
    Draw::new(hash)
}

/// A time of this millisecond, in ticks and with 0 to 7 fraction digits.
fn time(millis: i64, draw: &mut Draw) -> (i64, String) {
    let n_digits = draw.below(8);
    let whole = millis * MILLISECOND;
    let beyond = if n_digits > 3 {
        let step = 10_i64.pow(u32::try_from(7 - n_digits).unwrap_or(0));
        i64::try_from(draw.below(10_000)).unwrap_or(0) / step * step
    } else {
        0
    };
    let at = whole + beyond;
    (at, ticks::print(at, n_digits.max(ticks::n_digits(at))))
}

/// A record's text at a JSON pointer; the portal writes `null` for some that it does not know.
fn text<'a>(record: &'a Value, pointer: &str) -> Option<&'a str> {
    record.pointer(pointer)?.as_str().filter(|text| !text.is_empty() && *text != "null")
}
