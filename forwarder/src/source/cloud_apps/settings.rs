//! Where the API is, and who we are to it. Pure.

use std::path::PathBuf;

use crate::source::http::settings::{Auth, Proxy};

/// Where the API is and who we are to it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The tenant's API URL without a slash at the end.
    pub url: String,
    /// Who we are.
    pub auth: Auth,
    /// The proxy on the way, if any.
    pub proxy: Option<Proxy>,
    /// The authorities to trust instead of the public roots.
    pub ca_bundle: Option<PathBuf>,
}
