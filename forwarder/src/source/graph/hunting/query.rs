//! The KQL that we send: one table, one stretch of it, in the order of ingestion. Pure.
//!
//! `ingestion_time()` is when Kusto took a row in; a table that does not keep it gives null, and the row's own `Timestamp`
//! stands in its place (Kusto, "ingestion_time()", "strcmp()"; Microsoft Graph, "security: runHuntingQuery").

use serde_json::{Value, json};

use super::key::{Key, datetime};
use crate::source::graph::filter::{Activities, text};
use crate::source::xdr::Table;
use crate::time::Millis;

/// The most rows that are asked for at once: 5,000 rows take 25 MB, of the 50 that Graph gives.
pub(super) const MOST_ROWS: usize = 5_000;
/// The most ids: each row of them takes 150 bytes.
pub(super) const MOST_IDS: usize = 20_000;
/// So many missing rows are fetched at once.
pub(super) const MOST_FETCHED: usize = 200;
/// The farthest that hunting looks back.
const TIMESPAN: &str = "P30D";

/// What is asked of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Select {
    /// So many whole rows.
    Rows(usize),
    /// So many rows' places only.
    Ids(usize),
    /// The rows with these ids.
    These(Vec<String>),
}

/// By which of its times a row is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// When it was ingested.
    Ingestion,
    /// When it happened.
    Timestamp,
}

/// One query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    pub(super) table: Table,
    pub(super) by: By,
    /// Only what lies behind this.
    pub(super) after: Key,
    /// And not what lies behind this.
    pub(super) until: Option<Key>,
    pub(super) select: Select,
}

impl Query {
    /// The body of the request.
    pub(super) fn body(&self, filter: &Activities) -> Value {
        json!({"Query": self.kql(filter), "Timespan": TIMESPAN})
    }

    /// How many rows make the answer a full one.
    pub(super) fn limit(&self) -> usize {
        match &self.select {
            Select::Rows(limit) | Select::Ids(limit) => *limit,
            Select::These(ids) => ids.len().saturating_add(1),
        }
    }

    fn kql(&self, filter: &Activities) -> String {
        let name = self.table.as_str();
        let time = match self.by {
            By::Ingestion => "coalesce(ingestion_time(), Timestamp)",
            By::Timestamp => "Timestamp",
        };
        let after = datetime(self.after.ticks);
        let mut kql = format!("{name}\n| extend IngestionTime = {time}\n");
        match &self.after.id {
            None => kql.push_str(&format!("| where IngestionTime > {after}\n")),
            Some(id) => kql.push_str(&format!(
                "| where IngestionTime >= {after}\n\
                 | where IngestionTime > {after} or strcmp(ReportId, {}) > 0\n",
                text(id)
            )),
        }
        if let Some(until) = &self.until {
            kql.push_str(&format!("| where IngestionTime <= {}\n", datetime(until.ticks)));
        }
        if let Select::These(ids) = &self.select {
            let ids: Vec<String> = ids.iter().map(|id| text(id)).collect();
            kql.push_str(&format!("| where ReportId in ({})\n", ids.join(", ")));
        }
        kql.push_str(&filter.kql(self.table));
        kql.push_str("| order by IngestionTime asc, ReportId asc\n");
        match &self.select {
            Select::Rows(limit) => kql.push_str(&format!("| take {limit}\n")),
            Select::Ids(limit) => {
                kql.push_str(&format!("| take {limit}\n| project IngestionTime, ReportId\n"));
            }
            Select::These(_) => {}
        }
        kql
    }

    /// One row of the last minute, to learn whether tables may be read.
    pub(in crate::source::graph) fn probe(table: Table, now: Millis) -> Self {
        let after = Key::before(now - 60_000);
        Self { table, by: By::Timestamp, after, until: None, select: Select::Ids(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_asks_for_one_stretch_in_the_order_of_ingestion() {
        let query = Query {
            table: Table::CloudAppEvents,
            by: By::Ingestion,
            after: Key { ticks: 17_910_270_024_866_667, id: Some("a\"b".to_owned()) },
            until: Some(Key { ticks: 17_910_270_034_866_667, id: None }),
            select: Select::Rows(5_000),
        };
        let filter = Activities { services: vec![11161], ..Activities::default() };
        assert_eq!(
            query.kql(&filter),
            "CloudAppEvents\n\
             | extend IngestionTime = coalesce(ingestion_time(), Timestamp)\n\
             | where IngestionTime >= datetime(2026-10-03T11:30:02.4866667Z)\n\
             | where IngestionTime > datetime(2026-10-03T11:30:02.4866667Z) or strcmp(ReportId, \"a\\\"b\") > 0\n\
             | where IngestionTime <= datetime(2026-10-03T11:30:03.4866667Z)\n\
             | where ApplicationId in (11161)\n\
             | order by IngestionTime asc, ReportId asc\n\
             | take 5000\n"
        );
        let ids = Query { select: Select::Ids(7), ..query.clone() };
        let ids = ids.kql(&Activities::default());
        assert!(ids.ends_with("| take 7\n| project IngestionTime, ReportId\n"), "{ids}");
        let these = Query { select: Select::These(vec!["x".to_owned()]), until: None, ..query };
        let these = these.kql(&Activities::default());
        assert!(these.contains("| where ReportId in (\"x\")\n"), "{these}");
    }
}
