//! Who we are to a source, and the proxy on the way: where both stand. Pure.

use crate::secret::file::SecretFile;

/// How to authenticate.
#[derive(Debug, Clone)]
pub enum Auth {
    /// An API token of the portal.
    Token(SecretFile),
    /// An application of Entra ID.
    ClientCredentials {
        /// Directory (tenant) id.
        tenant_id: String,
        /// Application (client) id.
        client_id: String,
        /// What proves who it is.
        proof: Proof,
        /// Such as `https://login.microsoftonline.com`, without a slash at the end.
        authority: String,
    },
}

/// What proves that we are an application.
#[derive(Debug, Clone)]
pub enum Proof {
    /// Its client secret.
    Secret(SecretFile),
    /// A token of somebody whom the application trusts, such as a pod's ServiceAccount (RFC 7523).
    Assertion(SecretFile),
}

impl Auth {
    /// The file of what we are sent with.
    pub fn file(&self) -> &SecretFile {
        match self {
            Self::Token(file)
            | Self::ClientCredentials {
                proof: Proof::Secret(file) | Proof::Assertion(file), ..
            } => file,
        }
    }
}

/// A proxy on the way to the API.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// `http://host:port` or `https://host:port`.
    pub url: String,
    /// Hosts, domains and networks that are reached without it, as in `NO_PROXY`.
    pub no_proxy: Vec<String>,
    /// User name and password, for Basic authentication.
    pub credentials: Option<Credentials>,
}

/// The files of a proxy's credentials.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Holds the user name.
    pub username: SecretFile,
    /// Holds the password.
    pub password: SecretFile,
}
