//! What a certificate says of itself, in words: names, issuer, dates, algorithms. Pure.
//!
//! The texts come from whoever made the certificate: they are cut short, and hold no control characters.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Name;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{AlgorithmIdentifier, X509Version};

/// The longest text of a certificate that is passed on.
const MAX_CHARS: usize = 120;
/// More names than this are counted.
const MAX_NAMES: usize = 5;
/// The smallest RSA key that is taken, and the largest.
pub(super) const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

/// A certificate, read.
pub(super) struct Facts<'a> {
    certificate: X509Certificate<'a>,
}

impl<'a> Facts<'a> {
    /// `None` where it cannot be read.
    pub(super) fn of(der: &'a CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        Some(Self { certificate })
    }

    /// Whom it is for.
    pub(super) fn subject(&self) -> String {
        name(self.certificate.subject())
    }

    /// Who signed it.
    pub(super) fn issuer(&self) -> String {
        name(self.certificate.issuer())
    }

    pub(super) fn raw_subject(&self) -> &[u8] {
        self.certificate.subject().as_raw()
    }

    pub(super) fn raw_issuer(&self) -> &[u8] {
        self.certificate.issuer().as_raw()
    }

    pub(super) fn raw_key(&self) -> &[u8] {
        self.certificate.public_key().raw
    }

    pub(super) fn is_its_own_issuer(&self) -> bool {
        self.raw_subject() == self.raw_issuer()
    }

    pub(super) fn is_version_3(&self) -> bool {
        self.certificate.version() == X509Version::V3
    }

    pub(super) fn is_authority(&self) -> bool {
        self.certificate.is_ca()
    }

    pub(super) fn begins(&self) -> Option<Timestamp> {
        Timestamp::from_second(self.certificate.validity().not_before.timestamp()).ok()
    }

    pub(super) fn ends(&self) -> Option<Timestamp> {
        Timestamp::from_second(self.certificate.validity().not_after.timestamp()).ok()
    }

    pub(super) fn common_name(&self) -> Option<String> {
        let name = self.certificate.subject().iter_common_name().next()?;
        name.as_str().ok().map(clean).filter(|name| !name.is_empty())
    }

    /// The names that it is valid for, DNS names and addresses, some of them where there are many.
    pub(super) fn names(&self) -> Vec<String> {
        let names = self.certificate.subject_alternative_name().ok().flatten();
        let names = names.iter().flat_map(|names| &names.value.general_names);
        let mut names: Vec<String> = names
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(clean(name)),
                GeneralName::IPAddress(bytes) => address(bytes),
                _ => None,
            })
            .collect();
        let n_more = names.len().saturating_sub(MAX_NAMES);
        if n_more > 0 {
            names.truncate(MAX_NAMES);
            names.push(format!("{n_more} more"));
        }
        names
    }

    /// Whether it says what it may be used for, and that this is not a server.
    pub(super) fn is_for_others_than_servers(&self) -> bool {
        self.certificate
            .extended_key_usage()
            .ok()
            .flatten()
            .is_some_and(|usage| !usage.value.server_auth)
    }

    /// Its key, where it is of a kind that is not taken.
    pub(super) fn unusable_key(&self) -> Option<String> {
        let key = self.certificate.public_key();
        match key.parsed() {
            Ok(PublicKey::RSA(rsa)) if !RSA_BITS.contains(&rsa.key_size()) => {
                Some(format!("RSA of {} bits", rsa.key_size()))
            }
            Ok(PublicKey::RSA(_)) => None,
            Ok(PublicKey::DSA(_)) => Some("DSA".to_owned()),
            Ok(PublicKey::EC(_)) => match curve(&key.algorithm).as_str() {
                "P-256" | "P-384" => None,
                curve => Some(format!("ECDSA on {curve}")),
            },
            _ => match oid(&key.algorithm).as_str() {
                "1.3.101.112" => None,
                "1.3.101.113" => Some("Ed448".to_owned()),
                other => Some(format!("of the algorithm {other}")),
            },
        }
    }

    /// How it is signed, where that is not taken.
    pub(super) fn unusable_signature(&self) -> Option<String> {
        let algorithm = &self.certificate.signature_algorithm;
        let name = match oid(algorithm).as_str() {
            "1.2.840.113549.1.1.11"
            | "1.2.840.113549.1.1.12"
            | "1.2.840.113549.1.1.13"
            | "1.2.840.10045.4.3.2"
            | "1.2.840.10045.4.3.3"
            | "1.3.101.112"
            | "1.2.840.113549.1.1.10" => return None,
            "1.2.840.10045.4.3.4" => "ECDSA with SHA-512",
            "1.2.840.10045.4.3.1" => "ECDSA with SHA-224",
            "1.2.840.10045.4.1" => "ECDSA with SHA-1",
            "1.2.840.113549.1.1.5" | "1.3.14.3.2.29" => "RSA with SHA-1",
            "1.2.840.113549.1.1.4" => "RSA with MD5",
            "1.2.840.113549.1.1.14" => "RSA with SHA-224",
            "1.2.840.10040.4.3" | "2.16.840.1.101.3.4.3.2" => "DSA",
            "1.3.101.113" => "Ed448",
            other => return Some(format!("the algorithm {other}")),
        };
        Some(name.to_owned())
    }
}

fn oid(algorithm: &AlgorithmIdentifier<'_>) -> String {
    algorithm.algorithm.to_id_string()
}

fn curve(algorithm: &AlgorithmIdentifier<'_>) -> String {
    let named = algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    let Some(named) = named else { return "a curve without a name".to_owned() };
    match named.to_id_string().as_str() {
        "1.2.840.10045.3.1.7" => "P-256".to_owned(),
        "1.3.132.0.34" => "P-384".to_owned(),
        "1.3.132.0.35" => "P-521".to_owned(),
        "1.3.132.0.33" => "P-224".to_owned(),
        "1.3.132.0.10" => "secp256k1".to_owned(),
        other if other.starts_with("1.3.36.3.3.2.8.1.1.") => "a Brainpool curve".to_owned(),
        other => format!("the curve {other}"),
    }
}

/// A distinguished name, as people write it.
pub(super) fn name(name: &X509Name<'_>) -> String {
    let text = clean(&name.to_string());
    if text.is_empty() { "(no name)".to_owned() } else { text }
}

fn clean(text: &str) -> String {
    let plain = text.chars().map(|char| if char.is_control() { ' ' } else { char });
    plain.take(MAX_CHARS).collect()
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(four).to_string());
    }
    Some(std::net::Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string())
}
