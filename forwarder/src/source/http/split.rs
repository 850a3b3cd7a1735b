//! Splits a response body into its records while it arrives, so that a page of 5,000 is never held whole. Pure.
//!
//! Knows of JSON only what it takes to find the elements of the one top-level array that holds the records; whether an element is a good
//! record is its source's business. What is left of the body without the records is the envelope.

use std::collections::VecDeque;

use memchr::memchr2;
use serde_json::Value;

use crate::json::repair;

/// A record longer than this is skipped without being held.
const MAX_RECORD_BYTES: usize = 4 * 1024 * 1024;
/// The envelope holds a few numbers and the filters of the next page.
const MAX_ENVELOPE_BYTES: usize = 256 * 1024;
/// The API gives 5,000 a page at most; a body that never ends must not be remembered record by record.
const MAX_RECORDS: usize = 20_000;
/// Five times as much as 5,000 records have been seen to take.
const MAX_PAGE_BYTES: usize = 64 * 1024 * 1024;
/// A byte-order mark before the body is no part of it.
const MARK: &[u8] = b"\xEF\xBB\xBF";

/// The key of the array that holds a page's records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum List {
    /// `data`: the portal's API.
    #[default]
    Data,
    /// `value`: OData, and so Microsoft Graph.
    Value,
    /// `results`: the answer to a hunting query.
    Results,
    /// `records`: a message of Event Hubs.
    Records,
}

impl List {
    /// The key.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Value => "value",
            Self::Results => "results",
            Self::Records => "records",
        }
    }
}

/// One record of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Its JSON.
    Record(Vec<u8>),
    /// It was longer than any record.
    TooLarge,
}

/// Why a body is no page.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not begin as a JSON object.
    #[error("it is not a JSON object")]
    NotJson,
    /// It ends in the middle.
    #[error("the body is cut off")]
    Truncated,
    /// It is longer than any page without its records.
    #[error("its envelope is too long")]
    EnvelopeTooLong,
    /// It has more records, or more bytes, than any page.
    #[error("it is larger than any page")]
    Endless,
    /// The envelope is no JSON.
    #[error(
        "its envelope is not the API's form (line {line}, column {column} without the records)"
    )]
    Envelope {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// It has no list of records.
    #[error("it has no `{}`", .0.as_str())]
    NoList(List),
}

/// Takes a body in any chunks and gives its records.
#[derive(Debug, Default)]
pub struct Splitter {
    list: List,
    pieces: VecDeque<Piece>,
    n_records: usize,
    n_bytes: usize,
    n_of_mark: usize,
    envelope: Vec<u8>,
    record: Vec<u8>,
    too_large: bool,
    depth: usize,
    in_string: bool,
    escaped: bool,
    key: Vec<u8>,
    reading_key: bool,
    at_list: bool,
    in_list: bool,
    seen_list: bool,
    ended: bool,
}

impl Splitter {
    /// Nothing of a page of the portal's API has arrived yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing of a page with its records in this list has arrived yet.
    pub fn of(list: List) -> Self {
        Self { list, ..Self::default() }
    }

