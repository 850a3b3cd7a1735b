//! How long a record takes from the moment at which the source shows it to the receiver.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use siem_agent_sim::arrival::{Receiver as _, id};
use siem_agent_sim::clock;
use siem_agent_sim::defender::Options;
use siem_agent_sim::forwarder::PATIENCE;
use tokio::time::{Instant, sleep};

use crate::say;
use crate::scene::Scene;
use crate::source::Source;

/// Reading a large file of the receiver's anew takes a while.
const LOOK: Duration = Duration::from_millis(500);

/// Of what is made while it is watched, once the forwarder has caught up.
pub(crate) async fn of_new_records(
    source: Source,
    program: &Path,
    watched: Duration,
) -> Result<()> {
    let options = Options { rate: 10.0, alert_rate: Some(0.5), ..Options::default() };
    let mut scene = Scene::new(source, program, options).await?;
    scene.forwarder.start().await?;
    scene.caught_up().await?;
    let began = clock::millis();
    sleep(watched).await;
    print(source, &mut scene, began, "").await
}

/// Prints it of what the source has shown since then, once all of that has arrived; nothing more is made.
pub(crate) async fn print(source: Source, scene: &mut Scene, began: i64, when: &str) -> Result<()> {
    scene.defender.quiet();
    let shown = source.shows(&scene.defender).into_iter().filter(|(.., at)| *at >= began);
    let shown: BTreeMap<String, i64> = shown.map(|(_, id, at)| (id, at)).collect();
    let until = Instant::now() + PATIENCE;
    let mut latencies: Vec<i64> = loop {
        let lines = scene.rsyslog.lines()?;
        let received = lines.iter().filter_map(|line| {
            let at: Timestamp = line.split_once(' ')?.0.parse().ok()?;
            Some(at.as_millisecond() - shown.get(id(line)?)?)
        });
        let latencies: Vec<i64> = received.collect();
        if latencies.len() >= shown.len() {
            break latencies;
        }
        ensure!(Instant::now() < until, "{} of {} arrived", latencies.len(), shown.len());
        sleep(LOOK).await;
    };
    latencies.sort_unstable();
    let (from, goal) = source.latency();
    for (name, share) in [("median", 50), ("p99", 99)] {
        let millis = latencies.get(latencies.len() * share / 100).copied().unwrap_or_default();
        let figure = format!("{:.2} s", millis as f64 / 1_000.0);
        let goal = if share == 99 { goal } else { "-" };
        say(&format!("{when}{from}, {name} of {}", latencies.len()), &figure, goal)?;
    }
    Ok(())
}
