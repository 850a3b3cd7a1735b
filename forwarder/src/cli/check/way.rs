//! The way to a server, one step and one line each: its name, the proxy, the connection, TLS.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use rustls_pki_types::ServerName;
use siem_agent_edge::error_chain::chain;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::say;
use crate::cli::Failure;
use crate::delivery::settings::{self as sink, Transport};
use crate::duplex::Duplex;
use crate::source::http::address::{self, bare};
use crate::source::http::api::Api;
use crate::source::http::connect;
use crate::source::http::settings::{Auth, Proxy};
use crate::tls::{Material, Peer, Side};

/// A step takes this long at most.
const PATIENCE: Duration = Duration::from_secs(10);

/// A step that failed: what to print.
struct Stop {
    what: String,
    words: String,
}

type Step<T> = Result<T, Stop>;

/// What lies on the way to a source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way<'a> {
    proxy: Option<&'a Proxy>,
    ca_bundle: Option<&'a PathBuf>,
    api: &'a Api,
}

impl<'a> Way<'a> {
    pub(super) fn new(
        proxy: Option<&'a Proxy>,
        ca_bundle: Option<&'a PathBuf>,
        api: &'a Api,
    ) -> Self {
        Self { proxy, ca_bundle, api }
    }

    /// The way to a source and to the identity provider, unless that was tried before. Says each step; gives whether all were
    /// good.
    pub(super) async fn to_source(
        self,
        name: &str,
        url: &str,
        auth: &Auth,
        seen: &mut BTreeSet<String>,
    ) -> Result<bool, Failure> {
        let mut is_clear = self.to_url(name, url).await?;
        if let Auth::ClientCredentials { authority, .. } = auth
            && seen.insert(authority.clone())
        {
            is_clear &= self.to_url("identity provider", authority).await?;
        }
        if !is_clear {
            say(false, name, "not tried, because the connection to it fails")?;
        }
        Ok(is_clear)
    }

    async fn to_url(self, name: &str, url: &str) -> Result<bool, Failure> {
        let Ok(url) = url.parse::<Uri>() else {
            return say(false, name, "the URL cannot be read").map(|()| false);
        };
        let mut lines = Vec::new();
        let walked = self.walk(name, &url, &mut lines).await;
        // Certificates have names that a server chooses, which may know the token from somebody else.
        let walked = walked.map_err(|Stop { what, words }| {
            let is_safe = !self.api.repeats_a_secret(&words);
            let withheld =
                || "the server repeats a part of the secret; its words are withheld".to_owned();
            Stop { what, words: if is_safe { words } else { withheld() } }
        });
        told(lines, walked)
    }

    async fn walk(self, name: &str, url: &Uri, lines: &mut Vec<Line>) -> Step<()> {
        let (host, port) = (bare(address::host(url)), address::port(url));
        let secure = url.scheme_str() == Some("https");
        let mut stream = match self.proxy.filter(|proxy| proxy.serves(url)) {
            None => connect(name, host, port, lines).await?,
            Some(proxy) => {
                let stream = enter(proxy, self.ca_bundle.cloned(), lines).await?;
                if secure { tunnel(stream, proxy, url, lines).await? } else { stream }
            }
        };
        if secure {
            let material = Material { ca_bundle: self.ca_bundle.cloned(), client: None };
            let what = format!("TLS, {name}, {host}");
            stream = shake(&what, stream, host, &material, Side::Source, lines).await?;
        }
        drop(stream);
        Ok(())
    }
}

/// The way to the SIEM, as far as it can be walked without sending anything.
pub(super) async fn to_siem(settings: &sink::Settings) -> Result<bool, Failure> {
    let mut lines = Vec::new();
    let walked = walk_to_siem(settings, &mut lines).await;
    told(lines, walked)
}

async fn walk_to_siem(settings: &sink::Settings, lines: &mut Vec<Line>) -> Step<()> {
    let sink::Settings { host, port, transport, grace: _ } = settings;
    match transport {
        Transport::Udp => {
            resolve("SIEM", host, *port, lines).await?;
        }
        Transport::Tcp => {
            connect("SIEM", host, *port, lines).await?;
        }
        Transport::Tls { server_name, material } => {
            let stream = connect("SIEM", host, *port, lines).await?;
            let what = format!("TLS, SIEM, {host}");
            let name = server_name.to_str().into_owned();
            shake(&what, stream, &name, material, Side::Syslog, lines).await?;
        }
    }
    Ok(())
}

struct Line {
    what: String,
    words: String,
}

