//! TLS configurations from folders of PEM files that may change under us.
//!
//! Kubernetes swaps the files of a mounted Secret all at once behind a symbolic link; a certificate and its key are
//! read together here, and what does not parse leaves the configuration that worked in place. TLS 1.2 is the floor:
//! rustls speaks nothing older. Used by the syslog connection and by the source alike.

mod certificate;
mod fault;
mod identity;
pub(crate) mod material;
mod side;
mod untrusted;
mod verify;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use siem_agent_edge::error_chain::chain;
use tracing::error;
use zeroize::Zeroizing;

use crate::files;
use crate::pem::{self, Wanted};

pub use fault::{Fault, Peer, find as failure};
pub use identity::Mismatch;
pub use material::{ClientMaterial, Material};
pub use side::Side;

/// The longest file of certificates: ten times the public roots.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Why there is no TLS configuration. No text of a library is in it: a file may be a private key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} cannot be used")]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Refusal,
    },
    /// A certificate of the bundle cannot be an authority, nor a pin.
    #[error(
        "{path} cannot be used: the certificate in block {block} has extensions that cannot be read; put another one there, or remove it"
    )]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        block: usize,
    },
    /// Certificate and key do not make a client identity.
    #[error("the client certificate {path} cannot be used")]
    Identity {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Mismatch,
    },
    /// TLS itself cannot be set up; a defect of the build.
    #[error("TLS cannot be set up in this build")]
    Setup,
}

/// A configuration that could be built.
#[derive(Clone)]
pub struct Current {
    /// For a handshake.
    pub config: Arc<ClientConfig>,
    /// Whether it carries a certificate of ours.
    pub with_client_certificate: bool,
    /// When the first certificate of our own chain ends.
    pub client_ends: Option<Timestamp>,
}

impl fmt::Debug for Current {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Current")
            .field("with_client_certificate", &self.with_client_certificate)
            .finish_non_exhaustive()
    }
}

/// Keeps the last configuration that parsed, and knows when the files behind it have changed.
#[derive(Debug)]
pub struct Keeper {
    material: Material,
    fingerprint: Option<[u8; 32]>,
    current: Option<Current>,
    /// The files that cannot be used were complained about already.
    refused: Option<[u8; 32]>,
}

impl Keeper {
    /// Nothing is read yet. Without material the public roots are trusted and no certificate is shown.
    pub fn new(material: Option<Material>) -> Self {
        Self {
            material: material.unwrap_or_default(),
            fingerprint: None,
            current: None,
            refused: None,
        }
    }

    /// The configuration for the next handshake, read anew when a file has changed.
    ///
    /// # Errors
    /// Only when nothing that parses was ever read; later trouble is logged, and what worked before is returned.
    pub fn current(&mut self) -> Result<Current, Error> {
        let fingerprint = self.material.fingerprint();
        if let Some(current) = &self.current
            && self.fingerprint == fingerprint
        {
            return Ok(current.clone());
        }
        match self.material.build() {
            Ok(current) => {
                self.fingerprint = fingerprint;
                Ok(self.current.insert(current).clone())
            }
            Err(error) => match &self.current {
                Some(current) => {
                    let current = current.clone();
                    self.complain(fingerprint, &error);
                    Ok(current)
                }
                None => Err(error),
            },
        }
    }

    /// When the first certificate of our own chain in use ends.
    pub fn client_ends(&self) -> Option<Timestamp> {
        self.current.as_ref()?.client_ends
    }

    /// Whether the files differ from those in use, and can be used.
    pub fn changed(&mut self) -> bool {
        if self.current.is_none() {
            // Nothing is in use, as on a connection without TLS.
            return false;
        }
        let fingerprint = self.material.fingerprint();
        if fingerprint == self.fingerprint {
            return false;
        }
        match self.material.build() {
            Ok(_) => true,
            Err(error) => {
                self.complain(fingerprint, &error);
                false
            }
        }
    }

    /// Says once of these files that they cannot be used.
    fn complain(&mut self, fingerprint: Option<[u8; 32]>, error: &Error) {
        if self.refused != fingerprint {
            self.refused = fingerprint;
            error!(
                reason = chain(error),
                "the changed certificates cannot be used, keeping the old ones"
            );
        }
    }
}

