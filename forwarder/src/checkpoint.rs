//! Where each stream stands: a cursor that only a confirmation can move.
//!
//! A cursor is a watermark and the keys of the records delivered near it. The API lists records by the time at which it
//! saved them, but shows some of them late; so every query looks again a stretch behind the watermark (the overlap), and
//! what was delivered before is recognised by its key. [`Checkpoint::advance`] consumes the sink's proof of delivery;
//! [`Checkpoint::pass`] consumes a [`Scan`] all of whose records are accounted for. Neither ever moves a watermark back.
//! Pure: times are arguments, milliseconds since the Unix epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::event::Stream;
use crate::sink::Delivered;

/// Milliseconds since the Unix epoch.
pub type Millis = i64;

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

/// What the checkpoint remembers of one record: its key, and the time that places it in the window.
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

    /// The mark of a record listed at `time` (`created`) that tells of something that `happened` before.
    pub fn with_event_time(key: RecordKey, time: Millis, happened: Millis) -> Self {
        Self { key, time, happened }
    }

    /// The time by which the API lists the record.
    pub fn time(&self) -> Millis {
        self.time
    }
}

/// Where one stream stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    floor: Millis,
    watermark: Millis,
    last_event: Option<Millis>,
    seen: BTreeMap<RecordKey, Millis>,
}

impl Cursor {
    /// A cursor that has delivered nothing and starts here.
    pub fn starting_at(watermark: Millis) -> Self {
        Self { floor: watermark, watermark, last_event: None, seen: BTreeMap::new() }
    }

    /// A cursor as it was stored.
    pub fn restore(
        floor: Millis,
        watermark: Millis,
        last_event: Option<Millis>,
        seen: impl IntoIterator<Item = (RecordKey, Millis)>,
    ) -> Self {
        Self { floor, watermark, last_event, seen: seen.into_iter().collect() }
    }

    /// Where the export began; nothing before it is ever asked for.
    pub fn floor(&self) -> Millis {
        self.floor
    }

    /// The lower end of a look this far behind the watermark.
    pub fn behind(&self, overlap: Duration) -> Millis {
        self.watermark
            .saturating_sub(i64::try_from(overlap.as_millis()).unwrap_or(i64::MAX))
            .max(self.floor)
    }

    /// Everything that the API has shown up to this time is delivered.
    pub fn watermark(&self) -> Millis {
        self.watermark
    }

    /// When the newest delivered record happened.
    pub fn last_event(&self) -> Option<Millis> {
        self.last_event
    }

    /// The keys in the window with the times that place them, in the order of the keys.
    pub fn seen(&self) -> impl ExactSizeIterator<Item = (RecordKey, Millis)> + '_ {
        self.seen.iter().map(|(key, time)| (*key, *time))
    }

    /// The time of the oldest remembered record.
    pub fn oldest(&self) -> Option<Millis> {
        self.seen.values().min().copied()
    }

    /// The time of the n-th newest remembered record; `None` when fewer are remembered.
    pub fn newest(&self, n_records: usize) -> Option<Millis> {
        let index = self.seen.len().checked_sub(n_records)?;
        let mut times: Vec<Millis> = self.seen.values().copied().collect();
        (index < times.len()).then(|| *times.select_nth_unstable(index).1)
    }

    fn raise(&mut self, watermark: Millis) {
        self.watermark = self.watermark.max(watermark);
    }
}

/// Where every stream of one source stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    source: String,
    cursors: BTreeMap<Stream, Cursor>,
    exported: BTreeSet<Stream>,
}

impl Checkpoint {
    /// A checkpoint of a source that nothing was read from yet.
    pub fn new(source: impl Into<String>) -> Self {
        Self { source: source.into(), cursors: BTreeMap::new(), exported: BTreeSet::new() }
    }

    /// The streams that are exported; the others' cursors stand still because nobody wants them.
    pub fn exported(&self) -> &BTreeSet<Stream> {
        &self.exported
    }

    /// Says which streams are exported.
    #[must_use]
    pub fn exporting(mut self, streams: impl IntoIterator<Item = Stream>) -> Self {
        self.exported = streams.into_iter().collect();
        self
    }

    /// The source (its URL) that the cursors belong to.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Puts a stored or a first cursor in place. The later watermark wins over one that is there already.
    pub fn place(&mut self, stream: Stream, cursor: Cursor) {
        match self.cursors.get(&stream) {
            Some(there) if there.watermark >= cursor.watermark => {}
            Some(_) | None => {
                self.cursors.insert(stream, cursor);
            }
        }
    }

    /// Puts a cursor whose watermark cannot be true back to a start, and keeps the keys of what it has delivered.
    pub fn restart(&mut self, stream: Stream, start: Millis) {
        if let Some(cursor) = self.cursors.get_mut(&stream) {
            cursor.watermark = start;
            cursor.floor = cursor.floor.min(start);
        }
    }

