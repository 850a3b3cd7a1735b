//! What a failure of TLS means, in our words and with the advice that fits it; no library's text is passed on. Pure.

use std::error::Error as StdError;
use std::io;

use rustls::{
    AlertDescription, CertificateError, Error, InvalidMessage, OtherError, PeerIncompatible,
    PeerMisbehaved,
};

use super::side::Side;
use super::untrusted::{Untrusted, Why};

/// What is offered to every peer; the test beside it compares it with rustls.
pub(super) const SUITES: &str = "TLS_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256 or TLS_CHACHA20_POLY1305_SHA256 in TLS 1.3; \
    ECDHE-ECDSA or ECDHE-RSA with AES256-GCM-SHA384, AES128-GCM-SHA256 or CHACHA20-POLY1305 in TLS 1.2; \
    over X25519, P-256 or P-384";
const KEYS: &str = "RSA from 2048 bits, ECDSA on P-256 or P-384, or Ed25519";

/// With whom a handshake was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Where its settings stand.
    pub side: Side,
    /// Whether we have a certificate to show.
    pub with_client_certificate: bool,
}

/// A failure of TLS for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{words}; {advice}")]
pub struct Fault {
    /// What is wrong.
    pub words: String,
    /// What to do about it.
    pub advice: String,
}

fn fault(words: impl Into<String>, advice: impl Into<String>) -> Fault {
    Fault { words: words.into(), advice: advice.into() }
}

/// The failure of TLS in an error of any library that carries one.
pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<Error>() {
            return Some(found);
        }
        // An `io::Error` gives its inner error's source, not the inner error.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

impl Peer {
    /// A handshake that failed with this.
    pub fn handshake(self, error: &io::Error) -> Fault {
        if let Some(found) = find(error) {
            return self.explain(found);
        }
        match error.kind() {
            io::ErrorKind::TimedOut => fault(
                "the peer does not answer the TLS handshake",
                match self.side {
                    Side::Source => "check scheme and port: it may speak plain http",
                    Side::Syslog => {
                        "check the port: a receiver of plain text stays silent (spec.syslog.protocol: TCP)"
                    }
                },
            ),
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => fault(
                "the peer closed the connection in the middle of the TLS handshake without a reason",
                format!(
                    "see its log. It may speak plain text on this port, or no TLS 1.2 and 1.3, or none of our cipher suites ({SUITES}), \
                     or have a key that is not {KEYS}{}",
                    self.or_a_client_certificate()
                ),
            ),
            _ => fault(
                "the connection broke in the middle of the TLS handshake",
                "check the network, and the log of the peer",
            ),
        }
    }

    /// A connection that failed in a library's way, if TLS is why.
    pub fn connecting(self, error: &(dyn StdError + 'static)) -> Option<Fault> {
        if let Some(found) = find(error) {
            return Some(self.explain(found));
        }
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<io::Error>()
                && error.kind() == io::ErrorKind::UnexpectedEof
            {
                return Some(self.handshake(error));
            }
            next = error.source();
        }
        None
    }

