//! `siem-forwarder replay`: delivers a bounded window again, then exits. It has no state and touches none.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use siem_agent_edge::clock;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{Failure, ReplayArguments, load, runtime};
use crate::delivery::BatchBuilder;
use crate::delivery::sink::Sink;
use crate::delivery::target::{Observer, Role};
use crate::event::Stream;
use crate::pipeline::on_failure::{self, Decision};
use crate::plan::Plan;
use crate::record::{Mark, RecordKey};
use crate::settings::Settings;
use crate::source::cloud_apps::cursor::Cursor;
use crate::source::cloud_apps::error::Error;
use crate::source::cloud_apps::parse;
use crate::source::cloud_apps::portal::{Arrived, Portal};
use crate::source::cloud_apps::query::{Next, Query};
use crate::source::cloud_apps::walk::{Admission, Walk};
use crate::source::http::gate::Gate;
use crate::source::http::split::Piece;
use crate::source::purpose::Purpose;
use crate::telemetry::{self, LogFormat};
use crate::{map, syslog};

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

/// The window of one stream: what of it was seen and sent.
struct Window {
    walk: Walk,
    nothing_before: Cursor,
    n_sent: u64,
    n_rejected: u64,
}

impl Window {
    fn new(from: i64) -> Self {
        let nothing_before = Cursor::starting_at(from);
        let walk = Walk::new(&nothing_before, from, 0, 0, None);
        Self { walk, nothing_before, n_sent: 0, n_rejected: 0 }
    }

    /// Whether the record was not listed before.
    fn admits(&mut self, id: &str, listed: i64) -> bool {
        let key = RecordKey::of(id.as_bytes());
        self.walk.admit(&self.nothing_before, key, Some(listed)) != Admission::Repeated
    }
}

async fn replay(settings: &Settings, from: i64, to: i64) -> Result<ExitCode, Failure> {
    let source = Portal::new(settings.source.clone());
    let gate = Gate::new(settings.requests_per_minute);
    let (stop, stopping) = watch::channel(false);
    let (sink, task) = Sink::start(settings.sink.clone(), Arc::new(Silent), stopping);
    for (stream, filters) in &settings.plan.streams {
        let mut query = Some(Query::since(*stream, filters.clone(), from).until(to));
        let mut window = Window::new(from);
        let mut n_failures = 0;
        while let Some(asked) = query.take() {
            gate.enter(*stream, Purpose::Poll).await;
            match page(&source, &sink, settings, &asked, &mut window).await {
                Ok(next) => {
                    n_failures = 0;
                    query = next;
                }
                Err(error) => {
                    let decision = on_failure::decide(error.failure(), n_failures, fastrand::f64());
                    n_failures += 1;
                    let is_endless = matches!(error, Error::Endless(_) | Error::Nowhere);
                    match decision {
                        _ if is_endless => {
                            return Err(Failure::World(format!(
                                "{stream}: {}",
                                source.words(&error)
                            )));
                        }
                        Decision::Retry(wait) | Decision::PauseAll(wait)
                            if n_failures < MAX_FAILURES =>
                        {
                            sleep(wait).await;
                        }
                        _ => {
                            return Err(Failure::World(format!(
                                "{stream}: {}",
                                source.words(&error)
                            )));
                        }
                    }
                    query = Some(asked);
                }
            }
        }
        let Window { n_sent, n_rejected, .. } = window;
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
    source: &Portal,
    sink: &Sink,
    settings: &Settings,
    query: &Query,
    window: &mut Window,
) -> Result<Option<Query>, Error> {
    let stream: Stream = query.stream;
    let mut page = source.fetch(query, source.offer()).await?;
    let mut unconfirmed = Vec::new();
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
                window.n_rejected += 1;
                continue;
            };
            let Ok(event) = parse::record(stream, &json) else {
                window.n_rejected += 1;
                continue;
            };
            let listed = event.created().unwrap_or_else(|| event.timestamp());
            if window.admits(event.id(), listed) {
                let Plan { format, layout, .. } = &settings.plan;
                let record = map::record(&event, format.dialect, &format.version);
                let Ok(frame) = syslog::frame(record, event.timestamp(), layout) else {
                    window.n_rejected += 1;
                    continue;
                };
                window.n_sent += 1;
                batch.push(&frame.bytes, Mark::new(event.id(), event.timestamp()));
            }
        }
        if let Some(batch) = batch.take() {
            unconfirmed.push(sink.send(batch).await.map_err(|_stopped| Error::Abandoned)?);
        }
    };
    for pending in &mut unconfirmed {
        pending.confirmed().await.map_err(|_stopped| Error::Abandoned)?;
    }
    let envelope = ended?;
    if !envelope.has_next {
        return Ok(None);
    }
    let cursor = envelope.next_query_filters;
    let cursor_text = cursor.as_ref().map(serde_json::Value::to_string);
    window.walk.go_on(cursor_text.as_deref().map(str::as_bytes)).map_err(Error::Endless)?;
    match query.next(cursor, window.walk.highest(), n_listed) {
        Next::Page(next) => Ok(Some(next)),
        Next::SkipUsedUp => Err(Error::SkipLimit),
        Next::Nowhere => Err(Error::Nowhere),
    }
}
