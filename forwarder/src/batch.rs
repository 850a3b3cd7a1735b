//! Frames that travel together, with the marks by which the checkpoint will remember them.
//!
//! A batch is the unit of writing and of confirmation: one contiguous run of bytes, so that a resend is the same bytes
//! in the same order, and the end of every frame in it, for transports that send frames one by one. Pure.

use bytes::{Bytes, BytesMut};

use crate::checkpoint::Mark;
use crate::event::Stream;

/// Frames on their way to the target.
#[derive(Debug)]
pub struct Batch {
    stream: Stream,
    bytes: Bytes,
    ends: Vec<usize>,
    marks: Vec<Mark>,
}

/// A batch that is still being filled.
#[derive(Debug)]
pub struct BatchBuilder {
    stream: Stream,
    bytes: BytesMut,
    ends: Vec<usize>,
    marks: Vec<Mark>,
}

impl BatchBuilder {
    /// An empty batch of one stream.
    pub fn new(stream: Stream) -> Self {
        Self { stream, bytes: BytesMut::new(), ends: Vec::new(), marks: Vec::new() }
    }

    /// Appends one frame and the mark of the record that it carries.
    pub fn push(&mut self, frame: &[u8], mark: Mark) {
        self.bytes.extend_from_slice(frame);
        self.ends.push(self.bytes.len());
        self.marks.push(mark);
    }

    /// Closes the batch and starts the next; `None` when it holds nothing.
    pub fn take(&mut self) -> Option<Batch> {
        if self.ends.is_empty() {
            return None;
        }
        let full = std::mem::replace(self, Self::new(self.stream));
        Some(Batch {
            stream: full.stream,
            bytes: full.bytes.freeze(),
            ends: full.ends,
            marks: full.marks,
        })
    }
}

impl Batch {
    /// All frames, one after the other.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The frames one by one, without a copy.
    pub fn frames(&self) -> impl Iterator<Item = Bytes> + '_ {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(self.ends.iter().copied()).map(|(start, end)| self.bytes.slice(start..end))
    }

    /// The number of records.
    pub fn n_records(&self) -> usize {
        self.marks.len()
    }

    /// The stream that the records belong to.
    pub fn stream(&self) -> Stream {
        self.stream
    }

    pub(crate) fn into_marks(self) -> Vec<Mark> {
        self.marks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_slices_of_the_whole_in_order() {
        let mut builder = BatchBuilder::new(Stream::Alerts);
        builder.push(b"one\n", Mark::new("1", 1));
        builder.push(b"two\n", Mark::new("2", 2));
        let batch = builder.take().unwrap();
        assert_eq!(batch.frames().collect::<Vec<_>>(), ["one\n", "two\n"]);
        assert_eq!(batch.bytes().as_ref(), b"one\ntwo\n");
        assert!(builder.take().is_none());
    }
}
