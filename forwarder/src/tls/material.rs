//! Where certificates and keys lie. Pure: they are read where they are used.

use std::path::PathBuf;

/// Where the certificates and the key lie.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Material {
    /// The authorities to trust; the public roots when absent.
    pub ca_bundle: Option<PathBuf>,
    /// Our own certificate chain and its key.
    pub client: Option<ClientMaterial>,
}

/// A certificate chain and the key of its first certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientMaterial {
    /// PEM, leaf first.
    pub certificates: PathBuf,
    /// PEM: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}
