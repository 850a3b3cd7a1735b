//! The only place that escapes. No value, whatever it holds, can forge a field, a pipe or a second line.
//!
//! Control characters other than CR and LF become a space, and white space at both ends is dropped; then in the header
//! a line break becomes one space and `\` and `|` are escaped; in the extension `\`, `=`, LF and CR are.

use std::borrow::Cow;

/// Characters that no line may hold and no escape exists for.
fn is_forbidden(char: char) -> bool {
    matches!(char, '\0'..='\u{1F}' | '\u{7F}' | '\u{85}' | '\u{2028}' | '\u{2029}')
        && char != '\r'
        && char != '\n'
}

/// A byte that may begin a forbidden character: an ASCII control character, or the lead of one of the others.
fn is_suspect(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\r' && byte != b'\n') || matches!(byte, 0x7F | 0xC2 | 0xE2)
}

fn is_escaped(byte: u8) -> bool {
    matches!(byte, b'\\' | b'=' | b'\n' | b'\r')
}

/// Looks at whole blocks without a branch in between, so that the compiler can compare many bytes at once.
fn has(text: &str, is_wanted: fn(u8) -> bool) -> bool {
    let found = |block: &[u8]| block.iter().fold(false, |found, byte| found | is_wanted(*byte));
    text.as_bytes().chunks(32).any(found)
}

/// The value without control characters and without white space at its ends.
pub fn sanitized(value: &str) -> Cow<'_, str> {
    if has(value, is_suspect) && value.contains(is_forbidden) {
        let spaced: String =
            value.chars().map(|char| if is_forbidden(char) { ' ' } else { char }).collect();
        Cow::Owned(spaced.trim().to_owned())
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
