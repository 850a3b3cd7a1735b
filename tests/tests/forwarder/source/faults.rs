//! Faults of the API, alone and mixed: nothing is lost, nothing is made up, the budget holds, no token is blamed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use siem_agent_sim::defender::{Hostility, Options};
use siem_agent_sim::forwarder::PATIENCE;
use tokio::time::{Instant, sleep};

use super::world::{Manifest, World, tenant};

/// One fault in the middle of a walk through several pages of alerts, and at the only page of activities.
async fn survives(fault: &str) -> Result<()> {
    let world = World::prepare(tenant(150, 350), &Manifest::default()).await?;
    world.fault(&format!("{fault}@stream=alerts,page=continued"));
    world.fault(&format!("{fault}@stream=activities"));
    let mut world = world;
    world.forwarder.start().await?;
    world.all_delivered().await.with_context(|| fault.to_owned())?;
    ensure!(!world.defender.has_faults(), "{fault}: it was met twice");
    let status = world.forwarder.status().await?;
    ensure!(status["token"]["state"] == "Valid", "{fault} is no bad token: {status}");
    ensure!(world.forwarder.terminate().await?.success());
    Ok(())
}

#[tokio::test]
async fn each_fault_alone_loses_nothing_and_blames_no_token() -> Result<()> {
    let faults = [
        "429:1",
        "429:date+2",
        "429",
        "500",
        "502",
        "503",
        "cut:3000",
        "cut:0",
        "short:5000",
        "broken",
        "html",
        "type:text/plain",
        "empty",
        "jwks",
        "hang:2",
        "500x3",
    ];
    try_join_all(faults.map(survives)).await?;
    Ok(())
}

#[tokio::test]
async fn a_portal_that_never_answers_is_let_go_and_asked_again() -> Result<()> {
    survives("hang:300").await
}

#[tokio::test]
async fn a_mix_of_faults_loses_nothing_and_stays_within_the_budget() -> Result<()> {
    let options = Options {
        rate: 100.0,
        alert_rate: Some(20.0),
        late: Duration::from_secs(2),
        hostile: Hostility::Records,
        ..tenant(800, 300)
    };
    let manifest = Manifest { budget: 90, ..Manifest::default() };
    let mut world = World::prepare(options, &manifest).await?;
    for fault in [
        "429:1x*@p=0.06",
        "500x*@p=0.1",
        "502x*@p=0.1",
        "cut:20000x*@p=0.15",
        "cut:100x*@p=0.05",
        "broken x*@p=0.05",
        "htmlx*@p=0.05",
        "emptyx*@p=0.05",
        "short:9000x*@p=0.1",
        "hang:1x*@p=0.05",
    ] {
        world.fault(&fault.replace(' ', ""));
    }
    world.forwarder.start().await?;
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        let status = world.forwarder.status().await?;
        ensure!(status["token"]["state"] != "Invalid", "no fault is a bad token: {status}");
        sleep(Duration::from_millis(500)).await;
    }
    world.defender.quiet();
    world.defender.clear_faults();
    world.all_delivered().await?;
    let most = world.most_in_a_minute();
    ensure!(most <= 90, "{most} requests within a minute, of 90");
    let failed = world.defender.requests().iter().filter(|request| request.status >= 400).count();
    ensure!(failed >= 3, "faults were met: {failed}");
    Ok(())
}

#[tokio::test]
async fn the_budget_is_kept_on_our_side() -> Result<()> {
    // The simulator refuses the 31st request of a minute; there is work for sixty.
    let options = Options { budget: 30, ..tenant(100, 4_000) };
    let world = World::start(options, &Manifest { budget: 30, ..Manifest::default() }).await?;
    world.until_asked("alerts", 8).await?;
    let requests = world.defender.requests();
    ensure!(requests.iter().all(|request| request.status != 429), "none is one too many");
    let times: Vec<i64> = requests.iter().map(|request| request.at).collect();
    let took = times.iter().max().unwrap() - times.iter().min().unwrap();
    let expected = i64::try_from(times.len()).unwrap() * 2_000;
    ensure!((expected / 2..expected * 2).contains(&took), "{} requests in {took} ms", times.len());
    ensure!(world.most_in_a_minute() <= 30);
    Ok(())
}

#[tokio::test]
async fn retry_after_is_honoured_by_both_streams_in_seconds_and_as_a_date() -> Result<()> {
    for (fault, seconds) in [("429:4@stream=alerts", 4_000), ("429:date+5@stream=alerts", 4_000)] {
        let world = World::start(tenant(100, 100), &Manifest::default()).await?;
        world.all_delivered().await?;
        world.fault(fault);
        let until = Instant::now() + PATIENCE;
        let refused = loop {
            if let Some((at, _)) = world.asked("alerts").iter().find(|(_, status)| *status == 429) {
                break *at;
            }
            ensure!(Instant::now() < until, "{fault}: it is not met: {}", world.forwarder.log()?);
            sleep(Duration::from_millis(20)).await;
        };
        let status = world
            .until("throttled is told", |status| status["source"]["state"] == "Throttled")
            .await?;
        ensure!(status["token"]["state"] == "Valid", "{status}");
        world.until("it goes on", |status| status["source"]["state"] == "Reachable").await?;
        // What was on its way at that moment does not count.
        let next = world
            .defender
            .requests()
            .iter()
            .map(|request| request.at)
            .find(|at| *at > refused + 2_000);
        let waited = next.context("it goes on")? - refused;
        ensure!((seconds..seconds + 30_000).contains(&waited), "{fault}: {waited} ms");
    }
    Ok(())
}

#[tokio::test]
async fn a_failed_poll_is_tried_again_long_before_the_next_one_is_due() -> Result<()> {
    let manifest = Manifest { interval: "1h".to_owned(), ..Manifest::default() };
    let mut world = World::prepare(tenant(50, 120), &manifest).await?;
    world.fault("500@stream=activities");
    world.fault("cut:200@stream=alerts,page=continued");
    world.forwarder.start().await?;
    world.delivered_within(Duration::from_secs(20)).await
}

#[tokio::test]
async fn answers_come_compressed() -> Result<()> {
    let world = World::start(tenant(200, 10), &Manifest::default()).await?;
    world.all_delivered().await?;
    ensure!(world.defender.requests().iter().all(|request| request.gzip), "gzip is asked for");
    Ok(())
}
