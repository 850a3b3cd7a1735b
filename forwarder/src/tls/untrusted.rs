//! Why a server's certificate is not trusted, with what it says of itself: the words and the advice. Pure.

use std::fmt;

use jiff::Timestamp;
use rustls::{CertificateError, Error, OtherError};
use rustls_pki_types::{CertificateDer, ServerName};

use super::certificate::Facts;
use super::side::Side;

/// A server's certificate that is refused.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Untrusted {
    /// Which server: the name that was expected of it.
    pub(super) server: String,
    pub(super) why: Why,
}

/// What is wrong with it.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Why {
    Unreadable,
    /// X.509 version 1 or 2.
    OldVersion,
    Ended {
        whose: String,
        at: Option<Timestamp>,
        now: Option<Timestamp>,
    },
    NotYet {
        whose: String,
        at: Option<Timestamp>,
        now: Option<Timestamp>,
    },
    OtherNames(Vec<String>),
    CommonNameOnly(Option<String>),
    /// Signed by itself, and not among those that are trusted.
    SelfSigned {
        subject: String,
    },
    /// The chain ends at an issuer that is not among those that are trusted.
    MissingIssuer {
        issuer: String,
        below: String,
        is_shown: bool,
    },
    /// The issuer is trusted by name, but has another key.
    OtherIssuer {
        issuer: String,
    },
    /// Self-signed, and one of the same name is trusted.
    Replaced {
        subject: String,
    },
    Algorithm {
        whose: String,
        what: String,
    },
    Key {
        whose: String,
        what: String,
    },
    Purpose,
    Authority,
    Critical,
    NotAnAuthority {
        whose: String,
    },
    Constraints,
    Revoked,
    BadSignature,
    Other,
}

impl Untrusted {
    /// What rustls found wrong, with what the certificates say. `trusted` are the names of those that are trusted.
    pub(super) fn find(
        error: &Error,
        server: &ServerName<'_>,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        trusted: &[Vec<u8>],
    ) -> Self {
        let server = server.to_str().into_owned();
        let Some(leaf) = Facts::of(end_entity) else {
            return Self { server, why: Why::Unreadable };
        };
        let others: Vec<Facts<'_>> = intermediates.iter().filter_map(Facts::of).collect();
        let why = Self::why(error, &leaf, &others, trusted);
        Self { server, why }
    }

