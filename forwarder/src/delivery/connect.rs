//! Opens one connection: all addresses of the name, with time-outs, keepalive and TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::settings::{Settings, Transport};
use super::tcp_info::{Counting, Kernel};
use crate::duplex::Duplex;
use crate::tls;

/// A dead address costs at most this long; the others are tried meanwhile.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The next address is tried after this long (RFC 8305, section 5, recommends 250 ms).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A silent peer is noticed after 30 s + 3 probes of 10 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The name has no address.
    #[error("cannot resolve {host}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver says.
        #[source]
        source: io::Error,
    },
    /// No address answered.
    #[error("cannot connect to {host} port {port}")]
    Connect {
        /// The name.
        host: String,
        /// The port.
        port: u16,
        /// What the last address answered.
        #[source]
        source: io::Error,
    },
    /// Certificates or keys of ours cannot be used, and there are no earlier ones to keep using.
    #[error("cannot read certificates for the syslog connection")]
    Material(#[source] tls::Error),
    /// The TLS handshake failed.
    #[error("TLS handshake with {host} failed")]
    Handshake {
        /// The name.
        host: String,
        /// What it means: an untrusted or expired certificate, another name, a refused protocol.
        #[source]
        source: tls::Fault,
    },
}

/// An open connection with what is needed to confirm what it carries.
pub(super) struct Connection {
    pub(super) stream: Box<dyn Duplex>,
    pub(super) written: Arc<AtomicU64>,
    pub(super) kernel: Kernel,
    /// Whether we showed a certificate, which a peer may refuse late.
    pub(super) with_client_certificate: bool,
    /// When the first certificate that the peer has shown ends.
    pub(super) server_ends: Option<Timestamp>,
}

/// Opens a connection; `material` keeps the last TLS configuration that could be read.
pub(super) async fn connect(
    settings: &Settings,
    keeper: &mut tls::Keeper,
) -> Result<Connection, Error> {
    let stream = dial(&settings.host, settings.port).await?;
    let failed =
        |source| Error::Connect { host: settings.host.clone(), port: settings.port, source };
    prepare(&stream).map_err(failed)?;
    let kernel = Kernel::watch(&stream).map_err(failed)?;
    let (counting, written) = Counting::new(stream);
    match &settings.transport {
        Transport::Udp | Transport::Tcp => Ok(Connection {
            stream: Box::new(counting),
            written,
            kernel,
            with_client_certificate: false,
            server_ends: None,
        }),
        Transport::Tls { server_name, .. } => {
            let current = keeper.current().map_err(Error::Material)?;
            let peer = tls::Peer {
                side: tls::Side::Syslog,
                with_client_certificate: current.with_client_certificate,
            };
            let failed = |error: io::Error| Error::Handshake {
                host: settings.host.clone(),
                source: peer.handshake(&error),
            };
            let handshake =
                TlsConnector::from(current.config).connect(server_name.clone(), counting);
            let stream = timeout(HANDSHAKE_TIMEOUT, handshake)
                .await
                .map_err(|_elapsed| failed(io::ErrorKind::TimedOut.into()))?
                .map_err(failed)?;
            let shown = stream.get_ref().1.peer_certificates();
            let server_ends = shown.and_then(tls::earliest_end);
            Ok(Connection {
                stream: Box::new(stream),
                written,
                kernel,
                with_client_certificate: current.with_client_certificate,
                server_ends,
            })
        }
    }
}

/// Connects to whichever address of the name answers first, the next being tried a little after the one before.
///
/// # Errors
/// [`Error::Resolve`] and [`Error::Connect`].
pub(crate) async fn dial(host: &str, port: u16) -> Result<TcpStream, Error> {
    let resolve = |source| Error::Resolve { host: host.to_owned(), source };
    let addresses: Vec<SocketAddr> = timeout(CONNECT_TIMEOUT, lookup_host((host, port)))
        .await
        .map_err(|_elapsed| resolve(io::ErrorKind::TimedOut.into()))?
        .map_err(resolve)?
        .collect();
    first_to_answer(addresses).await.map_err(|source| Error::Connect {
        host: host.to_owned(),
        port,
        source,
    })
}

async fn first_to_answer(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut attempts = FuturesUnordered::new();
    for (delay, address) in (0..).zip(addresses) {
        attempts.push(async move {
            sleep(NEXT_ADDRESS * delay).await;
            timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
                .await
                .unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
        });
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    while let Some(attempt) = attempts.next().await {
        match attempt {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    // No user time-out: it would end a connection whose peer only keeps its window closed. `health` looks after those.
    socket.set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// An address on which nothing listens.
    async fn closed() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    #[tokio::test]
    async fn a_closed_first_address_leads_to_the_second() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let stream = first_to_answer(vec![closed().await, open]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open);
        let error = first_to_answer(vec![closed().await, closed().await]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(first_to_answer(Vec::new()).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_peer_that_falls_silent_is_noticed_by_the_kernel() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = first_to_answer(vec![listener.local_addr().unwrap()]).await.unwrap();
        prepare(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && stream.nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(10));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
    }
}
