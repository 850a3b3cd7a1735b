//! One page of a stream: what a question asks for, within the limits of the real API, and what is shown for it.

use serde_json::{Value, json};
use siem_agent_crds::report::Stream;

use super::filter::{Filters, time};
use super::tenant::{Record, Tenant};

/// The key of the scan's cursor among the filters of the next page.
pub(super) const CURSOR: &str = "scanCursor";
/// Records a page without scan mode.
const PAGE: usize = 100;
/// Records a page in scan mode.
const SCAN_PAGE: (usize, usize) = (500, 5_000);
/// How far `skip` and `limit` reach together.
const SKIP_LIMIT: usize = 5_000;
/// A page in scan mode that is not the last one loses one to so many of its last records.
const MOST_DROPPED: usize = 5;

/// A page that is about to be shown.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) body: String,
    pub(super) has_next: bool,
    /// The ids on it, each with the place in the body where its record ends.
    pub(super) ids: Vec<(usize, String)>,
}

impl Tenant {
    /// The page that a question asks for.
    ///
    /// # Errors
    /// The body of a 400.
    pub(super) fn page(&self, stream: Stream, question: &Value) -> Result<Page, Value> {
        let now = self.now();
        let scan = stream == Stream::Activities && question.get("isScan") == Some(&json!(true));
        let limit = number(question, "limit")?.unwrap_or(if scan { SCAN_PAGE.0 } else { PAGE });
        let limit = if scan { limit.clamp(SCAN_PAGE.0, SCAN_PAGE.1) } else { limit.clamp(1, PAGE) };
        let skip = number(question, "skip")?.unwrap_or(0);
        if !scan && skip + limit > SKIP_LIMIT {
            return Err(
                json!({"detail": format!("skip and limit reach {SKIP_LIMIT} records at most")}),
            );
        }
        let empty = json!({});
        let filters = question.get("filters").unwrap_or(&empty);
        let read = Filters::read(stream, filters, now)?;
        let order = Order::read(stream, question)?;
        let mut found = self.found(stream, &read, now);
        order.sort(&mut found);
        if scan {
            let cursor = filters.get(CURSOR).and_then(Value::as_array);
            let from = cursor.and_then(|at| Some((at.first()?.as_i64()?, at.get(1)?.as_str()?)));
            found.retain(|record| from.is_none_or(|from| order.not_before(record, from)));
        }
        let total = found.len();
        let has_next = total > skip + limit;
        let n_dropped = if scan && has_next { 1 + total % MOST_DROPPED } else { 0 };
        let next = found.get(skip + limit - n_dropped).map(|record| record.place());
        let shown: Vec<&Record> =
            found.iter().skip(skip).take(limit - n_dropped).copied().collect();
        let mut body = String::from("{\"data\":[");
        let mut ids = Vec::new();
        for record in shown {
            if !body.ends_with('[') {
                body.push(',');
            }
            body.push_str(&record.json);
            ids.extend(record.id.clone().map(|id| (body.len(), id)));
        }
        body.push_str(&format!("],\"hasNext\":{has_next},\"total\":{total}"));
        if stream == Stream::Alerts {
            body.push_str(&format!(",\"max\":{PAGE},\"moreThanTotal\":false"));
        }
        if let (true, true, Some((time, id))) = (scan, has_next, next) {
            let mut filters = filters.clone();
            filters[CURSOR] = json!([time, id]);
            body.push_str(&format!(",\"nextQueryFilters\":{filters}"));
        }
        body.push('}');
        Ok(Page { body, has_next, ids })
    }

    /// What a filter lets through, in the order of the list.
    fn found(&self, stream: Stream, filters: &Filters, now: i64) -> Vec<&Record> {
        let records = self.records(stream);
        let (from, until) = filters.window;
        let begin = records.partition_point(|record| record.listed < from);
        let end = records.partition_point(|record| record.listed <= until).max(begin);
        let window = records.get(begin..end).unwrap_or_default().iter();
        window
            .filter(|record| record.visible <= now && filters.let_through(&record.json, now))
            .collect()
    }

    /// One record by its id.
    pub(super) fn one(&self, stream: Stream, id: &str) -> Option<&Record> {
        let now = self.now();
        let mut records = self.records(stream).iter();
        records.find(|record| record.visible <= now && record.id.as_deref() == Some(id))
    }
}

/// In which order a question wants its records.
#[derive(Debug, Clone, Copy)]
struct Order {
    /// By a field of the record instead of the time by which it is listed.
    by: Option<&'static str>,
    ascending: bool,
}

impl Order {
    fn read(stream: Stream, question: &Value) -> Result<Self, Value> {
        let text = |name: &str| question.get(name).map(|value| value.as_str().unwrap_or_default());
        let by = match (stream, text("sortField").unwrap_or("date")) {
            (Stream::Alerts, "date") | (Stream::Activities, "created") => None,
            (Stream::Alerts, "severity") => Some("/severityValue"),
            (Stream::Activities, "date") => Some("/timestamp"),
            (_, other) => {
                return Err(json!({"detail": format!("sortField: {other} is not valid")}));
            }
        };
        match text("sortDirection").unwrap_or("desc") {
            "asc" => Ok(Self { by, ascending: true }),
            "desc" => Ok(Self { by, ascending: false }),
            other => Err(json!({"detail": format!("sortDirection: {other} is not valid")})),
        }
    }

    fn sort(self, found: &mut [&Record]) {
        if let Some(pointer) = self.by {
            found.sort_by_cached_key(|record| {
                let record: Value = serde_json::from_str(&record.json).unwrap_or_default();
                record.pointer(pointer).and_then(time)
            });
        }
        if !self.ascending {
            found.reverse();
        }
    }

    fn not_before(self, record: &Record, place: (i64, &str)) -> bool {
        if self.ascending { record.place() >= place } else { record.place() <= place }
    }
}

fn number(question: &Value, name: &str) -> Result<Option<usize>, Value> {
    let wrong = || json!({"detail": format!("{name}: a number is needed")});
    match question.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
            number.map(Some).ok_or_else(wrong)
        }
    }
}
