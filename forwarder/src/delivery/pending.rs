//! A batch between its handing over and its confirmation: what the transport holds of it, and what the sender waits on.

use siem_agent_edge::clock;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Batch, Delivered};

/// A batch as the transport holds it, with its share of the window.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) batch: Batch,
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

impl Job {
    /// A batch with its room in the window, and who waits for it.
    pub(super) fn new(
        batch: Batch,
        room: OwnedSemaphorePermit,
        done: oneshot::Sender<Delivered>,
    ) -> Self {
        Self { batch, room, done }
    }

    /// Makes the proof and frees the room.
    pub(super) fn confirm(self, n_refused: usize) {
        let Self { batch, room, done } = self;
        drop(room);
        // Whoever waited may have ended; then nobody advances, and the record comes again.
        let _ = done.send(Delivered::confirm(batch, n_refused, clock::now()));
    }
}

impl Pending {
    pub(super) fn new(confirmed: oneshot::Receiver<Delivered>) -> Self {
        Self(confirmed)
    }

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
