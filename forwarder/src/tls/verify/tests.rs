//! Pins, and what is said of every certificate that is refused.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};

use super::*;
use crate::pem::{self, Wanted};
use crate::tls::{Peer, Side};

const NAME: &str = "siem.example.com";

/// As plain `openssl req -x509 -addext subjectAltName=…` makes one.
fn self_signed(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    change(&mut params);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn below(
    issuer: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), issuer).unwrap()
}

fn leaf(issuer: &CertifiedIssuer<'static, KeyPair>) -> CertificateDer<'static> {
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, NAME);
    params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone()
}

/// Shows a chain to whoever trusts this bundle; the refusal as people read it.
fn shown_to(
    bundle: &[&CertificateDer<'static>],
    chain: &[&CertificateDer<'static>],
    name: &'static str,
) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    let pins: Vec<_> = bundle.iter().map(|&pin| pin.clone()).collect();
    pins.iter().for_each(|pin| roots.add(pin.clone()).unwrap());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new(roots, pins, provider).unwrap();
    let (first, rest) = chain.split_first().unwrap();
    let rest: Vec<_> = rest.iter().map(|&other| other.clone()).collect();
    let name = ServerName::try_from(name).unwrap();
    // 2027-01-15
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
    let verdict = verifier.verify_server_cert(first, &rest, &name, &[], now);
    let peer = Peer { side: Side::Syslog, with_client_certificate: false };
    verdict.map(|_verified| ()).map_err(|error| {
        let text = peer.explain(&error).to_string();
        assert!(!text.contains("Other(") && !text.contains('['), "{text}");
        text
    })
}

/// Self-signed by OpenSSL, valid until 2126.
fn fixture_file(name: &str) -> &'static [u8] {
    macro_rules! files {
        ($($name:literal),*) => {
            match name {
                $($name => include_bytes!(concat!("../../../fixtures/certificates/", $name)).as_slice(),)*
                _ => panic!("no such fixture"),
            }
        };
    }
    files!(
        "ecdsa-p256.pem",
        "ecdsa-p521.pem",
        "ecdsa-brainpool.pem",
        "ed448.pem",
        "rsa-1024.pem",
        "rsa-sha1.pem",
        "x509-v1.pem",
        "common-name.pem",
        "p521-authority.pem",
        "by-p521-authority.pem"
    )
}

