//! The source of a record, found by its fields: `render` reads a page, or what somebody has saved of one.

use serde_json::value::RawValue;

use super::not_mapped;
use crate::event::{Event, Stream};
use crate::json::{pick, repair, text};
use crate::source::cloud_apps::parse;
use crate::source::parse::Reject;
use crate::source::xdr::{self, Table};

/// What only some kinds of records have.
const TELLING: [&str; 15] = [
    "_id",
    "category",
    "properties",
    "Table",
    "Timestamp",
    "ReportId",
    "ActionType",
    "id",
    "createdDateTime",
    "providerAlertId",
    "serviceSource",
    "entities",
    "idValue",
    "severityValue",
    "statusValue",
];

/// The event that a record says, or why none is written for it.
pub(super) fn event(record: &str, stream: Option<Stream>) -> Result<Event, String> {
    let event = read(record, stream)?;
    if stream.is_some_and(|stream| stream != event.stream()) {
        return Err(format!("it is of the stream `{}`", event.stream().as_str()));
    }
    Ok(event)
}

fn read(record: &str, stream: Option<Stream>) -> Result<Event, String> {
    let repaired;
    let telling = match pick(record, TELLING) {
        Some(telling) => Some(telling),
        None => {
            repaired = repair(record.as_bytes());
            pick(&repaired, TELLING)
        }
    };
    let Some(telling) = telling else {
        return portal(record, stream.unwrap_or(Stream::Activities));
    };
    let [portal_id, category, properties, table, rest @ ..] = telling;
    let [timestamp, report_id, action, id, created, provider_id, source, of_alert @ ..] = rest;
    let has = |fields: &[Option<&RawValue>]| fields.iter().any(Option::is_some);
    if has(&[portal_id]) {
        let guess = if has(&of_alert) { Stream::Alerts } else { Stream::Activities };
        return portal(record, stream.unwrap_or(guess));
    }
    if let (Some(category), Some(properties)) = (text(category), properties) {
        let table = category.rsplit('-').next().unwrap_or_default();
        return row(table, properties.get());
    }
    if has(&[timestamp, report_id, action, table]) {
        return row(text(table).as_deref().unwrap_or("CloudAppEvents"), record);
    }
    if has(&[id, created, provider_id, source]) {
        return xdr::alert(record.as_bytes()).map_err(rejected);
    }
    let guess = if has(&of_alert) { Stream::Alerts } else { Stream::Activities };
    portal(record, stream.unwrap_or(guess))
}

fn portal(record: &str, stream: Stream) -> Result<Event, String> {
    parse::record(stream, record.as_bytes()).map_err(rejected)
}

fn row(table: &str, json: &str) -> Result<Event, String> {
    let Some(table) = Table::named(table) else {
        return Err(format!("it is of the table `{table}`, of which nothing is exported"));
    };
    match xdr::row(table, json.as_bytes()) {
        Ok(Some(event)) => Ok(event),
        Ok(None) => {
            Err("it is a sign-in to Active Directory, which does not belong to Cloud Apps"
                .to_owned())
        }
        Err(reject) => Err(rejected(reject)),
    }
}

fn rejected(reject: Reject) -> String {
    not_mapped(reject.reason.as_str())
}
