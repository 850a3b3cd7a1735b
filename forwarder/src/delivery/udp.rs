//! Datagrams (RFC 5426): one frame each. Delivered means that the kernel took it; the network may still lose it.
//! One that is too large for the kernel is counted as rejected, so that it never holds up the others.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use siem_agent_edge::clock;
use tokio::net::{UdpSocket, lookup_host};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::warn;

use super::pending::Job;
use super::settings::Settings;
use super::target::{Observer, Target};
use crate::retry::Backoff;

const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// A page of 5,000 records sent at once would overrun any receiver's socket buffer (212,992 bytes by default on Linux,
/// of which a datagram of 600 takes 1,280). So much at once, and then a pause, is still more than the API can give.
const BURST_BYTES: usize = 16 * 1024;
const PAUSE: Duration = Duration::from_millis(5);

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
    let mut n_failures = 0;
    let mut burst = 0;
    loop {
        let job = tokio::select! {
            job = jobs.recv() => job,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let Some(job) = job else { return };
        let mut n_refused = 0;
        for frame in job.batch.frames() {
            burst += frame.len();
            if burst > BURST_BYTES {
                burst = frame.len();
                sleep(PAUSE).await;
            }
            loop {
                match send(&settings, n_failures, &mut socket, &frame).await {
                    Ok(()) => break,
                    // It would be refused again for ever, and hold up all that follow.
                    Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                        warn!(
                            n_bytes = frame.len(),
                            "record skipped: the datagram is too large for the kernel; lower spec.syslog.maxMessageBytes"
                        );
                        n_refused += 1;
                        observer.too_large(job.batch.stream());
                        break;
                    }
                    Err(error) => {
                        // A refusal (ICMP port unreachable) is reported on the datagram after the refused one.
                        // Without a socket there was no address that could fail.
                        n_failures += usize::from(socket.take().is_some());
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
        job.confirm(n_refused);
    }
}

async fn send(
    settings: &Settings,
    n_failures: usize,
    socket: &mut Option<UdpSocket>,
    frame: &[u8],
) -> io::Result<()> {
    let socket = match socket {
        Some(socket) => socket,
        None => {
            let addresses = lookup_host((&*settings.host, settings.port)).await?.collect();
            socket.insert(open(addresses, n_failures).await?)
        }
    };
    socket.send(frame).await.map(|_| ())
}

/// A socket for one of the addresses. To connect a datagram socket says nothing of the peer, so each failure leads to the
/// address after the one that failed.
async fn open(mut addresses: Vec<SocketAddr>, n_failures: usize) -> io::Result<UdpSocket> {
    let next = n_failures.checked_rem(addresses.len()).unwrap_or(0);
    addresses.rotate_left(next);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_failure_leads_to_the_next_address() {
        let addresses: Vec<SocketAddr> =
            (1..=3).map(|number| SocketAddr::from(([127, 0, 0, number], 514))).collect();
        for (n_failures, expected) in [0, 1, 2, 0, 1].into_iter().enumerate() {
            let socket = open(addresses.clone(), n_failures).await.unwrap();
            assert_eq!(socket.peer_addr().unwrap(), addresses[expected]);
        }
        let error = open(Vec::new(), 1).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
