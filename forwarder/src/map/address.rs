//! An address as people see it in the portal's data: alone, or with a port, brackets, a zone, blanks around it. Pure.
//!
//! Only what is one address, written strictly, is one; an IPv4 address that is mapped into IPv6 is one of IPv4.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address in a text.
pub(super) fn read(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    // Most are written as they are.
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let address = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (inside, after) = bracketed.split_once(']')?;
            let is_port = |after: &str| after.strip_prefix(':').is_some_and(is_port);
            if !after.is_empty() && !is_port(after) {
                return None;
            }
            match inside.parse::<Ipv4Addr>() {
                Ok(address) => IpAddr::V4(address),
                Err(_other) => IpAddr::V6(without_zone(inside)?),
            }
        }
        None => match text.rsplit_once(':') {
            Some((address, port)) if !address.contains(':') && is_port(port) => {
                IpAddr::V4(address.parse().ok()?)
            }
            Some(_) | None => IpAddr::V6(without_zone(text)?),
        },
    };
    Some(address.to_canonical())
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// An address of IPv6 whose zone (RFC 4007, section 11) says nothing outside of its host.
fn without_zone(text: &str) -> Option<Ipv6Addr> {
    let (address, zone) = text.split_once('%').unwrap_or((text, "-"));
    let belongs = |byte: u8| byte.is_ascii_graphic() && !b"[]%,;/".contains(&byte);
    (!zone.is_empty() && zone.bytes().all(belongs)).then(|| address.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn the_address_in_a_text_counts_whatever_is_around_it() {
        for (text, address) in [
            ("192.0.2.10", Some("192.0.2.10")),
            (" 192.0.2.10\t", Some("192.0.2.10")),
            ("192.0.2.10:51234", Some("192.0.2.10")),
            ("192.0.2.10:0", Some("192.0.2.10")),
            ("[192.0.2.10]:443", Some("192.0.2.10")),
            ("2001:DB8:0::7", Some("2001:db8::7")),
            ("[2001:db8::7]", Some("2001:db8::7")),
            (" [2001:db8::7]:443 ", Some("2001:db8::7")),
            ("2001:db8::7:443", Some("2001:db8::7:443")),
            ("fe80::1%eth0", Some("fe80::1")),
            ("fe80::1%4", Some("fe80::1")),
            ("[fe80::1%25eth0]:443", Some("fe80::1")),
            ("[fe80::1%eth0]:443", Some("fe80::1")),
            ("::ffff:192.0.2.10", Some("192.0.2.10")),
            ("::FFFF:c000:20a", Some("192.0.2.10")),
            ("[::ffff:192.0.2.10]:443", Some("192.0.2.10")),
            ("::ffff:192.0.2.10%eth0", Some("192.0.2.10")),
            ("0.0.0.0", Some("0.0.0.0")),
            ("::", Some("::")),
            ("192.0.2.010", None),
            ("192.0.2", None),
            ("192.0.2.10:65536", None),
            ("192.0.2.10:", None),
            ("192.0.2.10:+1", None),
            ("192.0.2.10:80:80", None),
            ("192.0.2.10/24", None),
            ("192.0.2.10%eth0", None),
            ("192.0.2.10, 198.51.100.7", None),
            ("[2001:db8::7", None),
            ("2001:db8::7]", None),
            ("[2001:db8::7]443", None),
            ("[2001:db8::7]:", None),
            ("[]", None),
            ("fe80::1%", None),
            ("fe80::1%a b", None),
            ("<null>", None),
            ("unknown", None),
            ("localhost:80", None),
            ("", None),
        ] {
            let found = read(text).map(|address| address.to_string());
            assert_eq!(found.as_deref(), address, "{text}");
        }
    }
}
