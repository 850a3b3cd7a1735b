//! A syslog receiver inside the test: takes TCP or TLS connections and records whole frames, as they came.
//!
//! For tests of everything but delivery itself: what a real receiver does with a connection, only a real one shows.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, ensure};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use siem_agent_sim::arrival::id;
use siem_agent_sim::pki::Identity;

/// How messages are told apart (RFC 6587).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Each ends with a line feed.
    Newline,
    /// Each begins with its length, and ends with a line feed that is counted.
    OctetCounting,
}

/// A certificate to show, and the authority of the clients where they need one.
#[derive(Debug, Clone)]
pub struct Tls {
    /// What it shows.
    pub identity: Identity,
    /// The certificate of the authority, PEM, that every client's certificate must come from.
    pub clients: Option<String>,
}

/// What has come so far.
#[derive(Debug, Default)]
struct Arrived {
    frames: Vec<String>,
    /// How often each id has.
    ids: BTreeMap<String, usize>,
}

type Shared = Arc<Mutex<Arrived>>;

/// A running receiver; it ends with this value.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    arrived: Shared,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    /// Starts it on a free port of loopback.
    ///
    /// # Errors
    /// When it cannot listen, or the certificate cannot be used.
    pub async fn start(framing: Framing, tls: Option<Tls>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen for the receiver")?;
        Self::on(listener, framing, tls)
    }

    /// Starts it where somebody listens already: it takes the connections that are still to come.
    ///
    /// # Errors
    /// When the certificate cannot be used.
    pub fn on(listener: TcpListener, framing: Framing, tls: Option<Tls>) -> Result<Self> {
        let address = listener.local_addr()?;
        let acceptor = tls.as_ref().map(acceptor).transpose()?;
        let arrived = Shared::default();
        let recorded = Arc::clone(&arrived);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, recorded) = (acceptor.clone(), Arc::clone(&recorded));
                tokio::spawn(async move {
                    // A connection that breaks, or never gets through its handshake, has nothing more to say.
                    let _ = match acceptor {
                        None => record(stream, framing, &recorded).await,
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => record(stream, framing, &recorded).await,
                            Err(error) => Err(error.into()),
                        },
                    };
                });
            }
        });
        Ok(Self { address, arrived, task })
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The whole frames so far.
    pub fn frames(&self) -> Vec<String> {
        lock(&self.arrived).frames.clone()
    }

    /// How often each id has arrived.
    pub fn ids(&self) -> BTreeMap<String, usize> {
        lock(&self.arrived).ids.clone()
    }

    /// How many ids have arrived, each counted once.
    pub fn n_ids(&self) -> usize {
        lock(&self.arrived).ids.len()
    }
}

fn lock(arrived: &Shared) -> MutexGuard<'_, Arrived> {
    arrived.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The server's side of the handshake, for a test that takes a connection itself.
///
/// # Errors
/// When the certificate cannot be used.
pub fn acceptor(tls: &Tls) -> Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match &tls.clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder.with_single_cert(tls.identity.chain()?, tls.identity.private_key()?)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn record(stream: impl AsyncRead + Unpin, framing: Framing, arrived: &Shared) -> Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut frame = Vec::new();
        match framing {
            Framing::Newline => {
                stream.read_until(b'\n', &mut frame).await?;
                if frame.pop() != Some(b'\n') {
                    return Ok(());
                }
            }
            Framing::OctetCounting => {
                stream.read_until(b' ', &mut frame).await?;
                let length = std::str::from_utf8(&frame)?.trim_end_matches(' ');
                frame = vec![0; length.parse().context("a frame begins with its length")?];
                stream.read_exact(&mut frame).await?;
                ensure!(frame.pop() == Some(b'\n'), "a counted frame ends with a line feed");
            }
        }
        let frame = String::from_utf8(frame).context("a frame is text")?;
        let mut arrived = lock(arrived);
        if let Some(id) = id(&frame) {
            *arrived.ids.entry(id.to_owned()).or_insert(0) += 1;
        }
        arrived.frames.push(frame);
    }
}
