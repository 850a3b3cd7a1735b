//! Whether a text that a server wrote repeats a secret of ours, or a part of one, in any usual encoding. Pure.
//!
//! The text is looked at as it is and as everything it could be an encoding of: percent-encoding, the escapes of JSON and
//! HTML, base64 of both alphabets from any of its characters on, hexadecimal and decimal lists of bytes, one within
//! another; without regard to case, to blanks in between and to direction.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};

/// So many bytes of a secret in a row are a part of it, and no chance.
const WINDOW: usize = 8;
const SHORTEST: usize = 4;
/// How often an encoding is looked for within another.
const MAX_DEPTH: usize = 3;
/// A server's text has few encodings in it; one that is made of them is not worth more.
const MAX_VIEWS: usize = 512;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);

/// Whether `text` repeats eight bytes in a row of any of the secrets, or all of a shorter one; what is shorter than four
/// bytes is no secret.
pub(in crate::source) fn repeats<'a>(text: &str, secrets: impl Iterator<Item = &'a str>) -> bool {
    let needles = Needles::of(secrets);
    if needles.0.is_empty() {
        return false;
    }
    let mut views = vec![(text.as_bytes().to_vec(), 0)];
    let mut seen = BTreeSet::new();
    while let Some((view, depth)) = views.pop() {
        if needles.are_in(&view) {
            return true;
        }
        // A text with more in it than anybody writes is not passed on either.
        if seen.len() > MAX_VIEWS {
            return true;
        }
        if depth < MAX_DEPTH && seen.insert(view.clone()) {
            views.extend(decoded(&view).into_iter().map(|view| (view, depth + 1)));
        }
    }
    false
}

/// What must not be found, in lower case: each window of each secret, forwards and backwards, and of its base64, which
/// nobody can decode once its case is lost.
struct Needles(BTreeSet<Vec<u8>>);

impl Needles {
    fn of<'a>(secrets: impl Iterator<Item = &'a str>) -> Self {
        let mut needles = BTreeSet::new();
        for secret in secrets.map(str::as_bytes).filter(|secret| secret.len() >= SHORTEST) {
            let forms = [plain(secret)].into_iter().chain(base64_forms(secret));
            for forwards in forms.filter(|form| form.len() >= SHORTEST) {
                let backwards: Vec<u8> = forwards.iter().rev().copied().collect();
                let length = WINDOW.min(forwards.len());
                needles.extend(forwards.windows(length).map(<[u8]>::to_vec));
                needles.extend(backwards.windows(length).map(<[u8]>::to_vec));
            }
        }
        Self(needles)
    }

    fn are_in(&self, view: &[u8]) -> bool {
        let view = plain(view);
        let lengths: BTreeSet<usize> = self.0.iter().map(Vec::len).collect();
        lengths.into_iter().any(|length| view.windows(length).any(|window| self.0.contains(window)))
    }
}

/// The base64 of a secret, wherever it begins in what is encoded, without the characters that its neighbours share.
fn base64_forms(secret: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..3).flat_map(move |offset| {
        let mut padded = vec![0; offset];
        padded.extend_from_slice(secret);
        let (begin, end) = ((offset * 8).div_ceil(6), padded.len() * 8 / 6);
        [BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD].map(|base64| {
            let text = base64.encode(&padded);
            plain(text.get(begin..end).unwrap_or_default().as_bytes())
        })
    })
}

/// Without blanks, without the zeros of UTF-16, and in lower case.
fn plain(bytes: &[u8]) -> Vec<u8> {
    let is_between = |byte: u8| byte.is_ascii_whitespace() || byte == 0;
    let visible = bytes.iter().filter(|byte| !is_between(**byte));
    visible.map(u8::to_ascii_lowercase).collect()
}

/// Everything that this could be an encoding of.
fn decoded(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut views = vec![
        escapes(bytes, b"%", 2),
        escapes(bytes, b"\\u", 4),
        escapes(bytes, b"\\x", 2),
        escapes(bytes, b"=", 2),
        // JSON's `\/` and the like.
        bytes.iter().copied().filter(|byte| *byte != b'\\').collect(),
        // Of a secret that has a `\` itself, escaped or not.
        unescaped(bytes),
        String::from_utf8_lossy(bytes).replace("\\/", "/").into_bytes(),
        // Of a list of `0x50, 0x6c` the digits alone.
        String::from_utf8_lossy(bytes).replace("0x", "").replace("0X", "").into_bytes(),
        htmlize::unescape(String::from_utf8_lossy(bytes)).into_owned().into_bytes(),
        bytes.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect(),
    ];
    let lists = decimal_list(bytes);
    views.extend((lists.len() >= WINDOW).then_some(lists));
    for word in words(bytes, |byte| byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte)) {
        let standard: Vec<u8> = word
            .iter()
            .map(|byte| match byte {
                b'-' => b'+',
                b'_' => b'/',
                other => *other,
            })
            .collect();
        // A text may begin within a group of four.
        views.extend((0..4).filter_map(|skipped| BASE64.decode(standard.get(skipped..)?).ok()));
    }
    for word in words(bytes, |byte| byte.is_ascii_hexdigit() || b":- ,".contains(&byte)) {
        let digits: Vec<u8> = word.iter().copied().filter(u8::is_ascii_hexdigit).collect();
        views.extend((0..2).map(|skipped| pairs(digits.get(skipped..).unwrap_or_default())));
    }
    views.retain(|view| view.len() >= 4 && view != bytes);
    views
}

