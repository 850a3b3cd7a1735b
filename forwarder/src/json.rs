//! JSON as servers write it: picks the fields that matter out of an object. Pure.
//!
//! Such JSON is loose: `null`, `"null"` and absence mean the same, numbers come as text and text as numbers, and a field
//! may hold anything at any depth. So fields are picked by name and kept as raw JSON; everything else is
//! skipped without being built. Of keys that come twice the last one counts; keys that differ in case are different.

pub(crate) mod object;

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::format::cef::escape::is_nothing;

/// The fields of a JSON object with these names. `None` when the text is no object.
pub fn pick<'a, const N: usize>(
    json: &'a str,
    names: [&str; N],
) -> Option<[Option<&'a RawValue>; N]> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let picked = deserializer.deserialize_map(Picker { names }).ok()?;
    deserializer.end().ok()?;
    Some(picked)
}

/// The elements of a JSON array; none when it is something else.
pub fn elements(json: Option<&RawValue>) -> Vec<&RawValue> {
    let Some(json) = json else { return Vec::new() };
    let mut deserializer = serde_json::Deserializer::from_str(json.get());
    deserializer.deserialize_seq(Elements).unwrap_or_default()
}

/// A text or a number, as text. `None` for `null`, `"null"`, text that nothing would be written of, and anything else.
pub fn text(json: Option<&RawValue>) -> Option<String> {
    let json = json?.get();
    let text = match json.as_bytes().first()? {
        // What holds no escape is its own text.
        b'"' if !json.contains('\\') => json.get(1..json.len() - 1)?.to_owned(),
        b'"' => match serde_json::from_str::<Cow<'_, str>>(json) {
            Ok(text) => text.into_owned(),
            Err(_lone_surrogate) => serde_json::from_str(&repair(json.as_bytes())).ok()?,
        },
        b'-' | b'0'..=b'9' => json.to_owned(),
        _ => return None,
    };
    (text != "null" && !text.chars().all(is_nothing)).then_some(text)
}

/// Makes valid JSON text of bytes that are only nearly so: invalid UTF-8 and lone surrogates become U+FFFD, numbers that
/// JSON does not have (`NaN`, `-Infinity`) become `null`, and numbers beyond all measure texts.
pub fn repair(json: &[u8]) -> String {
    let text = String::from_utf8_lossy(json);
    let mut repaired = String::with_capacity(text.len());
    let mut rest = text.as_ref();
    let mut in_string = false;
    while let Some(at) = rest.find(|char: char| {
        char == '"'
            || if in_string {
                char == '\\'
            } else {
                matches!(char, '-' | '+') || char.is_ascii_alphanumeric()
            }
    }) {
        let (before, special) = rest.split_at(at);
        repaired.push_str(before);
        let (replacement, n_bytes) = match special.as_bytes().first() {
            Some(b'"') => {
                in_string = !in_string;
                (None, 1)
            }
            Some(b'\\') => escape(special),
            _ => word(special),
        };
        let (as_it_is, after) = special.split_at_checked(n_bytes).unwrap_or((special, ""));
        repaired.push_str(replacement.as_deref().unwrap_or(as_it_is));
        rest = after;
    }
    repaired.push_str(rest);
    repaired
}

/// An escape, and what stands in its place where it is half of a character.
fn escape(text: &str) -> (Option<Cow<'static, str>>, usize) {
    match (unit(text), text.get(6..).and_then(unit)) {
        (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => (None, 12),
        (Some(0xD800..=0xDFFF), _) => (Some("\u{FFFD}".into()), 6),
        // A backslash and what it escapes.
        _ => (None, 1 + text.chars().nth(1).map_or(0, char::len_utf8)),
    }
}

/// A word or number outside of a text, and what stands in its place where it is a number that JSON does not have, or one
/// that is beyond what a reader of numbers takes.
fn word(text: &str) -> (Option<Cow<'static, str>>, usize) {
    let belongs = |char: char| char.is_ascii_alphanumeric() || "+-._".contains(char);
    let end = text.find(|char| !belongs(char)).unwrap_or(text.len());
    let word = text.get(..end).unwrap_or_default();
    let unsigned = word.trim_start_matches(['-', '+']);
    let is_no_number =
        ["NaN", "Infinity", "Inf"].iter().any(|name| unsigned.eq_ignore_ascii_case(name));
    let replacement = match word.parse::<f64>() {
        _ if is_no_number => Some("null".into()),
        Ok(number) if number.is_infinite() => Some(format!("\"{word}\"").into()),
        Ok(_) | Err(_) => None,
    };
    (replacement, end)
}

/// The code unit of a `\uXXXX` escape.
fn unit(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok()
}

struct Picker<'n, const N: usize> {
    names: [&'n str; N],
}

impl<'de, const N: usize> Visitor<'de> for Picker<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut picked = [None; N];
        while let Some(key) = map.next_key::<Key<'de>>()? {
            match self
                .names
                .iter()
                .position(|name| *name == key.0)
                .and_then(|index| picked.get_mut(index))
            {
                Some(slot) => *slot = Some(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(picked)
    }
}

/// A key, borrowed where it holds no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Key<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct Elements;

impl<'de> Visitor<'de> for Elements {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = sequence.next_element()? {
            elements.push(element);
        }
        Ok(elements)
    }
}
