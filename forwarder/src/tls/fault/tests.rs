//! Every failure of TLS has words and advice of ours, and none shows a library's form.

use rustls::{ContentType, HandshakeType};

use super::*;

const PEERS: [Peer; 3] = [
    Peer { side: Side::Source, with_client_certificate: false },
    Peer { side: Side::Syslog, with_client_certificate: false },
    Peer { side: Side::Syslog, with_client_certificate: true },
];
const BARE: Peer = PEERS[1];

#[test]
fn the_suites_that_are_named_are_those_that_are_offered() {
    for suite in rustls::crypto::ring::default_provider().cipher_suites {
        let name = format!("{:?}", suite.suite());
        let is_named = match name.strip_prefix("TLS13_") {
            Some(rest) => SUITES.contains(&format!("TLS_{rest}")),
            None => {
                let rest = name.trim_start_matches("TLS_").replace("_WITH_", "-").replace('_', "-");
                let kind = rest.contains("ECDHE-ECDSA") || rest.contains("ECDHE-RSA");
                let short = rest.replace("AES-256", "AES256").replace("AES-128", "AES128");
                let short =
                    short.trim_start_matches("ECDHE-ECDSA-").trim_start_matches("ECDHE-RSA-");
                kind && SUITES.contains(short.trim_end_matches("-SHA256"))
            }
        };
        assert!(is_named, "{name}");
    }
}

#[test]
fn every_failure_has_words_of_ours() {
    let other = || OtherError(std::sync::Arc::new(io::Error::other("a library's words")));
    let mut errors = vec![
        Error::DecryptError,
        Error::EncryptError,
        Error::General("a library's words".to_owned()),
        Error::Other(other()),
        Error::InvalidCertificate(CertificateError::Other(other())),
        Error::InvalidCertificate(CertificateError::UnknownIssuer),
        Error::InvalidCertificate(CertificateError::BadSignature),
        Error::InvalidCertificate(CertificateError::UnsupportedSignatureAlgorithmContext {
            signature_algorithm_id: vec![42, 134, 72],
            supported_algorithms: Vec::new(),
        }),
        Error::InappropriateMessage {
            expect_types: vec![ContentType::Handshake],
            got_type: ContentType::ApplicationData,
        },
        Error::InappropriateHandshakeMessage {
            expect_types: vec![HandshakeType::ServerHello],
            got_type: HandshakeType::Finished,
        },
        Error::InvalidMessage(InvalidMessage::InvalidContentType),
        Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedCipherSuite),
        Error::PeerMisbehaved(PeerMisbehaved::TooManyWarningAlertsReceived),
        Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13),
        Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
        Error::PeerIncompatible(PeerIncompatible::NullCompressionRequired),
        Error::PeerSentOversizedRecord,
        Error::NoCertificatesPresented,
        Error::HandshakeNotComplete,
        Error::FailedToGetCurrentTime,
    ];
    errors.extend((0..=u8::MAX).map(|code| Error::AlertReceived(AlertDescription::from(code))));
    for error in &errors {
        for peer in PEERS {
            let Fault { words, advice } = peer.explain(error);
            let text = format!("{words}; {advice}");
            assert!(!words.is_empty() && !advice.is_empty());
            for form in ["a library", "Other", "Error", "[", "{", "::", "Received", "UnknownCA"] {
                assert!(!text.contains(form), "{error:?}: {text}");
            }
        }
    }
}

#[test]
fn the_advice_fits_what_is_wrong() {
    let alert = |peer: Peer, alert| peer.explain(&Error::AlertReceived(alert)).to_string();
    let old = alert(BARE, AlertDescription::ProtocolVersion);
    assert!(old.contains("neither TLS 1.2 nor TLS 1.3") && !old.contains("certificate"), "{old}");
    let suites = alert(PEERS[0], AlertDescription::HandshakeFailure);
    assert!(
        suites.contains("TLS_AES_256_GCM_SHA384")
            && suites.contains("ECDHE-RSA")
            && suites.contains("CBC"),
        "{suites}"
    );
    assert!(!suites.contains("check the") && !suites.contains("clientCertificate"), "{suites}");
    let suites = alert(BARE, AlertDescription::HandshakeFailure);
    assert!(
        suites.contains("P-384") && suites.contains("spec.syslog.tls.clientCertificateSecretRef"),
        "{suites}"
    );
    let wanted = alert(BARE, AlertDescription::CertificateRequired);
    assert!(
        wanted.contains("wants a client certificate")
            && wanted.contains("clientCertificateSecretRef"),
        "{wanted}"
    );
    assert_eq!(
        alert(BARE, AlertDescription::UnknownCA),
        wanted,
        "ours cannot be meant: there is none"
    );
    let refused = alert(PEERS[2], AlertDescription::UnknownCA);
    assert!(
        refused.contains("refuses our client certificate: it does not know its issuer"),
        "{refused}"
    );
    let plain =
        BARE.explain(&Error::InvalidMessage(InvalidMessage::InvalidContentType)).to_string();
    assert!(plain.contains("not TLS") && plain.contains("spec.syslog.protocol"), "{plain}");
}

#[test]
fn a_failure_is_found_in_whatever_wraps_it() {
    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);
    let inner = Error::AlertReceived(AlertDescription::ProtocolVersion);
    let io = io::Error::new(io::ErrorKind::InvalidData, inner.clone());
    let twice = io::Error::other(Outer(io));
    assert_eq!(find(&Outer(twice)), Some(&inner));
    assert_eq!(find(&Outer(io::Error::other("words"))), None);
    let silent = Outer(io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof"));
    let told = BARE.connecting(&silent).unwrap().to_string();
    assert!(told.contains("closed the connection in the middle of the TLS handshake"), "{told}");
    assert!(
        told.contains("TLS 1.2")
            && told.contains("TLS_AES_128_GCM_SHA256")
            && !told.contains("eof"),
        "{told}"
    );
    assert_eq!(BARE.connecting(&Outer(io::ErrorKind::ConnectionRefused.into())), None);
}
