//! The way to a server: TCP to it or to the proxy before it, CONNECT through the proxy, TLS.
//!
//! One connector for everything that the source asks, so that a proxy's own answers are read and never guessed from a
//! library's words, and an address in the place of a name works behind a proxy as it does without one.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Uri};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower::Service;

use super::address::{bare, host, port};
use super::proxy::Way;
use crate::duplex::Duplex;

/// How we call ourselves.
pub(super) const US: &str = concat!("siem-forwarder/", env!("CARGO_PKG_VERSION"));
/// From the name to the end of the last handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A proxy's answer to CONNECT is shorter.
const MAX_ANSWER_BYTES: usize = 16 * 1024;
/// IANA's registry of HTTP authentication schemes, and what Windows' proxies add.
const SCHEMES: [&str; 14] = [
    "Basic",
    "Bearer",
    "Concealed",
    "Digest",
    "DPoP",
    "GNAP",
    "HOBA",
    "Kerberos",
    "Mutual",
    "Negotiate",
    "NTLM",
    "PrivateToken",
    "SCRAM-SHA-256",
    "VAPID",
];
const ANOTHER_SCHEME: &str = "another scheme";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No address, or nobody takes the connection.
    #[error("no connection")]
    Tcp(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The host cannot be in any certificate.
    #[error("the host is no name or address that a certificate can carry")]
    Name,
    /// The handshake with the server failed.
    #[error("no TLS")]
    Tls(#[source] io::Error),
    /// The handshake with the proxy failed.
    #[error("no TLS with the proxy")]
    ProxyTls(#[source] io::Error),
    /// The connection to the proxy broke.
    #[error("the connection to the proxy broke")]
    Proxy(#[source] io::Error),
    /// It does not speak HTTP, or too much of it.
    #[error("the proxy does not answer CONNECT as a proxy does")]
    NoProxy,
    /// 407.
    #[error("{0}")]
    Challenged(Challenge),
    /// Any other refusal.
    #[error("the proxy refuses the way to the server ({status})")]
    Refused {
        /// HTTP status.
        status: u16,
    },
    /// It took too long.
    #[error("no connection within {} seconds", CONNECT_TIMEOUT.as_secs())]
    TimedOut,
}

/// What a proxy asks for with 407.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The schemes that it offers, by their registered names: nothing that it writes itself is shown.
    schemes: Vec<&'static str>,
    /// Whether it was given a user name and a password.
    was_answered: bool,
}

impl Challenge {
    /// Reads the values of `Proxy-Authenticate` (RFC 9110, section 11.6.1).
    pub(crate) fn read<'a>(values: impl IntoIterator<Item = &'a str>, was_answered: bool) -> Self {
        let mut schemes: Vec<&'static str> = Vec::new();
        for scheme in values.into_iter().flat_map(schemes_of) {
            let known = SCHEMES.iter().find(|known| known.eq_ignore_ascii_case(scheme));
            let scheme = known.copied().unwrap_or(ANOTHER_SCHEME);
            if !schemes.contains(&scheme) {
                schemes.push(scheme);
            }
        }
        Self { schemes, was_answered }
    }

    fn offers_basic(&self) -> bool {
        self.schemes.is_empty()
            || self.schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("Basic"))
    }

    /// What somebody can do about it.
    pub(crate) fn advice(&self) -> &'static str {
        match (self.offers_basic(), self.was_answered) {
            (true, true) => {
                "Correct username and password in the Secret of spec.source.proxy.credentialsSecretRef"
            }
            (true, false) => {
                "Store username and password in a Secret and name it in spec.source.proxy.credentialsSecretRef"
            }
            (false, _) => {
                "Let whoever runs the proxy offer Basic or let this host pass without authentication; or set spec.source.proxy.url to a relay that speaks for it, such as cntlm or px; spec.source.proxy.credentialsSecretRef helps with Basic only"
            }
        }
    }
}

