//! The records of what somebody has saved of a source's answers: a page, an array, one record, or any of them a line.
//!
//! What is wrong with one of them costs its neighbours nothing, however they are packed.

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{complain, not_mapped};
use crate::json::{elements, pick, repair};
use crate::reject::RejectReason;
use crate::source::http::split::{List, Piece, Splitter};

/// The lists that hold the records of a page: the portal's, Graph's, a hunting answer's, a message's of Event Hubs.
const LISTS: [List; 4] = [List::Data, List::Value, List::Results, List::Records];

/// The records of an input.
///
/// # Errors
/// Where it breaks, when there is no JSON in it.
pub(super) fn of(input: &str) -> Result<Vec<String>, String> {
    if let Some(records) = of_text(input) {
        return Ok(records);
    }
    let lines = input.lines().map(str::trim).filter(|line| !line.is_empty());
    let found: Vec<_> = lines.map(|line| (line, of_text(line))).collect();
    if found.is_empty() || found.iter().any(|(_, records)| records.is_some()) {
        let records =
            |(line, records): (&str, Option<_>)| records.unwrap_or_else(|| vec![line.to_owned()]);
        return Ok(found.into_iter().flat_map(records).collect());
    }
    let what = "standard input is neither a page, nor an array, nor one JSON record a line";
    Err(match serde_json::from_str::<IgnoredAny>(input) {
        Err(error) if input.trim_start().starts_with(['{', '[']) => {
            let how = if error.is_eof() { "ends too early" } else { "is broken" };
            format!("{what}: its JSON {how} at line {} column {}", error.line(), error.column())
        }
        _ => what.to_owned(),
    })
}

/// The records of one text: of a page, of an array of records or pages, or the one that it is.
fn of_text(text: &str) -> Option<Vec<String>> {
    whole(text).or_else(|| split(text)).or_else(|| whole(&repair(text.as_bytes())))
}

/// The same, of a text that is JSON throughout.
fn whole(text: &str) -> Option<Vec<String>> {
    let whole = serde_json::from_str::<&RawValue>(text).ok()?;
    let records = match page(whole) {
        Some(records) => records,
        None if whole.get().starts_with('[') => elements(Some(whole))
            .into_iter()
            .flat_map(|element| page(element).unwrap_or_else(|| vec![element]))
            .collect(),
        None => vec![whole],
    };
    Some(records.into_iter().map(|record| record.get().to_owned()).collect())
}

/// The records of a page. A record that holds such a list itself is not a page.
fn page(json: &RawValue) -> Option<Vec<&RawValue>> {
    LISTS.into_iter().find_map(|list| {
        let records = pick(json.get(), [list.as_str()])?[0];
        let records = records.filter(|records| records.get().starts_with('['))?;
        let ids = pick(json.get(), IDS)?;
        let is_record =
            IDS.iter().zip(ids).any(|(name, id)| id.is_some() && marks_record(list, name));
        (!is_record).then(|| elements(Some(records)))
    })
}

/// The ids of records. A page of the portal may have an `id` of its own.
const IDS: [&str; 3] = ["_id", "id", "ReportId"];

/// Whether what has this id is a record rather than a page with this list.
fn marks_record(list: List, id: &str) -> bool {
    list != List::Data || id == "_id"
}

/// The records of a page or an array that is not JSON throughout, taken apart as `run` does it. `None` where it is neither.
fn split(text: &str) -> Option<Vec<String>> {
    match text.trim_start().as_bytes().first()? {
        b'{' => LISTS.into_iter().find_map(|list| split_list(text, list)),
        b'[' => {
            let elements = split_list(&format!("{{\"data\":{text}}}"), List::Data)?;
            let records = |element: String| {
                let inside = if element.starts_with('{') { of_text(&element) } else { None };
                inside.unwrap_or_else(|| vec![element])
            };
            Some(elements.into_iter().flat_map(records).collect())
        }
        _ => None,
    }
}

fn split_list(page: &str, list: List) -> Option<Vec<String>> {
    let mut splitter = Splitter::of(list);
    splitter.feed(page.as_bytes()).ok()?;
    let pieces: Vec<Piece> = std::iter::from_fn(|| splitter.next()).collect();
    let envelope = splitter.finish().ok()?;
    if IDS.iter().any(|id| envelope.get(id).is_some() && marks_record(list, id)) {
        return None;
    }
    let record = |piece| match piece {
        Piece::Record(json) => Some(String::from_utf8_lossy(&json).into_owned()),
        Piece::TooLarge => {
            complain(&format!("record skipped: {}", not_mapped(RejectReason::TooLarge.as_str())));
            None
        }
    };
    Some(pieces.into_iter().filter_map(record).collect())
}
