//! `noProxy`: which hosts are reached without the proxy. Pure, and the one place that decides it.
//!
//! An entry is `*`, an address, a network, or a domain with all that is below it (`example.com`, `.example.com` and
//! `*.example.com` alike), each with or without `:port`. Domains are compared as they are written in URLs; no name is
//! resolved for it.

use std::net::IpAddr;

/// Whether a host and port match any entry.
pub(crate) fn matches(entries: &[String], host: &str, port: u16) -> bool {
    let host = bare(host).to_ascii_lowercase();
    entries.iter().any(|entry| {
        let (name, only) = split_port(entry.trim());
        only.is_none_or(|only| only == port) && names(name, &host)
    })
}

fn names(entry: &str, host: &str) -> bool {
    if entry == "*" {
        return true;
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return match entry.split_once('/') {
            None => bare(entry).parse() == Ok(address),
            Some((network, length)) => match (network.parse(), length.parse()) {
                (Ok(network), Ok(length)) => contains(network, length, address),
                (Err(_), _) | (_, Err(_)) => false,
            },
        };
    }
    let domain = entry.trim_start_matches('*').trim_start_matches('.').to_ascii_lowercase();
    let above = host.strip_suffix(&domain).unwrap_or("no");
    !domain.is_empty() && (above.is_empty() || above.ends_with('.'))
}

/// An entry without its port, and the port.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    match entry.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (entry, None),
        },
        Some(_) | None => (entry, None),
    }
}

/// An IPv6 address without its brackets.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn contains(network: IpAddr, length: u32, address: IpAddr) -> bool {
    let (network, address, n_bits) = match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            (u128::from(network.to_bits()), u128::from(address.to_bits()), 32_u32)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits(), address.to_bits(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
    };
    // A network of length 0 holds everything.
    let differing = (network ^ address).checked_shr(n_bits.saturating_sub(length)).unwrap_or(0);
    length <= n_bits && differing == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_match_as_people_write_them() {
        for (entry, host, port, expected) in [
            ("*", "10.1.2.3", 443, true),
            ("*", "example.com", 443, true),
            ("example.com", "example.com", 443, true),
            ("Example.COM", "api.example.com", 443, true),
            (".example.com", "api.example.com", 443, true),
            ("*.example.com", "a.b.example.com", 443, true),
            ("example.com", "badexample.com", 443, false),
            ("example.com", "example.com.evil", 443, false),
            ("example.com:8443", "example.com", 8443, true),
            ("example.com:8443", "example.com", 443, false),
            ("10.0.0.0/8", "10.255.0.1", 443, true),
            ("10.0.0.0/8", "11.0.0.1", 443, false),
            ("0.0.0.0/0", "11.0.0.1", 443, true),
            ("10.0.0.0/33", "10.0.0.1", 443, false),
            ("10.0.0.1", "10.0.0.1", 443, true),
            ("10.0.0.1:80", "10.0.0.1", 443, false),
            ("2001:db8::/32", "[2001:db8::1]", 443, true),
            ("2001:db8::1", "[2001:DB8::1]", 443, true),
            ("[2001:db8::1]:443", "[2001:db8::1]", 443, true),
            ("[2001:db8::1]:80", "[2001:db8::1]", 443, false),
            ("::/0", "10.0.0.1", 443, false),
            ("10.0.0.0/8", "ten.example.com", 443, false),
            ("", "example.com", 443, false),
            (".", "example.com", 443, false),
        ] {
            assert_eq!(
                matches(&[entry.to_owned()], host, port),
                expected,
                "{entry}, {host}:{port}"
            );
        }
    }
}
