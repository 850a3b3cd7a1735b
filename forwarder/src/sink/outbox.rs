//! Batches that are not confirmed, in the order in which they were taken. Pure but for the proof it hands out.
//!
//! Each is unwritten, or written up to an offset of the socket's bytes, or acknowledged since a moment. A broken
//! connection turns all of them back into unwritten ones, in the same order.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Delivered, Job};

/// The unconfirmed batches.
#[derive(Debug, Default)]
pub(super) struct Outbox {
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

impl Outbox {
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

impl Job {
    /// Makes the proof and frees the room.
    pub(super) fn confirm(self, n_refused: usize) {
        let Self { batch, room, done } = self;
        drop(room);
        // Whoever waited may have ended; then nobody advances, and the record comes again.
        let _ = done.send(Delivered::confirm(batch, n_refused));
    }
}
