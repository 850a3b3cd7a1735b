//! Saves where the streams stand, soon after each confirmation.
//!
//! Every stream owns its position and offers it here when it has changed; it is written out only when a save is due. A save
//! follows a confirmation within a second while records flow; where there is so much to save that it takes long, less
//! often, so that saving never takes more than a twentieth of the time. A watermark that moves over an idle tenant is
//! saved once a minute: losing it repeats a poll, not a record. It must never change a position.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use siem_agent_crds::position::StreamPosition;
use siem_agent_edge::error_chain::chain;
use tokio::time::Instant;
use tracing::{debug, error};

use crate::checkpoint::Checkpoint;
use crate::event::Stream;
use crate::progress::Metrics;
use crate::store::Store;

const SAVE_RECORDS: Duration = Duration::from_secs(1);
const SAVE_WATERMARK: Duration = Duration::from_secs(60);
/// What a crash may repeat besides the overlap, at most.
const SAVE_RECORDS_MAX: Duration = Duration::from_secs(30);
/// Pause between two saves, in multiples of the time that the last one took.
const SAVE_SHARE: u32 = 20;
/// Saves that fail are complained about once in this time.
const COMPLAINT: Duration = Duration::from_secs(60);

/// What has changed since the position was offered last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Its times only.
    Watermark,
    /// Records were delivered or skipped.
    Records,
}

/// The state file's keeper.
#[derive(Debug)]
pub struct Saver {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    checkpoint: Checkpoint,
    store: Store,
    unsaved: BTreeMap<Stream, Unsaved>,
    save_took: Duration,
    complaint: Option<Instant>,
    metrics: Metrics,
}

#[derive(Debug, Clone, Copy)]
struct Unsaved {
    since: Instant,
    records: bool,
    watermark: bool,
}

impl Saver {
    /// Takes over what was loaded; saves that fail are counted in the metrics.
    pub fn new(checkpoint: Checkpoint, store: Store, metrics: Metrics) -> Self {
        let (save_took, complaint, unsaved) = (Duration::ZERO, None, BTreeMap::new());
        let inner = Inner { checkpoint, store, unsaved, save_took, complaint, metrics };
        Self { inner: Mutex::new(inner) }
    }

    /// A stream begins at this position: every save holds it from now on.
    pub fn begin(&self, stream: Stream, position: StreamPosition) {
        let mut inner = self.lock();
        let since = Instant::now();
        inner.unsaved.insert(stream, Unsaved { since, records: false, watermark: true });
        inner.checkpoint.set(stream, position);
    }

    /// A stream's position has changed: it is saved when that is due.
    pub fn offer(&self, stream: Stream, change: Change, position: impl FnOnce() -> StreamPosition) {
        let mut inner = self.lock();
        let pace = (inner.save_took * SAVE_SHARE).clamp(SAVE_RECORDS, SAVE_RECORDS_MAX);
        let first = Unsaved { since: Instant::now(), records: false, watermark: false };
        let unsaved = inner.unsaved.entry(stream).or_insert(first);
        match change {
            Change::Records => unsaved.records = true,
            Change::Watermark => unsaved.watermark = true,
        }
        let age = unsaved.since.elapsed();
        if (unsaved.records && age >= pace) || (unsaved.watermark && age >= SAVE_WATERMARK) {
            inner.save(stream, position);
        }
    }

    /// Saves this position if anything of it is unsaved; for the end of a stream.
    pub fn save(&self, stream: Stream, position: impl FnOnce() -> StreamPosition) {
        let mut inner = self.lock();
        if inner.unsaved.get(&stream).is_none_or(|unsaved| unsaved.records || unsaved.watermark) {
            inner.save(stream, position);
        }
    }

    /// Where the streams stand, and their file, once nothing is offered any more.
    pub fn parts(&self) -> (Checkpoint, Store) {
        let inner = self.lock();
        (inner.checkpoint.clone(), inner.store.clone())
    }

    #[expect(clippy::expect_used, reason = "nothing panics while the lock is held")]
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while the lock is held")
    }
}

impl Inner {
    fn save(&mut self, stream: Stream, position: impl FnOnce() -> StreamPosition) {
        let began = Instant::now();
        // A busy stream's position takes megabytes: the one before it goes first.
        self.checkpoint.remove(stream);
        let position = position();
        let n_bytes = position.position.text().len();
        self.checkpoint.set(stream, position);
        let saved = self.store.save(&self.checkpoint);
        self.save_took = began.elapsed();
        let since = Instant::now();
        let failed = saved.is_err();
        self.unsaved.insert(stream, Unsaved { since, records: failed, watermark: failed });
        match saved {
            Ok(()) => debug!(%stream, n_bytes, "checkpoint saved"),
            Err(error) => {
                self.metrics.save_failed();
                // A full disk fails every save; the metric has them all.
                if self.complaint.is_none_or(|last| since.duration_since(last) >= COMPLAINT) {
                    self.complaint = Some(since);
                    error!(
                        reason = chain(&error),
                        "cannot save the checkpoint; a restart now would repeat records"
                    );
                }
            }
        }
    }
}
