//! Reads PEM files: says what each block is, passes none over in silence, and refuses in words with the mend. Pure.
//!
//! The base64 of a block is decoded by rustls' own decoder; everything that people see is written here. A refusal holds
//! nothing of the file but numbers, because the file may be a private key.

mod der;
mod foreign;
mod refusal;

use rustls_pki_types::pem::{PemObject as _, SectionKind};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};

use der::Shape;
pub use refusal::{Block, Refusal, Trouble, Wanted};

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";
/// No label is longer.
const MAX_LABEL_BYTES: usize = 64;
/// A line of base64 outside every block, at least this long, belongs to a block that lost its first line.
const STRAY_BYTES: usize = 60;

/// A block as it stands in the file.
struct Found<'a> {
    /// Counted from 1.
    number: usize,
    label: &'a str,
    body: &'a [u8],
}

/// The certificates of a file, in the file's order, one a block. `file` is the file's name, for the commands that mend.
///
/// # Errors
/// [`Refusal`]: the first block that is not a whole certificate, or what the file is instead.
pub fn certificates(
    file: &str,
    bytes: &[u8],
    wanted: Wanted,
) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    let refuse = |trouble| Refusal::new(file, wanted, trouble);
    let blocks = blocks(bytes).map_err(refuse)?;
    let read = |found: &Found<'_>| certificate(found).map_err(refuse);
    blocks.iter().map(read).collect()
}