    /// Takes the next bytes of the body.
    ///
    /// # Errors
    /// [`Error::NotJson`], [`Error::EnvelopeTooLong`] and [`Error::Endless`].
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), Error> {
        self.n_bytes += chunk.len();
        let mut rest = chunk;
        while let Some(byte) = rest.first() {
            let n_bytes = if self.in_list {
                self.in_records(rest)
            } else {
                // A run of white space counts as one, or a page of nothing else would take seconds.
                let n_blank = if self.in_string { 0 } else { white_space(rest) };
                self.take(*byte)?;
                n_blank.max(1)
            };
            rest = rest.get(n_bytes..).unwrap_or_default();
            if self.n_records > MAX_RECORDS || self.n_bytes > MAX_PAGE_BYTES {
                return Err(Error::Endless);
            }
        }
        Ok(())
    }

    /// The next record that is whole.
    #[expect(clippy::should_implement_trait, reason = "more may come after None")]
    pub fn next(&mut self) -> Option<Piece> {
        self.pieces.pop_front()
    }

    /// The body has ended: the page without its records.
    ///
    /// # Errors
    /// [`Error`] when it was no whole page; the records given before are good all the same.
    pub fn finish(self) -> Result<Value, Error> {
        if !self.ended {
            return Err(if self.depth == 0 { Error::NotJson } else { Error::Truncated });
        }
        let envelope: Value = serde_json::from_slice(&self.envelope)
            // Bytes that are nearly JSON get a second chance, as those of a record do.
            .or_else(|_error| serde_json::from_str(&repair(&self.envelope)))
            .map_err(|error| Error::Envelope { line: error.line(), column: error.column() })?;
        if self.seen_list { Ok(envelope) } else { Err(Error::NoList(self.list)) }
    }

    fn take(&mut self, byte: u8) -> Result<(), Error> {
        if self.ended || self.depth == 0 {
            return self.outside(byte);
        }
        if self.envelope.len() >= MAX_ENVELOPE_BYTES {
            return Err(Error::EnvelopeTooLong);
        }
        self.envelope.push(byte);
        if self.in_string {
            self.string(byte);
            if self.reading_key && self.in_string {
                self.key.push(byte);
            }
            return Ok(());
        }
        match byte {
            b'"' => {
                self.in_string = true;
                self.reading_key = self.depth == 1 && !self.at_list && self.before_key();
                if self.reading_key {
                    self.key.clear();
                } else {
                    self.at_list = false;
                }
            }
            b':' if self.depth == 1 => self.at_list = self.key == self.list.as_str().as_bytes(),
            b'[' if self.at_list => {
                self.in_list = true;
                self.at_list = false;
                self.seen_list = true;
                self.depth += 1;
            }
            b'{' | b'[' => {
                self.at_list = false;
                self.depth += 1;
            }
            b'}' | b']' => {
                self.depth -= 1;
                self.ended = self.depth == 0;
            }
            b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => self.at_list = false,
        }
        Ok(())
    }

    fn outside(&mut self, byte: u8) -> Result<(), Error> {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' if self.n_bytes <= MAX_ENVELOPE_BYTES || self.ended => {
                Ok(())
            }
            _ if !self.ended && MARK.get(self.n_of_mark) == Some(&byte) => {
                self.n_of_mark += 1;
                Ok(())
            }
            b'{' if !self.ended => {
                self.envelope.push(byte);
                self.depth = 1;
                Ok(())
            }
            _ => Err(Error::NotJson),
        }
    }

    /// Whether a string that begins here at the top level is a key: what stands before it is `{` or `,`.
    fn before_key(&self) -> bool {
        let before = self.envelope.iter().rev().skip(1).find(|byte| !byte.is_ascii_whitespace());
        matches!(before, Some(b'{' | b','))
    }

    fn string(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.in_string = false,
            _ => {}
        }
    }

    /// Inside `data`, where an element begins at depth 2: takes what belongs to one element, and says how much that was.
    fn in_records(&mut self, bytes: &[u8]) -> usize {
        let mut next = 0;
        while let Some(byte) = bytes.get(next) {
            let at = next;
            next += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                _ if self.in_string => {
                    // Most of a record is text: only its end and its escapes matter.
                    let rest = bytes.get(at..).unwrap_or_default();
                    let Some(found) = memchr2(b'"', b'\\', rest) else { break };
                    next = at + found + 1;
                    self.string(rest.get(found).copied().unwrap_or_default());
                }
                b' ' | b'\t' | b'\r' | b'\n' => {
                    next = at + white_space(bytes.get(at..).unwrap_or_default());
                }
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b',' if self.depth == 2 => {
                    self.keep(bytes.get(..at).unwrap_or_default());
                    self.end_record();
                    return at + 1;
                }
                b']' if self.depth == 2 => {
                    self.keep(bytes.get(..at).unwrap_or_default());
                    self.end_record();
                    self.in_list = false;
                    self.depth = 1;
                    self.envelope.push(*byte);
                    return at + 1;
                }
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        // Closed more than it opened: nothing after it can be a page.
                        self.in_list = false;
                        return at + 1;
                    }
                }
                _ => {}
            }
        }
        self.keep(bytes);
        bytes.len()
    }

    /// Part of an element, without the white space before its beginning.
    fn keep(&mut self, bytes: &[u8]) {
        let n_blank = if self.record.is_empty() { white_space(bytes) } else { 0 };
        let bytes = bytes.get(n_blank..).unwrap_or_default();
        if self.record.len() + bytes.len() <= MAX_RECORD_BYTES {
            self.record.extend_from_slice(bytes);
        } else {
            self.too_large = true;
        }
    }

    fn end_record(&mut self) {
        self.n_records += 1;
        let record = std::mem::take(&mut self.record);
        if std::mem::take(&mut self.too_large) {
            self.pieces.push_back(Piece::TooLarge);
        } else if !record.is_empty() {
            self.pieces.push_back(Piece::Record(record));
        }
    }
}

