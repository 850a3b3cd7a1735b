//! The HTTP server behind the admin port, which no client can make costly.
//!
//! HTTP/1.1, one request a connection, no request bodies. Every wait for a peer has an end, connections have a small
//! number of places (`places` says who gets one), and answers are bounded in number and bytes, so that neither slow nor
//! many clients take memory, descriptors or time from the program's own work. It knows nothing of what it serves.

mod connection;
mod places;
mod recent;
mod scrape;
mod ticket;

use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, yield_now};
use tokio::time::sleep;
use tracing::{debug, warn};

pub use recent::Recent;
pub use scrape::Scrape;

use crate::limits;
use ticket::Tickets;

/// Connections at once, where the limit of descriptors allows it.
const MAX_CONNECTIONS: usize = 32;
/// But at most this part of the descriptors: the rest is for the program's own work.
const PART_OF_DESCRIPTORS: u64 = 8;
/// And at least this many.
const MIN_CONNECTIONS: usize = 4;
/// Bytes of answers that peers have not taken yet. A report of a day of 200,000 alerts has half of it.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// What the kernel may hold of a connection in each direction; it takes twice as much for itself.
const SEND_BUFFER: usize = 64 * 1024;
const RECEIVE_BUFFER: usize = 16 * 1024;
/// After the kernel refused to accept, for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` is ready, then lets the answers that are under way end.
pub async fn serve(listener: TcpListener, routes: Router, stop: impl Future<Output = ()>) {
    limit_buffers(&listener);
    let tickets = Tickets::new(n_places(limits::open_files()), MAX_ANSWER_BYTES);
    let mut connections = JoinSet::new();
    let mut is_refused = false;
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    is_refused = false;
                    admit(&tickets, stream, peer, &routes, &mut connections);
                    // The newest is served before the next one can take its place.
                    yield_now().await;
                }
                Err(error) if is_of_the_peer(error.kind()) => {}
                Err(error) => {
                    if !is_refused {
                        warn!(reason = %error, "the admin port cannot accept connections");
                    }
                    is_refused = true;
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

fn admit(
    tickets: &Tickets,
    stream: TcpStream,
    peer: SocketAddr,
    routes: &Router,
    connections: &mut JoinSet<()>,
) {
    // Whatever the peer has not taken at the end is dropped with the connection, not kept by the kernel.
    if SockRef::from(&stream).set_linger(Some(Duration::ZERO)).is_err() {
        return;
    }
    match tickets.enter(peer.ip()) {
        Some(ticket) => drop(connections.spawn(connection::serve(stream, ticket, routes.clone()))),
        None => debug!("an admin connection was refused: every place is taken"),
    }
}

/// Connections inherit this. What cannot be set stays as the machine has it.
fn limit_buffers(listener: &TcpListener) {
    let socket = SockRef::from(listener);
    let limited = socket
        .set_send_buffer_size(SEND_BUFFER)
        .and_then(|()| socket.set_recv_buffer_size(RECEIVE_BUFFER));
    if let Err(error) = limited {
        debug!(reason = %error, "the buffers of the admin port cannot be limited");
    }
}

fn n_places(n_descriptors: u64) -> usize {
    let part = usize::try_from(n_descriptors / PART_OF_DESCRIPTORS).unwrap_or(MAX_CONNECTIONS);
    part.clamp(MIN_CONNECTIONS, MAX_CONNECTIONS)
}

/// The connection was gone before it was accepted.
fn is_of_the_peer(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_descriptors_are_kept_for_the_programs_own_work() {
        assert_eq!(n_places(u64::MAX), MAX_CONNECTIONS);
        assert_eq!(n_places(256), 32);
        assert_eq!(n_places(64), 8);
        assert_eq!(n_places(8), MIN_CONNECTIONS);
    }
}
