//! What is handed to the SIEM and what comes back: batches of frames, and the proof that one was delivered. Pure.
//!
//! A batch is the unit of writing and of confirmation: one contiguous run of bytes, so that a resend is the same bytes
//! in the same order, and the end of every frame in it, for transports that send frames one by one. It carries the marks
//! by which the cursor will remember its records.
//!
//! What "delivered" means depends on the transport:
//!
//! - **TCP and TLS**: the peer's kernel has acknowledged every byte of the batch (`tcpi_bytes_acked` of `TCP_INFO`,
//!   counted on everything the socket carries: for TLS the ciphertext, handshake included), *and* the connection then
//!   stayed healthy (state ESTABLISHED, nothing on the read half that ends it) for the grace. When a connection breaks,
//!   everything unconfirmed is sent again on the next one, the same bytes in the same order.
//! - **UDP**: the kernel has taken the datagram. The protocol reports nothing more; this transport is lossy.
//!
//! Only a file below `delivery/` can make a [`Delivered`]. None of them ever looks at the source, drops a batch that it
//! took, or writes a record's content to a log. This file is pure.

pub mod sink;
pub mod pending;
pub mod settings;
pub mod target;
pub(crate) mod connect;
mod health;
mod in_flight;
mod session;
mod tcp;
mod tcp_info;
mod udp;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;

use crate::event::Stream;
use crate::record::Mark;

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
}

/// Proof that a batch was delivered, as the transport defines it.
#[derive(Debug)]
pub struct Delivered {
    stream: Stream,
    marks: Vec<Mark>,
    n_refused: usize,
    at: Timestamp,
}

impl Delivered {
    /// Only the transports below `delivery/` call this, at the moment of confirmation.
    fn confirm(batch: Batch, n_refused: usize, at: Timestamp) -> Self {
        Self { stream: batch.stream, marks: batch.marks, n_refused, at }
    }

    /// How many records of it the target has: all but those that the transport can never carry.
    pub fn n_delivered(&self) -> usize {
        self.marks.len() - self.n_refused
    }

    /// When the confirmation came.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// The stream of the records.
    pub fn stream(&self) -> Stream {
        self.stream
    }

    /// The marks of the records, in the order in which they were sent.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
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