#[track_caller]
fn says(outcome: Result<(), String>, words: &[&str]) {
    let text = outcome.unwrap_err();
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

#[test]
fn a_certificate_that_is_itself_in_the_bundle_is_trusted() {
    let pin = self_signed(|_| {});
    assert_eq!(shown_to(&[&pin], &[&pin], NAME), Ok(()));
    assert_eq!(shown_to(&[authority("another").der(), &pin], &[&pin], NAME), Ok(()));
    let plain = self_signed(|params| params.is_ca = IsCa::ExplicitNoCa);
    assert_eq!(shown_to(&[&plain], &[&plain], NAME), Ok(()));
    let issued = leaf(&authority("nobody's"));
    assert_eq!(shown_to(&[&issued], &[&issued], NAME), Ok(()), "whoever has signed it");
    let both = authority("trusted");
    let issued = leaf(&both);
    assert_eq!(shown_to(&[both.der()], &[&issued], NAME), Ok(()), "and authorities as ever");
}

#[test]
fn a_pin_stands_in_for_nothing_but_the_issuer() {
    let pinned = |change: fn(&mut CertificateParams), name| {
        let pin = self_signed(change);
        shown_to(&[&pin], &[&pin], name)
    };
    says(
        pinned(|_| {}, "other.example.com"),
        &["not valid for name other.example.com, only for siem.example.com", "serverName"],
    );
    says(pinned(|_| {}, "192.0.2.1"), &["not valid for name 192.0.2.1"]);
    says(
        pinned(|params| params.not_after = date_time_ymd(2026, 5, 1), NAME),
        &[
            "has expired: CN=siem.example.com",
            "ended at 2026-05-01T00:00:00Z",
            "it is 2027-01-15",
            "renew it",
        ],
    );
    says(
        pinned(|params| params.not_before = date_time_ymd(2030, 5, 1), NAME),
        &["not valid yet", "begins at 2030-05-01T00:00:00Z", "clock"],
    );
    says(
        pinned(
            |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
            NAME,
        ),
        &["not meant for a server", "serverAuth"],
    );
    says(
        pinned(|params| params.subject_alt_names.clear(), NAME),
        &["no subjectAltName, only the common name siem.example.com", "DNS:siem.example.com"],
    );
    let (pin, other) = (self_signed(|_| {}), self_signed(|_| {}));
    says(
        shown_to(&[&pin], &[&other], NAME),
        &["another of that name", "spec.syslog.tls.caBundleRef"],
    );
    says(shown_to(&[&pin], &[&other, &pin], NAME), &["another of that name"]);
    // A pin is no authority for others unless it is one.
    let issuer = authority("pinned authority");
    let mine = leaf(&issuer);
    says(shown_to(&[&mine], &[&leaf(&issuer)], NAME), &["is signed by CN=pinned authority"]);
}

#[test]
fn an_unknown_issuer_is_named() {
    let root = authority("Root R");
    let middle = below(&root, "Middle M");
    let server = leaf(&middle);
    assert_eq!(shown_to(&[root.der()], &[&server, middle.der()], NAME), Ok(()));
    says(
        shown_to(&[root.der()], &[&server], NAME),
        &["CN=siem.example.com is signed by CN=Middle M", "not trusted", "have the server send it"],
    );
    let stranger = authority("Stranger");
    says(
        shown_to(&[stranger.der()], &[&server, middle.der()], NAME),
        &["unknown issuer", "CN=Middle M is signed by CN=Root R", "spec.syslog.tls.caBundleRef"],
    );
    says(
        shown_to(&[stranger.der()], &[&server, middle.der(), root.der()], NAME),
        &["comes from CN=Root R, which is not trusted", "put the certificate of that issuer"],
    );
    let renewed = authority("Root R");
    says(
        shown_to(&[renewed.der()], &[&server, middle.der()], NAME),
        &["another key of that name", "may have been renewed"],
    );
    let own = self_signed(|_| {});
    says(
        shown_to(&[root.der()], &[&own], NAME),
        &["self-signed", "put this very certificate into"],
    );
    let issued = leaf(&root);
    says(
        shown_to(&[issued.clone()].each_ref(), &[middle.der()], NAME),
        &["authority's own (CA:TRUE)"],
    );
}

#[test]
fn what_is_not_supported_is_named() {
    let read = |bytes: &[u8]| pem::certificates("x", bytes, Wanted::Bundle).unwrap().remove(0);
    let fixture = |name: &str| read(fixture_file(name));
    let good = fixture("ecdsa-p256.pem");
    assert_eq!(shown_to(&[&good], &[&good], NAME), Ok(()), "as OpenSSL makes it");
    for (name, words) in [
        ("x509-v1.pem", &["X.509 version 1", "subjectAltName=DNS:siem.example.com"][..]),
        ("common-name.pem", &["only the common name siem.example.com"]),
    ] {
        let pin = fixture(name);
        says(shown_to(&[&pin], &[&pin], NAME), words);
    }
    let stranger = authority("Stranger");
    for (name, words) in [
        ("ecdsa-p521.pem", &["ECDSA on P-521", "not supported", "P-256 or P-384"][..]),
        ("ecdsa-brainpool.pem", &["a Brainpool curve"]),
        ("ed448.pem", &["Ed448"]),
        ("rsa-1024.pem", &["RSA of 1024 bits", "from 2048"]),
        ("rsa-sha1.pem", &["RSA with SHA-1", "SHA-256 or more"]),
        ("by-p521-authority.pem", &["CN=siem.example.com is signed with ECDSA with SHA-512"]),
    ] {
        let shown = fixture(name);
        says(shown_to(&[stranger.der()], &[&shown], NAME), words);
    }
    // The key of a pin shows when it signs the handshake.
    for name in ["rsa-1024.pem", "ecdsa-p521.pem"] {
        let error = of_the_handshake(CertificateError::BadSignature.into(), &fixture(name));
        let peer = Peer { side: Side::Syslog, with_client_certificate: false };
        let text = peer.explain(&error).to_string();
        assert!(text.contains("siem.example.com") && text.contains("not supported"), "{text}");
    }
    let trusted = fixture("p521-authority.pem");
    says(
        shown_to(&[&trusted], &[&fixture("by-p521-authority.pem")], NAME),
        &["ECDSA with SHA-512", "not supported"],
    );
}
