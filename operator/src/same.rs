//! When two ways of writing a place mean the same one. Pure.

use std::net::IpAddr;

/// One tenant, however the name of its source is written. Of a portal's URL case, the slash at the end, the root's dot, the
/// default port and the form of an IPv6 address do not matter; of Graph's tenant, case.
pub(crate) fn tenant(source: &str) -> String {
    let url = source.trim_end_matches('/').to_ascii_lowercase();
    let Some((scheme, authority)) = url.split_once("://") else { return url };
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (authority, ""),
    };
    let default = if scheme == "http" { "80" } else { "443" };
    let port = if port == default { "" } else { port };
    let colon = if port.is_empty() { "" } else { ":" };
    let host = host(name);
    if host.contains(':') {
        format!("{scheme}://[{host}]{colon}{port}")
    } else {
        format!("{scheme}://{host}{colon}{port}")
    }
}

/// One host, however it is written: case, brackets, the root's dot and the form of an IPv6 address do not matter, and an
/// IPv4 address in IPv6's form is that address.
pub(crate) fn host(text: &str) -> String {
    let name = text.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    match name.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().to_string(),
        Err(_name) => name.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_is_known_however_its_url_is_written() {
        for url in [
            "https://T.example/",
            "https://t.example:443",
            "https://t.example.",
            "https://t.example.:443/",
        ] {
            assert_eq!(tenant(url), "https://t.example", "{url}");
        }
        assert_eq!(tenant("http://127.0.0.1:80"), "http://127.0.0.1");
        for url in ["http://[::1]:80/", "http://[0:0:0:0:0:0:0:1]", "http://[::0001]"] {
            assert_eq!(tenant(url), "http://[::1]", "{url}");
        }
        assert_eq!(tenant("https://[2001:DB8::0:1]:8443"), "https://[2001:db8::1]:8443");
        assert_eq!(tenant("https://[::ffff:192.0.2.1]:443"), tenant("https://192.0.2.1"));
        assert_ne!(tenant("https://t.example:8443"), tenant("https://t.example"));
        assert_ne!(tenant("https://t.example:80"), tenant("https://t.example"));
        assert_ne!(tenant("http://127.0.0.1:443"), tenant("http://127.0.0.1"));
        assert_eq!(tenant("graph:Contoso.com"), "graph:contoso.com");
    }

    #[test]
    fn one_host_is_known_however_it_is_written() {
        for (text, expected) in [
            ("SIEM.example.com.", "siem.example.com"),
            ("[2001:DB8:0:0::1]", "2001:db8::1"),
            ("2001:db8::0001", "2001:db8::1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("[::ffff:a00:1]", "10.0.0.1"),
            ("10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(host(text), expected, "{text}");
        }
        assert_ne!(host("2001:db8::1"), host("2001:db8::2"));
    }
}
