//! Tells by the first bytes of DER what it is: a certificate, a key of some form, a store. Pure.

use x509_parser::prelude::FromDer as _;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
/// 1.2.840.113549.1.7: what PKCS#7 is made of; PKCS#12 is made of it too.
const PKCS7: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07];

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Certificate,
    Request,
    RevocationList,
    Pkcs12,
    Pkcs7,
    /// A private key, PKCS#8.
    Pkcs8,
    /// An RSA private key, PKCS#1.
    Pkcs1,
    /// A private key on a curve, SEC1.
    Sec1,
    EncryptedKey,
    PublicKey,
    Other,
}

/// The length of the first element with its head; `None` where no element begins, or where it does not say its length.
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    let (_, head, length) = head(bytes)?;
    head.checked_add(length)
}

/// Tag, length of the head, and length of the content.
fn head(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (tag, first) = (*bytes.first()?, *bytes.get(1)?);
    if first < 0x80 {
        return Some((tag, 2, usize::from(first)));
    }
    let n_bytes = usize::from(first & 0x7f);
    if n_bytes == 0 || n_bytes > 4 {
        return None;
    }
    let length = bytes.get(2..2 + n_bytes)?.iter();
    Some((tag, 2 + n_bytes, length.fold(0, |sum, byte| (sum << 8) | usize::from(*byte))))
}

/// The first element: its tag, its content as far as it is there, and what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, head, length) = head(bytes)?;
    let end = head.checked_add(length)?.min(bytes.len());
    Some((tag, bytes.get(head..end)?, bytes.get(end..)?))
}

/// What a whole element is.
pub(super) fn shape(bytes: &[u8]) -> Shape {
    // What Windows and Java write may say nothing of its length.
    if bytes.starts_with(&[SEQUENCE, 0x80, INTEGER, 1, 3]) {
        return Shape::Pkcs12;
    }
    if x509_parser::parse_x509_certificate(bytes).is_ok() {
        return Shape::Certificate;
    }
    inner(bytes).unwrap_or(Shape::Other)
}

fn inner(bytes: &[u8]) -> Option<Shape> {
    let (SEQUENCE, content, _) = element(bytes)? else { return None };
    let (tag, first, rest) = element(content)?;
    let next = element(rest);
    let next_tag = next.map(|(tag, _, _)| tag);
    match (tag, first, next_tag) {
        (INTEGER, [3], Some(SEQUENCE)) => Some(Shape::Pkcs12),
        (INTEGER, [0 | 1], Some(SEQUENCE)) => Some(Shape::Pkcs8),
        (INTEGER, [1], Some(OCTET_STRING)) => Some(Shape::Sec1),
        (INTEGER, [0], Some(INTEGER)) => Some(Shape::Pkcs1),
        (INTEGER, _, Some(INTEGER)) => Some(Shape::PublicKey),
        (OID, oid, _) if oid.starts_with(PKCS7) => Some(Shape::Pkcs7),
        (SEQUENCE, algorithm, Some(OCTET_STRING)) if algorithm.first() == Some(&OID) => {
            Some(Shape::EncryptedKey)
        }
        (SEQUENCE, algorithm, Some(BIT_STRING)) if algorithm.first() == Some(&OID) => {
            Some(Shape::PublicKey)
        }
        (SEQUENCE, _, _) => {
            use x509_parser::certification_request::X509CertificationRequest;
            use x509_parser::revocation_list::CertificateRevocationList;
            if X509CertificationRequest::from_der(bytes).is_ok() {
                Some(Shape::Request)
            } else if CertificateRevocationList::from_der(bytes).is_ok() {
                Some(Shape::RevocationList)
            } else {
                None
            }
        }
        _ => None,
    }
}
