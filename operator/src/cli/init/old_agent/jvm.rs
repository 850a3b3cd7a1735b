//! The proxy in Java's system properties: `-Dhttps.proxyHost`, `-Dhttps.proxyPort`, `-Dhttp.nonProxyHosts`. Pure.
//!
//! The portal is reached by HTTPS only, for which Java reads these, and not `http.proxyHost`.

use std::collections::BTreeSet;

use super::{Proxy, is_elsewhere};

/// The port that Java takes where none is given.
const DEFAULT_PORT: &str = "443";

const CREDENTIALS: &str = "the proxy's user and password are shown nowhere: put them into a Secret, and name it in \
                           spec.source.proxy.credentialsSecretRef";
const TRUST_STORE: &str = "Java trusted a store of its own: export its authorities as PEM, and name them in \
                           spec.source.caBundleRef";
const SOCKS: &str =
    "a SOCKS proxy has no counterpart: give an HTTP proxy by --proxy, where one is needed";
const OF_HTTP_ONLY: &str = "-Dhttp.proxyHost is left out, because Java does not use it for HTTPS: give --proxy, where \
                            one is needed";
const OF_THE_SYSTEM: &str =
    "Java took the system's proxy, which is not in the text: give --proxy, where one is needed";

/// What the properties of a command line say; a later one wins.
#[derive(Default)]
pub(super) struct Properties {
    host: Option<String>,
    port: Option<String>,
    non_proxy_hosts: Option<String>,
    of_http_only: bool,
    of_the_system: bool,
    notes: BTreeSet<&'static str>,
}

impl Properties {
    /// Reads one word of a command line.
    pub(super) fn read(&mut self, word: &str) {
        let Some((name, value)) = word.strip_prefix("-D").and_then(|word| word.split_once('='))
        else {
            return;
        };
        let value = value.trim_matches(['"', '\'']).trim();
        if value.is_empty() {
            return;
        }
        match name {
            "https.proxyHost" => self.host = Some(value.to_owned()),
            "https.proxyPort" => self.port = Some(value.to_owned()),
            // For HTTPS too. Java knows no property of HTTPS alone, but people set one.
            "http.nonProxyHosts" | "https.nonProxyHosts" => {
                self.non_proxy_hosts = Some(value.to_owned());
            }
            "http.proxyHost" => self.of_http_only = true,
            "java.net.useSystemProxies" => self.of_the_system = value.eq_ignore_ascii_case("true"),
            "https.proxyUser" | "https.proxyPassword" | "http.proxyUser" | "http.proxyPassword" => {
                self.notes.insert(CREDENTIALS);
            }
            "socksProxyHost" => {
                self.notes.insert(SOCKS);
            }
            "javax.net.ssl.trustStore" => {
                self.notes.insert(TRUST_STORE);
            }
            _ => {}
        }
    }

    /// `ADDRESS:PORT`, as `--proxy` has it.
    pub(super) fn proxy(&self) -> Option<Proxy> {
        let host = self.host.as_deref()?;
        let port = self.port.as_deref().unwrap_or(DEFAULT_PORT);
        if is_elsewhere(host) || is_elsewhere(port) {
            return Some(Proxy::Elsewhere);
        }
        let bare = host.contains(':') && !host.starts_with('[') && !host.contains("://");
        Some(Proxy::Address(if bare {
            format!("[{host}]:{port}")
        } else {
            format!("{}:{port}", host.trim_end_matches('/'))
        }))
    }

    /// The hosts that are reached without the proxy, as `noProxy` has them.
    pub(super) fn no_proxy(&self, notes: &mut Vec<&'static str>) -> Vec<String> {
        let Some(hosts) = &self.non_proxy_hosts else { return Vec::new() };
        let mut entries: Vec<String> = Vec::new();
        let mut is_whole = true;
        for host in hosts.split(['|', ',']).map(str::trim).filter(|host| !host.is_empty()) {
            match entry(host) {
                Some(entry) if !entries.contains(&entry) => entries.push(entry),
                Some(_) => {}
                None => is_whole = false,
            }
        }
        if !is_whole {
            notes.push(
                "some hosts of -Dhttp.nonProxyHosts have no counterpart in spec.source.proxy.noProxy and are left out",
            );
        }
        entries
    }

    /// What is not taken, and where its counterpart is.
    pub(super) fn notes(&self) -> Vec<&'static str> {
        let has_none = self.host.is_none();
        let of_http = (has_none && self.of_http_only).then_some(OF_HTTP_ONLY);
        let of_the_system = (has_none && self.of_the_system).then_some(OF_THE_SYSTEM);
        self.notes.iter().copied().chain(of_http).chain(of_the_system).collect()
    }
}

/// A host of Java's list, which may begin or end with `*`, as an entry of `noProxy`.
fn entry(host: &str) -> Option<String> {
    if host == "*" {
        return Some("*".to_owned());
    }
    if let Some(network) = host.strip_suffix('*') {
        return network_of(network);
    }
    let domain = host.strip_prefix("*.").or_else(|| host.strip_prefix('.')).unwrap_or(host);
    let bare = domain.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(domain);
    let is_host = bare.chars().all(|char| char.is_ascii_alphanumeric() || "-._:".contains(char));
    (is_host && !bare.is_empty())
        .then(|| if host.starts_with("*.") { format!("*.{bare}") } else { bare.to_owned() })
}

/// `10.` is 10.0.0.0/8: a beginning of one to three whole numbers.
fn network_of(beginning: &str) -> Option<String> {
    let numbers: Vec<&str> = beginning.strip_suffix('.')?.split('.').collect();
    let are_whole = numbers.iter().all(|number| number.parse::<u8>().is_ok());
    let n_numbers = numbers.len();
    if !are_whole || n_numbers > 3 {
        return None;
    }
    let zeros = ".0".repeat(4 - n_numbers);
    Some(format!("{}{zeros}/{}", numbers.join("."), 8 * n_numbers))
}
