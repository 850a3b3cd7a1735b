//! The checkpoint of the running program and its file: what is confirmed goes in here, and soon after to disk.
//!
//! A save follows a confirmation within a second while records flow; where there is so much to save that it takes
//! long, less often, so that saving never takes more than a twentieth of the time. A watermark that moves over an idle
//! tenant is saved once a minute: losing it repeats a look, not a record.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::error;

use crate::checkpoint::{Admission, Checkpoint, Cursor, Millis, Passed, RecordKey, Scan};
use crate::error_chain::chain;
use crate::event::Stream;
use crate::progress::Metrics;
use crate::sink::Delivered;
use crate::store::Store;

const SAVE_RECORDS: Duration = Duration::from_secs(1);
const SAVE_WATERMARK: Duration = Duration::from_secs(60);
/// What a crash may repeat besides the overlap, at most.
const SAVE_RECORDS_MAX: Duration = Duration::from_secs(30);
/// So many times as long as a save took, the next one waits.
const SAVE_SHARE: u32 = 20;

/// The checkpoint with its file.
#[derive(Debug)]
pub struct Ledger {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    checkpoint: Checkpoint,
    store: Store,
    unsaved_records: bool,
    unsaved_watermark: bool,
    saved_at: Instant,
    save_took: Duration,
    metrics: Metrics,
}

impl Ledger {
    /// Takes over what was loaded; saves that fail are counted in the metrics.
    pub fn new(checkpoint: Checkpoint, store: Store, metrics: Metrics) -> Self {
        let inner = Inner {
            checkpoint,
            store,
            unsaved_records: false,
            unsaved_watermark: true,
            saved_at: Instant::now(),
            save_took: Duration::ZERO,
            metrics,
        };
        Self { inner: Mutex::new(inner) }
    }

    /// A look at one stream's cursor.
    pub async fn with_cursor<T>(&self, stream: Stream, look: impl FnOnce(&Cursor) -> T) -> T {
        let inner = self.inner.lock().await;
        match inner.checkpoint.cursor(stream) {
            Some(cursor) => look(cursor),
            None => look(&Cursor::default()),
        }
    }

    /// A look at everything.
    pub async fn with_checkpoint<T>(&self, look: impl FnOnce(&Checkpoint) -> T) -> T {
        look(&self.inner.lock().await.checkpoint)
    }

    /// Says what to do with a listed record.
    pub async fn admit(
        &self,
        scan: &mut Scan,
        stream: Stream,
        key: RecordKey,
        listed: Option<Millis>,
    ) -> Admission {
        self.with_cursor(stream, |cursor| scan.admit(cursor, key, listed)).await
    }

    /// Remembers what was confirmed.
    pub async fn advance(&self, delivered: Delivered) {
        fail::fail_point!("after_confirmation", |_| std::process::abort());
        let mut inner = self.inner.lock().await;
        inner.checkpoint.advance(delivered);
        inner.unsaved_records = true;
        inner.save_if_due();
    }

    /// Remembers a record that cannot be sent.
    pub async fn skip(&self, stream: Stream, key: RecordKey, time: Millis) {
        let mut inner = self.inner.lock().await;
        inner.checkpoint.skip(stream, key, time);
        inner.unsaved_records = true;
    }

    /// Raises a watermark.
    pub async fn pass(&self, passed: Passed, keep_from: Millis) {
        let mut inner = self.inner.lock().await;
        inner.checkpoint.pass(passed, keep_from);
        inner.unsaved_watermark = true;
        inner.save_if_due();
    }

    /// Corrects a cursor.
    pub async fn correct(&self, correct: impl FnOnce(&mut Checkpoint)) {
        let mut inner = self.inner.lock().await;
        correct(&mut inner.checkpoint);
        inner.unsaved_watermark = true;
        inner.save_if_due();
    }

    /// Saves what is not saved yet; for the end of the program.
    pub async fn save(&self) {
        let mut inner = self.inner.lock().await;
        if inner.unsaved_records || inner.unsaved_watermark {
            inner.save();
        }
    }
}

impl Inner {
    fn save_if_due(&mut self) {
        let age = self.saved_at.elapsed();
        let pace = (self.save_took * SAVE_SHARE).clamp(SAVE_RECORDS, SAVE_RECORDS_MAX);
        if (self.unsaved_records && age >= pace)
            || (self.unsaved_watermark && age >= SAVE_WATERMARK)
        {
            self.save();
        }
    }

    fn save(&mut self) {
        let began = Instant::now();
        let saved = self.store.save(&self.checkpoint);
        self.saved_at = Instant::now();
        self.save_took = self.saved_at - began;
        match saved {
            Ok(()) => {
                self.unsaved_records = false;
                self.unsaved_watermark = false;
            }
            Err(error) => {
                self.metrics.save_failed();
                error!(
                    reason = chain(&error),
                    "cannot save the checkpoint; a restart now would repeat records"
                );
            }
        }
    }
}
