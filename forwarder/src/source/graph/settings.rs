//! Where Graph is, who we are to it, and what is asked of it. Pure.

use std::path::PathBuf;

use super::filter::{Activities, Alerts};
use crate::event::Stream;
use crate::plan::Pace;
use crate::source::http::settings::{Auth, Proxy};
use crate::source::xdr::Table;

/// Where Graph is, who we are to it, and what is asked of it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Graph's URL without a slash at the end.
    pub url: String,
    /// What an access token is asked for: the cloud's own Graph, whatever the URL.
    pub scope: String,
    /// Who we are.
    pub auth: Auth,
    /// The proxy on the way, if any.
    pub proxy: Option<Proxy>,
    /// The authorities to trust instead of the public roots.
    pub ca_bundle: Option<PathBuf>,
    /// The streams that it serves.
    pub streams: Vec<Stream>,
    /// Whose alerts: members of Graph's `serviceSource`.
    pub service_sources: Vec<String>,
    /// The hunting tables that activities are read from.
    pub tables: Vec<Table>,
    /// The user's filter of alerts.
    pub alerts: Alerts,
    /// The user's filter of activities.
    pub activities: Activities,
    /// How often each stream is asked, and from where on.
    pub pace: Pace,
}
