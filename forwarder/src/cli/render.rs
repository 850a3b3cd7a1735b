//! `siem-forwarder render`: the lines that `run` would send, on standard output.

mod kind;
mod records;

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use siem_agent_crds::config::{Config, Paths};

use super::{Failure, RenderArguments, complain, load};
use crate::event::Stream;
use crate::json::repair;
use crate::map::{self, Format};
use crate::reject::RejectReason;
use crate::settings;
use crate::syslog::{self, Layout};

pub(super) fn run(arguments: &RenderArguments) -> Result<ExitCode, Failure> {
    let agent = load::manifest(&arguments.manifest)?;
    let nowhere = Paths {
        secrets: "".into(),
        config_maps: "".into(),
        state: "".into(),
        checkpoint: None,
        live: None,
        identity: None,
    };
    let config = Config::for_agent(&agent, nowhere);
    let (format, layout) = (settings::format(&config), settings::layout(&config));
    let mut input = Vec::new();
    io::stdin().read_to_end(&mut input).map_err(|error| Failure::world(&error))?;
    if input.starts_with(b"\xff\xfe") || input.starts_with(b"\xfe\xff") {
        return Err(Failure::World("standard input is UTF-16: save it as UTF-8".to_owned()));
    }
    let input = String::from_utf8(input).unwrap_or_else(|error| repair(error.as_bytes()));
    let records = records::of(input.trim_start_matches('\u{feff}')).map_err(Failure::World)?;
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