/// The private key of a file that holds one. Parameters of its curve may stand before it, as OpenSSL writes them.
///
/// # Errors
/// [`Refusal`]: the first block that is no key that can be used, or what the file is instead.
pub fn private_key(file: &str, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, Refusal> {
    let refuse = |trouble| Refusal::new(file, Wanted::Key, trouble);
    let mut key = None;
    for found in blocks(bytes).map_err(refuse)? {
        if found.label == "EC PARAMETERS" {
            decode(&found).map_err(refuse)?;
            continue;
        }
        let this = key_of(&found).map_err(refuse)?;
        if key.replace(this).is_some() {
            return Err(refuse(Trouble::SecondKey { block: found.number }));
        }
    }
    key.ok_or_else(|| refuse(Trouble::Block { block: 1, is: Block::Parameters }))
}

fn certificate(found: &Found<'_>) -> Result<CertificateDer<'static>, Trouble> {
    let block = found.number;
    if !matches!(found.label, "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE") {
        return Err(Trouble::Block { block, is: Block::of_label(found) });
    }
    let mut der = decode(found)?;
    let Some(length) = der::length(&der) else {
        return Err(Trouble::Unreadable { block, is: Block::Certificate });
    };
    if length > der.len() {
        return Err(Trouble::Cut { block });
    }
    if found.label == "TRUSTED CERTIFICATE" {
        // OpenSSL writes behind the certificate what it is trusted for.
        der.truncate(length);
    }
    if length < der.len() {
        return Err(Trouble::Overlong { block });
    }
    match der::shape(&der) {
        Shape::Certificate => Ok(CertificateDer::from(der)),
        Shape::Other => Err(Trouble::Unreadable { block, is: Block::Certificate }),
        shape => Err(Trouble::Mislabelled { block, is: Block::of_shape(shape) }),
    }
}

fn key_of(found: &Found<'_>) -> Result<PrivateKeyDer<'static>, Trouble> {
    let block = found.number;
    let is_encrypted = found.body.windows(9).any(|window| window == b"ENCRYPTED");
    if is_encrypted && found.label.ends_with("PRIVATE KEY") {
        return Err(Trouble::Block { block, is: Block::EncryptedKey });
    }
    if !matches!(found.label, "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY") {
        return Err(Trouble::Block { block, is: Block::of_label(found) });
    }
    let der = decode(found)?;
    match der::length(&der) {
        Some(length) if length > der.len() => return Err(Trouble::Cut { block }),
        Some(length) if length < der.len() => return Err(Trouble::Overlong { block }),
        Some(_) => {}
        None => return Err(Trouble::Unreadable { block, is: Block::Key }),
    }
    // What it is counts, not what it is called.
    match der::shape(&der) {
        Shape::Pkcs8 => Ok(PrivatePkcs8KeyDer::from(der).into()),
        Shape::Pkcs1 => Ok(PrivatePkcs1KeyDer::from(der).into()),
        Shape::Sec1 => Ok(PrivateSec1KeyDer::from(der).into()),
        Shape::Other => Err(Trouble::Unreadable { block, is: Block::Key }),
        shape => Err(Trouble::Mislabelled { block, is: Block::of_shape(shape) }),
    }
}

/// Splits a text into its blocks. What stands between them is a comment, unless it looks like a broken block.
fn blocks(bytes: &[u8]) -> Result<Vec<Found<'_>>, Trouble> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Trouble::Empty);
    }
    if foreign::is_utf16(bytes) {
        return Err(Trouble::Utf16);
    }
    let mut found = Vec::new();
    let mut rest = bytes;
    while let Some(at) = find(rest, BEGIN) {
        let number = found.len() + 1;
        comment(rest.get(..at).unwrap_or_default(), number)?;
        let block;
        (block, rest) = split_block(rest.get(at + BEGIN.len()..).unwrap_or_default(), number)?;
        found.push(block);
    }
    if found.is_empty() {
        return Err(foreign::without_blocks(bytes));
    }
    comment(rest, found.len() + 1)?;
    Ok(found)
}

/// One block, from behind its `-----BEGIN `, and what follows it.
fn split_block(after: &[u8], number: usize) -> Result<(Found<'_>, &[u8]), Trouble> {
    let (label, body) = label(after).ok_or(Trouble::Marker { before_block: number })?;
    let cut = if find(after, br"\n").is_some() {
        Trouble::Escaped { block: number }
    } else {
        Trouble::Unended { block: number }
    };
    let Some(end) = find(body, DASHES) else { return Err(cut) };
    let (body, closing) = body.split_at(end);
    let Some(closing) = closing.strip_prefix(END) else { return Err(cut) };
    let Some((closed, rest)) = self::label(closing) else { return Err(cut) };
    if closed != label {
        return Err(Trouble::OtherEnd { block: number });
    }
    if find(body, br"\n").is_some() || find(body, br"\r").is_some() {
        return Err(Trouble::Escaped { block: number });
    }
    Ok((Found { number, label, body }, rest))
}

/// A marker's label, which ends with five hyphens on the same line, and what follows them.
fn label(text: &[u8]) -> Option<(&str, &[u8])> {
    let end = find(text, DASHES).filter(|end| *end <= MAX_LABEL_BYTES)?;
    let (label, rest) = text.split_at_checked(end)?;
    let plain =
        |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b" #".contains(byte);
    let label =
        std::str::from_utf8(label).ok().filter(|label| label.bytes().all(|byte| plain(&byte)))?;
    Some((label.trim(), rest.strip_prefix(DASHES)?))
}

/// What stands outside of blocks may say anything, but must not be what is left of one.
fn comment(text: &[u8], before_block: usize) -> Result<(), Trouble> {
    let lines = text.split(|byte| matches!(byte, b'\n' | b'\r'));
    for line in lines.map(<[u8]>::trim_ascii) {
        if foreign::is_like_a_marker(line) {
            return Err(Trouble::Marker { before_block });
        }
        let is_hex = line.iter().all(u8::is_ascii_hexdigit);
        if line.len() >= STRAY_BYTES && !is_hex && foreign::is_base64(line) {
            return Err(Trouble::Stray { before_block });
        }
    }
    Ok(())
}

/// The bytes that a block's base64 stands for. Blanks and headers (RFC 1421) are no part of it.
fn decode(found: &Found<'_>) -> Result<Vec<u8>, Trouble> {
    let body = without_headers(found.body);
    let base64: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if base64.is_empty() {
        return Err(Trouble::EmptyBlock { block: found.number });
    }
    if !foreign::is_base64(&base64) {
        return Err(Trouble::NotBase64 { block: found.number });
    }
    if !base64.len().is_multiple_of(4) {
        return Err(Trouble::Cut { block: found.number });
    }
    // Its label decides whether it is decoded in constant time.
    let block =
        [b"-----BEGIN PRIVATE KEY-----\n", base64.as_slice(), b"\n-----END PRIVATE KEY-----\n"];
    match <(SectionKind, Vec<u8>)>::from_pem_slice(&block.concat()) {
        Ok((_, der)) => Ok(der),
        Err(_what_it_quotes) => Err(Trouble::NotBase64 { block: found.number }),
    }
}

fn without_headers(body: &[u8]) -> &[u8] {
    if !body.contains(&b':') {
        return body;
    }
    let ends: [&[u8]; 2] = [b"\n\n", b"\n\r\n"];
    let end = ends.iter().filter_map(|end| Some(find(body, end)? + end.len())).min();
    end.and_then(|end| body.get(end..)).unwrap_or(body)
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(hay, needle)
}

#[cfg(test)]
mod tests;
