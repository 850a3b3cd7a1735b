//! Where every stream of one source stands, as it is loaded, resumed from and saved. Pure.

use std::collections::{BTreeMap, BTreeSet};

use siem_agent_crds::position::StreamPosition;

use crate::event::Stream;

/// The positions of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    source: String,
    positions: BTreeMap<Stream, StreamPosition>,
    exported: BTreeSet<Stream>,
}

impl Checkpoint {
    /// A checkpoint of a source that nothing was read from yet.
    pub fn new(source: impl Into<String>) -> Self {
        Self { source: source.into(), positions: BTreeMap::new(), exported: BTreeSet::new() }
    }

    /// The streams that are exported; the others' positions stand still because nobody wants them.
    pub fn exported(&self) -> &BTreeSet<Stream> {
        &self.exported
    }

    /// Says which streams are exported.
    #[must_use]
    pub fn exporting(mut self, streams: impl IntoIterator<Item = Stream>) -> Self {
        self.exported = streams.into_iter().collect();
        self
    }

    /// The source (its URL) that the positions belong to.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Replaces a position by what has become of it.
    pub fn set(&mut self, stream: Stream, position: StreamPosition) {
        self.positions.insert(stream, position);
    }

    /// The position of a stream, once it has been set.
    pub fn position(&self, stream: Stream) -> Option<&StreamPosition> {
        self.positions.get(&stream)
    }

    /// All positions in the order of their streams.
    pub fn positions(&self) -> &BTreeMap<Stream, StreamPosition> {
        &self.positions
    }
}
