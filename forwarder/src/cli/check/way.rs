//! The way to a server, one step and one line each: its name, the proxy, the connection, TLS.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::Url;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::say;
use crate::cli::Failure;
use crate::error_chain::chain;
use crate::sink::{self, Duplex, Transport};
use crate::source::{self, Proxy};
use crate::tls::Material;

/// A step takes this long at most.
const PATIENCE: Duration = Duration::from_secs(10);
/// A proxy's answer to CONNECT is shorter.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

/// A step that failed: what to print.
struct Stop {
    what: String,
    words: String,
}

type Step<T> = Result<T, Stop>;

/// The way to a URL of the source: the API's or the identity provider's. Says each step; gives whether all were good.
pub(super) async fn to_url(
    name: &str,
    url: &str,
    settings: &source::Settings,
) -> Result<bool, Failure> {
    let Ok(url) = Url::parse(url) else {
        return say(false, name, "the URL cannot be read").map(|()| false);
    };
    let mut lines = Vec::new();
    let walked = walk_to_url(name, &url, settings, &mut lines).await;
    told(lines, walked)
}

async fn walk_to_url(
    name: &str,
    url: &Url,
    settings: &source::Settings,
    lines: &mut Vec<Line>,
) -> Step<()> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_or_known_default().unwrap_or(443);
    let secure = url.scheme() == "https";
    let proxy = settings.proxy.as_ref().filter(|proxy| proxy.serves(url));
    let mut stream = match proxy {
        None => connect(name, host, port, lines).await?,
        Some(proxy) => {
            let stream = enter(proxy, settings.ca_bundle.clone(), lines).await?;
            if secure { tunnel(stream, proxy, host, port, lines).await? } else { stream }
        }
    };
    if secure {
        let material = Material { ca_bundle: settings.ca_bundle.clone(), client: None };
        let what = format!("TLS, {name}, {host}");
        stream = shake(&what, stream, host, &material, "spec.source.caBundleRef", lines).await?;
    }
    drop(stream);
    Ok(())
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
            shake(&what, stream, &name, material, "spec.syslog.tls", lines).await?;
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
    let url = Url::parse(&proxy.url)
        .map_err(|error| stop("proxy", error, "Correct spec.source.proxy.url"))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(8080);
    let stream = connect("proxy", &host, port, lines).await?;
    if url.scheme() != "https" {
        return Ok(stream);
    }
    let material = Material { ca_bundle, client: None };
    shake("TLS, proxy", stream, &host, &material, "spec.source.caBundleRef", lines).await
}

/// CONNECT (RFC 9110, section 9.3.6).
async fn tunnel(
    mut stream: Box<dyn Duplex>,
    proxy: &Proxy,
    host: &str,
    port: u16,
    lines: &mut Vec<Line>,
) -> Step<Box<dyn Duplex>> {
    let what = format!("proxy, to {host} port {port}");
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
    if let Some(credentials) = &proxy.credentials {
        let read = |file: &crate::secret::SecretFile| {
            file.read().map_err(|error| stop(&what, chain(&error), "Store it there"))
        };
        let (name, password) = (read(&credentials.username)?, read(&credentials.password)?);
        let both = BASE64_STANDARD.encode(format!("{}:{}", name.expose(), password.expose()));
        request.push_str(&format!("Proxy-Authorization: Basic {both}\r\n"));
    }
    request.push_str("\r\n");
    let asked = async {
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.windows(4).any(|four| four == b"\r\n\r\n") && answer.len() < MAX_ANSWER_BYTES
        {
            if stream.read_buf(&mut answer).await? == 0 {
                break;
            }
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let advice = "Check that spec.source.proxy.url is a proxy that serves CONNECT";
    let answer = in_time(asked).await.map_err(|error| stop(&what, error, advice))?;
    match answer.split(' ').nth(1) {
        Some("200") => {
            lines.push(Line { what, words: "connects us".to_owned() });
            Ok(stream)
        }
        Some("407") => Err(stop(
            &what,
            "it wants other credentials (407)",
            "Store username and password in the Secret of spec.source.proxy.credentialsSecretRef",
        )),
        Some(status) if status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit()) => {
            let why = format!("it refuses to connect us ({status})");
            Err(stop(&what, why, "Let whoever runs the proxy allow this host and port"))
        }
        Some(_) | None => Err(stop(&what, "it does not answer as a proxy", advice)),
    }
}

async fn shake(
    what: &str,
    stream: Box<dyn Duplex>,
    host: &str,
    material: &Material,
    field: &str,
    lines: &mut Vec<Line>,
) -> Step<Box<dyn Duplex>> {
    let current = material
        .build()
        .map_err(|error| stop(what, chain(&error), "Put a certificate in PEM there"))?;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| stop(what, error, "No certificate can carry this name"))?;
    let advice = format!("Check the server's certificate and {field}, which says whom to trust");
    let stream = in_time(TlsConnector::from(current.config).connect(name, stream))
        .await
        .map_err(|error| stop(what, error, &advice))?;
    let (_, session) = stream.get_ref();
    let version =
        session.protocol_version().map_or_else(String::new, |version| format!("{version:?}, "));
    lines.push(Line {
        what: what.to_owned(),
        words: format!("{version}its certificate is trusted"),
    });
    Ok(Box::new(stream))
}
