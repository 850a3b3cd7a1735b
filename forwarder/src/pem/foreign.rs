//! Says what a file without any PEM block is: DER, a store, base64 once more, a path, a page. Pure.

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::der::{self, Shape};
use super::refusal::{Block, Trouble};
use super::{BEGIN, find};

/// The first bytes of Java's stores.
const KEYSTORES: [[u8; 4]; 2] = [[0xfe, 0xed, 0xfe, 0xed], [0xce, 0xce, 0xce, 0xce]];
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// With its mark, or plainly so: every other byte of a marker is zero.
pub(super) fn is_utf16(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xfe])
        || bytes.starts_with(&[0xfe, 0xff])
        || find(bytes, b"-\0-\0-\0-\0").is_some()
        || find(bytes, b"\0-\0-\0-\0-").is_some()
}

pub(super) fn is_base64(text: &[u8]) -> bool {
    let end = text.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    text.len() - end <= 2
        && text.get(..end).is_some_and(|text| {
            text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(byte))
        })
}

/// A line that is meant to begin or end a block and does not.
pub(super) fn is_like_a_marker(line: &[u8]) -> bool {
    let text = String::from_utf8_lossy(line).to_uppercase();
    ["BEGIN", "END"].iter().any(|word| {
        text.match_indices(word).any(|(at, _)| {
            let before = text.get(..at).unwrap_or_default().trim_end();
            let after = text.get(at + word.len()..).unwrap_or_default();
            // Hyphens, and the dashes that word processors make of them.
            before.ends_with(['-', '\u{2010}', '\u{2011}', '\u{2013}', '\u{2014}', '\u{2212}'])
                && after.starts_with([' ', '\u{a0}', '\t'])
                && ["CERTIFICATE", "KEY", "CRL", "PKCS", "PARAMETERS", "CMS"]
                    .iter()
                    .any(|kind| after.contains(kind))
        })
    })
}

/// What a file without a block is.
pub(super) fn without_blocks(bytes: &[u8]) -> Trouble {
    let text = bytes.trim_ascii();
    if KEYSTORES.iter().any(|magic| bytes.starts_with(magic)) {
        return Trouble::Keystore;
    }
    match der::shape(bytes) {
        Shape::Other => {}
        shape => return Trouble::Der { is: Block::of_shape(shape) },
    }
    if text.split(|byte| matches!(byte, b'\n' | b'\r')).any(is_like_a_marker) {
        return Trouble::Marker { before_block: 1 };
    }
    let Ok(words) = std::str::from_utf8(text) else { return Trouble::Binary };
    let packed: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if packed.len() >= 16
        && is_base64(&packed)
        && let Ok(decoded) = LENIENT.decode(&packed)
    {
        if find(&decoded, BEGIN).is_some() || decoded.starts_with(b"LS0tLS1CRUdJTi") {
            return Trouble::Base64OfPem;
        }
        match der::shape(&decoded) {
            Shape::Other => {}
            shape => return Trouble::Base64OfDer { is: Block::of_shape(shape) },
        }
    }
    if is_path(words) {
        return Trouble::Path;
    }
    if words.starts_with("PuTTY-User-Key-File")
        || words.starts_with("ssh-")
        || words.starts_with("ecdsa-sha2-")
    {
        return Trouble::Ssh;
    }
    if words.starts_with('<') {
        return Trouble::Markup;
    }
    if words.contains('\0') { Trouble::Binary } else { Trouble::NoBlock }
}

/// One line that names a file.
fn is_path(text: &str) -> bool {
    let is_one_line = !text.contains(['\n', '\r']) && text.len() <= 4_096;
    let begins = ["/", "./", "../", "~/", "file:"].iter().any(|begin| text.starts_with(begin));
    let is_windows = text.get(1..3).is_some_and(|drive| drive == ":\\" || drive == ":/");
    let lower = text.to_ascii_lowercase();
    let ends = [".pem", ".crt", ".cer", ".key", ".p12", ".pfx", ".der"];
    let is_named = !text.contains(' ') && ends.iter().any(|end| lower.ends_with(end));
    is_one_line && (begins || is_windows || is_named)
}