impl std::fmt::Display for Challenge {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.offers_basic(), self.was_answered) {
            (true, true) => formatter.write_str(
                "the proxy refuses the user name or the password (407): it wants other credentials",
            ),
            (true, false) => {
                formatter.write_str("the proxy wants a user name and a password (407)")
            }
            (false, _) => write!(
                formatter,
                "the proxy offers {} only (407), and Basic is the one authentication spoken here",
                self.schemes.join(", ")
            ),
        }
    }
}

/// The schemes of one header line: what begins a challenge, not its parameters.
fn schemes_of(value: &str) -> impl Iterator<Item = &str> {
    let mut in_quotes = false;
    value
        .split(move |char| {
            in_quotes ^= char == '"';
            char == ',' && !in_quotes
        })
        .filter_map(|part| part.split_whitespace().next())
        // A parameter after a comma.
        .filter(|word| !word.contains('='))
}

/// Connects for the HTTP client.
#[derive(Clone)]
pub(super) struct Connector {
    tcp: HttpConnector,
    tls: TlsConnector,
    way: Option<Arc<Way>>,
}

impl Connector {
    pub(super) fn new(config: Arc<rustls::ClientConfig>, way: Option<Way>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        Self { tcp, tls: TlsConnector::from(config), way: way.map(Arc::new) }
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<Link>, Error> {
        let mut stream = match self.way.as_deref().filter(|way| way.proxy.serves(&uri)) {
            None => self.open(uri.clone()).await?,
            Some(way) => {
                let stream = self.open(way.url.clone()).await?;
                let stream = if way.url.scheme_str() == Some("https") {
                    self.secure(&way.url, stream).await?.map_err(Error::ProxyTls)?
                } else {
                    stream
                };
                tunnel(stream, host(&uri), port(&uri), way.authorization.as_ref()).await?
            }
        };
        if uri.scheme_str() == Some("https") {
            stream = self.secure(&uri, stream).await?.map_err(Error::Tls)?;
        }
        Ok(TokioIo::new(Link(stream)))
    }

    async fn open(&self, uri: Uri) -> Result<Box<dyn Duplex>, Error> {
        let mut tcp = self.tcp.clone();
        let opened = async {
            poll_fn(|context| tcp.poll_ready(context)).await?;
            tcp.call(uri).await
        };
        let stream = opened.await.map_err(|error| Error::Tcp(Box::new(error)))?;
        Ok(Box::new(stream.into_inner()))
    }

    /// The outer error is ours, the inner one the handshake's.
    async fn secure(
        &self,
        uri: &Uri,
        stream: Box<dyn Duplex>,
    ) -> Result<io::Result<Box<dyn Duplex>>, Error> {
        let name = ServerName::try_from(bare(host(uri)).to_owned()).map_err(|_name| Error::Name)?;
        let stream = self.tls.connect(name, stream).await;
        Ok(stream.map(|stream| Box::new(stream) as Box<dyn Duplex>))
    }
}

/// CONNECT (RFC 9110, section 9.3.6); `host` as it stands in a URL.
pub(crate) async fn tunnel(
    mut stream: Box<dyn Duplex>,
    host: &str,
    port: u16,
    authorization: Option<&HeaderValue>,
) -> Result<Box<dyn Duplex>, Error> {
    let mut request =
        format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: {US}\r\n")
            .into_bytes();
    if let Some(authorization) = authorization {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await.map_err(Error::Proxy)?;
    stream.flush().await.map_err(Error::Proxy)?;
    let mut answer = Vec::new();
    let end = loop {
        if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if answer.len() >= MAX_ANSWER_BYTES
            || stream.read_buf(&mut answer).await.map_err(Error::Proxy)? == 0
        {
            return Err(Error::NoProxy);
        }
    };
    let head = String::from_utf8_lossy(answer.get(..end).unwrap_or_default());
    let mut lines = head.lines();
    let status = lines
        .next()
        .filter(|line| line.starts_with("HTTP/1."))
        .and_then(|line| line.split(' ').nth(1)?.parse::<u16>().ok());
    match status {
        // Whoever speaks next is the client: nothing may follow yet.
        Some(200..=299) if answer.len() == end + 4 => Ok(stream),
        Some(407) => {
            let values = lines.filter_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.trim().eq_ignore_ascii_case("Proxy-Authenticate").then_some(value)
            });
            Err(Error::Challenged(Challenge::read(values, authorization.is_some())))
        }
        Some(status @ 300..=599) => Err(Error::Refused { status }),
        Some(_) | None => Err(Error::NoProxy),
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Link>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.clone().connect(uri);
        Box::pin(async move {
            timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or(Err(Error::TimedOut))
        })
    }
}

