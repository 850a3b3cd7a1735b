//! Host and port of a URL. Pure.

use http::Uri;

/// The host as the URL writes it, an IPv6 address in its brackets.
pub(crate) fn host(uri: &Uri) -> &str {
    uri.host().unwrap_or_default()
}

/// An IPv6 address without its brackets; a name as it is.
pub(crate) fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// The port of the URL, or its scheme's.
pub(crate) fn port(uri: &Uri) -> u16 {
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    uri.port_u16().unwrap_or(default)
}
