//! `ADDRESS[:PORT]` as the vendor's agent took it after `--proxy`, and as both programs take it still. Pure.

/// The port where none is given.
const DEFAULT_PORT: u16 = 8080;

/// The proxy's URL for `ADDRESS[:PORT]`; an IPv6 address may stand in brackets or without. `http://` and `https://` before
/// it are taken too, since some wrote a URL. `None` for anything else, such as credentials: what was given is shown in no
/// error, since it may hold a password.
pub fn url(text: &str) -> Option<String> {
    let (scheme, address) = match text.split_once("://") {
        Some((scheme @ ("http" | "https"), address)) => (scheme, address.trim_end_matches('/')),
        Some(_) => return None,
        None => ("http", text),
    };
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, port.parse().ok().filter(|port| *port > 0)?)
        }
        Some(_) | None => (address, DEFAULT_PORT),
    };
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "-._:[]".contains(char);
    if host.is_empty() || !host.chars().all(is_plain) {
        return None;
    }
    let is_bare = host.contains(':') && !host.starts_with('[');
    let host = if is_bare { format!("[{host}]") } else { host.to_owned() };
    Some(format!("{scheme}://{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_becomes_a_url_and_nothing_else_does() {
        for (given, taken) in [
            ("proxy", Some("http://proxy:8080")),
            ("proxy.example.com:3128", Some("http://proxy.example.com:3128")),
            ("http://proxy:3128/", Some("http://proxy:3128")),
            ("https://proxy", Some("https://proxy:8080")),
            ("2001:db8::1", Some("http://[2001:db8::1]:8080")),
            ("[2001:db8::1]:3128", Some("http://[2001:db8::1]:3128")),
            ("user:password@proxy:3128", None),
            ("proxy:0", None),
            ("proxy:many", None),
            ("socks5://proxy:1080", None),
            ("proxy/path", None),
            ("", None),
        ] {
            assert_eq!(url(given).as_deref(), taken, "{given}");
        }
    }
}
