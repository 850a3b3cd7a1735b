//! Two sources beside each other, and one in place of the other.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use siem_agent_crds::report::Stream;
use siem_agent_sim::clock;
use siem_agent_sim::defender::{DEMO_TOKEN, Options};
use siem_agent_sim::eventually::eventually;

use siem_agent_sim::manifest::Manifest;

use super::{QUICK, each_once, flows, tenant};
use crate::source::world::World;

/// How far each source looks back, seconds.
const OVERLAP: i64 = 15;

/// What a manifest has of sources.
#[derive(Debug, Clone, Copy)]
enum Sources {
    Graph,
    CloudApps,
    /// Alerts from Graph, activities from the portal, which is what an agent with both has by default.
    Both,
}

/// The manifest of an agent with an application and these sources.
fn manifest(sources: Sources, url: &str, port: u16) -> String {
    let portal = format!("cloudApps: {{url: '{url}', {QUICK}}}");
    let graph = format!("graph: {{url: '{url}', {QUICK}}}");
    let of_graph = Manifest::new("soc").graph(url, QUICK);
    let manifest = match sources {
        Sources::Graph => of_graph.to_string(),
        Sources::CloudApps => of_graph.to_string().replace(&graph, &portal),
        Sources::Both => of_graph.and_source(&portal).to_string(),
    };
    // The receiver's line is the manifest's own.
    manifest.replace("{host: siem.example.com}", &format!("{{host: 127.0.0.1, port: {port}}}"))
}

async fn prepare(sources: Sources, options: Options) -> Result<World> {
    let world = World::of(options, |defender, receiver| {
        manifest(sources, &defender.url(), receiver.port())
    })
    .await?;
    world.mount("defender", "clientSecret", DEMO_TOKEN)?;
    Ok(world)
}

/// One of two sources fails by this fault: the report names it, and the stream of the other flows.
async fn names_the_one(fault: &str, words: &[&str], other: Stream, is_token: bool) -> Result<()> {
    let options = Options { rate: 20.0, alert_rate: Some(10.0), ..tenant(300, 100) };
    let mut world = prepare(Sources::Both, options).await?;
    world.forwarder.start().await?;
    flows(&world, Stream::Alerts).await?;
    flows(&world, Stream::Activities).await?;
    let status = world.until("valid", |status| status["token"]["state"] == "Valid").await?;
    ensure!(status["source"]["state"] == "Reachable", "{status}");
    world.fault(fault);
    let (field, state) = if is_token { ("token", "Invalid") } else { ("source", "Unreachable") };
    let status = world.until(fault, |status| status[field]["state"] == state).await?;
    let reason = status[field]["reason"].as_str().unwrap();
    ensure!(words.iter().all(|word| reason.contains(word)), "{fault}: {reason}");
    if !is_token {
        ensure!(status["token"]["state"] == "Valid", "{fault}: {status}");
    }
    flows(&world, other).await.context("while one is dead")?;
    flows(&world, other).await.context("while one is dead")?;
    world.defender.clear_faults();
    world.defender.quiet();
    // A refused credential is tried again after a minute and a half at most.
    eventually(Duration::from_secs(150), async || {
        let status = world.forwarder.status().await?;
        ensure!(status[field]["state"] != state, "{fault}: {status}");
        Ok(())
    })
    .await?;
    each_once(&world).await
}

#[tokio::test]
async fn of_two_sources_one_dies_is_named_and_the_other_flows() -> Result<()> {
    let (alerts, activities) = (Stream::Alerts, Stream::Activities);
    let portal = ["CloudApps"];
    let graph = ["Graph"];
    tokio::try_join!(
        names_the_one("503x*@stream=activities", &portal, alerts, false),
        names_the_one("503x*@stream=graph-alerts", &graph, activities, false),
        names_the_one("401:No such rightx*@stream=activities", &portal, alerts, true),
        names_the_one("401:No such rightx*@stream=graph-alerts", &graph, activities, true),
    )?;
    Ok(())
}

#[tokio::test]
async fn a_tenant_that_moves_to_graph_and_back_loses_nothing_and_repeats_no_alert() -> Result<()> {
    let options = Options { rate: 40.0, alert_rate: Some(8.0), ..tenant(1_500, 400) };
    let mut world = prepare(Sources::CloudApps, options).await?;
    let mut stops = Vec::new();
    let all =
        [Sources::CloudApps, Sources::Graph, Sources::Both, Sources::Graph, Sources::CloudApps];
    for (sources, next) in all.into_iter().zip(all.into_iter().skip(1).map(Some).chain([None])) {
        let text = manifest(sources, &world.defender.url(), world.receiver.port());
        std::fs::write(world.forwarder.manifest(), text)?;
        world.forwarder.start().await.with_context(|| format!("{sources:?}"))?;
        for _ in 0..4 {
            flows(&world, Stream::Alerts).await.with_context(|| format!("{sources:?}"))?;
            flows(&world, Stream::Activities).await.with_context(|| format!("{sources:?}"))?;
        }
        // A clean stop, so that only the switch itself may repeat.
        ensure!(world.forwarder.terminate().await?.success());
        // The portal's own look goes half an hour back where hunting was: that is known by when rows were ingested.
        let is_portals = matches!(next, Some(Sources::CloudApps | Sources::Both));
        let back = if is_portals { 30 * 60 } else { OVERLAP };
        stops.push((clock::millis(), back));
    }
    world.forwarder.start().await?;
    world.defender.quiet();
    world.all_delivered().await?;
    let (counts, listed) = (world.receiver.ids(), world.defender.listed());
    let repeated: Vec<_> = listed
        .iter()
        .filter(|((_, id), _)| counts.get(id).is_some_and(|count| *count > 1))
        .collect();
    let alert = repeated.iter().find(|((stream, _), _)| *stream == Stream::Alerts);
    ensure!(alert.is_none(), "an alert is known by its id, whoever shows it: {alert:?}");
    let is_near = |listed: i64| {
        stops.iter().any(|(stop, back)| (stop - (back + 5) * 1_000..=*stop).contains(&listed))
    };
    let far = repeated.iter().find(|(_, listed)| !is_near(**listed));
    ensure!(far.is_none(), "only what lies within the overlap of a switch repeats: {far:?}");
    eprintln!("{} of {} repeated", repeated.len(), listed.len());
    Ok(())
}
