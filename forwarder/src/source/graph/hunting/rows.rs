//! The rows of one table as a list, by the time at which each happened: a bounded window of it, which has no position.

use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::Hunting;
use super::key::{self, Key};
use super::query::{By, MOST_ROWS, Query, Select};
use crate::event::{Event, Stream};
use crate::record::RecordKey;
use crate::reject::RejectReason;
use crate::source::http::api::{Api, Page};
use crate::source::http::error::Error;
use crate::source::listing::stream_state::Limits;
use crate::source::listing::{List, Next};
use crate::source::{Offer, Read, xdr};
use crate::time::Millis;

/// One table.
#[derive(Debug)]
pub(crate) struct Rows {
    hunting: Hunting,
    table: xdr::Table,
    /// The place of the last row that was read: what the next page lies behind.
    last: Mutex<Option<Key>>,
}

impl Rows {
    pub(in crate::source::graph) fn new(hunting: Hunting, table: xdr::Table) -> Self {
        Self { hunting, table, last: Mutex::default() }
    }

    /// The table's name.
    pub(crate) fn name(&self) -> &'static str {
        self.table.as_str()
    }
}

impl List for Rows {
    type Query = Query;

    fn stream(&self) -> Stream {
        Stream::Activities
    }

    fn limits(&self) -> Limits {
        Limits { retention: super::RETENTION, largest_page: MOST_ROWS }
    }

    fn api(&self) -> &Api {
        &self.hunting.api
    }

    fn question(&self, from: Millis, until: Option<Millis>, limit: usize) -> Query {
        Query {
            table: self.table,
            by: By::Timestamp,
            after: Key::before(from),
            until: until.map(Key::after),
            select: Select::Rows(limit),
        }
    }

    fn from(&self, query: &Query) -> Millis {
        query.after.millis()
    }

    async fn ask(&self, query: &Query, offer: Offer) -> Result<Page, Error> {
        self.hunting.ask(query, offer).await
    }

    fn read(&self, json: &[u8]) -> Result<Read, RejectReason> {
        let place = key::of(json);
        if let Some(place) = &place {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(place.clone());
        }
        let event = xdr::row(self.table, json).map_err(|reject| reject.reason)?;
        let listed = place.map(|place| place.millis());
        match event {
            Some(event) if self.hunting.filter.passes(&event) => Ok(Read::Event(event)),
            Some(event) => Ok(Read::Filtered { key: RecordKey::of(event.id().as_bytes()), listed }),
            None => Ok(Read::Filtered { key: RecordKey::of(json), listed }),
        }
    }

    fn listed(&self, event: &Event) -> Option<Millis> {
        Some(event.timestamp())
    }

    fn has_next(&self, query: &Query, _: &Value, n_listed: usize) -> bool {
        n_listed >= query.limit()
    }

    fn next(
        &self,
        query: &Query,
        _: &Value,
        _: Option<Millis>,
        _: usize,
    ) -> Result<Next<Query>, Error> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let after = last.filter(|last| last.is_behind(&query.after)).ok_or(Error::Unordered)?;
        Ok(Next { query: Query { after, ..query.clone() }, cursor: None })
    }
}
