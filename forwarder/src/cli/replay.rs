//! `siem-forwarder replay`: delivers a bounded window again, then exits. It has no state and touches none.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use siem_agent_edge::clock;
use tokio::sync::watch;
use tokio::time::timeout;

use super::window::{self, Taker, Window};
use super::{Failure, ReplayArguments, load, runtime};
use crate::delivery::BatchBuilder;
use crate::delivery::pending::Pending;
use crate::delivery::sink::Sink;
use crate::delivery::target::{Observer, Role};
use crate::event::{Event, Stream};
use crate::pipeline::Budgets;
use crate::plan::Plan;
use crate::record::Mark;
use crate::settings::Settings;
use crate::source::http::error::Error;
use crate::telemetry::{self, LogFormat};
use crate::{map, syslog};

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
        settings.served.retain(|served| served.stream == stream);
        if settings.served.is_empty() {
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

/// Delivers the events of one stream.
struct Delivery<'a> {
    sink: &'a Sink,
    plan: &'a Plan,
    stream: Stream,
    unconfirmed: Vec<Pending>,
    n_sent: u64,
    n_rejected: u64,
}

impl Taker for Delivery<'_> {
    async fn take(&mut self, events: Vec<Event>, n_rejected: u64) -> Result<(), Error> {
        self.n_rejected += n_rejected;
        let Plan { format, layout } = self.plan;
        let mut batch = BatchBuilder::new(self.stream);
        for event in &events {
            let record = map::record(event, format.dialect, &format.version);
            let Ok(frame) = syslog::frame(record, event.timestamp(), layout) else {
                self.n_rejected += 1;
                continue;
            };
            self.n_sent += 1;
            batch.push(&frame.bytes, Mark::new(event.id(), event.timestamp()));
        }
        if let Some(batch) = batch.take() {
            let pending = self.sink.send(batch).await.map_err(|_stopped| Error::Abandoned)?;
            self.unconfirmed.push(pending);
        }
        Ok(())
    }

    async fn end_page(&mut self) -> Result<(), Error> {
        for mut pending in self.unconfirmed.drain(..) {
            pending.confirmed().await.map_err(|_stopped| Error::Abandoned)?;
        }
        Ok(())
    }
}

async fn replay(settings: &Settings, from: i64, to: i64) -> Result<ExitCode, Failure> {
    let budgets = Budgets::new(settings.budget);
    let (stop, stopping) = watch::channel(false);
    let (sink, task) = Sink::start(settings.sink.clone(), Arc::new(Silent), stopping);
    for stream in settings.streams() {
        let (unconfirmed, plan) = (Vec::new(), &settings.plan);
        let mut delivery =
            Delivery { sink: &sink, plan, stream, unconfirmed, n_sent: 0, n_rejected: 0 };
        window::read(settings, &budgets, Window { stream, from, to }, &mut delivery).await?;
        let Delivery { n_sent, n_rejected, .. } = delivery;
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
