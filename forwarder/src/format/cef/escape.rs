//! The only place that escapes. No value, whatever it holds, can forge a field, a pipe or a second line. Pure.
//!
//! Control characters other than CR and LF become a space, characters that change the direction of text vanish, and
//! white space at both ends is dropped; then in the header a line break becomes one space and `\` and `|` are escaped;
//! in the extension `\`, `=`, LF and CR are. Pure.

use std::borrow::Cow;

use siem_agent_crds::printable::is_direction;

/// Control characters that no line may hold and no escape exists for.
fn is_blanked(char: char) -> bool {
    (char.is_control() || matches!(char, '\u{2028}' | '\u{2029}')) && char != '\r' && char != '\n'
}

fn is_forbidden(char: char) -> bool {
    is_blanked(char) || is_direction(char)
}

/// Whether a value of such characters alone is written as nothing.
pub fn is_nothing(char: char) -> bool {
    char.is_whitespace() || is_forbidden(char)
}

/// A byte that may begin a forbidden character: an ASCII control character, or the lead of one of the others.
fn is_suspect(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\r' && byte != b'\n') || matches!(byte, 0x7F | 0xC2 | 0xD8 | 0xE2)
}

fn is_escaped(byte: u8) -> bool {
    matches!(byte, b'\\' | b'=' | b'\n' | b'\r')
}

/// Looks at whole blocks without a branch in between, so that the compiler can compare many bytes at once.
fn has(text: &str, is_wanted: fn(u8) -> bool) -> bool {
    let found = |block: &[u8]| block.iter().fold(false, |found, byte| found | is_wanted(*byte));
    text.as_bytes().chunks(32).any(found)
}

/// The value without control characters, without those that change its direction, and without white space at its ends.
pub fn sanitized(value: &str) -> Cow<'_, str> {
    if has(value, is_suspect) && value.contains(is_forbidden) {
        let clean: String = value
            .chars()
            .filter(|char| !is_direction(*char))
            .map(|char| if is_blanked(char) { ' ' } else { char })
            .collect();
        Cow::Owned(clean.trim().to_owned())
    } else {
        Cow::Borrowed(value.trim())
    }
}

/// Appends a value of the header.
pub fn header(value: &str, line: &mut String) {
    let value = sanitized(value);
    if !has(&value, |byte| matches!(byte, b'\\' | b'|' | b'\n' | b'\r')) {
        line.push_str(&value);
        return;
    }
    let mut chars = value.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\r' => {
                chars.next_if_eq(&'\n');
                line.push(' ');
            }
            '\n' => line.push(' '),
            '\\' | '|' => line.extend(['\\', char]),
            _ => line.push(char),
        }
    }
}

/// Appends a value of the extension.
pub fn value(value: &str, line: &mut String) {
    if !has(value, |byte| is_suspect(byte) || is_escaped(byte)) {
        line.push_str(value.trim());
        return;
    }
    let value = sanitized(value);
    let mut rest = value.as_ref();
    while let Some(at) = rest.bytes().position(is_escaped) {
        let (clean, special) = rest.split_at(at);
        line.push_str(clean);
        line.push_str(match special.as_bytes().first() {
            Some(b'\\') => "\\\\",
            Some(b'=') => "\\=",
            Some(b'\n') => "\\n",
            _ => "\\r",
        });
        rest = special.get(1..).unwrap_or_default();
    }
    line.push_str(rest);
}

/// How many bytes a character of a sanitized value of the extension takes, escaped.
pub fn escaped_len(char: char) -> usize {
    if matches!(char, '\\' | '=' | '\n' | '\r') { 2 } else { char.len_utf8() }
}

/// How many bytes a character of a sanitized value of the header takes, escaped.
pub fn header_escaped_len(char: char) -> usize {
    if matches!(char, '\\' | '|') { 2 } else { char.len_utf8() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unescape(text: &str) -> String {
        let mut chars = text.chars();
        let mut out = String::new();
        while let Some(char) = chars.next() {
            match char {
                '\\' => match chars.next().expect("an escape has a second half") {
                    'n' => out.push('\n'),
                    'r' => out.push('\r'),
                    other => out.push(other),
                },
                _ => out.push(char),
            }
        }
        out
    }

    #[test]
    fn controls_become_blanks_and_directions_vanish() {
        for (text, written) in [
            ("a\u{80}b\u{85}c\u{9B}d\u{9F}e\u{7F}f", "a b c d e f"),
            ("txt.\u{202E}exe\u{202C}", "txt.exe"),
            ("\u{200F} \u{61C}a\u{2066}b\u{2069} \u{200E}", "ab"),
            (
                "\u{61B}\u{61D} é\u{A0}x \u{200B}\u{200D}\u{2010}\u{2065}",
                "\u{61B}\u{61D} é\u{A0}x \u{200B}\u{200D}\u{2010}\u{2065}",
            ),
            ("\u{200E}\u{9C}\u{202E}", ""),
        ] {
            let mut line = String::new();
            value(text, &mut line);
            assert_eq!(line, written);
            line.clear();
            header(text, &mut line);
            assert_eq!(line, written);
            assert_eq!(text.chars().all(is_nothing), written.is_empty());
        }
    }

    /// Looks for bytes before it looks at characters: none may be missed.
    #[test]
    fn every_character_that_is_forbidden_is_suspected() {
        for char in (0..=0x10_FFFF).filter_map(char::from_u32).filter(|char| is_forbidden(*char)) {
            assert!(has(&char.to_string(), is_suspect), "{char:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_escaped_is_one_line_and_comes_back(text in any::<String>()) {
            let mut line = String::new();
            value(&text, &mut line);
            let forged = line.contains(['\n', '\r', '\0', '\u{85}', '\u{2028}', '\u{2029}']);
            prop_assert!(!forged);
            prop_assert_eq!(unescape(&line), sanitized(&text));
            prop_assert_eq!(line.len(), sanitized(&text).chars().map(escaped_len).sum::<usize>());
        }

        #[test]
        fn a_header_value_never_ends_its_field(text in "[a|\\\\\r\n=]{0,20}") {
            let mut line = String::new();
            header(&text, &mut line);
            let unescaped_pipe = line.replace("\\\\", "").replace("\\|", "").contains('|');
            prop_assert!(!unescaped_pipe && !line.contains(['\n', '\r']));
        }
    }
}
