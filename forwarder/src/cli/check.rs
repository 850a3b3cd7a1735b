//! `siem-forwarder check`: tries each thing that `run` needs, a line each, and says what to do about a failure.
//!
//! A forwarder may run by the same configuration in the same pod: it never opens the state, never listens and never
//! writes a file.

mod receiver;
mod way;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use siem_agent_crds::config::AgentIdentity;
use siem_agent_crds::printable::printable;
use siem_agent_crds::siem_agent::StreamSource;
use siem_agent_edge::clock;
use tokio::sync::watch;
use tokio::time::timeout;

use super::given::Given;
use super::{CheckArguments, Failure, load, runtime};
use crate::delivery::BatchBuilder;
use crate::delivery::sink::Sink;
use crate::delivery::target::{Observer, Role, Target};
use crate::event::{Activity, Event, Stream};
use crate::map;
use crate::plan::Plan;
use crate::record::Mark;
use crate::settings::Settings;
use crate::source::cloud_apps::CloudApps;
use crate::source::graph::Graph;
use crate::source::http::api::Arrived;
use crate::source::http::error::Error;
use crate::source::listing::List;
use crate::syslog;
use way::Way;

/// Long enough for every time-out of the connection itself.
const PATIENCE: Duration = Duration::from_secs(25);
const DAY_MS: i64 = 24 * 3_600_000;

