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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::delivery::BatchBuilder;
    use crate::event::Stream;
    use crate::record::Mark;

    #[tokio::test]
    async fn a_confirmation_frees_the_room_and_hands_out_the_proof() {
        let window = Arc::new(Semaphore::new(10));
        let room = Arc::clone(&window).acquire_many_owned(4).await.unwrap();
        let mut builder = BatchBuilder::new(Stream::Activities);
        builder.push(b"one\n", Mark::new("1", 1));
        let (done, confirmed) = oneshot::channel();
        let job = Job::new(builder.take().unwrap(), room, done);
        let mut pending = Pending::new(confirmed);
        assert!(pending.poll_confirmed().unwrap().is_none());
        assert_eq!(window.available_permits(), 6);
        job.confirm(0);
        assert_eq!(window.available_permits(), 10);
        assert_eq!(pending.confirmed().await.unwrap().n_delivered(), 1);
    }

    #[tokio::test]
    async fn a_batch_that_is_let_go_is_not_delivered() {
        let window = Arc::new(Semaphore::new(10));
        let room = Arc::clone(&window).acquire_many_owned(4).await.unwrap();
        let mut builder = BatchBuilder::new(Stream::Activities);
        builder.push(b"one\n", Mark::new("1", 1));
        let (done, confirmed) = oneshot::channel();
        drop(Job::new(builder.take().unwrap(), room, done));
        Pending::new(confirmed).confirmed().await.unwrap_err();
        assert_eq!(window.available_permits(), 10);
    }
}
