//! `noProxy`: which hosts are reached without the proxy. Pure, and the one place that decides it.
//!
//! An entry is `*`, an address, a network (`10.0.0.0/8`, `10.*`, `[2001:db8::]/32`), or a domain with all that is below it
//! (`example.com`, `.example.com` and `*.example.com` alike), each with or without `:port`. Domains are compared as they
//! are written in URLs, but for case and a full stop at the end; no name is resolved for it. What can never match is
//! refused by a rule of the CRD.

use std::net::IpAddr;

use super::address::bare;

/// Whether a host and port match any entry.
pub(crate) fn matches(entries: &[String], host: &str, port: u16) -> bool {
    let host = bare(host).trim_end_matches('.').to_ascii_lowercase();
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
        return network(entry).is_some_and(|(network, length)| contains(network, length, address));
    }
    let domain = entry.trim_start_matches('*').trim_start_matches('.');
    let domain = domain.trim_end_matches('.').to_ascii_lowercase();
    let above = host.strip_suffix(&domain).unwrap_or("no");
    !domain.is_empty() && (above.is_empty() || above.ends_with('.'))
}

/// A network, or an address as one of a single host.
fn network(entry: &str) -> Option<(IpAddr, u32)> {
    if let Some(network) = wildcard(entry) {
        return Some(network);
    }
    // The brackets may be around the address or around the whole.
    let (address, length) = match bare(entry).split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (entry, None),
    };
    let address: IpAddr = bare(address).parse().ok()?;
    let n_bits = if address.is_ipv4() { 32 } else { 128 };
    let length = length.map_or(Some(n_bits), |length| length.parse().ok())?;
    Some((address, length))
}

/// `127.*` and `10.1.*.*`: leading numbers of an IPv4 address, and any for the rest.
fn wildcard(entry: &str) -> Option<(IpAddr, u32)> {
    let numbers = entry.trim_end_matches(".*");
    if numbers == entry {
        return None;
    }
    let n_numbers = numbers.split('.').count();
    let n_missing = 4_usize.checked_sub(n_numbers).filter(|n_missing| *n_missing > 0)?;
    let whole = format!("{numbers}{}", ".0".repeat(n_missing));
    Some((whole.parse().ok()?, 8 * u32::try_from(n_numbers).ok()?))
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
            ("*.example.com", "example.com", 443, true),
            (" example.com ", "example.com", 443, true),
            ("example.com.", "example.com", 443, true),
            (".example.com.", "api.example.com", 443, true),
            ("example.com", "example.com.", 443, true),
            ("example.com.:443", "example.com", 443, true),
            ("example.com", "badexample.com", 443, false),
            ("example.com", "example.com.evil", 443, false),
            ("example.com:8443", "example.com", 8443, true),
            ("example.com:8443", "example.com", 443, false),
            ("*.example.com:8443", "api.example.com", 8443, true),
            ("10.0.0.0/8", "10.255.0.1", 443, true),
            ("10.1.2.3/8", "10.255.0.1", 443, true),
            ("10.0.0.0/8", "11.0.0.1", 443, false),
            ("0.0.0.0/0", "11.0.0.1", 443, true),
            ("10.0.0.0/33", "10.0.0.1", 443, false),
            ("10.0.0.1", "10.0.0.1", 443, true),
            ("10.0.0.1:80", "10.0.0.1", 443, false),
            ("127.*", "127.0.0.1", 443, true),
            ("127.*.*.*", "127.0.0.1", 443, true),
            ("192.168.*", "192.168.7.1", 443, true),
            ("192.168.1.*", "192.168.1.9", 443, true),
            ("192.168.1.*", "192.168.2.9", 443, false),
            ("192.168.*:8080", "192.168.2.9", 8080, true),
            ("127.*", "128.0.0.1", 443, false),
            ("127.*", "127.example.com", 443, false),
            ("1.2.3.4.*", "1.2.3.4", 443, false),
            ("2001:db8::/32", "[2001:db8::1]", 443, true),
            ("[2001:db8::]/32", "[2001:db8::1]", 443, true),
            ("[2001:db8::/32]", "[2001:db8::1]", 443, true),
            ("[::1]/128", "[::1]", 443, true),
            ("[::1]/128", "[::2]", 443, false),
            ("::1/128", "::1", 443, true),
            ("::1", "[::1]", 443, true),
            ("[::1]", "[::1]", 443, true),
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
