//! The forwarder dies while it reads a backlog: nothing is lost, and what repeats was confirmed in the last second.

use std::time::Duration;

use anyhow::{Result, ensure};
use siem_agent_sim::defender::Options;
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::PATIENCE;

use tokio::time::Instant;

use super::{prepare, tenant};

/// A save follows a confirmation within a second, or later where saving takes more than a twentieth of the time, as it does
/// on a busy machine; and a confirmation what arrives within the grace.
const SAVED_AFTER: Duration = Duration::from_secs(6);

#[tokio::test]
async fn a_forwarder_killed_while_it_reads_a_backlog_loses_nothing() -> Result<()> {
    let options = Options {
        rate: 50.0,
        alert_rate: Some(5.0),
        out_of_order: Duration::from_secs(4),
        // Windows of few rows, so that a backlog takes many.
        result_limit: 1_500_000,
        ..tenant(5_000, 2_000)
    };
    let mut world = prepare(options).await?;
    let (mut n_most, mut n_recent) = (0, 0);
    for n_killed in 1..=6 {
        let mut arrived = vec![(Instant::now(), world.receiver.frames().len())];
        world.forwarder.start().await?;
        let wanted = n_killed * 700;
        eventually(PATIENCE, async || {
            let n_arrived = world.receiver.ids().len();
            arrived.push((Instant::now(), world.receiver.frames().len()));
            ensure!(n_arrived >= wanted, "{n_arrived} arrived: {}", world.forwarder.log()?);
            Ok(())
        })
        .await?;
        world.forwarder.kill()?;
        let n_frames = world.receiver.frames().len();
        let saved =
            arrived.iter().rfind(|(at, _)| at.elapsed() > SAVED_AFTER).or_else(|| arrived.first());
        n_recent += n_frames - saved.map_or(0, |(_, n_frames)| *n_frames);
        n_most += 1;
    }
    world.forwarder.start().await?;
    world.defender.quiet();
    world.all_delivered().await?;
    let counts = world.receiver.ids();
    let most = counts.values().max().copied().unwrap_or(0);
    ensure!(most <= n_most + 1, "a record came {most} times");
    let n_repeated: usize = counts.values().map(|count| count - 1).sum();
    ensure!(n_repeated <= n_recent, "{n_repeated} repeated, {n_recent} came just before a death");
    Ok(())
}
