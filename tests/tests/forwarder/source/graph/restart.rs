//! The forwarder dies while it reads a backlog: nothing is lost, and what repeats was confirmed in the last second.

use std::time::Duration;

use anyhow::{Result, ensure};
use siem_agent_sim::defender::Options;
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::PATIENCE;

use super::{prepare, tenant};

#[tokio::test]
async fn a_forwarder_killed_while_it_reads_a_backlog_loses_nothing() -> Result<()> {
    let options = Options {
        rate: 50.0,
        alert_rate: Some(5.0),
        out_of_order: Duration::from_secs(4),
        // Windows of few rows, so that a backlog takes many.
        result_limit: 1_500_000,
        ..tenant(9_000, 3_000)
    };
    let mut world = prepare(options).await?;
    let mut n_most = 0;
    for n_killed in 1..=6 {
        world.forwarder.start().await?;
        let wanted = n_killed * 900;
        eventually(PATIENCE, async || {
            let n_arrived = world.receiver.ids().len();
            ensure!(n_arrived >= wanted, "{n_arrived} arrived: {}", world.forwarder.log()?);
            Ok(())
        })
        .await?;
        world.forwarder.kill()?;
        n_most += 1;
    }
    world.forwarder.start().await?;
    world.defender.quiet();
    world.all_delivered().await?;
    let counts = world.receiver.ids();
    let most = counts.values().max().copied().unwrap_or(0);
    ensure!(most <= n_most + 1, "a record came {most} times");
    let n_repeated: usize = counts.values().map(|count| count - 1).sum();
    // What one page of each stream and table holds, for each death.
    ensure!(n_repeated <= n_most * 3_000, "{n_repeated} were repeated");
    eprintln!("{n_repeated} of {} repeated by {n_most} deaths", counts.len());
    Ok(())
}