    fn why(error: &Error, leaf: &Facts<'_>, others: &[Facts<'_>], trusted: &[Vec<u8>]) -> Why {
        if !leaf.is_version_3() {
            return Why::OldVersion;
        }
        let whole = || std::iter::once(leaf).chain(others);
        let Error::InvalidCertificate(error) = error else { return Why::Other };
        match error {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => dates(error, whole()),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                match leaf.names() {
                    names if names.is_empty() => Why::CommonNameOnly(leaf.common_name()),
                    names => Why::OtherNames(names),
                }
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Why::Purpose
            }
            CertificateError::Revoked => Why::Revoked,
            CertificateError::UnhandledCriticalExtension => Why::Critical,
            _ => {
                // What cannot be used at all is why its issuer was not found.
                for facts in whole() {
                    if let Some(what) = facts.unusable_key() {
                        return Why::Key { whose: facts.subject(), what };
                    }
                    // A root's own signature is looked at by nobody.
                    if let Some(what) = facts.unusable_signature()
                        && (!facts.is_its_own_issuer() || std::ptr::eq(facts, leaf))
                    {
                        return Why::Algorithm { whose: facts.subject(), what };
                    }
                }
                chain(error, leaf, others, trusted)
            }
        }
    }

    /// A server whose key is of a kind that is not taken.
    pub(super) fn by_key(end_entity: &CertificateDer<'_>) -> Option<Self> {
        let leaf = Facts::of(end_entity)?;
        let what = leaf.unusable_key()?;
        let server = leaf.names().into_iter().next().unwrap_or_else(|| leaf.subject());
        Some(Self { server, why: Why::Key { whose: leaf.subject(), what } })
    }

    /// As rustls takes it, and gives it back with the failure of the handshake.
    pub(super) fn into_error(self) -> Error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(std::sync::Arc::new(self))))
    }

    /// What to do about it.
    pub(super) fn advice(&self, side: Side) -> String {
        let bundle = side.bundle();
        let renew = "issue the server a new certificate";
        match &self.why {
            Why::Unreadable | Why::Other => {
                format!("look at it: openssl s_client -connect HOST:PORT -showcerts; {renew} if it is damaged")
            }
            Why::OldVersion => format!(
                "{renew} of version 3 with its name in subjectAltName, such as openssl req -x509 -addext subjectAltName=DNS:{}",
                self.server
            ),
            Why::Ended { .. } => "renew it, or set the clock of this machine right if that is wrong".to_owned(),
            Why::NotYet { .. } => "set the clocks of this machine and of the authority right, or wait".to_owned(),
            Why::OtherNames(_) => match side {
                Side::Source => "use one of these names in the URL, or issue the server a certificate for this one".to_owned(),
                Side::Syslog => "set spec.syslog.tls.serverName to one of these names, or issue the server a certificate for this one".to_owned(),
            },
            Why::CommonNameOnly(_) => format!(
                "{renew} with its name in subjectAltName (DNS:{}); a common name alone is not looked at",
                self.server
            ),
            Why::SelfSigned { .. } => format!("if it is the right server, put this very certificate into {bundle}"),
            Why::MissingIssuer { is_shown: true, .. } => {
                format!("put the certificate of that issuer into {bundle}")
            }
            Why::MissingIssuer { is_shown: false, .. } => format!(
                "put the certificate of that issuer into {bundle}; or, if it is an intermediate one, have the server send it with its own"
            ),
            Why::OtherIssuer { .. } | Why::Replaced { .. } => format!("put the current certificate into {bundle}: it may have been renewed"),
            Why::Algorithm { .. } => {
                "use a certificate signed with RSA (SHA-256 or more), ECDSA P-256 or P-384 (SHA-256 or SHA-384), or Ed25519".to_owned()
            }
            Why::Key { .. } => {
                "use a certificate with a key of RSA from 2048 to 8192 bits, ECDSA P-256 or P-384, or Ed25519".to_owned()
            }
            Why::Purpose => format!("{renew} with the extended key usage serverAuth"),
            Why::Authority => format!("{renew} that is not an authority's (CA:FALSE), or put this very certificate into {bundle}"),
            Why::Critical => format!("{renew} without that extension, or with it not critical"),
            Why::NotAnAuthority { .. } => format!("{renew}, signed by a certificate with CA:TRUE"),
            Why::Constraints => format!("{renew} that keeps to the limits of its authorities, or use another authority"),
            Why::Revoked => renew.to_owned(),
            Why::BadSignature => "check what stands between: something changes the certificates, or the server's key is not the certificate's".to_owned(),
        }
    }
}

fn dates<'a, 'b: 'a>(
    error: &CertificateError,
    mut whole: impl Iterator<Item = &'a Facts<'b>>,
) -> Why {
    let second = |time: &rustls_pki_types::UnixTime| {
        Timestamp::from_second(i64::try_from(time.as_secs()).ok()?).ok()
    };
    match error {
        CertificateError::ExpiredContext { time, not_after } => {
            let at = second(not_after);
            let whose = whole.find(|facts| facts.ends() == at).map(Facts::subject);
            Why::Ended { whose: whose.unwrap_or_default(), at, now: second(time) }
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            let at = second(not_before);
            let whose = whole.find(|facts| facts.begins() == at).map(Facts::subject);
            Why::NotYet { whose: whose.unwrap_or_default(), at, now: second(time) }
        }
        CertificateError::NotValidYet => Why::NotYet { whose: String::new(), at: None, now: None },
        _ => Why::Ended { whose: String::new(), at: None, now: None },
    }
}

