//! The portal's API as a list: one stream of one tenant.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::envelope::Envelope;
use super::parse;
use super::query::{self, Query};
use crate::event::{Event, Stream};
use crate::reject::RejectReason;
use crate::source::http::api::{Api, Page, Request};
use crate::source::http::client::READ_TIMEOUT;
use crate::source::http::error::Error;
use crate::source::http::split::Splitter;
use crate::source::listing::stream_state::Limits;
use crate::source::listing::{List, Next, every};
use crate::source::{Offer, Read};
use crate::time::Millis;

/// The API keeps events this long (vendor: "data is retained for 180 days").
pub(super) const RETENTION: Millis = 180 * 24 * 3_600_000;

/// One stream of the API.
#[derive(Debug)]
pub struct Listing {
    pub(super) url: Arc<str>,
    pub(super) api: Arc<Api>,
    pub(super) stream: Stream,
    pub(super) filters: Map<String, Value>,
}

impl Listing {
    pub(super) async fn fetch(&self, query: &Query, offer: Offer) -> Result<Page, Error> {
        let (url, body) = (format!("{}/{}", self.url, query.path()), query.body());
        let request = Request {
            url: &url,
            body: Some(&body),
            prefer: None,
            silence: READ_TIMEOUT,
            splitter: Splitter::new(),
            permission: None,
        };
        self.api.ask(request, offer).await
    }
}

impl List for Listing {
    type Query = Query;

    fn stream(&self) -> Stream {
        self.stream
    }

    fn limits(&self) -> Limits {
        Limits { retention: RETENTION, largest_page: Query::largest_page(self.stream) }
    }

    fn api(&self) -> &Api {
        &self.api
    }

    fn question(&self, from: Millis, until: Option<Millis>, limit: usize) -> Query {
        let query = Query::since(self.stream, self.filters.clone(), from).at_most(limit);
        match until {
            Some(until) => query.until(until),
            None => query,
        }
    }

    fn from(&self, query: &Query) -> Millis {
        query.from()
    }

    async fn ask(&self, query: &Query, offer: Offer) -> Result<Page, Error> {
        self.fetch(query, offer).await
    }

    fn read(&self, json: &[u8]) -> Result<Read, RejectReason> {
        every(parse::record(self.stream, json))
    }

    fn listed(&self, event: &Event) -> Option<Millis> {
        match self.stream {
            Stream::Alerts => Some(event.timestamp()),
            Stream::Activities => event.created(),
        }
    }

    fn has_next(&self, _: &Query, end: &Value, _: usize) -> bool {
        Envelope::of(end).has_next
    }

    fn total(&self, end: &Value) -> Option<u64> {
        Envelope::of(end).total
    }

    fn next(
        &self,
        query: &Query,
        end: &Value,
        highest: Option<Millis>,
        n_listed: usize,
    ) -> Result<Next<Query>, Error> {
        let cursor = Envelope::of(end).next_query_filters;
        let text = cursor.as_ref().map(Value::to_string);
        match query.next(cursor, highest, n_listed) {
            query::Next::Page(query) => Ok(Next { query, cursor: text }),
            query::Next::Nowhere => Err(Error::Nowhere),
            query::Next::SkipUsedUp => Err(Error::SkipLimit),
        }
    }
}