    /// What a peer may want that closes a connection after the handshake.
    pub fn closed(self) -> Option<&'static str> {
        (self.side == Side::Syslog && !self.with_client_certificate).then_some(
            "see its log; it may want a client certificate (spec.syslog.tls.clientCertificateSecretRef)",
        )
    }

    /// What rustls found.
    pub fn explain(self, error: &Error) -> Fault {
        match error {
            Error::AlertReceived(alert) => self.alert(*alert),
            Error::InvalidCertificate(error) => self.certificate(error),
            Error::PeerIncompatible(what) => Self::incompatible(what),
            Error::PeerMisbehaved(
                PeerMisbehaved::SelectedUnofferedCipherSuite
                | PeerMisbehaved::SelectedUnusableCipherSuiteForVersion
                | PeerMisbehaved::SelectedUnofferedKxGroup,
            ) => Self::no_suite(),
            Error::PeerMisbehaved(
                PeerMisbehaved::SignedKxWithWrongAlgorithm
                | PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme,
            ) => no_algorithm(),
            Error::PeerMisbehaved(_)
            | Error::InappropriateHandshakeMessage { .. }
            | Error::DecryptError => fault(
                "the peer breaks the rules of TLS",
                "check what stands between, such as a proxy that opens TLS, and update the peer's TLS library",
            ),
            Error::InvalidMessage(InvalidMessage::UnsupportedKeyExchangeAlgorithm(_)) => {
                Self::no_suite()
            }
            Error::InvalidMessage(_)
            | Error::InappropriateMessage { .. }
            | Error::PeerSentOversizedRecord => fault(
                "the peer answers with something that is not TLS",
                match self.side {
                    Side::Source => "check scheme and port: it may speak plain http",
                    Side::Syslog => {
                        "check the port: it may take plain text (spec.syslog.protocol: TCP)"
                    }
                },
            ),
            Error::NoCertificatesPresented => fault(
                "the peer shows no certificate",
                "give it one: without a certificate its identity cannot be checked",
            ),
            Error::UnsupportedNameType => fault(
                "the peer's name is of a kind that no certificate holds",
                "use a DNS name or an address",
            ),
            Error::FailedToGetCurrentTime | Error::FailedToGetRandomBytes => fault(
                "this machine gives neither time nor random numbers",
                "check its clock and its kernel",
            ),
            _ => fault("the TLS connection failed", "see the log of the peer"),
        }
    }

    fn or_a_client_certificate(self) -> &'static str {
        match self {
            Self { side: Side::Syslog, with_client_certificate: false } => {
                ". Or it wants a client certificate (spec.syslog.tls.clientCertificateSecretRef)"
            }
            _ => "",
        }
    }

    fn no_version() -> Fault {
        fault(
            "the peer speaks neither TLS 1.2 nor TLS 1.3, only older versions",
            "enable TLS 1.2 or 1.3 on it; nothing older is spoken here",
        )
    }

    fn no_suite() -> Fault {
        fault(
            "the peer has no cipher suite in common with us",
            format!(
                "enable one of these cipher suites: {SUITES}. RSA key exchange, DHE and CBC are not supported"
            ),
        )
    }

    fn incompatible(what: &PeerIncompatible) -> Fault {
        match what {
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled => Self::no_version(),
            PeerIncompatible::NoCipherSuitesInCommon
            | PeerIncompatible::NoKxGroupsInCommon
            | PeerIncompatible::NoEcPointFormatsInCommon
            | PeerIncompatible::UncompressedEcPointsRequired
            | PeerIncompatible::EcPointsExtensionRequired
            | PeerIncompatible::NamedGroupsExtensionRequired
            | PeerIncompatible::KeyShareExtensionRequired => Self::no_suite(),
            PeerIncompatible::NoSignatureSchemesInCommon
            | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired => no_algorithm(),
            _ => fault(
                "the peer lacks a feature of TLS that is needed here",
                "update the peer's TLS library",
            ),
        }
    }

    fn certificate(self, error: &CertificateError) -> Fault {
        let other;
        let untrusted = match error {
            CertificateError::Other(OtherError(inner)) => inner.downcast_ref::<Untrusted>(),
            CertificateError::BadSignature => {
                other = Untrusted { server: "the peer".to_owned(), why: Why::BadSignature };
                Some(&other)
            }
            _ => None,
        };
        match untrusted {
            Some(untrusted) => fault(untrusted.to_string(), untrusted.advice(self.side)),
            None if matches!(
                error,
                CertificateError::UnsupportedSignatureAlgorithmContext { .. }
                    | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
            ) =>
            {
                no_algorithm()
            }
            None => {
                let server = "the peer".to_owned();
                let unknown = Untrusted { server, why: Why::Other };
                fault(unknown.to_string(), unknown.advice(self.side))
            }
        }
    }

    fn alert(self, alert: AlertDescription) -> Fault {
        let ours = self.with_client_certificate;
        match alert {
            AlertDescription::ProtocolVersion => Self::no_version(),
            AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => fault(
                "the peer refuses the handshake: it has no cipher suite, curve or kind of signature in common with us",
                format!(
                    "enable one of these cipher suites: {SUITES}. RSA key exchange, DHE and CBC are not supported. Its key has to be {KEYS}{}",
                    self.or_a_client_certificate()
                ),
            ),
            AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
                self.wants_a_certificate()
            }
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::UnknownCA
                if !ours =>
            {
                self.wants_a_certificate()
            }
            AlertDescription::UnknownCA => fault(
                "the peer refuses our client certificate: it does not know its issuer",
                "give the peer the certificate of the authority that issued tls.crt (spec.syslog.tls.clientCertificateSecretRef), and put the \
                 intermediate ones into tls.crt",
            ),
            AlertDescription::CertificateExpired => fault(
                "the peer refuses our client certificate: it has ended, or is not valid yet",
                "renew the certificate in the Secret of spec.syslog.tls.clientCertificateSecretRef, or set the peer's clock right",
            ),
            AlertDescription::CertificateRevoked => fault(
                "the peer refuses our client certificate: it is revoked",
                "renew the certificate in the Secret of spec.syslog.tls.clientCertificateSecretRef",
            ),
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError => fault(
                "the peer refuses our client certificate",
                "see its log; spec.syslog.tls.clientCertificateSecretRef may need another issuer, another name, or the extended key usage clientAuth",
            ),
            AlertDescription::UnrecognisedName => fault(
                "the peer does not know the name that it was asked for",
                match self.side {
                    Side::Source => "use the name in the URL that the server has",
                    Side::Syslog => {
                        "set spec.syslog.tls.serverName to the name that the server has"
                    }
                },
            ),
            AlertDescription::InternalError => {
                fault("the peer reports an error of its own", "see its log")
            }
            AlertDescription::UserCanceled | AlertDescription::CloseNotify => {
                fault("the peer ended the TLS connection", "see its log")
            }
            other => fault(
                format!("the peer ended the TLS connection with alert {}", u8::from(other)),
                "see its log",
            ),
        }
    }

    fn wants_a_certificate(self) -> Fault {
        match (self.side, self.with_client_certificate) {
            (Side::Source, _) => fault(
                "the server wants a client certificate",
                "spec.source has none: use an address of the server, or a proxy, that wants none",
            ),
            (Side::Syslog, false) => fault(
                "the peer wants a client certificate",
                "store one with its key in a Secret and name it in spec.syslog.tls.clientCertificateSecretRef",
            ),
            (Side::Syslog, true) => fault(
                "the peer wants another client certificate than ours",
                "ask whoever runs it which authority has to issue it",
            ),
        }
    }
}

fn no_algorithm() -> Fault {
    fault(
        "the peer has no kind of signature in common with us",
        format!("give it a certificate whose key is {KEYS}; ECDSA P-521 is not supported"),
    )
}

#[cfg(test)]
mod tests;
