//! Patterns of hosts and URLs, in the syntax that Go's RE2 and Rust's `regex` share: the API server checks by the one,
//! this crate by the other. They must refuse what nothing can connect to, such as a port where none belongs.

macro_rules! name {
    () => {
        r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?"
    };
}

// At least two colons, else it is a host with a port.
macro_rules! ipv6 {
    () => {
        r"([0-9A-Fa-f]{0,4}:){2,8}([0-9A-Fa-f]{0,4}|[0-9]{1,3}(\.[0-9]{1,3}){3})"
    };
}

macro_rules! port {
    () => {
        r"(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
    };
}

macro_rules! authority {
    () => {
        concat!("(", name!(), r"|\[", ipv6!(), r"\])", port!())
    };
}

/// A DNS name or an address, an IPv6 address also in brackets; no port.
pub(crate) const HOST: &str = concat!("^(", name!(), "|", ipv6!(), r"|\[", ipv6!(), r"\])$");

/// An https URL without user info, path, query and fragment; http only to loopback.
pub(crate) const URL: &str = concat!(
    "^(https://",
    authority!(),
    r"|http://(127(\.(25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})){3}|\[::1\]|localhost)",
    port!(),
    ")/?$"
);

/// The same with http to anywhere.
pub(crate) const PROXY_URL: &str = concat!("^https?://", authority!(), "/?$");

macro_rules! number {
    () => {
        "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
    };
}

macro_rules! ipv4 {
    () => {
        concat!(number!(), r"(\.", number!(), r"){3}")
    };
}

macro_rules! whole_ipv6 {
    () => {
        concat!(
            "(([0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}",
            "|([0-9A-Fa-f]{1,4}:){1,7}:",
            "|([0-9A-Fa-f]{1,4}:){1,6}:[0-9A-Fa-f]{1,4}",
            "|([0-9A-Fa-f]{1,4}:){1,5}(:[0-9A-Fa-f]{1,4}){1,2}",
            "|([0-9A-Fa-f]{1,4}:){1,4}(:[0-9A-Fa-f]{1,4}){1,3}",
            "|([0-9A-Fa-f]{1,4}:){1,3}(:[0-9A-Fa-f]{1,4}){1,4}",
            "|([0-9A-Fa-f]{1,4}:){1,2}(:[0-9A-Fa-f]{1,4}){1,5}",
            "|[0-9A-Fa-f]{1,4}:(:[0-9A-Fa-f]{1,4}){1,6}",
            "|:((:[0-9A-Fa-f]{1,4}){1,7}|:))"
        )
    };
}

macro_rules! length_of_4 {
    () => {
        "/(3[0-2]|[12]?[0-9])"
    };
}

macro_rules! length_of_6 {
    () => {
        "/(12[0-8]|1[01][0-9]|[1-9]?[0-9])"
    };
}

/// What can match in `noProxy`: `*`, a domain, an address, a network, a port after them. A domain's last label is no
/// number, else a URL with it would name an address.
pub(crate) const NO_PROXY: &str = concat!(
    r"^\s*((\*|\*?\.?([A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?\.)*([0-9][0-9-]*)?[A-Za-z_]([A-Za-z0-9_-]*[A-Za-z0-9_])?\.?|",
    ipv4!(),
    "|",
    number!(),
    r"(\.\*){1,3}|",
    number!(),
    r"\.",
    number!(),
    r"(\.\*){1,2}|",
    number!(),
    r"(\.",
    number!(),
    r"){2}\.\*)",
    port!(),
    "|",
    ipv4!(),
    length_of_4!(),
    "|",
    whole_ipv6!(),
    "(",
    length_of_6!(),
    r")?|\[",
    whole_ipv6!(),
    r"(\](",
    port!(),
    "|",
    length_of_6!(),
    ")|",
    length_of_6!(),
    r"\]))\s*$"
);
