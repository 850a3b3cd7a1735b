//! Batches that are not confirmed, in the order in which they were taken. Pure but for the confirmations it makes.
//!
//! Each is unwritten, or written up to an offset of the socket's bytes, or acknowledged since a moment. A broken
//! connection turns all of them back into unwritten ones, in the same order.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::pending::Job;

/// The unconfirmed batches.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    job: Job,
    written: Written,
    attempts: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    No,
    InProgress,
    Until { offset: u64 },
    Acknowledged { at: Instant },
}

impl InFlight {
    pub(super) fn push(&mut self, job: Job) {
        self.entries.push_back(Entry { job, written: Written::No, attempts: 0 });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether something was written, so that a confirmation can be waited for.
    pub(super) fn awaits_confirmation(&self) -> bool {
        self.entries.front().is_some_and(|entry| entry.written != Written::No)
    }

    /// Takes the next batch to write, and how many of its records were written before.
    pub(super) fn start_write(&mut self) -> Option<(Bytes, usize)> {
        let entry = self.entries.iter_mut().find(|entry| entry.written == Written::No)?;
        entry.written = Written::InProgress;
        entry.attempts += 1;
        let n_again = if entry.attempts > 1 { entry.job.batch.n_records() } else { 0 };
        Some((entry.job.batch.bytes().clone(), n_again))
    }

    /// The batch in progress is written whole; the socket has carried `offset` bytes in all.
    pub(super) fn finish_write(&mut self, offset: u64) {
        if let Some(entry) =
            self.entries.iter_mut().find(|entry| entry.written == Written::InProgress)
        {
            entry.written = Written::Until { offset };
        }
    }

    /// Notes which batches the peer's kernel has acknowledged.
    pub(super) fn acknowledge(&mut self, bytes_acked: u64, now: Instant) {
        for entry in &mut self.entries {
            match entry.written {
                Written::Until { offset } if offset <= bytes_acked => {
                    entry.written = Written::Acknowledged { at: now };
                }
                Written::Acknowledged { .. } => {}
                Written::Until { .. } | Written::InProgress | Written::No => break,
            }
        }
    }

    /// Confirms the batches that were acknowledged at least `grace` ago. The caller has just seen the connection healthy.
    pub(super) fn confirm(&mut self, grace: Duration, now: Instant) -> usize {
        let mut n_confirmed = 0;
        while let Some(Entry { written: Written::Acknowledged { at }, .. }) = self.entries.front()
            && now.duration_since(*at) >= grace
            && let Some(entry) = self.entries.pop_front()
        {
            n_confirmed += 1;
            entry.job.confirm(0);
        }
        n_confirmed
    }

    /// The connection broke: everything has to be written again.
    pub(super) fn rewind(&mut self) {
        for entry in &mut self.entries {
            entry.written = Written::No;
        }
    }

    /// Lets go of what was never written, so that only confirmations are left to wait for.
    pub(super) fn drop_unwritten(&mut self) {
        self.entries.retain(|entry| entry.written != Written::No);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::{Semaphore, oneshot};

    use super::*;
    use crate::delivery::{BatchBuilder, Delivered};
    use crate::event::Stream;
    use crate::record::Mark;

    const GRACE: Duration = Duration::from_millis(250);
    const MILLISECOND: Duration = Duration::from_millis(1);

    /// What is in flight: a batch for each text, and what waits for their confirmations.
    async fn filled<const N: usize>(
        texts: [&str; N],
    ) -> (InFlight, [oneshot::Receiver<Delivered>; N]) {
        let room = Arc::new(Semaphore::new(1024));
        let mut in_flight = InFlight::default();
        let mut waiting = Vec::new();
        for text in texts {
            let mut builder = BatchBuilder::new(Stream::Activities);
            builder.push(text.as_bytes(), Mark::new(text, 1));
            let n_bytes = u32::try_from(text.len()).unwrap();
            let room = Arc::clone(&room).acquire_many_owned(n_bytes).await.unwrap();
            let (done, confirmed) = oneshot::channel();
            in_flight.push(Job::new(builder.take().unwrap(), room, done));
            waiting.push(confirmed);
        }
        (in_flight, waiting.try_into().unwrap())
    }

    /// Writes all that is not written: the bytes, and how many of the records were written before.
    fn write(in_flight: &mut InFlight, mut offset: u64) -> Vec<(Bytes, usize)> {
        let mut written = Vec::new();
        while let Some((bytes, n_again)) = in_flight.start_write() {
            offset += bytes.len() as u64;
            in_flight.finish_write(offset);
            written.push((bytes, n_again));
        }
        written
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_acknowledged_whole_for_the_grace_is_confirmed() {
        let (mut in_flight, [mut first, mut second, mut third]) =
            filled(["first\n", "second\n", "third\n"]).await;
        let began = Instant::now();
        assert!(!in_flight.awaits_confirmation(), "nothing is written");
        assert_eq!(write(&mut in_flight, 0).len(), 3);
        assert_eq!(in_flight.confirm(Duration::ZERO, began), 0, "nothing is acknowledged");
        // The first one whole, of the second one all bytes but the last.
        in_flight.acknowledge(12, began);
        assert_eq!(in_flight.confirm(GRACE, began + GRACE - MILLISECOND), 0);
        first.try_recv().unwrap_err();
        // That it is seen acknowledged again makes it no younger.
        in_flight.acknowledge(13, began + GRACE - MILLISECOND);
        assert_eq!(in_flight.confirm(GRACE, began + GRACE), 1);
        assert_eq!(first.try_recv().unwrap().n_delivered(), 1);
        second.try_recv().unwrap_err();
        assert_eq!(in_flight.confirm(GRACE, began + GRACE + GRACE - 2 * MILLISECOND), 0);
        assert_eq!(in_flight.confirm(GRACE, began + GRACE + GRACE - MILLISECOND), 1);
        second.try_recv().unwrap();
        assert_eq!(in_flight.confirm(GRACE, began + 100 * GRACE), 0, "never acknowledged");
        third.try_recv().unwrap_err();
        assert!(!in_flight.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_break_the_same_bytes_come_in_the_same_order_and_are_counted() {
        let (mut in_flight, [mut first, mut second, mut third]) =
            filled(["first\n", "second\n", "third\n"]).await;
        let began = Instant::now();
        let before = write(&mut in_flight, 0);
        assert!(before.iter().all(|(_, n_again)| *n_again == 0), "{before:?}");
        in_flight.acknowledge(6, began);
        assert_eq!(in_flight.confirm(GRACE, began + GRACE), 1);
        first.try_recv().unwrap();
        // The second one is acknowledged, but not for long enough.
        in_flight.acknowledge(13, began + GRACE);
        in_flight.rewind();
        assert_eq!(in_flight.confirm(Duration::ZERO, began + 100 * GRACE), 0, "of another connection");
        let again = write(&mut in_flight, 0);
        assert_eq!(again, [("second\n".into(), 1), ("third\n".into(), 1)]);
        in_flight.acknowledge(13, began);
        assert_eq!(in_flight.confirm(GRACE, began + GRACE), 2, "offsets begin anew");
        assert!(second.try_recv().is_ok() && third.try_recv().is_ok() && in_flight.is_empty());
    }
}