/// The steps that were good, and the one that was not.
fn told(lines: Vec<Line>, walked: Step<()>) -> Result<bool, Failure> {
    for Line { what, words } in lines {
        say(true, &what, &words)?;
    }
    match walked {
        Ok(()) => Ok(true),
        Err(Stop { what, words }) => say(false, &what, &words).map(|()| false),
    }
}

/// `what failed. what to do about it`
fn stop(what: &str, why: impl Display, advice: &str) -> Stop {
    Stop { what: what.to_owned(), words: format!("{why}. {advice}") }
}

async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, step).await.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
}

async fn resolve(
    name: &str,
    host: &str,
    port: u16,
    lines: &mut Vec<Line>,
) -> Step<Vec<SocketAddr>> {
    let what = format!("DNS, {name}, {host}");
    let advice = "Check the name's spelling and this machine's resolver";
    let found: Vec<SocketAddr> = in_time(lookup_host((host, port)))
        .await
        .map_err(|error| stop(&what, error, advice))?
        .collect();
    let Some(first) = found.first() else {
        return Err(stop(&what, "the name has no address", advice));
    };
    let more = match found.len() {
        1 => String::new(),
        n_found => format!(" and {} more", n_found - 1),
    };
    lines.push(Line { what, words: format!("is {}{more}", first.ip()) });
    Ok(found)
}

async fn connect(
    name: &str,
    host: &str,
    port: u16,
    lines: &mut Vec<Line>,
) -> Step<Box<dyn Duplex>> {
    let addresses = resolve(name, host, port, lines).await?;
    let what = format!("TCP, {name}, {host} port {port}");
    let advice =
        "Check host and port, firewalls and network policies, and that something listens there";
    let stream = in_time(TcpStream::connect(addresses.as_slice()))
        .await
        .map_err(|error| stop(&what, error, advice))?;
    lines.push(Line { what, words: "takes connections".to_owned() });
    Ok(Box::new(stream))
}

/// The connection to the proxy itself.
async fn enter(
    proxy: &Proxy,
    ca_bundle: Option<PathBuf>,
    lines: &mut Vec<Line>,
) -> Step<Box<dyn Duplex>> {
    let url: Uri =
        proxy.url.parse().map_err(|error| stop("proxy", error, "Correct spec.source.proxy.url"))?;
    let host = bare(address::host(&url)).to_owned();
    let stream = connect("proxy", &host, address::port(&url), lines).await?;
    if url.scheme_str() != Some("https") {
        return Ok(stream);
    }
    let material = Material { ca_bundle, client: None };
    shake("TLS, proxy", stream, &host, &material, Side::Source, lines).await
}

/// The way through the proxy.
async fn tunnel(
    stream: Box<dyn Duplex>,
    proxy: &Proxy,
    url: &Uri,
    lines: &mut Vec<Line>,
) -> Step<Box<dyn Duplex>> {
    let (host, port) = (address::host(url), address::port(url));
    let what = format!("proxy, to {} port {port}", bare(host));
    let authorization = match &proxy.credentials {
        None => None,
        Some(credentials) => credentials
            .authorization()
            .map_err(|error| stop(&what, chain(&error), "Store it there"))?,
    };
    let asked = connect::tunnel(stream, host, port, authorization.as_ref());
    let asked = timeout(PATIENCE, asked).await.unwrap_or(Err(connect::Error::TimedOut));
    let advice = match &asked {
        Ok(_) => "",
        Err(connect::Error::Challenged(challenge)) => challenge.advice(),
        Err(connect::Error::Refused { .. }) => {
            "Let whoever runs the proxy allow this host and port"
        }
        Err(_) => "Check that spec.source.proxy.url is a proxy that serves CONNECT",
    };
    let stream = asked.map_err(|error| stop(&what, chain(&error), advice))?;
    lines.push(Line { what, words: "connects us".to_owned() });
    Ok(stream)
}

async fn shake(
    what: &str,
    stream: Box<dyn Duplex>,
    host: &str,
    material: &Material,
    side: Side,
    lines: &mut Vec<Line>,
) -> Step<Box<dyn Duplex>> {
    let current =
        material.build().map_err(|error| Stop { what: what.to_owned(), words: chain(&error) })?;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| stop(what, error, "No certificate can carry this name"))?;
    let peer = Peer { side, with_client_certificate: current.with_client_certificate };
    let stream = in_time(TlsConnector::from(current.config).connect(name, stream)).await.map_err(
        |error| Stop { what: what.to_owned(), words: peer.handshake(&error).to_string() },
    )?;
    let (_, session) = stream.get_ref();
    let version = match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3, ",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2, ",
        _ => "",
    };
    lines.push(Line {
        what: what.to_owned(),
        words: format!("{version}its certificate is trusted"),
    });
    Ok(Box::new(stream))
}
