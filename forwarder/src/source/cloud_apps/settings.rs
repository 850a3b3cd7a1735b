//! Where the API is, who we are to it, and what is asked of it. Pure.

use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::event::Stream;
use crate::plan::Pace;
use crate::source::http::settings::{Auth, Proxy};

/// Where the API is, who we are to it, and what is asked of it.
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
    /// The streams that it serves, with the user's filters in the API's own form.
    pub streams: Vec<(Stream, Map<String, Value>)>,
    /// How often each is asked, and from where on.
    pub pace: Pace,
}