    /// Moves a cursor that lies too far back on to a start: what lies between is not asked for.
    pub fn skip_to(&mut self, stream: Stream, start: Millis) {
        if let Some(cursor) = self.cursors.get_mut(&stream) {
            cursor.raise(start);
            cursor.floor = cursor.floor.max(start);
        }
    }

    /// The cursor of a stream, once it has been placed.
    pub fn cursor(&self, stream: Stream) -> Option<&Cursor> {
        self.cursors.get(&stream)
    }

    /// All cursors in the order of their streams.
    pub fn cursors(&self) -> impl Iterator<Item = (Stream, &Cursor)> + '_ {
        self.cursors.iter().map(|(stream, cursor)| (*stream, cursor))
    }

    /// Remembers what the sink has proven to be delivered.
    pub fn advance(&mut self, delivered: Delivered) {
        let (stream, marks) = delivered.into_parts();
        let cursor = self.cursors.entry(stream).or_default();
        for mark in marks {
            cursor.seen.insert(mark.key, mark.time);
            cursor.last_event = cursor.last_event.max(Some(mark.happened));
        }
    }

    /// Remembers a record that cannot be sent, so that it is counted once and not at every look behind the watermark.
    pub fn skip(&mut self, stream: Stream, key: RecordKey, time: Millis) {
        self.cursors.entry(stream).or_default().seen.insert(key, time);
    }

    /// Raises the watermark to what a completed page or scan has shown, and forgets keys older than `keep_from`.
    pub fn pass(&mut self, passed: Passed, keep_from: Millis) {
        let cursor = self.cursors.entry(passed.stream).or_default();
        cursor.raise(passed.through);
        if cursor.seen.values().any(|time| *time < keep_from) {
            cursor.seen.retain(|_, time| *time >= keep_from);
        }
    }
}

/// How a listed record relates to what was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Not delivered before.
    New,
    /// Not delivered before, though it lies behind the watermark: the API showed it late.
    Late,
    /// Delivered before, or on its way.
    Repeated,
}

/// Proof that everything shown up to a time is delivered; only a [`Scan`] makes it.
#[derive(Debug)]
pub struct Passed {
    stream: Stream,
    through: Millis,
}

/// One walk through what the API lists, page by page, in ascending order.
#[derive(Debug)]
pub struct Scan {
    stream: Stream,
    watermark: Millis,
    taken: BTreeSet<RecordKey>,
    outstanding: usize,
    highest: Millis,
    ascending: bool,
}

impl Scan {
    /// A walk that starts behind this cursor.
    pub fn new(stream: Stream, cursor: &Cursor) -> Self {
        Self {
            stream,
            watermark: cursor.watermark,
            taken: BTreeSet::new(),
            outstanding: 0,
            highest: Millis::MIN,
            ascending: true,
        }
    }

    /// Says what to do with a listed record, and counts it as outstanding unless it is a repetition.
    pub fn admit(&mut self, cursor: &Cursor, key: RecordKey, listed: Option<Millis>) -> Admission {
        if let Some(time) = listed {
            self.ascending &= time >= self.highest;
            self.highest = self.highest.max(time);
        }
        if cursor.seen.contains_key(&key) || !self.taken.insert(key) {
            return Admission::Repeated;
        }
        self.outstanding += 1;
        if listed.is_some_and(|time| time < self.watermark) {
            Admission::Late
        } else {
            Admission::New
        }
    }

    /// The stream that is walked through.
    pub fn stream(&self) -> Stream {
        self.stream
    }

    /// Accounts for records that were confirmed, or skipped for good.
    pub fn settle(&mut self, n_records: usize) {
        self.outstanding = self.outstanding.saturating_sub(n_records);
    }

    /// The time of the last record listed so far.
    pub fn highest(&self) -> Option<Millis> {
        (self.highest > Millis::MIN).then_some(self.highest)
    }

    /// After a page that is not the last: what is proven so far. `None` while records are outstanding, or when the
    /// server did not list in ascending order, so that a later page may hold something earlier.
    pub fn page(&self, server_now: Millis) -> Option<Passed> {
        (self.outstanding == 0 && self.ascending && self.highest > Millis::MIN)
            .then(|| Passed { stream: self.stream, through: self.highest.min(server_now) })
    }

    /// After the last page: everything up to the server's own time is shown and delivered. `None` while records are
    /// outstanding.
    pub fn end(&self, server_now: Millis) -> Option<Passed> {
        (self.outstanding == 0).then_some(Passed { stream: self.stream, through: server_now })
    }
}

#[cfg(test)]
mod tests;
