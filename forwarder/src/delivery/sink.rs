//! A handle to the one task that owns the connection to the SIEM: takes batches while its window has room, and reports
//! the target's state.

use std::sync::Arc;

use siem_agent_edge::clock;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::pending::{Job, Pending, Stopped};
use super::settings::{Settings, Transport};
use super::target::{Observer, Target};
use super::{Batch, tcp, udp};

/// Unconfirmed bytes that may stand at once. With the usual grace of 250 ms this lets four times as much pass each
/// second, more than the API can give, and bounds both the memory and what a broken connection repeats.
const WINDOW_BYTES: usize = 1024 * 1024;

/// A handle to the one task that owns the connection.
#[derive(Debug, Clone)]
pub struct Sink {
    jobs: mpsc::UnboundedSender<Job>,
    room: Arc<Semaphore>,
    target: watch::Receiver<Target>,
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
                tokio::spawn(tcp::run(settings, incoming, report, observer, stop))
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
        self.jobs.send(Job::new(batch, room, done)).map_err(|_closed| Stopped)?;
        Ok(Pending::new(confirmed))
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
