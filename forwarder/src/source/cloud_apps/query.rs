//! What is asked of the API: the request bodies of both endpoints. Pure.
//!
//! Activities are listed by `created` ("timestamp when the activity was saved") in scan mode, with the server's own
//! cursor from page to page; alerts know only `date` and are listed from the last date seen, with `skip` for records of
//! one and the same millisecond (docs: api-activities-list, api-activities-investigate-script, api-alerts-list).

use serde_json::{Map, Value, json};

use crate::event::Stream;
use crate::time::Millis;

/// Records a page in scan mode: the most that the API gives.
pub const SCAN_PAGE: usize = 5_000;
/// Records a page without it.
pub const ALERT_PAGE: usize = 100;
/// The API refuses to look further than this by `skip` and `limit`.
pub const SKIP_LIMIT: usize = 5_000;

/// One question to the API.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Which endpoint.
    pub stream: Stream,
    filters: Map<String, Value>,
    from: Millis,
    until: Option<Millis>,
    position: Position,
    /// Whether activities are listed in scan mode.
    scan: bool,
    limit: usize,
}

/// The way from one page to the next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// The question for it.
    Page(Query),
    /// There are more records of one millisecond than `skip` reaches.
    SkipUsedUp,
    /// An empty page, and no cursor: nothing says where the rest is.
    Nowhere,
}

/// Where in the list the page begins.
#[derive(Debug, Clone, PartialEq)]
enum Position {
    /// At the first record of the window.
    Start,
    /// Where the server's own cursor points: it replaces the filters.
    Cursor(Value),
    /// After this many records.
    Skip(usize),
}

impl Query {
    /// Everything listed at or after `from` that the user's filters let through.
    pub fn since(stream: Stream, filters: Map<String, Value>, from: Millis) -> Self {
        let scan = stream == Stream::Activities;
        let limit = Self::largest_page(stream);
        Self { stream, filters, from, until: None, position: Position::Start, scan, limit }
    }

    /// The most records that a page of this stream can have.
    pub fn largest_page(stream: Stream) -> usize {
        match stream {
            Stream::Alerts => ALERT_PAGE,
            Stream::Activities => SCAN_PAGE,
        }
    }

    /// The same, at most so many records a page.
    #[must_use]
    pub fn at_most(mut self, limit: usize) -> Self {
        self.limit = self.limit.min(limit);
        self
    }

    /// The same, up to and including a time.
    #[must_use]
    pub fn until(mut self, until: Millis) -> Self {
        self.until = Some(until);
        self
    }

    /// One record at most, to learn whether the token is good.
    pub fn probe(stream: Stream, from: Millis) -> Self {
        let (filters, position) = (Map::new(), Position::Start);
        Self { stream, filters, from, until: None, position, scan: false, limit: 1 }
    }

    /// The lower end of the window.
    pub fn from(&self) -> Millis {
        self.from
    }

    /// The page after one that was not the last.
    ///
    /// `cursor` is the server's `nextQueryFilters`, `highest` the time of the last record listed, and `n_listed` the
    /// number of records on the page. Without a cursor the list is asked for from the last time seen, and records of
    /// one and the same millisecond are skipped by number, which the scan mode does not know.
    pub fn next(&self, cursor: Option<Value>, highest: Option<Millis>, n_listed: usize) -> Next {
        let mut next = self.clone();
        let cursor = cursor.filter(|cursor| cursor.as_object().is_some_and(|map| !map.is_empty()));
        match (cursor, highest) {
            (Some(cursor), _) => next.position = Position::Cursor(cursor),
            (None, Some(highest)) if highest > self.from => {
                next.from = highest;
                next.position = Position::Start;
            }
            (None, _) => {
                let skipped = match self.position {
                    Position::Skip(skip) => skip,
                    Position::Start | Position::Cursor(_) => 0,
                };
                let skip = skipped + n_listed;
                if n_listed == 0 {
                    return Next::Nowhere;
                }
                next.position = Position::Skip(skip);
                if skip + next.page_limit() > SKIP_LIMIT {
                    return Next::SkipUsedUp;
                }
            }
        }
        Next::Page(next)
    }

    /// Whether records are listed in scan mode.
    fn is_scan(&self) -> bool {
        self.scan && !matches!(self.position, Position::Skip(_))
    }

    fn page_limit(&self) -> usize {
        if self.is_scan() { self.limit } else { self.limit.min(ALERT_PAGE) }
    }

