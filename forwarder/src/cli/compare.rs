//! `siem-forwarder compare`: one window from two sources, joined, so that a switch holds no surprise. Sends nothing.

mod join;

use std::io::{self, Write};
use std::process::ExitCode;

use siem_agent_crds::printable::printable;
use siem_agent_edge::clock;

use super::load::Loaded;
use super::window::{self, Taker, Window};
use super::{CompareArguments, Failure, load, runtime};
use crate::event::{Event, Stream};
use crate::map::Format;
use crate::pipeline::Budgets;
use crate::settings::Settings;
use crate::source::error::Error;
use crate::telemetry::{self, LogFormat};
use crate::time::Millis;
use join::{Difference, Joined, Line};

/// Two sources know an event by different times: each is asked for so much more on both sides, to find the partners of
/// what lies at the edges.
const MARGIN: Millis = 3_600_000;
/// A value is shown so far.
const SHOWN_CHARS: usize = 120;

pub(super) fn run(arguments: CompareArguments) -> Result<ExitCode, Failure> {
    let CompareArguments { manifest, with, from, to, examples } = arguments;
    if from >= to {
        return Err(Failure::Settings("--from must lie before --to".to_owned()));
    }
    let one = load::from_manifest(&manifest.manifest, &manifest.overrides, None)?;
    let other = load::from_manifest(&with, &manifest.overrides, None)?;
    telemetry::start(one.config.log_level, LogFormat::Text, None)
        .map_err(|error| Failure::settings(&error))?;
    let within = (clock::millis(from), clock::millis(to));
    let streams: Vec<Stream> = one
        .settings
        .streams()
        .filter(|stream| other.settings.streams().any(|of| of == *stream))
        .collect();
    if streams.is_empty() {
        return Err(Failure::Settings(
            "the two manifests have no enabled stream in common: there is nothing to compare"
                .to_owned(),
        ));
    }
    let compared = runtime()?.block_on(compare(&one, &other, &streams, within))?;
    let mut is_whole = true;
    let mut out = io::stdout().lock();
    for (stream, joined) in compared {
        is_whole &= joined.is_whole();
        show(&mut out, stream, &joined, examples).map_err(|error| Failure::world(&error))?;
    }
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

async fn compare(
    one: &Loaded,
    other: &Loaded,
    streams: &[Stream],
    within: (Millis, Millis),
) -> Result<Vec<(Stream, Joined)>, Failure> {
    // Both lines are written as the first manifest has it: what differs is the source's.
    let format = &one.settings.plan.format;
    // A source that both ask has one budget.
    let budgets = [Budgets::new(one.settings.budget), Budgets::new(other.settings.budget)];
    let [of_one, of_other] = &budgets;
    let mut compared = Vec::new();
    for stream in streams {
        let one = lines(&one.settings, of_one, format, *stream, within).await?;
        let other = lines(&other.settings, of_other, format, *stream, within).await?;
        compared.push((*stream, join::join(one, other, within)));
    }
    Ok(compared)
}

/// The lines of a window.
struct Lines<'a> {
    format: &'a Format,
    lines: Vec<Line>,
}

impl Taker for Lines<'_> {
    async fn take(&mut self, events: Vec<Event>, _: u64) -> Result<(), Error> {
        self.lines.extend(events.iter().map(|event| Line::of(event, self.format)));
        Ok(())
    }

    async fn end_page(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

async fn lines(
    settings: &Settings,
    budgets: &Budgets,
    format: &Format,
    stream: Stream,
    (from, to): (Millis, Millis),
) -> Result<Vec<Line>, Failure> {
    let mut lines = Lines { format, lines: Vec::new() };
    let window = Window { stream, from: from - MARGIN, to: to + MARGIN };
    window::read(settings, budgets, window, &mut lines).await?;
    Ok(lines.lines)
}

fn show(
    out: &mut impl Write,
    stream: Stream,
    joined: &Joined,
    n_examples: usize,
) -> io::Result<()> {
    let Joined { n_by_id, n_by_likeness, only_one, only_other, differences } = joined;
    let n_pairs = n_by_id + n_by_likeness;
    writeln!(
        out,
        "{stream}: {n_by_id} in both by externalId, {n_by_likeness} in both by time, user and name; \
         {} only in --manifest, {} only in --with",
        only_one.len(),
        only_other.len(),
    )?;
    for (side, lines) in [("--manifest", only_one), ("--with", only_other)] {
        for line in lines.iter().take(n_examples) {
            writeln!(out, "  only in {side}: {}", printable(&line.words()))?;
        }
    }
    for (key, pairs) in differences {
        writeln!(out, "  {key} differs in {} of {n_pairs}", pairs.len())?;
        for Difference { id, one, other } in pairs.iter().take(n_examples) {
            let shown = |value: &Option<String>| match value {
                None => "absent".to_owned(),
                Some(value) => {
                    format!("{:?}", value.chars().take(SHOWN_CHARS).collect::<String>())
                }
            };
            let words = format!("{id}: {} | {}", shown(one), shown(other));
            writeln!(out, "    {}", printable(&words))?;
        }
    }
    Ok(())
}
