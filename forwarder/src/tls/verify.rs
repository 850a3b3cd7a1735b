//! Whom to trust: rustls' own verifier is asked first; a certificate that is itself in the bundle is trusted as a pin.
//! Pure.
//!
//! A pin stands in for an issuer and for nothing else: name, dates, purpose and the handshake's signature always hold.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::certificate::Facts;
use super::untrusted::Untrusted;

/// Verifies servers against a bundle.
#[derive(Debug)]
pub(super) struct Verifier {
    webpki: Arc<WebPkiServerVerifier>,
    roots: Arc<RootCertStore>,
    pins: Vec<CertificateDer<'static>>,
}

impl Verifier {
    /// `pins` are the certificates of the bundle; the public roots are no pins.
    pub(super) fn new(
        roots: RootCertStore,
        pins: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        let roots = Arc::new(roots);
        let webpki =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider).build()?;
        Ok(Self { webpki, roots, pins })
    }

    fn is_pinned(&self, end_entity: &CertificateDer<'_>) -> bool {
        self.pins.iter().any(|pin| pin == end_entity)
    }
}

/// Only what concerns the issuer may be made up for by a pin.
fn is_about_the_issuer(error: &Error) -> bool {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => true,
        Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => {
            matches!(other.downcast_ref::<webpki::Error>(), Some(webpki::Error::CaUsedAsEndEntity))
        }
        _ => false,
    }
}

/// What rustls did not get to: it stops at the first thing that is wrong.
fn holds_otherwise(
    end_entity: &CertificateDer<'_>,
    server: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), Error> {
    let unreadable = || Error::from(CertificateError::BadEncoding);
    let facts = Facts::of(end_entity).ok_or_else(unreadable)?;
    let second = |at: Option<jiff::Timestamp>| {
        let seconds = u64::try_from(at?.as_second()).unwrap_or(0);
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
    };
    let (Some(not_before), Some(not_after)) = (second(facts.begins()), second(facts.ends())) else {
        return Err(unreadable());
    };
    if now < not_before {
        return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
    }
    if now > not_after {
        return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
    }
    if facts.is_for_others_than_servers() {
        return Err(CertificateError::InvalidPurpose.into());
    }
    verify_server_name(&ParsedCertificate::try_from(end_entity)?, server)
}

/// A key that is not taken shows only when it signs the handshake.
fn of_the_handshake(error: Error, cert: &CertificateDer<'_>) -> Error {
    Untrusted::by_key(cert).map_or(error, Untrusted::into_error)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self.webpki.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        let verdict = match verdict {
            Err(error) if is_about_the_issuer(&error) && self.is_pinned(end_entity) => {
                holds_otherwise(end_entity, server_name, now)
                    .map(|()| ServerCertVerified::assertion())
            }
            verdict => verdict,
        };
        verdict.map_err(|error| {
            let trusted: Vec<_> =
                self.roots.subjects().iter().map(|name| name.as_ref().to_vec()).collect();
            Untrusted::find(&error, server_name, end_entity, intermediates, &trusted).into_error()
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verdict = self.webpki.verify_tls12_signature(message, cert, dss);
        verdict.map_err(|error| of_the_handshake(error, cert))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verdict = self.webpki.verify_tls13_signature(message, cert, dss);
        verdict.map_err(|error| of_the_handshake(error, cert))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests;
