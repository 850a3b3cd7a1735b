//! `siem-forwarder replay`: delivers a bounded window again, then exits. It has no state and touches none.
//!
//! By a configuration it runs beside the pod's own forwarder, which has the agent's share of the tenant's requests: it
//! takes half as many, so that a long window does not have the API throttle both.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use siem_agent_crds::config::Live;
use siem_agent_edge::clock;
use siem_agent_edge::error_chain::chain;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::warn;

use super::given::Given;
use super::load::Loaded;
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
use crate::settings::{Budget, Settings};
use crate::source::http::error::Error;
use crate::telemetry::{self, LogFormat};
use crate::{map, syslog};

pub(super) fn run(arguments: ReplayArguments) -> Result<ExitCode, Failure> {
    let ReplayArguments { agent, from, to, stream } = arguments;
    let given = agent.given(false)?;
    if from >= to {
        return Err(Failure::Settings("--from must lie before --to".to_owned()));
    }
    let loaded = load::agent(given, None)?;
    let level = loaded.config.log_level;
    telemetry::start(level, LogFormat::Text, None).map_err(|error| Failure::settings(&error))?;
    loaded.tell_overridden();
    if loaded.config.suspend {
        warn!("the agent is suspended; this window is delivered regardless");
    }
    let Loaded { config, mut settings, .. } = loaded;
    if let Given::Config(_) = given {
        settings.budget = beside(share(config.paths.live.as_deref(), settings.budget));
    }
    if let Some(stream) = stream {
        settings.served.retain(|served| served.stream == stream);
        if settings.served.is_empty() {
            return Err(Failure::Settings(format!("--stream: the agent does not enable {stream}")));
        }
    }
    runtime()?.block_on(replay(&settings, clock::millis(from), clock::millis(to)))
}

/// The agent's share of the tenant's requests as the operator last gave it; where it gave none, what the configuration
/// says.
fn share(live: Option<&Path>, configured: Budget) -> Budget {
    let Some(path) = live else { return configured };
    match load::read(path).map(|text| Live::read(&text)) {
        Ok(Ok(live)) => Budget::given(&live),
        Ok(Err(problems)) => unread(&problems, configured),
        Err(failure) => unread(&failure, configured),
    }
}

fn unread(error: &(dyn std::error::Error + 'static), configured: Budget) -> Budget {
    warn!(
        reason = chain(error),
        "the live settings cannot be used, taking the configuration's budget"
    );
    configured
}

/// What may be asked beside a forwarder that has this budget. A gate lets at least one request through.
fn beside(Budget { portal, hunting }: Budget) -> Budget {
    Budget { portal: portal / 2, hunting: hunting / 2 }
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

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURED: Budget = Budget { portal: 30, hunting: 30 };

    #[test]
    fn a_window_beside_a_forwarder_takes_half_of_the_share_that_the_operator_gave() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("live.yaml");
        for (text, expected) in [
            ("{version: 1, requestsPerMinute: 10, huntingPerMinute: 7, logLevel: info}", (5, 3)),
            ("{version: 1, requestsPerMinute: 10, logLevel: info}", (5, 0)),
            ("{version: 9, requestsPerMinute: 10, logLevel: info}", (15, 15)),
            ("nonsense", (15, 15)),
        ] {
            std::fs::write(&path, text).unwrap();
            let Budget { portal, hunting } = beside(share(Some(&path), CONFIGURED));
            assert_eq!((portal, hunting), expected, "{text}");
        }
        assert_eq!(share(Some(&folder.path().join("absent")), CONFIGURED), CONFIGURED);
        assert_eq!(share(None, CONFIGURED), CONFIGURED);
    }
}
