//! A proxy on the way: what it serves, and what it is asked with. Its credentials are read at each use.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderValue, Uri};
use zeroize::Zeroizing;

use super::address::{host, port};
use super::no_proxy;
use crate::secret::{self, Secret, SecretFile};

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

impl Proxy {
    /// Whether a URL is reached through it. What is spoken in plain text lies on loopback, and no proxy is to read it.
    pub(crate) fn serves(&self, url: &Uri) -> bool {
        url.scheme_str() == Some("https")
            && !no_proxy::matches(&self.no_proxy, host(url), port(url))
    }
}

/// The files of a proxy's credentials.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Holds the user name.
    pub username: SecretFile,
    /// Holds the password.
    pub password: SecretFile,
}

impl Credentials {
    /// The value of `Proxy-Authorization`.
    pub(crate) fn authorization(&self) -> Result<Option<HeaderValue>, secret::Error> {
        Ok(basic(&self.username.read()?, &self.password.read()?))
    }
}

/// A proxy with what it is asked with.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) proxy: Proxy,
    pub(super) url: Uri,
    pub(super) authorization: Option<HeaderValue>,
}

/// `Basic …` for `Proxy-Authorization` (RFC 7617).
pub(crate) fn basic(username: &Secret, password: &Secret) -> Option<HeaderValue> {
    let both = Zeroizing::new(format!("{}:{}", username.expose(), password.expose()));
    let header = Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(both.as_bytes())));
    let mut value = HeaderValue::from_str(&header).ok()?;
    value.set_sensitive(true);
    Some(value)
}
