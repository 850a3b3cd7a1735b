//! Hunting: a query over the tenant's rows, within the span of time and the limits of the real API.

use jiff::{Span, SpanRelativeTo};
use serde_json::{Map, Value, json};

use super::super::kql::{self, Table};
use super::super::tenant::Tenant;
use super::super::ticks::{self, Form, MILLISECOND};
use super::super::xdr::print;
use super::super::xdr::{CLOUD_APP_EVENTS, IDENTITY_LOGON_EVENTS};
use super::{Body, Refusal};

/// How far back queries see.
const LONGEST: i64 = 30 * ticks::DAY;
/// How many rows a result has at most; the rest is left out.
const MOST_ROWS: usize = 100_000;
const CONTEXT: &str =
    "https://graph.microsoft.com/v1.0/$metadata#microsoft.graph.security.huntingQueryResults";
static TABLES: [&Table; 2] = [&CLOUD_APP_EVENTS, &IDENTITY_LOGON_EVENTS];
/// A result with this column shows its records; one without it names them at most.
const SHOWING: &str = "ActionType";

/// What a result that is too large is refused with.
pub(super) fn too_large() -> Refusal {
    Refusal::bad_request(
        "Query execution has exceeded the allowed result size. Optimize your query by limiting \
         the amount of results and try again.",
    )
}

impl Tenant {
    /// Every row of the tenant's own, with its table.
    pub(in crate::defender) fn own_rows(&self) -> Vec<String> {
        let mut shown = Vec::new();
        for table in TABLES {
            let query = format!("{0} | extend Table = '{0}'", table.name);
            let answer = kql::run(&query, &TABLES, self.now() * MILLISECOND, |_| {
                let rows = self.activities.iter();
                let rows = rows.filter_map(|it| it.derived.rows(&it.json, self.delay(it)).first());
                rows.filter(|row| row.table.name == table.name).map(|row| &row.fact).collect()
            });
            let rows = answer.map(|answer| answer.rows).unwrap_or_default();
            shown.extend(rows.into_iter().map(|(_, row)| print(&Value::Object(row))));
        }
        shown
    }

    /// The result of a query.
    pub(super) fn hunt(&self, question: &Value) -> Result<Body, Refusal> {
        let now = self.now();
        let (query, (from, until)) = read(question, now * MILLISECOND)?;
        let mut ids = Vec::new();
        let answer = kql::run(&query, &TABLES, now * MILLISECOND, |table| {
            let rows = self.activities.iter().filter(|record| record.visible <= now);
            let rows =
                rows.flat_map(|record| record.derived.rows(&record.json, self.delay(record)));
            let rows = rows.filter(|row| {
                row.table.name == table.name
                    && row.visible <= now
                    && (from..=until).contains(&row.happened)
            });
            rows.map(|row| {
                ids.push(row.own.clone());
                &row.fact
            })
            .collect()
        });
        let answer = answer.map_err(|wrong| Refusal::bad_request(wrong.to_string()))?;
        let schema = answer
            .schema
            .iter()
            .map(|(name, kind)| json!({"name": name, "type": kind.name_in_schema()}));
        let mut text = format!(
            "{{\"@odata.context\":{},\"schema\":{},\"results\":[",
            json!(CONTEXT),
            json!(schema.collect::<Vec<_>>())
        );
        let (n_before, shows) = (text.len(), answer.schema.iter().any(|(name, _)| name == SHOWING));
        let (mut shown, more) = (Vec::new(), parameters(self.options.raw_event_bytes));
        for (index, mut row) in answer.rows.into_iter().take(MOST_ROWS) {
            swell(&mut row, &more);
            if !text.ends_with('[') {
                text.push(',');
            }
            text.push_str(&print(&Value::Object(row)));
            let id = index.and_then(|index| ids.get(index).cloned().flatten());
            shown.extend(id.filter(|_| shows).map(|id| (text.len(), id)));
        }
        if text.len() - n_before > self.options.result_limit {
            return Err(too_large());
        }
        text.push_str("]}");
        Ok(Body { text, ids: shown })
    }
}

/// Parameters of an event that take so many bytes, about.
fn parameters(n_bytes: usize) -> Vec<Value> {
    let one =
        |index| json!({"Name": format!("Parameter{index:05}"), "Value": "0123456789".repeat(20)});
    (0..n_bytes / one(0).to_string().len()).map(one).collect()
}

/// Gives the event as its own service wrote it more parameters, whether it is an object or one in a text.
fn swell(row: &mut Map<String, Value>, parameters: &[Value]) {
    if parameters.is_empty() {
        return;
    }
    match row.get_mut("RawEventData") {
        Some(Value::Object(event)) => {
            event.insert("Parameters".to_owned(), json!(parameters));
        }
        Some(Value::String(event)) => {
            if let Some(begin) = event.strip_suffix('}') {
                *event = format!("{begin},\"Parameters\":{}}}", json!(parameters));
            }
        }
        _ => {}
    }
}

/// The query, and the first and the last tick of `Timestamp` that it sees.
fn read(question: &Value, at: i64) -> Result<(String, (i64, i64)), Refusal> {
    let wrong = |words: &str| Err(Refusal::bad_request(words));
    let Some(fields) = question.as_object() else {
        return wrong("Unable to read JSON request payload.");
    };
    let (mut query, mut span) = (None, None);
    for (name, value) in fields {
        match (name.to_ascii_lowercase().as_str(), value) {
            ("query", Value::String(text)) => query = Some(text.clone()),
            ("timespan", Value::Null) => {}
            ("timespan", Value::String(text)) => match timespan(text, at) {
                Some(read) => span = Some(read),
                None => return wrong(&format!("Invalid value for Timespan: '{text}'.")),
            },
            _ => {
                let words = format!("The parameter '{name}' is not valid for runHuntingQuery.");
                return wrong(&words);
            }
        }
    }
    match query {
        Some(query) if !query.trim().is_empty() => {
            let (from, until) = span.unwrap_or((i64::MIN, i64::MAX));
            Ok((query, (from.max(at - LONGEST), until)))
        }
        Some(_) | None => wrong("The query is empty."),
    }
}

/// A duration that ends now, or an interval of times and a duration.
fn timespan(text: &str, at: i64) -> Option<(i64, i64)> {
    let Some((from, until)) = text.split_once('/') else {
        return Some((at - duration(text)?, i64::MAX));
    };
    let time = |text: &str| ticks::parse(text, Form::Loose);
    Some(match (time(from), time(until)) {
        (Some(from), Some(until)) => (from, until),
        (Some(from), None) => (from, from + duration(until)?),
        (None, Some(until)) => (until - duration(from)?, until),
        (None, None) => return None,
    })
}

fn duration(text: &str) -> Option<i64> {
    let span: Span = text.starts_with('P').then(|| text.parse().ok())??;
    let from = SpanRelativeTo::days_are_24_hours();
    let nanos = span.to_duration(from).ok()?.as_nanos();
    i64::try_from(nanos / 100).ok().filter(|ticks| *ticks > 0)
}
