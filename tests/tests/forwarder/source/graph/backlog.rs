//! What was there before the start, what comes while it runs, and what comes in another order than it was ingested.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use siem_agent_crds::report::Stream;
use siem_agent_sim::defender::Options;
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::PATIENCE;

use super::{each_once, prepare, rendered, tenant};
use crate::source::world::World;

const LATE: &str = "siem_forwarder_records_late_total{stream=\"activities\"}";
const FILTERED: &str = "siem_forwarder_records_filtered_total";

/// Waits until the tenant has so many activities, and lets it rest.
async fn until_there_are(world: &mut World, n_activities: usize) -> Result<()> {
    eventually(PATIENCE, async || {
        let n_there = world.defender.records(Stream::Activities).len();
        ensure!(n_there >= n_activities, "{n_there} activities exist");
        Ok(())
    })
    .await?;
    world.defender.quiet();
    Ok(())
}

#[tokio::test]
async fn a_backlog_and_what_comes_meanwhile_arrive_once_as_render_prints_them() -> Result<()> {
    let options = Options { rate: 100.0, alert_rate: Some(20.0), ..tenant(4_000, 2_300) };
    let mut world = prepare(options).await?;
    world.forwarder.start().await?;
    until_there_are(&mut world, 5_000).await?;
    each_once(&world).await?;
    let mut expected = rendered(&world, Stream::Alerts)?;
    expected.append(&mut rendered(&world, Stream::Activities)?);
    let received: BTreeSet<String> = world.receiver.frames().into_iter().collect();
    let strange = received.difference(&expected).next();
    ensure!(received == expected, "{} of {}: {strange:?}", received.len(), expected.len());
    // Both tables and both forms of rows were among them; a directory's own sign-ins were not shown at all.
    ensure!(received.iter().any(|line| line.contains("|EVENT_CATEGORY_LOGIN|")));
    ensure!(received.iter().any(|line| line.contains("|EVENT_CATEGORY_DOWNLOAD_FILE|")));
    ensure!(world.forwarder.metric(FILTERED).await? == 0.0, "what is filtered is filtered there");
    let late = world.forwarder.metric(LATE).await?;
    ensure!(late == 0.0, "{late} rows came late: {}", world.forwarder.log()?);
    let status = world.forwarder.status().await?;
    ensure!(status["token"]["state"] == "Valid" && status["source"]["state"] == "Reachable");
    ensure!(world.forwarder.terminate().await?.success());
    Ok(())
}

#[tokio::test]
async fn rows_that_show_up_behind_the_newest_arrive_once_and_are_counted() -> Result<()> {
    let options = Options {
        rate: 100.0,
        late: Duration::from_secs(8),
        out_of_order: Duration::from_secs(6),
        ..tenant(500, 50)
    };
    let mut world = prepare(options).await?;
    world.forwarder.start().await?;
    until_there_are(&mut world, 2_000).await?;
    each_once(&world).await?;
    // A twentieth of the rows is behind; most of them by more than a poll.
    let late = world.forwarder.metric(LATE).await?;
    ensure!((10.0..150.0).contains(&late), "{late} rows came behind the newest");
    Ok(())
}

#[tokio::test]
async fn a_stop_and_a_start_repeat_nothing() -> Result<()> {
    let options = Options {
        rate: 100.0,
        alert_rate: Some(10.0),
        out_of_order: Duration::from_secs(6),
        ..tenant(2_000, 500)
    };
    let mut world = prepare(options).await?;
    for n_activities in [2_200, 2_500, 2_800] {
        world.forwarder.start().await?;
        eventually(PATIENCE, async || {
            let n_there = world.defender.records(Stream::Activities).len();
            ensure!(n_there >= n_activities, "{n_there} activities exist");
            Ok(())
        })
        .await?;
        ensure!(world.forwarder.terminate().await?.success());
    }
    world.forwarder.start().await?;
    world.defender.quiet();
    each_once(&world).await
}
