//! Where every stream of one source stands, as it is loaded, resumed from and saved. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::cursor::Cursor;
use crate::event::Stream;
use crate::time::Millis;

/// The cursors of one source.
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
            Some(there) if there.watermark() >= cursor.watermark() => {}
            Some(_) | None => self.set(stream, cursor),
        }
    }

    /// Replaces a cursor by what has become of it.
    pub fn set(&mut self, stream: Stream, cursor: Cursor) {
        self.cursors.insert(stream, cursor);
    }

    /// Moves a cursor that lies too far back to a start: what lies between is not asked for.
    pub fn skip_to(&mut self, stream: Stream, start: Millis) {
        if let Some(cursor) = self.cursors.get_mut(&stream) {
            cursor.skip_to(start);
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
}