/// How much white space stands at the beginning: whole blocks first, which the compiler compares many bytes at once.
fn white_space(bytes: &[u8]) -> usize {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let mut blocks = bytes.chunks_exact(32);
    let is_all_blank = |block: &&[u8]| block.iter().fold(true, |all, byte| all & is_blank(byte));
    let n_blocks = blocks.by_ref().take_while(is_all_blank).count();
    let rest = bytes.get(n_blocks * 32..).unwrap_or_default();
    n_blocks * 32 + rest.iter().take_while(|byte| is_blank(byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::cloud_apps::envelope::Envelope;
    use proptest::prelude::*;

    fn split(body: &[u8], n_bytes: usize) -> (Vec<Piece>, Result<Envelope, Error>) {
        let mut splitter = Splitter::new();
        let mut pieces = Vec::new();
        for chunk in body.chunks(n_bytes) {
            if let Err(error) = splitter.feed(chunk) {
                return (pieces, Err(error));
            }
            pieces.extend(std::iter::from_fn(|| splitter.next()));
        }
        (pieces, splitter.finish().map(|envelope| Envelope::of(&envelope)))
    }

    const PAGE: &str = r#"{"total": 3, "data" : [ {"_id":"a","data":["]",{"data":[]}]} , {"_id":"b","s":"\"],}{\\"},3 ],
        "nextQueryFilters": {"created": {"gte": 5}, "data": "x"}, "hasNext": true}"#;

    #[test]
    fn any_chunks_give_the_same_page() {
        for n_bytes in 1..PAGE.len() {
            let (pieces, envelope) = split(PAGE.as_bytes(), n_bytes);
            let whole: Value = serde_json::from_str(PAGE).unwrap();
            let records: Vec<Value> = pieces
                .iter()
                .map(|piece| match piece {
                    Piece::Record(json) => serde_json::from_slice(json).unwrap(),
                    Piece::TooLarge => panic!("none is too large"),
                })
                .collect();
            assert_eq!(whole["data"], Value::Array(records));
            let envelope = envelope.unwrap();
            assert_eq!((envelope.has_next, envelope.total), (true, Some(3)));
            assert_eq!(envelope.next_query_filters.as_ref(), whole.get("nextQueryFilters"));
        }
    }

    #[test]
    fn what_arrived_whole_before_the_cut_is_good() {
        let body = br#"{"data": [{"_id":"a"}, {"_id":"b"}, {"_i"#;
        let (pieces, envelope) = split(body, 7);
        assert_eq!(pieces.len(), 2);
        assert!(matches!(envelope, Err(Error::Truncated)));
        assert!(matches!(split(b"<html></html>", 3).1, Err(Error::NotJson)));
        assert!(matches!(split(b"", 3).1, Err(Error::NotJson)));
        assert!(matches!(split(br#"{"hasNext": false}"#, 3).1, Err(Error::NoList(List::Data))));
        assert!(matches!(split(br#"{"data": [], "total": x}"#, 3).1, Err(Error::Envelope { .. })));
    }

    #[test]
    fn a_byte_order_mark_and_numbers_that_json_does_not_have_cost_nothing() {
        let page = format!("\u{FEFF}{PAGE}");
        for n_bytes in 1..10 {
            let (pieces, envelope) = split(page.as_bytes(), n_bytes);
            assert_eq!((pieces.len(), envelope.unwrap().has_next), (3, true));
        }
        let odd = br#"{"total": NaN, "max": -Infinity, "data": [{"a": NaN}, {}], "hasNext": true, "s": "NaN"}"#;
        let (pieces, envelope) = split(odd, 5);
        assert_eq!(pieces.len(), 2);
        assert_eq!(envelope.unwrap(), Envelope { has_next: true, ..Envelope::default() });
        for broken in
            [&b"\xEF\xBB\xBF"[..], b"\xEF{\"data\": []}\xBB", b"{\"data\": []} \xEF\xBB\xBF"]
        {
            assert!(split(broken, 2).1.is_err(), "{broken:?}");
        }
    }

    #[test]
    fn a_record_beyond_all_measure_is_skipped_and_its_neighbours_stay() {
        let long = "x".repeat(MAX_RECORD_BYTES + 1);
        let body = format!(r#"{{"data": [{{"_id":"a"}},{{"_id":"{long}"}},{{"_id":"b"}}]}}"#);
        let (pieces, envelope) = split(body.as_bytes(), 64 * 1024);
        let expected = [
            Piece::Record(br#"{"_id":"a"}"#.to_vec()),
            Piece::TooLarge,
            Piece::Record(br#"{"_id":"b"}"#.to_vec()),
        ];
        assert_eq!(pieces, expected);
        assert!(envelope.is_ok());
    }

    #[test]
    fn a_page_without_end_is_given_up() {
        let body = format!("{{\"data\": [{}0]}}", "0,".repeat(MAX_RECORDS));
        let (pieces, envelope) = split(body.as_bytes(), 1_000);
        assert!(pieces.len() <= MAX_RECORDS);
        assert!(matches!(envelope, Err(Error::Endless)));
        let body = format!("{{\"data\": [{}0]}}", "0,".repeat(MAX_RECORDS - 1));
        assert_eq!(split(body.as_bytes(), 1_000).0.len(), MAX_RECORDS);
        let long = Splitter { n_bytes: MAX_PAGE_BYTES - 10, ..Splitter::default() };
        assert!(matches!({ long }.feed(b"{\"data\": [{\"_id\": \""), Err(Error::Endless)));
        assert!(matches!(split(&vec![b' '; 2 * MAX_ENVELOPE_BYTES], 1_000).1, Err(Error::NotJson)));
        let deep = format!("{{\"data\": [], \"x\": {}", "[".repeat(MAX_ENVELOPE_BYTES));
        assert!(matches!(split(deep.as_bytes(), 1_000).1, Err(Error::EnvelopeTooLong)));
    }

    #[test]
    fn white_space_of_any_length_changes_nothing() {
        for n_blank in [0, 1, 31, 32, 33, 64, 100, 1_000] {
            for blank in [" ", "\n", "\r\n\t "] {
                let blank = blank.repeat(n_blank);
                let page = [
                    "{",
                    "\"total\"",
                    ":",
                    "2",
                    ",",
                    "\"data\"",
                    ":",
                    "[",
                    "{\"_id\":\"a b\"}",
                    ",",
                    "{\"_id\":[1,2]}",
                    "]",
                    ",",
                    "\"hasNext\"",
                    ":",
                    "true",
                    "}",
                ];
                let page = format!("{blank}{}{blank}", page.join(&blank));
                for n_bytes in [7, 64, 100_000] {
                    let (pieces, envelope) = split(page.as_bytes(), n_bytes);
                    let records: Vec<_> = pieces
                        .iter()
                        .map(|piece| match piece {
                            Piece::Record(json) => String::from_utf8_lossy(json).trim().to_owned(),
                            Piece::TooLarge => "too large".to_owned(),
                        })
                        .collect();
                    assert_eq!(records, ["{\"_id\":\"a b\"}", "{\"_id\":[1,2]}"]);
                    let envelope = envelope.unwrap();
                    assert_eq!((envelope.has_next, envelope.total), (true, Some(2)));
                }
            }
        }
        assert!(matches!(
            split(b"{\"total\": 1  2, \"data\": []}", 9).1,
            Err(Error::Envelope { .. })
        ));
    }

    /// Byte by byte this takes the time of 64 MB at every place; in blocks it is not felt.
    #[test]
    fn a_page_of_white_space_is_given_up_soon() {
        let blank = vec![b' '; 64 * 1024];
        for begin in ["{", "{\"data\": [", "{\"data\": [{\"_id\": 1", "{\"data\": []}"] {
            let mut splitter = Splitter::new();
            splitter.feed(begin.as_bytes()).unwrap();
            let n_taken = (0..).take_while(|_| splitter.feed(&blank).is_ok()).count();
            assert_eq!(n_taken, MAX_PAGE_BYTES / blank.len() - 1, "{begin}");
            assert!(splitter.envelope.len() < 1_000 + blank.len(), "{begin}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..300), n_bytes in 1_usize..50) {
            let _ = split(&body, n_bytes);
            let mut page = b"{\"data\":[".to_vec();
            page.extend(body);
            let _ = split(&page, n_bytes);
        }
    }
}