impl Material {
    fn paths(&self) -> impl Iterator<Item = &Path> {
        let client = self
            .client
            .iter()
            .flat_map(|client| [client.certificates.as_path(), client.key.as_path()]);
        self.ca_bundle.iter().map(PathBuf::as_path).chain(client)
    }

    /// `None` while a file cannot be read.
    fn fingerprint(&self) -> Option<[u8; 32]> {
        let mut digest = Sha256::new();
        for path in self.paths() {
            let bytes = read(path).ok()?;
            digest.update(bytes.len().to_be_bytes());
            digest.update(&bytes);
        }
        Some(digest.finalize().into())
    }

    /// Reads all files and builds a configuration.
    ///
    /// # Errors
    /// The first file that cannot be used, and why.
    pub fn build(&self) -> Result<Current, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = self.verifier(&provider)?;
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|_defect| Error::Setup)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut client_ends = None;
        let config = match &self.client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let chain = certificates(&client.certificates, Wanted::Chain)?;
                client_ends = earliest_end(&chain);
                let key = pem::private_key(&name(&client.key), &read(&client.key)?)
                    .map_err(|source| Error::Pem { path: client.key.clone(), source })?;
                let mismatch =
                    |source| Error::Identity { path: client.certificates.clone(), source };
                identity::check(&chain, &key, &provider).map_err(mismatch)?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|_what_it_quotes| mismatch(Mismatch::Key))?
            }
        };
        Ok(Current {
            config: Arc::new(config),
            with_client_certificate: self.client.is_some(),
            client_ends,
        })
    }

    fn verifier(
        &self,
        provider: &Arc<rustls::crypto::CryptoProvider>,
    ) -> Result<verify::Verifier, Error> {
        let mut roots = RootCertStore::empty();
        let mut pins = Vec::new();
        match &self.ca_bundle {
            None => {
                roots.add_parsable_certificates(
                    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned(),
                );
            }
            Some(path) => {
                pins = certificates(path, Wanted::Bundle)?;
                for (block, certificate) in (1..).zip(&pins) {
                    roots
                        .add(certificate.clone())
                        .map_err(|_reason| Error::Certificate { path: path.clone(), block })?;
                }
            }
        }
        verify::Verifier::new(roots, pins, Arc::clone(provider)).map_err(|_defect| Error::Setup)
    }
}

/// When the first certificate of a chain ends: the chain is worth nothing from then on. `None` where none can be read,
/// which is for whoever uses them to complain about.
pub fn earliest_end(chain: &[CertificateDer<'_>]) -> Option<Timestamp> {
    let ends = chain.iter().filter_map(|certificate| {
        let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
        Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
    });
    ends.min()
}

/// A key is among what is read so.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    files::read_given(path, MAX_BYTES)
        .map(Zeroizing::new)
        .map_err(|source| Error::Read { path: path.to_owned(), source })
}

fn certificates(path: &Path, wanted: Wanted) -> Result<Vec<CertificateDer<'static>>, Error> {
    pem::certificates(&name(path), &read(path)?, wanted)
        .map_err(|source| Error::Pem { path: path.to_owned(), source })
}

/// As it stands in the commands that mend it.
fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_ends_with_the_first_of_its_certificates() {
        let certificate = |year| {
            let mut params = rcgen::CertificateParams::default();
            params.not_after = rcgen::date_time_ymd(year, 5, 1);
            let key = rcgen::KeyPair::generate().unwrap();
            params.self_signed(&key).unwrap().der().clone()
        };
        let ends = |chain: &[CertificateDer<'_>]| earliest_end(chain).map(|at| at.to_string());
        let chain = [certificate(2031), certificate(2030), certificate(2032)];
        assert_eq!(ends(&chain), Some("2030-05-01T00:00:00Z".to_owned()));
        assert_eq!(ends(&[]), None);
        assert_eq!(ends(&[CertificateDer::from(vec![0; 8])]), None);
    }
}
