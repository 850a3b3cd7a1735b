//! Faults of Graph and of the identity provider, alone and mixed: nothing is lost or repeated, no storm, the budgets hold.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use siem_agent_sim::defender::{Hostility, Options};
use siem_agent_sim::forwarder::PATIENCE;
use tokio::time::{Instant, sleep};

use super::{each_once, prepare, prepare_with, tenant};
use crate::source::world::World;

/// How many requests of a kind were made.
fn n_asked(world: &World, what: &str) -> usize {
    world.defender.requests().iter().filter(|request| request.what == what).count()
}

/// One fault at each endpoint, at the first request and at a later one.
async fn survives(fault: &str, in_place: &[&str]) -> Result<()> {
    let mut world = prepare(tenant(300, 1_050)).await?;
    for place in in_place {
        world.fault(&format!("{fault}@{place}"));
    }
    let began = Instant::now();
    world.forwarder.start().await?;
    each_once(&world).await.with_context(|| fault.to_owned())?;
    world.defender.produce(100);
    each_once(&world).await.with_context(|| fault.to_owned())?;
    ensure!(!world.defender.has_faults(), "{fault}: it is met");
    let status = world.forwarder.status().await?;
    ensure!(status["token"]["state"] == "Valid", "{fault} is no bad token: {status}");
    // Each poll asks once or twice, of two tables, and now and then for ids.
    let most = 20 + usize::try_from(began.elapsed().as_secs())? * 6;
    for what in ["graph-alerts", "graph-hunting", "token"] {
        let n_asked = n_asked(&world, what);
        ensure!(n_asked <= most, "{fault}: {n_asked} requests of {what}, of {most}");
    }
    ensure!(world.forwarder.terminate().await?.success());
    Ok(())
}

const EVERYWHERE: [&str; 4] = [
    "stream=graph-alerts",
    "stream=graph-alerts,after=1",
    "stream=graph-hunting",
    "stream=graph-hunting,after=2",
];

#[tokio::test]
async fn each_fault_of_graph_alone_loses_nothing_and_repeats_nothing() -> Result<()> {
    let faults = [
        "429:1",
        "429:date+2",
        "429",
        "429-in-words:6",
        "500",
        "502",
        "503",
        "504",
        "504-html",
        "cut:3000",
        "cut:0",
        "short:5000",
        "broken",
        "mark",
        "html",
        "type:text/plain",
        "empty",
        "jwks",
        "hang:2",
        "500x3",
        "too-large",
        "more",
        "refusal:500:{\"error\": 5}",
        "refusal:403:{\"error\": {\"code\": \"TooManyRequests\", \"message\": \"throttled\"}}",
    ];
    for some in faults.chunks(4) {
        try_join_all(some.iter().map(|fault| survives(fault, &EVERYWHERE))).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_access_token_that_is_refused_once_is_renewed_and_nobody_is_alarmed() -> Result<()> {
    let places = ["stream=graph-alerts", "stream=graph-hunting", "stream=graph-hunting,after=2"];
    try_join_all(places.map(async |place| survives("401", &[place]).await)).await?;
    Ok(())
}

#[tokio::test]
async fn each_fault_of_the_identity_provider_alone_loses_nothing() -> Result<()> {
    let faults = [
        "429:1",
        "429",
        "500",
        "503",
        "504-html",
        "html",
        "hang:2",
        "500x3",
        "grant:{\"expires_in\": null}",
        "grant:{\"expires_in\": \"2\"}",
        "grant:{\"access_token\": null}",
        "refusal:400:no JSON",
    ];
    for some in faults.chunks(4) {
        let place = ["stream=token"];
        try_join_all(some.iter().map(|fault| survives(fault, &place))).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_link_that_is_empty_pages_for_a_while_is_no_storm() -> Result<()> {
    survives("morex4", &["stream=graph-alerts"]).await
}

#[tokio::test]
async fn a_mix_of_faults_of_graph_loses_nothing_and_makes_no_storm() -> Result<()> {
    let options = Options {
        rate: 100.0,
        alert_rate: Some(20.0),
        late: Duration::from_secs(2),
        out_of_order: Duration::from_secs(4),
        hostile: Hostility::Records,
        access_life: Duration::from_secs(8),
        ..tenant(2_000, 1_200)
    };
    let mut world = prepare(options).await?;
    for fault in [
        "429:1x*@p=0.04",
        "500x*@p=0.1",
        "504-htmlx*@p=0.05",
        "too-largex*@p=0.05",
        "cut:20000x*@p=0.1",
        "cut:100x*@p=0.05",
        "broken x*@p=0.05",
        "htmlx*@p=0.05",
        "emptyx*@p=0.05",
        "short:9000x*@p=0.1",
        "401x*@p=0.03",
        "hang:1x*@p=0.05",
        "503x*@stream=token,p=0.2",
    ] {
        world.fault(&fault.replace(' ', ""));
    }
    world.forwarder.start().await?;
    let began = Instant::now();
    let failed = |world: &World| {
        world.defender.requests().iter().filter(|request| request.status >= 400).count()
    };
    // A busy machine asks less often.
    while began.elapsed() < Duration::from_secs(20)
        || (failed(&world) < 3 && began.elapsed() < PATIENCE)
    {
        let status = world.forwarder.status().await?;
        ensure!(status["token"]["state"] != "Forbidden", "no fault is a permission: {status}");
        sleep(Duration::from_millis(500)).await;
    }
    world.defender.quiet();
    world.defender.clear_faults();
    each_once(&world).await?;
    let failed = failed(&world);
    ensure!(failed >= 3, "faults were met: {failed}");
    let most = 20 + usize::try_from(began.elapsed().as_secs())? * 6;
    for what in ["graph-alerts", "graph-hunting", "token"] {
        ensure!(n_asked(&world, what) <= most, "{} requests of {what}", n_asked(&world, what));
    }
    Ok(())
}

#[tokio::test]
async fn the_budgets_of_graph_are_kept_on_our_side() -> Result<()> {
    // There is work for many more; Graph refuses the 46th query and the 151st request for alerts of a minute.
    let options = Options { rate: 50.0, alert_rate: Some(5.0), ..tenant(6_000, 8_000) };
    let options =
        Options { graph_budget: 150, hunting_budget: 45, result_limit: 300_000, ..options };
    let mut world = prepare_with(options, "pollInterval: 1s, overlap: 10s", "").await?;
    world.forwarder.start().await?;
    world.until_asked("graph-hunting", 16).await?;
    world.defender.quiet();
    let requests = world.defender.requests();
    ensure!(requests.iter().all(|request| request.status != 429), "none is one too many");
    let times: Vec<i64> = requests
        .iter()
        .filter(|request| request.what == "graph-hunting")
        .map(|request| request.at)
        .collect();
    let took = times.iter().max().unwrap() - times.iter().min().unwrap();
    let expected = i64::try_from(times.len()).unwrap() * 2_000;
    ensure!((expected / 2..expected * 2).contains(&took), "{} queries in {took} ms", times.len());
    Ok(())
}
