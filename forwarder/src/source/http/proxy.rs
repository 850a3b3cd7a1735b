//! A proxy on the way: what it serves, and what it is asked with. Its credentials are read at each use.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderValue, Uri};
use zeroize::Zeroizing;

use super::address::{host, port};
use super::no_proxy;
use super::settings::{Credentials, Proxy};
use crate::secret::{self, Secret};

impl Proxy {
    /// Whether a URL is reached through it. What is spoken in plain text lies on loopback, and no proxy is to read it.
    pub(crate) fn serves(&self, url: &Uri) -> bool {
        url.scheme_str() == Some("https")
            && !no_proxy::matches(&self.no_proxy, host(url), port(url))
    }
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