/// An open connection.
pub(super) struct Link(Box<dyn Duplex>);

impl Connection for Link {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a proxy with this answer leads to, and what it was asked.
    async fn asked(
        answer: &'static str,
        host: &str,
        authorization: Option<&HeaderValue>,
    ) -> (Result<(), Error>, String) {
        let (client, mut proxy) = tokio::io::duplex(4_096);
        let serving = tokio::spawn(async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                if proxy.read_buf(&mut request).await.unwrap() == 0 {
                    break;
                }
            }
            proxy.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(request).unwrap()
        });
        let outcome = tunnel(Box::new(client), host, 443, authorization).await.map(drop);
        (outcome, serving.await.unwrap())
    }

    #[tokio::test]
    async fn an_address_is_asked_for_in_its_brackets() {
        let (outcome, request) = asked("HTTP/1.1 200 OK\r\n\r\n", "[::1]", None).await;
        assert!(outcome.is_ok(), "{outcome:?}");
        let begins = "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n";
        assert!(request.starts_with(begins), "{request}");
    }

    #[tokio::test]
    async fn what_a_proxy_says_is_told_with_what_to_do() {
        let basic = HeaderValue::from_static("Basic UExBTlRFRA==");
        for (answer, authorization, words, advice) in [
            (
                "HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\nproxy-authenticate: Negotiate\r\n\r\n",
                None,
                "offers NTLM, Negotiate only (407)",
                "whoever runs the proxy",
            ),
            (
                "HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate UExB=, NTLM\r\n\r\n",
                Some(&basic),
                "offers Negotiate, NTLM only (407)",
                "cntlm",
            ),
            (
                "HTTP/1.1 407 No\r\nProxy-Authenticate: Digest realm=\"a, Basic b\", nonce=\"x\", qop=auth\r\n\r\n",
                None,
                "offers Digest only",
                "Basic",
            ),
            (
                "HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n",
                Some(&basic),
                "refuses the user name or the password (407)",
                "Correct username and password",
            ),
            (
                "HTTP/1.1 407 No\r\nProxy-Authenticate: basic realm=x\r\n\r\n",
                None,
                "wants a user name and a password (407)",
                "credentialsSecretRef",
            ),
            ("HTTP/1.1 407 No\r\n\r\n", Some(&basic), "other credentials", "Correct"),
            // A scheme of its own making could be a part of what it was sent.
            (
                "HTTP/1.1 407 No\r\nProxy-Authenticate: UExBTlRF, 504c414e, ntlm\r\n\r\n",
                Some(&basic),
                "offers another scheme, NTLM only (407)",
                "cntlm",
            ),
        ] {
            let (outcome, _) = asked(answer, "example.com", authorization).await;
            let Err(Error::Challenged(challenge)) = outcome else {
                panic!("{answer}: {outcome:?}")
            };
            assert!(challenge.to_string().contains(words), "{challenge}");
            assert!(challenge.advice().contains(advice), "{answer}: {}", challenge.advice());
            assert!(!format!("{challenge} {challenge:?}").contains("UExB"));
        }
        for (answer, words) in [
            ("HTTP/1.1 403 Forbidden\r\n\r\n", "refuses the way to the server (403)"),
            ("HTTP/1.0 502 Bad\r\n\r\n", "(502)"),
            ("HTTP/1.1 200 OK\r\n\r\nhello", "as a proxy does"),
            ("220 mail ESMTP\r\n\r\n", "as a proxy does"),
            ("HTTP/1.1 x\r\n\r\n", "as a proxy does"),
            ("", "as a proxy does"),
        ] {
            let (outcome, _) = asked(answer, "example.com", None).await;
            let error = outcome.unwrap_err();
            assert!(error.to_string().contains(words), "{answer}: {error}");
        }
    }
}
