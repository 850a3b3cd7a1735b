//! `siem-forwarder replay`: delivers a bounded window again, then exits. It has no state and touches none.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{Failure, ReplayArguments, load, runtime};
use crate::batch::BatchBuilder;
use crate::checkpoint::Mark;
use crate::clock;
use crate::error_chain::chain;
use crate::event::Stream;
use crate::parse::split::Piece;
use crate::retry::{self, Decision};
use crate::settings::Settings;
use crate::sink::{Observer, Role, Sink};
use crate::source::gate::{Gate, Purpose};
use crate::source::query::{Next, Query};
use crate::source::{self, Arrived, Source};
use crate::telemetry::{self, LogFormat};
use crate::{frame, parse};

/// A source that fails so often in a row is not waited for.
const MAX_FAILURES: u32 = 8;

pub(super) fn run(arguments: ReplayArguments) -> Result<ExitCode, Failure> {
    let ReplayArguments { manifest, from, to, stream } = arguments;
    if from >= to {
        return Err(Failure::Settings("--from must lie before --to".to_owned()));
    }
    let loaded = load::from_manifest(&manifest.manifest, &manifest.overrides, None)?;
    let level = loaded.config.log_level;
    telemetry::start(level, LogFormat::Text, None).map_err(|error| Failure::settings(&error))?;
    loaded.tell_overridden();
    let mut settings = loaded.settings;
    if let Some(stream) = stream {
        settings.plan.streams.retain(|(of, _)| *of == stream);
        if settings.plan.streams.is_empty() {
            return Err(Failure::Settings(format!(
                "--stream: the manifest does not enable {stream}"
            )));
        }
    }
    runtime()?.block_on(replay(&settings, clock::millis(from), clock::millis(to)))
}

struct Silent;

impl Observer for Silent {
    fn resent(&self, _: usize) {}
    fn too_large(&self, _: Stream) {}
    fn disconnected(&self, _: &'static str) {}
    fn certificate_ends(&self, _: Role, _: Option<Timestamp>) {}
}

async fn replay(settings: &Settings, from: i64, to: i64) -> Result<ExitCode, Failure> {
    let source = Source::new(settings.source.clone());
    let gate = Gate::new(settings.requests_per_minute);
    let (stop, stopping) = watch::channel(false);
    let (sink, task) = Sink::start(settings.sink.clone(), Arc::new(Silent), stopping);
    for (stream, filters) in &settings.plan.streams {
        let mut query = Some(Query::since(*stream, filters.clone(), from).until(to));
        let mut sent = BTreeSet::new();
        let mut n_rejected = 0_u64;
        let mut n_failures = 0;
        while let Some(asked) = query.take() {
            gate.enter(*stream, Purpose::Poll).await;
            match page(&source, &sink, settings, &asked, &mut sent, &mut n_rejected).await {
                Ok(next) => {
                    n_failures = 0;
                    query = next;
                }
                Err(error) => {
                    let decision = retry::decide(error.failure(), n_failures, fastrand::f64());
                    n_failures += 1;
                    match decision {
                        Decision::Retry(wait) | Decision::PauseAll(wait)
                            if n_failures < MAX_FAILURES =>
                        {
                            sleep(wait).await;
                        }
                        _ => return Err(Failure::World(format!("{stream}: {}", chain(&error)))),
                    }
                    query = Some(asked);
                }
            }
        }
        let n_sent = sent.len();
        writeln!(
            std::io::stdout(),
            "{stream}: {n_sent} records delivered, {n_rejected} cannot be mapped"
        )
        .map_err(|error| Failure::world(&error))?;
    }
    stop.send_replace(true);
    drop(sink);
    // Everything is confirmed; a slow goodbye changes nothing.
    let _ = timeout(Duration::from_secs(3), task).await;
    Ok(ExitCode::SUCCESS)
}

/// One page, delivered whole; gives the question for the next.
async fn page(
    source: &Source,
    sink: &Sink,
    settings: &Settings,
    query: &Query,
    sent: &mut BTreeSet<String>,
    n_rejected: &mut u64,
) -> Result<Option<Query>, source::Error> {
    let stream: Stream = query.stream;
    let mut page = source.fetch(query).await?;
    let mut unconfirmed = Vec::new();
    let mut highest = None;
    let mut n_listed = 0;
    let ended = loop {
        let pieces = match page.next().await {
            Ok(Arrived::Pieces(pieces)) => pieces,
            Ok(Arrived::End(envelope)) => break Ok(envelope),
            Err(error) => break Err(error),
        };
        n_listed += pieces.len();
        let mut batch = BatchBuilder::new(stream);
        for piece in pieces {
            let Piece::Record(json) = piece else {
                *n_rejected += 1;
                continue;
            };
            let Ok(event) = parse::record(stream, &json) else {
                *n_rejected += 1;
                continue;
            };
            highest = highest.max(Some(event.created().unwrap_or_else(|| event.timestamp())));
            if sent.insert(event.id().to_owned()) {
                let frame = frame::frame(&event, &settings.plan.layout);
                batch.push(&frame.bytes, Mark::new(event.id(), event.timestamp()));
            }
        }
        if let Some(batch) = batch.take() {
            unconfirmed.push(sink.send(batch).await.map_err(|_stopped| source::Error::Abandoned)?);
        }
    };
    for pending in &mut unconfirmed {
        pending.confirmed().await.map_err(|_stopped| source::Error::Abandoned)?;
    }
    let envelope = ended?;
    if !envelope.has_next {
        return Ok(None);
    }
    match query.next(envelope.next_query_filters, highest, n_listed) {
        Next::Page(next) => Ok(Some(next)),
        Next::SkipUsedUp => Err(source::Error::SkipLimit),
        Next::Nowhere => Err(source::Error::Nowhere),
    }
}
