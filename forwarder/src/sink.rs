//! Delivery to the SIEM: takes batches, keeps them until they are confirmed, and is the only maker of [`Delivered`].
//!
//! What "delivered" means depends on the transport:
//!
//! - **TCP and TLS**: the peer's kernel has acknowledged every byte of the batch (`tcpi_bytes_acked` of `TCP_INFO`,
//!   counted on everything the socket carries: for TLS the ciphertext, handshake included), *and* the connection then
//!   stayed healthy (state ESTABLISHED, nothing on the read half that ends it) for the grace. When a connection breaks,
//!   everything unconfirmed is sent again on the next one, the same bytes in the same order.
//! - **UDP**: the kernel has taken the datagram. The protocol tells no more; this transport is lossy.
//!
//! The sink never looks at the source, never drops a batch that it took, and never writes a record's content to a log.

mod confirm;
mod connect;
mod health;
mod outbox;
mod session;
mod target;
mod udp;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls_pki_types::ServerName;
use siem_agent_edge::clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::batch::Batch;
use crate::checkpoint::Mark;
use crate::event::Stream;
use crate::tls::Material;

pub(crate) use connect::Duplex;
pub use connect::Error;
pub use target::Target;

/// Unconfirmed bytes that may stand at once. With the usual grace of 250 ms this lets four times as much pass each
/// second, more than the API can give, and bounds both the memory and what a broken connection repeats.
const WINDOW_BYTES: usize = 1024 * 1024;

/// Proof that a batch was delivered, as the transport defines it.
#[derive(Debug)]
pub struct Delivered {
    stream: Stream,
    marks: Vec<Mark>,
    n_refused: usize,
    at: Timestamp,
}

impl Delivered {
    /// Only the sink's own transports call this, at the moment of confirmation.
    fn confirm(batch: Batch, n_refused: usize) -> Self {
        Self { stream: batch.stream(), marks: batch.into_marks(), n_refused, at: clock::now() }
    }

    /// How many records of it the target has: all but those that the transport can never carry.
    pub fn n_delivered(&self) -> usize {
        self.marks.len() - self.n_refused
    }

    /// When the confirmation came.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// The stream of the records.
    pub fn stream(&self) -> Stream {
        self.stream
    }

    /// The marks of the records, in the order in which they were sent.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    pub(crate) fn into_marks(self) -> Vec<Mark> {
        self.marks
    }
}

/// How to reach the SIEM.
#[derive(Debug, Clone)]
pub struct Settings {
    /// DNS name or address literal, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// UDP, TCP or TLS with what it needs.
    pub transport: Transport,
    /// How long a connection must stay healthy after the peer's kernel has acknowledged.
    pub grace: Duration,
}

/// The transport and its own settings.
#[derive(Debug, Clone)]
pub enum Transport {
    /// One datagram a frame; lossy.
    Udp,
    /// A TCP connection.
    Tcp,
    /// TLS 1.2 or newer over TCP.
    Tls {
        /// The name that the server's certificate must carry.
        server_name: ServerName<'static>,
        /// Where certificates and keys lie; read again at every connect.
        material: Material,
    },
}

/// What the sink tells whoever keeps the numbers.
pub trait Observer: Send + Sync + 'static {
    /// Records that had been written before and are written again.
    fn resent(&self, n_records: usize);
    /// A record whose datagram the kernel refuses for its size.
    fn too_large(&self, stream: Stream);
    /// A connection ended; the reason is one of a small fixed set.
    fn disconnected(&self, reason: &'static str);
    /// When the first certificate of a chain in use ends; `None` where there is no chain.
    fn certificate_ends(&self, role: Role, at: Option<Timestamp>);
}

/// Whose certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Ours, which the SIEM may ask for.
    Client,
    /// The SIEM's.
    Server,
}

impl Role {
    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// A handle to the one task that owns the connection.
#[derive(Debug, Clone)]
pub struct Sink {
    jobs: mpsc::UnboundedSender<Job>,
    room: Arc<Semaphore>,
    target: watch::Receiver<Target>,
}

#[derive(Debug)]
struct Job {
    batch: Batch,
    room: OwnedSemaphorePermit,
    done: oneshot::Sender<Delivered>,
}

/// A batch that was handed over and is not confirmed yet.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Delivered>);

/// The sink stopped before the batch was confirmed: the records are not delivered.
#[derive(Debug, thiserror::Error)]
#[error("stopped before the target confirmed")]
pub struct Stopped;

impl Pending {
    /// Waits for the confirmation, however long the target is away.
    ///
    /// # Errors
    /// [`Stopped`] when the program ends first.
    pub async fn confirmed(&mut self) -> Result<Delivered, Stopped> {
        (&mut self.0).await.map_err(|_closed| Stopped)
    }

    /// The confirmation, if it has come already.
    ///
    /// # Errors
    /// [`Stopped`] when the program ends first.
    pub fn poll_confirmed(&mut self) -> Result<Option<Delivered>, Stopped> {
        match self.0.try_recv() {
            Ok(delivered) => Ok(Some(delivered)),
            Err(oneshot::error::TryRecvError::Empty) => Ok(None),
            Err(oneshot::error::TryRecvError::Closed) => Err(Stopped),
        }
    }
}

impl Sink {
    /// Starts the task that connects and stays connected. When `stop` turns true it writes nothing more, waits for the
    /// confirmation of what was written, closes and ends; it also ends when every handle is gone and all is confirmed.
    pub fn start(
        settings: Settings,
        observer: Arc<dyn Observer>,
        stop: watch::Receiver<bool>,
    ) -> (Self, JoinHandle<()>) {
        let (jobs, incoming) = mpsc::unbounded_channel();
        let first = match settings.transport {
            Transport::Udp => Target::Datagram,
            Transport::Tcp | Transport::Tls { .. } => Target::Connecting { since: clock::now() },
        };
        let (report, target) = watch::channel(first);
        let room = Arc::new(Semaphore::new(WINDOW_BYTES));
        let task = match settings.transport {
            Transport::Udp => tokio::spawn(udp::run(settings, incoming, report, observer, stop)),
            Transport::Tcp | Transport::Tls { .. } => {
                tokio::spawn(session::run(settings, incoming, report, observer, stop))
            }
        };
        (Self { jobs, room, target }, task)
    }

    /// Hands a batch over, waiting until the window has room for it. The first batch always fits.
    ///
    /// # Errors
    /// [`Stopped`] when the program ends.
    pub async fn send(&self, batch: Batch) -> Result<Pending, Stopped> {
        let n_bytes = u32::try_from(batch.bytes().len().min(WINDOW_BYTES)).unwrap_or(u32::MAX);
        let room =
            Arc::clone(&self.room).acquire_many_owned(n_bytes).await.map_err(|_closed| Stopped)?;
        let (done, confirmed) = oneshot::channel();
        self.jobs.send(Job { batch, room, done }).map_err(|_closed| Stopped)?;
        Ok(Pending(confirmed))
    }

    /// Waits until the target is believed to take records.
    ///
    /// # Errors
    /// [`Stopped`] when the program ends.
    pub async fn reachable(&self) -> Result<(), Stopped> {
        self.target
            .clone()
            .wait_for(Target::takes_records)
            .await
            .map(|_| ())
            .map_err(|_closed| Stopped)
    }

    /// What is known of the target now.
    pub fn target(&self) -> Target {
        self.target.borrow().clone()
    }

    /// Bytes handed over and not confirmed.
    pub fn unconfirmed_bytes(&self) -> usize {
        WINDOW_BYTES.saturating_sub(self.room.available_permits())
    }
}
