//! `siem-forwarder render`: the lines that `run` would send, on standard output.

mod kind;

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;
use siem_agent_crds::config::{Config, Paths};

use super::{Failure, RenderArguments, complain, load};
use crate::event::Stream;
use crate::json::{elements, pick, repair};
use crate::map::{self, Format};
use crate::reject::RejectReason;
use crate::settings;
use crate::source::http::split::{List, Piece, Splitter};
use crate::syslog::{self, Layout};

pub(super) fn run(arguments: &RenderArguments) -> Result<ExitCode, Failure> {
    let agent = load::manifest(&arguments.manifest)?;
    let nowhere = Paths {
        secrets: "".into(),
        config_maps: "".into(),
        state: "".into(),
        checkpoint: None,
        live: None,
    };
    let config = Config::for_agent(&agent, nowhere);
    let (format, layout) = (settings::format(&config), settings::layout(&config));
    let mut input = Vec::new();
    io::stdin().read_to_end(&mut input).map_err(|error| Failure::world(&error))?;
    if input.starts_with(b"\xff\xfe") || input.starts_with(b"\xfe\xff") {
        return Err(Failure::World("standard input is UTF-16: save it as UTF-8".to_owned()));
    }
    let input = String::from_utf8(input).unwrap_or_else(|error| repair(error.as_bytes()));
    let records = records(input.trim_start_matches('\u{feff}'))?;
    if records.is_empty() {
        complain("there is no record in standard input");
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    for record in records {
        match line(&record, arguments.stream, &format, &layout) {
            Ok(line) => writeln!(out, "{line}").map_err(|error| Failure::world(&error))?,
            Err(reason) => complain(&format!("record skipped: {reason}")),
        }
    }
    out.flush().map_err(|error| Failure::world(&error))?;
    Ok(ExitCode::SUCCESS)
}

fn line(
    record: &str,
    stream: Option<Stream>,
    format: &Format,
    layout: &Layout,
) -> Result<String, String> {
    let event = kind::event(record, stream)?;
    let record = map::record(&event, format.dialect, &format.version);
    syslog::line(record, event.timestamp(), layout)
        .map_err(|error| not_mapped(&format!("{}: {error}", RejectReason::MessageTooLong.as_str())))
}

fn not_mapped(reason: &str) -> String {
    format!("it cannot be mapped: {reason}")
}

/// The records of a page, an array, one record, or one record or page a line.
fn records(input: &str) -> Result<Vec<String>, Failure> {
    let found = whole(input).or_else(|| split(input));
    if let Some(records) = found.or_else(|| whole(&repair(input.as_bytes()))) {
        return Ok(records);
    }
    let lines: Vec<&str> = input.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let any_json =
        lines.iter().any(|line| serde_json::from_str::<Value>(&repair(line.as_bytes())).is_ok());
    if lines.is_empty() || any_json {
        let records = |line: &&str| whole(line).unwrap_or_else(|| vec![(*line).to_owned()]);
        return Ok(lines.iter().flat_map(records).collect());
    }
    let what = "standard input is neither a page, nor an array, nor one JSON record a line";
    Err(Failure::World(match serde_json::from_str::<IgnoredAny>(input) {
        Err(error) if input.trim_start().starts_with(['{', '[']) => {
            let how = if error.is_eof() { "ends too early" } else { "is broken" };
            format!("{what}: its JSON {how} at line {} column {}", error.line(), error.column())
        }
        _ => what.to_owned(),
    }))
}

/// The records of a text that is JSON throughout: of a page, of an array of records or pages, or the one that it is.
fn whole(input: &str) -> Option<Vec<String>> {
    let whole = serde_json::from_str::<&RawValue>(input).ok()?;
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

/// The records of a page of one of the sources, which has no id of its own.
fn page(json: &RawValue) -> Option<Vec<&RawValue>> {
    let lists = LISTS.map(List::as_str);
    let [ids @ .., data, value, results, records] =
        pick(json.get(), ["_id", "id", "ReportId", lists[0], lists[1], lists[2], lists[3]])?;
    let mut lists = [data, value, results, records].into_iter().flatten();
    let list = lists.find(|list| list.get().starts_with('['))?;
    ids.iter().all(Option::is_none).then(|| elements(Some(list)))
}

/// The lists that hold the records of a page: the portal's, Graph's, a hunting answer's, a message's of Event Hubs.
const LISTS: [List; 4] = [List::Data, List::Value, List::Results, List::Records];

/// The records of a page or an array that is not JSON throughout, taken apart as `run` does it: what is wrong with one
/// costs its neighbours nothing. `None` where it is neither.
fn split(input: &str) -> Option<Vec<String>> {
    match input.trim_start().as_bytes().first()? {
        b'{' => LISTS.into_iter().find_map(|list| split_list(input, list)),
        b'[' => split_list(&format!("{{\"data\":{input}}}"), List::Data),
        _ => None,
    }
}

fn split_list(page: &str, list: List) -> Option<Vec<String>> {
    let mut splitter = Splitter::of(list);
    splitter.feed(page.as_bytes()).ok()?;
    let mut pieces = Vec::new();
    while let Some(piece) = splitter.next() {
        pieces.push(piece);
    }
    splitter.finish().ok()?;
    let record = |piece| match piece {
        Piece::Record(json) => Some(String::from_utf8_lossy(&json).into_owned()),
        Piece::TooLarge => {
            complain(&format!("record skipped: {}", not_mapped(RejectReason::TooLarge.as_str())));
            None
        }
    };
    Some(pieces.into_iter().filter_map(record).collect())
}