pub(super) fn run(arguments: CheckArguments) -> Result<ExitCode, Failure> {
    let CheckArguments { agent, send_test_event } = arguments;
    let given = agent.given(false)?;
    let loaded = load::agent(given, None)?;
    match given {
        Given::Manifest(..) => say(true, "manifest", "is what the API server would take")?,
        Given::Config(_) => {
            let AgentIdentity { namespace, name, .. } = &loaded.config.agent;
            say(true, "config", &format!("is valid; the agent is {namespace}/{name}"))?;
        }
    }
    if loaded.config.suspend {
        line("WARN", "suspend", "is true, so nothing is exported; all else is tried regardless")?;
    }
    for overridden in &loaded.overridden {
        say(true, "flags", &format!("{overridden}: the flag wins"))?;
    }
    let all_good = runtime()?.block_on(check(&loaded.settings, send_test_event))?;
    Ok(if all_good { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

async fn check(settings: &Settings, send_test_event: bool) -> Result<bool, Failure> {
    let mut all_good = true;
    let mut seen = BTreeSet::new();
    if let Some(of) = &settings.sources.cloud_apps {
        let source = CloudApps::new(of.clone());
        let way = Way::new(of.proxy.as_ref(), of.ca_bundle.as_ref(), source.api());
        let is_clear = way.to_source("API", &of.url, &of.auth, &mut seen).await?;
        all_good &= is_clear;
        for stream in of.streams.iter().map(|(stream, _)| *stream).filter(|_| is_clear) {
            all_good &= reads("API", &source.list(stream), StreamSource::CloudApps).await?;
        }
    }
    if let Some(of) = &settings.sources.graph {
        let source = Graph::new(of.clone());
        let way = Way::new(of.proxy.as_ref(), of.ca_bundle.as_ref(), source.api());
        let is_clear = way.to_source("Graph", &of.url, &of.auth, &mut seen).await?;
        all_good &= is_clear;
        for stream in of.streams.iter().copied().filter(|_| is_clear) {
            if stream == Stream::Alerts {
                all_good &= reads("Graph", &source.alerts(), StreamSource::Graph).await?;
                continue;
            }
            for table in source.tables() {
                let name = format!("Graph, {}", table.name());
                all_good &= reads(&name, &table, StreamSource::Graph).await?;
            }
        }
    }
    Ok(target(settings, send_test_event).await? && all_good)
}

/// Whether a list can be read, and how much of the last day it has.
async fn reads<L: List>(name: &str, list: &L, source: StreamSource) -> Result<bool, Failure> {
    let what = format!("{name}, {}", list.stream());
    match last_day(list).await {
        Ok(found) => say(true, &what, &found).map(|()| true),
        Err(error) => {
            let words = list.api().words(&error);
            let words = match error.advice(source).as_str() {
                "" => words,
                advice => format!("{}. {advice}", words.trim_end_matches('.')),
            };
            say(false, &what, &words).map(|()| false)
        }
    }
}

/// Reads one page of the last day, to learn whether the token may, and how much there is.
async fn last_day<L: List>(list: &L) -> Result<String, Error> {
    let since = clock::millis(clock::now()) - DAY_MS;
    let query = list.question(since, None, list.limits().largest_page);
    let mut page = list.ask(&query, list.api().offer()).await?;
    let mut n_listed = 0;
    let end = loop {
        match page.next().await? {
            Arrived::Pieces(pieces) => n_listed += pieces.len(),
            Arrived::End(end) => break end,
        }
    };
    let skew = page
        .date
        .map(|date| date - clock::millis(clock::now()))
        .map_or_else(String::new, |skew| format!("; its clock is {} s from ours", skew / 1_000));
    let has_next = list.has_next(&query, &end, n_listed);
    let count = match (list.total(&end), has_next) {
        (Some(total), _) => format!("{total}"),
        (None, true) => format!("more than {n_listed}"),
        (None, false) => format!("{n_listed}"),
    };
    Ok(format!(
        "the token may read it; {count} records in the last 24 hours pass the filters{skew}"
    ))
}

struct Silent;

impl Observer for Silent {
    fn resent(&self, _: usize) {}
    fn too_large(&self, _: Stream) {}
    fn disconnected(&self, _: &'static str) {}
    fn certificate_ends(&self, _: Role, _: Option<Timestamp>) {}
}

async fn target(settings: &Settings, send_test_event: bool) -> Result<bool, Failure> {
    let Plan { format, layout } = &settings.plan;
    for (field, words) in receiver::warnings(layout) {
        line("WARN", field, &words)?;
    }
    if !way::to_siem(&settings.sink).await? {
        return Ok(false);
    }
    let what = format!("SIEM, {} port {}", settings.sink.host, settings.sink.port);
    let (stop, stopping) = watch::channel(false);
    let (sink, task) = Sink::start(settings.sink.clone(), Arc::new(Silent), stopping);
    let good = match timeout(PATIENCE, reached(&sink)).await {
        Ok(Target::Datagram) => {
            say(
                true,
                &what,
                "UDP confirms nothing; send a test event (--send-test-event) and look for it at the receiver",
            )?;
            true
        }
        Ok(Target::Up { .. }) => {
            say(true, &what, "keeps the connection")?;
            true
        }
        Ok(Target::Down { reason, .. }) => {
            say(false, &what, &reason)?;
            false
        }
        Ok(Target::Stalled { .. }) => {
            say(false, &what, "keeps the connection and takes nothing; look at its own queues")?;
            false
        }
        Ok(Target::Connecting { .. }) | Err(_) => {
            say(
                false,
                &what,
                "does not answer. Check spec.syslog.host, spec.syslog.port and firewalls",
            )?;
            false
        }
    };
    if good {
        say(true, "framing", &receiver::framing(layout))?;
    }
    let mut confirmed = true;
    if good && send_test_event {
        let now = clock::millis(clock::now());
        let event = Event::Activity(Box::new(Activity {
            id: format!("siem-forwarder-test-{now}"),
            timestamp: now,
            description: Some("Test event of siem-forwarder check".to_owned()),
            ..Activity::default()
        }));
        let mut batch = BatchBuilder::new(Stream::Activities);
        let record = map::record(&event, format.dialect, &format.version);
        let frame = syslog::frame(record, now, layout).map_err(|error| Failure::world(&error))?;
        batch.push(&frame.bytes, Mark::new(event.id(), now));
        if let Some(batch) = batch.take() {
            let sent = async { sink.send(batch).await?.confirmed().await };
            confirmed = matches!(timeout(PATIENCE, sent).await, Ok(Ok(_)));
        }
        let words =
            if confirmed { "was delivered; look for its externalId" } else { "was not confirmed" };
        say(confirmed, "test event", &format!("{} {words}", event.id()))?;
    }
    stop.send_replace(true);
    drop(sink);
    // The answer is known; a slow goodbye changes nothing.
    let _ = timeout(Duration::from_secs(3), task).await;
    Ok(good && confirmed)
}

/// The first state that says something.
async fn reached(sink: &Sink) -> Target {
    loop {
        match sink.target() {
            Target::Connecting { .. } => tokio::time::sleep(Duration::from_millis(50)).await,
            known => return known,
        }
    }
}

fn say(good: bool, what: &str, words: &str) -> Result<(), Failure> {
    line(if good { "ok  " } else { "FAIL" }, what, words)
}

fn line(mark: &str, what: &str, words: &str) -> Result<(), Failure> {
    let (what, words) = (printable(what), printable(words));
    writeln!(std::io::stdout(), "{mark} {what}: {words}").map_err(|error| Failure::world(&error))
}
