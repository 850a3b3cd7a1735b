//! Answers that Graph finds too large or that take it too long: less is asked for, and everything arrives.

use std::time::Duration;

use anyhow::{Result, ensure};
use siem_agent_sim::defender::Options;

use super::{each_once, prepare, tenant};

#[tokio::test]
async fn results_that_are_too_large_are_asked_for_in_smaller_parts() -> Result<()> {
    let options = Options {
        rate: 60.0,
        result_limit: 200_000,
        out_of_order: Duration::from_secs(4),
        ..tenant(1_200, 50)
    };
    let mut world = prepare(options).await?;
    world.forwarder.start().await?;
    world.until_asked("graph-hunting", 40).await?;
    world.defender.quiet();
    each_once(&world).await?;
    let asked = world.asked("graph-hunting");
    let n_refused = asked.iter().filter(|(_, status)| *status == 400).count();
    ensure!(n_refused >= 1 && n_refused * 3 < asked.len(), "{n_refused} of {}", asked.len());
    Ok(())
}

#[tokio::test]
async fn queries_that_time_out_are_asked_for_in_smaller_parts() -> Result<()> {
    let mut world = prepare(Options { rate: 40.0, ..tenant(1_500, 50) }).await?;
    world.fault("504x3@stream=graph-hunting,after=1");
    world.fault("504-htmlx2@stream=graph-hunting,after=8");
    world.fault("504x*@stream=graph-hunting,p=0.1");
    world.forwarder.start().await?;
    world.until_asked("graph-hunting", 20).await?;
    world.defender.clear_faults();
    world.defender.quiet();
    each_once(&world).await
}