    /// The path below the tenant's URL.
    pub fn path(&self) -> &'static str {
        match self.stream {
            Stream::Alerts => "api/v1/alerts/",
            Stream::Activities => "api/v1/activities/",
        }
    }

    /// The request's JSON body.
    pub fn body(&self) -> Value {
        let time = match self.stream {
            Stream::Alerts => "date",
            Stream::Activities => "created",
        };
        let filters = match &self.position {
            Position::Cursor(cursor) => cursor.clone(),
            Position::Start | Position::Skip(_) => {
                let mut filters = self.filters.clone();
                let mut window = Map::new();
                window.insert("gte".to_owned(), self.from.into());
                if let Some(until) = self.until {
                    window.insert("lte".to_owned(), until.into());
                }
                filters.insert(time.to_owned(), window.into());
                filters.into()
            }
        };
        let mut body = json!({
            "filters": filters,
            "limit": self.page_limit(),
            "sortField": time,
            "sortDirection": "asc",
        });
        if let Value::Object(body) = &mut body {
            if self.is_scan() {
                body.insert("isScan".to_owned(), true.into());
            } else if let Position::Skip(skip) = self.position {
                body.insert("skip".to_owned(), skip.into());
            }
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(next: Next) -> Query {
        let Next::Page(query) = next else { panic!("{next:?}") };
        query
    }

    #[test]
    fn activities_are_scanned_by_the_time_of_saving() {
        let mut filters = Map::new();
        filters.insert("service".to_owned(), json!({"eq": [11161]}));
        let query = Query::since(Stream::Activities, filters, 1_000);
        let expected = json!({
            "filters": {"service": {"eq": [11161]}, "created": {"gte": 1_000}},
            "limit": 5_000, "sortField": "created", "sortDirection": "asc", "isScan": true,
        });
        assert_eq!(query.body(), expected);
        let next = page(query.next(Some(json!({"opaque": 1})), Some(2_000), 4_990));
        assert_eq!(next.body()["filters"], json!({"opaque": 1}));
        for no_cursor in [Value::Null, json!({}), json!("x")] {
            let next = page(query.next(Some(no_cursor), Some(2_000), 4_990));
            assert_eq!(next.body()["filters"]["created"], json!({"gte": 2_000}));
        }
    }

    #[test]
    fn a_page_has_fewer_records_where_the_apis_pages_are_too_large() {
        let of = |stream, limit| Query::since(stream, Map::new(), 1_000).at_most(limit).body();
        assert_eq!(of(Stream::Activities, 1_250)["limit"], 1_250);
        assert_eq!(of(Stream::Activities, 1_250)["isScan"], true);
        assert_eq!(of(Stream::Activities, 50_000)["limit"], 5_000);
        assert_eq!(of(Stream::Alerts, 25)["limit"], 25);
        let next = page(Query::since(Stream::Activities, Map::new(), 0).at_most(78).next(
            Some(json!({"opaque": 1})),
            Some(1),
            78,
        ));
        assert_eq!(next.body()["limit"], 78);
    }

    #[test]
    fn a_millisecond_with_more_than_a_page_is_read_by_number_outside_the_scan() {
        let query = Query::since(Stream::Activities, Map::new(), 1_000);
        let mut next = page(query.next(None, Some(1_000), 500));
        assert_eq!(next.body()["skip"], 500);
        assert_eq!(next.body()["limit"], 100);
        assert!(next.body().get("isScan").is_none());
        for _ in 0..44 {
            next = page(next.next(None, Some(1_000), 100));
        }
        assert_eq!(next.body()["skip"], 4_900);
        assert_eq!(next.next(None, Some(1_000), 100), Next::SkipUsedUp);
        let scan = page(next.next(None, Some(1_001), 100));
        assert_eq!(scan.body()["isScan"], true);
        assert_eq!(scan.body()["limit"], 5_000);
    }

    #[test]
    fn an_empty_page_without_a_cursor_leads_nowhere() {
        for stream in [Stream::Alerts, Stream::Activities] {
            let query = Query::since(stream, Map::new(), 1_000);
            assert_eq!(query.next(None, None, 0), Next::Nowhere);
        }
    }

    #[test]
    fn alerts_resume_at_the_last_date_and_skip_only_within_one() {
        let query = Query::since(Stream::Alerts, Map::new(), 1_000);
        let next = page(query.next(None, Some(5_000), 100));
        assert_eq!(next.body()["filters"], json!({"date": {"gte": 5_000}}));
        assert!(next.body().get("skip").is_none());
        let mut same = page(next.next(None, Some(5_000), 100));
        assert_eq!(same.body()["skip"], 100);
        for _ in 0..48 {
            same = page(same.next(None, Some(5_000), 100));
        }
        assert_eq!(same.body()["skip"], 4_900);
        // The API refuses skip + limit above 5,000.
        assert_eq!(same.next(None, Some(5_000), 100), Next::SkipUsedUp);
    }
}
