//! Text from outside as it is printed for people: in logs, reports, conditions, Events and on terminals. Pure.
//!
//! What a portal, a receiver, a certificate or a manifest says may try to look like something else: a second line, a
//! colour, a text that runs the other way. Nobody prints such a text but through [`printable`].

use std::borrow::Cow;
use std::fmt::Write as _;

/// The text on one line: control characters become a space, and an invisible character that changes how the others
/// look, or hides among them, becomes its number in the form `<U+202E>`.
pub fn printable(text: &str) -> Cow<'_, str> {
    let Some(at) = text.find(|char| is_control(char) || is_invisible(char)) else {
        return Cow::Borrowed(text);
    };
    let (clean, rest) = text.split_at(at);
    let mut printed = clean.to_owned();
    for char in rest.chars() {
        if is_control(char) {
            printed.push(' ');
        } else if is_invisible(char) {
            // A string takes whatever is written to it.
            let _ = write!(printed, "<U+{:04X}>", u32::from(char));
        } else {
            printed.push(char);
        }
    }
    Cow::Owned(printed)
}

/// Marks, embeddings, overrides and isolates of bidirectional text (Unicode Standard Annex 9).
pub fn is_direction(char: char) -> bool {
    matches!(char, '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// What ends a line, moves a cursor or rings a bell.
fn is_control(char: char) -> bool {
    char.is_control() || matches!(char, '\u{2028}' | '\u{2029}')
}

/// Format characters and letters without a shape. A variation selector is part of a visible sign and does not count.
fn is_invisible(char: char) -> bool {
    is_direction(char)
        || matches!(
            char,
            '\u{AD}' | '\u{34F}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180E}'
                | '\u{200B}'..='\u{200D}' | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FEFF}' | '\u{FFA0}'
                | '\u{FFF9}'..='\u{FFFB}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}'
                | '\u{E0000}'..='\u{E007F}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_one_line_that_looks_like_what_it_is() {
        for (text, printed) in [
            ("", ""),
            ("plain text, é, 日本, 🙂", "plain text, é, 日本, 🙂"),
            ("a\nFAKE level=INFO\r\nb\tc\0d\u{7F}", "a FAKE level=INFO  b c d "),
            ("\u{1B}[31mred\u{9B}0m\u{85}x\u{2028}y\u{2029}z", " [31mred 0m x y z"),
            ("txt.\u{202E}exe", "txt.<U+202E>exe"),
            (
                "\u{61C}\u{200E}\u{200F}\u{202A}\u{2066}\u{2069}",
                "<U+061C><U+200E><U+200F><U+202A><U+2066><U+2069>",
            ),
            ("ad\u{200D}min\u{FEFF}\u{E0041}", "ad<U+200D>min<U+FEFF><U+E0041>"),
        ] {
            assert_eq!(printable(text), printed);
        }
    }

    #[test]
    fn what_was_printed_once_stays_as_it_is() {
        for char in (0..=0x10_FFFF).filter_map(char::from_u32) {
            let text = char.to_string();
            let printed = printable(&text).into_owned();
            assert_eq!(printable(&printed), printed);
            assert!(!printed.chars().any(|char| is_control(char) || is_invisible(char)));
        }
    }
}
