//! The thread that the simulator lives on: it goes on answering and making records whatever the test's runtime does.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::serve::Listener;
use rustls::ServerConfig;
use siem_agent_crds::report::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;

use super::api;
use super::tenant::{Shared, lock};
use crate::pki::Identity;

/// A client that does not get on with its handshake is let go.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Alerts come at this share of the rate of activities, unless they have a rate of their own.
const ALERT_SHARE: f64 = 0.02;

/// Ends the thread when it is dropped.
#[derive(Debug)]
pub(super) struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has ended as well.
            let _ = thread.join();
        }
    }
}

/// Listens, and serves the tenant from a thread of its own.
pub(super) fn start(
    address: SocketAddr,
    tls: Option<&Identity>,
    tenant: Shared,
) -> Result<(SocketAddr, Server)> {
    let listener = std::net::TcpListener::bind(address)
        .with_context(|| format!("listen on {address} for the simulated portal"))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let acceptor = tls.map(acceptor).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new().name("defender-sim".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            let routes = api::routes(Arc::clone(&tenant));
            let serving = async {
                // Both serve until they are dropped.
                let _ = match acceptor {
                    None => axum::serve(listener, routes).await,
                    Some(acceptor) => {
                        axum::serve(Handshaken::new(listener, acceptor)?, routes).await
                    }
                };
                io::Result::Ok(())
            };
            tokio::select! {
                _ = serving => {}
                () = produce(tenant) => {}
                _ = stopped => {}
            }
        });
    })?;
    Ok((address, Server { stop: Some(stop), thread: Some(thread) }))
}

fn acceptor(identity: &Identity) -> Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(identity.chain()?, identity.private_key()?)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Makes records at the wanted rates, in steps of 100 ms.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is small and positive"
)]
async fn produce(tenant: Shared) {
    let mut ticks = interval(Duration::from_millis(100));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut owed = [(Stream::Activities, 0.0_f64), (Stream::Alerts, 0.0)];
    loop {
        ticks.tick().await;
        let mut tenant = lock(&tenant);
        let rate = tenant.options.rate;
        let alert_rate = tenant.options.alert_rate.unwrap_or(rate * ALERT_SHARE);
        for ((stream, owed), rate) in owed.iter_mut().zip([rate, alert_rate]) {
            *owed += rate / 10.0;
            let n_records = *owed as usize;
            *owed -= n_records as f64;
            tenant.make(*stream, n_records, Duration::ZERO);
        }
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Connections whose handshake is over: a slow one keeps nobody else waiting.
struct Handshaken {
    address: SocketAddr,
    ready: mpsc::Receiver<(Pin<Box<dyn Duplex>>, SocketAddr)>,
}

impl Handshaken {
    fn new(listener: TcpListener, acceptor: TlsAcceptor) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                tokio::spawn(async move {
                    let handshake = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
                    if let Ok(Ok(stream)) = handshake {
                        // Nobody takes connections any more when the simulator ends.
                        let _ = sender.send((Box::pin(stream) as Pin<Box<dyn Duplex>>, peer)).await;
                    }
                });
            }
        });
        Ok(Self { address, ready })
    }
}

impl Listener for Handshaken {
    type Io = Pin<Box<dyn Duplex>>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
