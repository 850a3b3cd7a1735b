//! `siem-forwarder render`: the lines that `run` would send, on standard output.

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
use crate::source::cloud_apps::parse;
use crate::source::http::split::{Piece, Splitter};
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
            Err(reason) => complain(&format!("record skipped: it cannot be mapped: {reason}")),
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
    let stream = stream.unwrap_or_else(|| guess(record));
    let event =
        parse::record(stream, record.as_bytes()).map_err(|reject| reject.reason.as_str())?;
    let record = map::record(&event, format.dialect, &format.version);
    syslog::line(record, event.timestamp(), layout)
        .map_err(|error| format!("{}: {error}", RejectReason::MessageTooLong.as_str()))
}

/// The records of a page, an array, one record, or one record a line.
fn records(input: &str) -> Result<Vec<String>, Failure> {
    let found = whole(input).or_else(|| split(input));
    if let Some(records) = found.or_else(|| whole(&repair(input.as_bytes()))) {
        return Ok(records);
    }
    let lines: Vec<String> =
        input.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let any_json =
        lines.iter().any(|line| serde_json::from_str::<Value>(&repair(line.as_bytes())).is_ok());
    if lines.is_empty() || any_json {
        return Ok(lines);
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

/// The records of a text that is JSON throughout.
fn whole(input: &str) -> Option<Vec<String>> {
    let owned =
        |raw: Vec<&RawValue>| raw.into_iter().map(|record| record.get().to_owned()).collect();
    let whole = serde_json::from_str::<&RawValue>(input).ok()?;
    Some(match pick(whole.get(), ["data", "_id"]) {
        Some([Some(data), None]) if data.get().starts_with('[') => owned(elements(Some(data))),
        Some(_) => vec![whole.get().to_owned()],
        None => owned(elements(Some(whole))),
    })
}

/// The records of a page or an array that is not JSON throughout, taken apart as `run` does it: what is wrong with one
/// costs its neighbours nothing. `None` where it is neither.
fn split(input: &str) -> Option<Vec<String>> {
    let page = match input.trim_start().as_bytes().first()? {
        b'{' => input.to_owned(),
        b'[' => format!("{{\"data\":{input}}}"),
        _ => return None,
    };
    let mut splitter = Splitter::new();
    splitter.feed(page.as_bytes()).ok()?;
    let mut records = Vec::new();
    while let Some(piece) = splitter.next() {
        match piece {
            Piece::Record(json) => records.push(String::from_utf8_lossy(&json).into_owned()),
            Piece::TooLarge => {
                let reason = RejectReason::TooLarge.as_str();
                complain(&format!("record skipped: it cannot be mapped: {reason}"));
            }
        }
    }
    splitter.finish().ok().map(|_| records)
}

/// Alerts have what activities never have.
fn guess(record: &str) -> Stream {
    let has = |json: &str| {
        let fields = pick(json, ["entities", "idValue", "severityValue", "statusValue"])?;
        Some(fields.iter().any(Option::is_some))
    };
    match has(record).or_else(|| has(&repair(record.as_bytes()))) {
        Some(true) => Stream::Alerts,
        Some(false) | None => Stream::Activities,
    }
}
