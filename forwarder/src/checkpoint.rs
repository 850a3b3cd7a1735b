//! Where every stream of an agent stands, as it is loaded, resumed from and saved. Pure.

use std::collections::{BTreeMap, BTreeSet};

use siem_agent_crds::position::StreamPosition;

use crate::event::Stream;

/// The positions of an agent's streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    source: String,
    positions: BTreeMap<Stream, StreamPosition>,
    exported: BTreeSet<Stream>,
}

impl Checkpoint {
    /// A checkpoint of an agent of which nothing was read yet; the source is the one that stands for all of it.
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

    /// The name of the source of every position that names none itself.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The same positions under another name for all of them.
    #[must_use]
    pub fn renamed(mut self, source: &str) -> Self {
        let before = std::mem::replace(&mut self.source, source.to_owned());
        for at in self.positions.values_mut() {
            let own = at.source.take().unwrap_or_else(|| before.clone());
            at.source = Some(own).filter(|own| own != source);
        }
        self
    }

    /// The name of the source of a stream's position.
    pub fn source_of(&self, stream: Stream) -> Option<&str> {
        let at = self.positions.get(&stream)?;
        Some(at.source.as_deref().unwrap_or(&self.source))
    }

    /// Replaces a position by what has become of it.
    pub fn set(&mut self, stream: Stream, position: StreamPosition) {
        self.positions.insert(stream, position);
    }

    /// Lets go of a position that is about to be set anew.
    pub fn remove(&mut self, stream: Stream) {
        self.positions.remove(&stream);
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