/// Follows the chain from the server's certificate up to the link that is missing.
fn chain(
    error: &CertificateError,
    leaf: &Facts<'_>,
    others: &[Facts<'_>],
    trusted: &[Vec<u8>],
) -> Why {
    let webpki = match error {
        CertificateError::Other(OtherError(other)) => other.downcast_ref::<webpki::Error>(),
        _ => None,
    };
    match webpki {
        Some(webpki::Error::CaUsedAsEndEntity) if !leaf.is_its_own_issuer() => {
            return Why::Authority;
        }
        Some(webpki::Error::UnsupportedCriticalExtension) => return Why::Critical,
        Some(webpki::Error::NameConstraintViolation | webpki::Error::PathLenConstraintViolated) => {
            return Why::Constraints;
        }
        _ => {}
    }
    if leaf.is_its_own_issuer() {
        let subject = leaf.subject();
        let is_known = trusted.iter().any(|name| name == leaf.raw_subject());
        return if is_known { Why::Replaced { subject } } else { Why::SelfSigned { subject } };
    }
    let mut last = leaf;
    for _ in others {
        let issuer = others
            .iter()
            .find(|other| other.raw_subject() == last.raw_issuer() && !std::ptr::eq(*other, last));
        let Some(issuer) = issuer else { break };
        if !issuer.is_authority() {
            return Why::NotAnAuthority { whose: issuer.subject() };
        }
        last = issuer;
    }
    if trusted.iter().any(|name| name == last.raw_issuer()) {
        return match error {
            CertificateError::BadSignature | CertificateError::UnknownIssuer => {
                Why::OtherIssuer { issuer: last.issuer() }
            }
            _ => Why::Other,
        };
    }
    match error {
        CertificateError::UnknownIssuer => Why::MissingIssuer {
            issuer: last.issuer(),
            below: last.subject(),
            is_shown: last.is_its_own_issuer(),
        },
        CertificateError::BadSignature => Why::BadSignature,
        CertificateError::BadEncoding => Why::Unreadable,
        _ => Why::Other,
    }
}

impl fmt::Display for Untrusted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = &self.server;
        let date = |at: &Option<Timestamp>| {
            at.map_or_else(|| "a date that cannot be read".to_owned(), |at| at.to_string())
        };
        let here = |now: &Option<Timestamp>| {
            now.map_or_else(String::new, |now| format!("; it is {now} here"))
        };
        if let Why::OtherNames(names) = &self.why {
            return write!(
                formatter,
                "the certificate is not valid for name {server}, only for {}",
                names.join(", ")
            );
        }
        write!(formatter, "the certificate of {server} ")?;
        match &self.why {
            Why::Unreadable => write!(formatter, "cannot be read"),
            Why::OldVersion => write!(formatter, "is of X.509 version 1, which is not supported"),
            Why::Ended { whose, at, now } => {
                write!(formatter, "has expired: {whose} ended at {}{}", date(at), here(now))
            }
            Why::NotYet { whose, at, now } => {
                write!(formatter, "is not valid yet: {whose} begins at {}{}", date(at), here(now))
            }
            Why::OtherNames(_) => write!(formatter, "is not valid for that name"),
            Why::CommonNameOnly(Some(name)) => {
                write!(formatter, "has no subjectAltName, only the common name {name}")
            }
            Why::CommonNameOnly(None) => write!(formatter, "holds no name at all"),
            Why::SelfSigned { subject } => {
                write!(
                    formatter,
                    "is self-signed by {subject}, which is not trusted (unknown issuer)"
                )
            }
            Why::MissingIssuer { issuer, below, is_shown: true } if issuer == below => {
                write!(formatter, "comes from {issuer}, which is not trusted (unknown issuer)")
            }
            Why::MissingIssuer { issuer, below, .. } => {
                write!(
                    formatter,
                    "has an unknown issuer: {below} is signed by {issuer}, which is not trusted"
                )
            }
            Why::OtherIssuer { issuer } => {
                write!(
                    formatter,
                    "is not signed by the {issuer} that is trusted, but by another key of that name"
                )
            }
            Why::Replaced { subject } => {
                write!(
                    formatter,
                    "is not the one of {subject} that is trusted, but another of that name"
                )
            }
            Why::Algorithm { whose, what } => {
                write!(
                    formatter,
                    "is not accepted: {whose} is signed with {what}, which is not supported"
                )
            }
            Why::Key { whose, what } => {
                write!(
                    formatter,
                    "is not accepted: the key of {whose} is {what}, which is not supported"
                )
            }
            Why::Purpose => write!(formatter, "is not meant for a server (extended key usage)"),
            Why::Authority => write!(formatter, "is an authority's own (CA:TRUE), not a server's"),
            Why::Critical => write!(formatter, "has a critical extension that is not supported"),
            Why::NotAnAuthority { whose } => {
                write!(formatter, "is signed by {whose}, which is not an authority (CA:FALSE)")
            }
            Why::Constraints => {
                write!(formatter, "breaks the limits that one of its authorities sets")
            }
            Why::Revoked => write!(formatter, "is revoked"),
            Why::BadSignature => write!(formatter, "has a signature that is wrong"),
            Why::Other => write!(formatter, "is not accepted"),
        }
    }
}

/// The same as for people: a library may print an error in its own form.
impl fmt::Debug for Untrusted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl std::error::Error for Untrusted {}