/// Runs of bytes that belong to an encoding and are long enough to hold a part of a secret.
fn words(bytes: &[u8], belongs: fn(u8) -> bool) -> impl Iterator<Item = &[u8]> {
    bytes.split(move |byte| !belongs(*byte)).filter(|word| word.len() > WINDOW)
}

fn hex(digits: &[u8]) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn pairs(digits: &[u8]) -> Vec<u8> {
    digits.chunks_exact(2).filter_map(|pair| u8::try_from(hex(pair)?).ok()).collect()
}

/// Each character after a `\` as it is, without that one.
fn unescaped(bytes: &[u8]) -> Vec<u8> {
    let mut is_escaped = false;
    let kept = bytes.iter().copied().filter(|byte| {
        is_escaped = !is_escaped && *byte == b'\\';
        !is_escaped
    });
    kept.collect()
}

/// Replaces `mark` followed by so many hexadecimal digits by the character of that number.
fn escapes(bytes: &[u8], mark: &[u8], n_digits: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        let digits = rest.strip_prefix(mark).and_then(|rest| rest.split_at_checked(n_digits));
        let char = digits.and_then(|(digits, after)| Some((char::from_u32(hex(digits)?)?, after)));
        if let Some((char, after)) = char {
            // One byte where one byte is escaped.
            match u8::try_from(u32::from(char)) {
                Ok(byte) => out.push(byte),
                Err(_wide) => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            }
            rest = after;
        } else {
            out.push(*first);
            rest = after;
        }
    }
    out
}

/// The numbers of a text that are bytes, one after another, as a program prints a list of them.
fn decimal_list(bytes: &[u8]) -> Vec<u8> {
    let numbers = bytes.split(|byte| !byte.is_ascii_digit()).filter(|digits| !digits.is_empty());
    numbers.filter_map(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "Pl4nted~Client.Secret-8Q~kx7&=%+/zz";

    fn each(text: &str, write: impl Fn(u8) -> String) -> String {
        text.bytes().map(write).collect()
    }

    /// A text in every form in which it may come back.
    fn forms(text: &str) -> Vec<String> {
        let percent: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
        let list = text.bytes().fold(String::new(), |mut list, byte| {
            let _ = write!(list, "{byte}, ");
            list
        });
        vec![
            text.to_owned(),
            text.to_lowercase(),
            text.to_uppercase(),
            text.chars().rev().collect(),
            percent.to_lowercase(),
            form_urlencoded::byte_serialize(percent.as_bytes()).collect(),
            percent,
            each(text, |byte| format!("%{byte:02X}")),
            each(text, |byte| format!("\\u{byte:04x}")),
            each(text, |byte| format!("\\x{byte:02x}")),
            each(text, |byte| format!("&#{byte};")),
            each(text, |byte| format!("&#x{byte:x};")),
            each(text, |byte| format!("{byte:02x}")),
            each(text, |byte| format!("{byte:02X}:")),
            each(text, |byte| format!("{} ", char::from(byte))),
            format!("[{list}]"),
            BASE64_STANDARD.encode(text),
            BASE64_STANDARD_NO_PAD.encode(text),
            BASE64_URL_SAFE.encode(text),
            BASE64_URL_SAFE_NO_PAD.encode(text),
            BASE64_STANDARD.encode(format!("client:{text}")),
            BASE64_STANDARD.encode(BASE64_STANDARD.encode(text)),
            BASE64_STANDARD.encode(text).split_off(3),
            each(text, |byte| format!("0x{byte:02x}, ")),
            BASE64_STANDARD
                .encode(text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()),
            text.encode_utf16().flat_map(u16::to_be_bytes).fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            }),
            text.replace('/', "\\/"),
            BASE64_STANDARD.encode(text).to_lowercase(),
            BASE64_STANDARD.encode(text).chars().rev().collect(),
        ]
    }

    #[test]
    fn a_secret_and_each_part_of_it_is_found_in_every_form() {
        for part in [SECRET, &SECRET[..16], &SECRET[4..22], &SECRET[SECRET.len() - 9..]] {
            for form in forms(part) {
                let text = format!("bad secret '{form}' given");
                assert!(repeats(&text, [SECRET].into_iter()), "{text}");
            }
        }
        assert!(
            repeats(r"it is '!0a000\\/aA'", [r"!0a000\/aA!0"].into_iter()),
            "an escape in one that has the escaping character itself"
        );
        assert!(
            repeats(r"it is '!aA!0a\/\0a'", [r"a!aA!0a/\0aa"].into_iter()),
            "and one of the slash alone"
        );
        assert!(
            repeats("it is abcd", ["abcd"].into_iter()),
            "a short one is looked for as a whole"
        );
    }

    #[test]
    fn what_servers_say_is_no_secret() {
        for text in [
            "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value",
            "AADSTS7000215: Invalid client secret provided for app '11111111-2222-3333-4444-555555555555'.",
            "Request was throttled. Expected available in 41 seconds.",
            "Invalid user - the owner of this token is not permitted to use tokens",
            "{\"filters\": \"unknown field 'service' of 10, 20, 30\"}",
            "",
        ] {
            assert!(!repeats(text, [SECRET, ""].into_iter()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_window_of_a_secret_passes(secret in "[!-~]{12,60}", at in 0..48_usize, n in 0..29_usize) {
            let begin = at.min(secret.len() - 10);
            let form = forms(&secret[begin..begin + 10]).swap_remove(n);
            let text = format!("refused: '{form}'");
            prop_assert!(repeats(&text, [secret.as_str()].into_iter()), "{text}");
        }
    }
}
