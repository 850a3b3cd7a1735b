//! A certificate authority for one test, and what it signs: servers, clients, and certificates that must be refused.
//!
//! Certificates are PEM, keys PKCS#8 PEM, as Kubernetes mounts them and as rsyslog and syslog-ng read them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::clock;

/// How long what is issued stays valid, and how long the expired ones have been so.
const VALIDITY: SignedDuration = SignedDuration::from_hours(72);

/// A certificate authority with a fresh key.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The key, PKCS#8.
    pub key: String,
}

/// An identity as files in a folder, named as in a `kubernetes.io/tls` Secret, beside its authority.
#[derive(Clone, Debug)]
pub struct Files {
    /// The authority's certificate, `ca.crt`.
    pub ca: PathBuf,
    /// The certificate, `tls.crt`.
    pub certificate: PathBuf,
    /// The key, `tls.key`.
    pub key: PathBuf,
}

impl Authority {
    /// Makes an authority.
    ///
    /// # Errors
    ///
    /// When no key can be made.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate().context("making the key of an authority")?;
        let issuer = CertifiedIssuer::self_signed(params, key)
            .context("signing an authority's certificate")?;
        Ok(Self { issuer })
    }

    /// The authority's own certificate, PEM.
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// Issues a server's certificate for these names and addresses.
    ///
    /// # Errors
    ///
    /// When a name is neither a DNS name nor an address.
    pub fn server(&self, names: &[&str]) -> Result<Identity> {
        self.issue(names, ExtendedKeyUsagePurpose::ServerAuth, Validity::Current)
    }

    /// Issues a server's certificate for the names of this machine's loopback interface.
    ///
    /// # Errors
    ///
    /// When no key can be made.
    pub fn loopback_server(&self) -> Result<Identity> {
        self.server(&["localhost", "127.0.0.1", "::1"])
    }

    /// Issues a server's certificate whose time is over.
    ///
    /// # Errors
    ///
    /// When no key can be made.
    pub fn expired_server(&self) -> Result<Identity> {
        self.issue(
            &["localhost", "127.0.0.1", "::1"],
            ExtendedKeyUsagePurpose::ServerAuth,
            Validity::Expired,
        )
    }

    /// Issues a server's certificate for somebody else.
    ///
    /// # Errors
    ///
    /// When no key can be made.
    pub fn misnamed_server(&self) -> Result<Identity> {
        self.server(&["elsewhere.example.com"])
    }

    /// Issues a client's certificate.
    ///
    /// # Errors
    ///
    /// When the name is not a DNS name.
    pub fn client(&self, name: &str) -> Result<Identity> {
        self.issue(&[name], ExtendedKeyUsagePurpose::ClientAuth, Validity::Current)
    }

    /// Issues a client's certificate whose time is over.
    ///
    /// # Errors
    ///
    /// When the name is not a DNS name.
    pub fn expired_client(&self, name: &str) -> Result<Identity> {
        self.issue(&[name], ExtendedKeyUsagePurpose::ClientAuth, Validity::Expired)
    }

    fn issue(
        &self,
        names: &[&str],
        purpose: ExtendedKeyUsagePurpose,
        validity: Validity,
    ) -> Result<Identity> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let subject = names.first().cloned().unwrap_or_default();
        let mut params = CertificateParams::new(names).context("reading a certificate's names")?;
        params.distinguished_name = common_name(&subject);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        let today = Timestamp::from_millisecond(clock::millis()).context("reading the clock")?;
        let end = match validity {
            Validity::Current => today + VALIDITY,
            Validity::Expired => today - VALIDITY,
        };
        // Whole days are exact enough, and need no name from another crate of times.
        let [not_before, not_after] = [today - VALIDITY - VALIDITY, end].map(|at| {
            let date = at.to_zoned(TimeZone::UTC).date();
            date_time_ymd(
                date.year().into(),
                date.month().unsigned_abs(),
                date.day().unsigned_abs(),
            )
        });
        params.not_before = not_before;
        params.not_after = not_after;
        let key = KeyPair::generate().context("making a key")?;
        let certificate = params.signed_by(&key, &self.issuer).context("signing a certificate")?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Writes an identity and this authority's certificate into a folder.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn write(&self, identity: &Identity, folder: &Path) -> Result<Files> {
        let files = Files {
            ca: folder.join("ca.crt"),
            certificate: folder.join("tls.crt"),
            key: folder.join("tls.key"),
        };
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let contents = [
            (&files.ca, self.certificate()),
            (&files.certificate, identity.certificate.clone()),
            (&files.key, identity.key.clone()),
        ];
        for (path, text) in contents {
            fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(files)
    }
}

/// A server that signs itself, as plain `openssl req -x509` makes it: its own authority (CA:TRUE).
///
/// # Errors
/// When a name is neither a DNS name nor an address.
pub fn self_signed_server(names: &[&str]) -> Result<Identity> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).context("reading a certificate's names")?;
    params.distinguished_name = common_name("self-signed");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().context("making a key")?;
    let certificate = params.self_signed(&key).context("signing a certificate by itself")?;
    Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// The same for `localhost`, made by OpenSSL itself with these arguments of `openssl req`, such as another kind of key.
///
/// # Errors
/// When OpenSSL is not installed, or does not take them.
pub fn openssl_server(arguments: &[&str]) -> Result<Identity> {
    let folder = tempfile::tempdir()?;
    let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-nodes", "-days", "3", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .args(arguments)
        .output()
        .context("start openssl: run tests/run, or apt-get install openssl")?;
    ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    Ok(Identity { certificate: fs::read_to_string(certificate)?, key: fs::read_to_string(key)? })
}

impl std::fmt::Debug for Identity {
    /// Without the key.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Identity")
    }
}

impl Identity {
    /// The chain as rustls wants it.
    ///
    /// # Errors
    ///
    /// When the PEM does not parse.
    pub fn chain(&self) -> Result<Vec<CertificateDer<'static>>> {
        CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<_, _>>()
            .context("reading a certificate")
    }

    /// The key as rustls wants it.
    ///
    /// # Errors
    ///
    /// When the PEM does not parse.
    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).context("reading a key")
    }
}

#[derive(Clone, Copy)]
enum Validity {
    Current,
    Expired,
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
