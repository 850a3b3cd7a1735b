//! What a record is to the cursor: a key by which it is recognised, and the times that place it. Pure.

use sha2::{Digest, Sha256};

use crate::time::Millis;

/// A record's identity in 64 bits: the first eight bytes of the SHA-256 of its `_id`.
///
/// A window of 100,000 records meets a new one with the same key once in 10^14 records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordKey(u64);

impl RecordKey {
    /// The key of a record with this id.
    pub fn of(id: &[u8]) -> Self {
        let digest = Sha256::digest(id);
        Self(digest.iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte)))
    }

    /// The key from its 64 bits.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The key's 64 bits.
    pub fn bits(self) -> u64 {
        self.0
    }
}

/// What the cursor remembers of one record: its key, and the time that places it in the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    key: RecordKey,
    time: Millis,
    happened: Millis,
}

impl Mark {
    /// The mark of a record with this id, listed at this time, which is also when it happened.
    pub fn new(id: &str, time: Millis) -> Self {
        Self { key: RecordKey::of(id.as_bytes()), time, happened: time }
    }

    /// The mark of a record listed at `time` (`created`) about something that `happened` before.
    pub fn with_event_time(key: RecordKey, time: Millis, happened: Millis) -> Self {
        Self { key, time, happened }
    }

    /// The record's key.
    pub fn key(&self) -> RecordKey {
        self.key
    }

    /// The time by which the API lists the record.
    pub fn time(&self) -> Millis {
        self.time
    }

    /// When it happened.
    pub fn happened(&self) -> Millis {
        self.happened
    }
}
