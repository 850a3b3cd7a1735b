//! What sources share that list their records in the order of a time: one reader, and all that it knows of a stream.
//!
//! An API is a [`List`] here: it asks, splits and reads, and decides nothing. What a page proves is decided in
//! `stream_state`.

pub mod cursor;
pub mod notices;
pub(crate) mod position;
pub mod reader;
pub mod schedule;
pub mod server_clock;
pub mod stream_state;
pub mod walk;

use std::fmt::Debug;

use serde_json::Value;

use super::error::Error;
use super::http::api::{Api, Page};
use super::{Offer, Read};
use crate::event::{Event, Stream};
use crate::reject::RejectReason;
use crate::time::Millis;
use stream_state::Limits;

/// What an API lists of one stream, page by page, in ascending order of time.
pub trait List: Debug + Send + Sync {
    /// One question.
    type Query: Clone + Debug + Send + Sync;

    /// Which stream it is.
    fn stream(&self) -> Stream;

    /// What the API says of itself.
    fn limits(&self) -> Limits;

    /// Whom it asks.
    fn api(&self) -> &Api;

    /// The question for everything that was listed from a time on, and up to and including another, of so many records a
    /// page.
    fn question(&self, from: Millis, until: Option<Millis>, limit: usize) -> Self::Query;

    /// Where a question begins.
    fn from(&self, query: &Self::Query) -> Millis;

    /// Asks it.
    ///
    /// # Errors
    /// Why there is no page.
    fn ask(
        &self,
        query: &Self::Query,
        offer: Offer,
    ) -> impl Future<Output = Result<Page, Error>> + Send;

    /// Reads a record.
    ///
    /// # Errors
    /// Why it is no event.
    fn read(&self, json: &[u8]) -> Result<Read, RejectReason>;

    /// The time by which an event is listed, where it says.
    fn listed(&self, event: &Event) -> Option<Millis>;

    /// Whether the page that ended so is followed by another.
    fn has_next(&self, query: &Self::Query, end: &Value, n_listed: usize) -> bool;

    /// How many records pass in all, where the API says so.
    fn total(&self, _end: &Value) -> Option<u64> {
        None
    }

    /// The question for it.
    ///
    /// # Errors
    /// [`Error::Nowhere`] and the like: nothing says where the rest is.
    fn next(
        &self,
        query: &Self::Query,
        end: &Value,
        highest: Option<Millis>,
        n_listed: usize,
    ) -> Result<Next<Self::Query>, Error>;
}

/// The way to the next page.
#[derive(Debug)]
pub struct Next<Q> {
    /// Its question.
    pub query: Q,
    /// The server's own cursor to it, which must not come twice.
    pub cursor: Option<String>,
}

/// Any event: what a filter leaves out is decided elsewhere.
pub(crate) fn every(event: Result<Event, super::parse::Reject>) -> Result<Read, RejectReason> {
    event.map(Read::Event).map_err(|reject| reject.reason)
}
