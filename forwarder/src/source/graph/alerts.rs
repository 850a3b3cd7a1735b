//! The alerts of `security/alerts_v2` as a list, by the time at which each was created.
//!
//! <https://learn.microsoft.com/graph/api/security-list-alerts_v2>. Never `$skip`, which reaches 500 records only: after a
//! full page the filter moves to the last time seen, and a page of one single time is followed by the server's own link.

use std::sync::Arc;

use serde_json::Value;

use super::filter::{self, any_of};
use crate::event::{Event, Stream};
use crate::record::RecordKey;
use crate::reject::RejectReason;
use crate::source::http::api::{Api, Page, Request};
use crate::source::http::client::READ_TIMEOUT;
use crate::source::http::error::Error;
use crate::source::http::split::{List as Key, Splitter};
use crate::source::listing::stream_state::Limits;
use crate::source::listing::{List, Next};
use crate::source::{Offer, Read, xdr};
use crate::time::Millis;

/// The most that Graph gives a page.
const LARGEST_PAGE: usize = 1_000;
/// Alerts are kept for 180 days (Microsoft Defender XDR, "Data retention").
const RETENTION: Millis = 180 * 24 * 3_600_000;
/// Without it Graph writes `unknownFutureValue` for the members that are younger than its contract.
const PREFER: &str = "include-unknown-enum-members";
/// What the application needs.
pub(super) const PERMISSION: &str = "SecurityAlert.Read.All";

/// Graph's alerts.
#[derive(Debug)]
pub struct Alerts {
    pub(super) url: Arc<str>,
    pub(super) api: Arc<Api>,
    pub(super) service_sources: Vec<String>,
    pub(super) filter: filter::Alerts,
}

/// One question.
#[derive(Debug, Clone)]
pub struct Query {
    from: Millis,
    until: Option<Millis>,
    limit: usize,
    /// The server's own way to the page.
    link: Option<String>,
}

impl Alerts {
    fn path(&self, query: &Query) -> String {
        let time = |millis| {
            jiff::Timestamp::from_millisecond(millis).unwrap_or_default().strftime("%FT%T%.3fZ")
        };
        let mut filter = any_of("serviceSource", &self.service_sources);
        filter.push_str(&self.filter.odata());
        filter.push_str(&format!(" and createdDateTime ge {}", time(query.from)));
        if let Some(until) = query.until {
            // Times are cut to milliseconds.
            filter.push_str(&format!(" and createdDateTime lt {}", time(until + 1)));
        }
        let options = form_urlencoded::Serializer::new(String::new())
            .append_pair("$filter", &filter)
            .append_pair("$orderby", "createdDateTime asc")
            .append_pair("$top", &query.limit.to_string())
            .finish();
        // A plus is a blank in a form, and a plus in a URL (RFC 3986).
        format!("{}/v1.0/security/alerts_v2?{}", self.url, options.replace('+', "%20"))
    }

    /// `@odata.nextLink`.
    fn link(end: &Value) -> Option<&str> {
        end.get("@odata.nextLink").and_then(Value::as_str).filter(|link| !link.is_empty())
    }
}

impl List for Alerts {
    type Query = Query;

    fn stream(&self) -> Stream {
        Stream::Alerts
    }

    fn limits(&self) -> Limits {
        Limits { retention: RETENTION, largest_page: LARGEST_PAGE }
    }

    fn api(&self) -> &Api {
        &self.api
    }

    fn question(&self, from: Millis, until: Option<Millis>, limit: usize) -> Query {
        Query { from, until, limit, link: None }
    }

    fn from(&self, query: &Query) -> Millis {
        query.from
    }

    async fn ask(&self, query: &Query, offer: Offer) -> Result<Page, Error> {
        let url = query.link.clone().unwrap_or_else(|| self.path(query));
        let request = Request {
            url: &url,
            body: None,
            prefer: Some(PREFER),
            silence: READ_TIMEOUT,
            splitter: Splitter::of(Key::Value),
            permission: Some(PERMISSION),
        };
        self.api.ask(request, offer).await
    }

    fn read(&self, json: &[u8]) -> Result<Read, RejectReason> {
        let event = xdr::alert(json).map_err(|reject| reject.reason)?;
        if self.filter.passes(&event) {
            return Ok(Read::Event(event));
        }
        let key = RecordKey::of(event.id().as_bytes());
        Ok(Read::Filtered { key, listed: self.listed(&event) })
    }

    fn listed(&self, event: &Event) -> Option<Millis> {
        Some(event.timestamp())
    }

    fn has_next(&self, query: &Query, end: &Value, n_listed: usize) -> bool {
        Self::link(end).is_some() || n_listed >= query.limit
    }

    fn next(
        &self,
        query: &Query,
        end: &Value,
        highest: Option<Millis>,
        n_listed: usize,
    ) -> Result<Next<Query>, Error> {
        if let Some(from) = highest.filter(|highest| *highest > query.from && n_listed > 0) {
            return Ok(Next { query: Query { from, link: None, ..query.clone() }, cursor: None });
        }
        match Self::link(end) {
            Some(link) if link.strip_prefix(&*self.url).is_some_and(|it| it.starts_with('/')) => {
                let query = Query { link: Some(link.to_owned()), ..query.clone() };
                Ok(Next { query, cursor: Some(link.to_owned()) })
            }
            Some(_) => Err(Error::ForeignLink),
            None => Err(Error::SkipLimit),
        }
    }
}
