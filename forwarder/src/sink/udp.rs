//! Datagrams (RFC 5426): one frame each. Delivered means that the kernel took it; the network may still lose it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UdpSocket, lookup_host};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::warn;

use super::{Job, Observer, Settings, Target};
use crate::clock;
use crate::retry::Backoff;

const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Runs until `stop`, or until every handle is gone and all is sent.
pub(super) async fn run(
    settings: Settings,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    target: watch::Sender<Target>,
    observer: Arc<dyn Observer>,
    mut stop: watch::Receiver<bool>,
) {
    warn!(
        host = settings.host,
        port = settings.port,
        "UDP can lose records without a trace; use TCP or TLS"
    );
    let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
    let mut socket = None;
    loop {
        let job = tokio::select! {
            job = jobs.recv() => job,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let Some(job) = job else { return };
        for frame in job.batch.frames() {
            loop {
                match send(&settings, &mut socket, &frame).await {
                    Ok(()) => break,
                    Err(error) => {
                        // A refusal (ICMP port unreachable) is reported on the datagram after the refused one.
                        socket = None;
                        observer.disconnected("datagram");
                        let wait = backoff.next(fastrand::f64());
                        warn!(reason = %error, "cannot send a datagram to the target");
                        target.send_modify(|state| {
                            *state = state.failed(clock::now(), error.to_string());
                        });
                        tokio::select! {
                            () = sleep(wait) => {}
                            _ = stop.wait_for(|stop| *stop) => return,
                        }
                    }
                }
            }
        }
        backoff.reset();
        target.send_if_modified(|state| {
            std::mem::replace(state, Target::Datagram) != Target::Datagram
        });
        job.confirm();
    }
}

async fn send(settings: &Settings, socket: &mut Option<UdpSocket>, frame: &[u8]) -> io::Result<()> {
    let socket = match socket {
        Some(socket) => socket,
        None => socket.insert(open(&settings.host, settings.port).await?),
    };
    socket.send(frame).await.map(|_| ())
}

async fn open(host: &str, port: u16) -> io::Result<UdpSocket> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((host, port)).await? {
        let local = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let attempt = async {
            let socket = UdpSocket::bind(local).await?;
            socket.connect(address).await?;
            Ok(socket)
        };
        match attempt.await {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}
