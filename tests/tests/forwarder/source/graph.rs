//! The forwarder against the simulated Microsoft Graph: the same tenant by another way, with another way's troubles.

mod backlog;
mod faults;
mod result;
mod permission;
mod filters;
mod restart;
mod sources;
mod identity;
mod commands;

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use siem_agent_crds::report::Stream;
use siem_agent_sim::defender::{DEMO_TOKEN, Options};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::PATIENCE;
use siem_agent_sim::manifest::Manifest;

use super::world::{self, World};

/// Polls as often as can be, with budget enough for that.
const QUICK: &str = "requestsPerMinute: 6000, pollInterval: 1s, overlap: 15s";

/// A tenant with records of the last hour and no limit of requests.
fn tenant(n_activities: usize, n_alerts: usize) -> Options {
    Options { graph_budget: 0, hunting_budget: 0, ..world::tenant(n_activities, n_alerts) }
}

/// A world whose forwarder reads both streams from Graph, but for its process.
async fn prepare(options: Options) -> Result<World> {
    prepare_with(options, QUICK, "").await
}

/// The same with these fields of `spec.source.graph`, and these lines of `spec`.
async fn prepare_with(options: Options, fields: &str, more: &str) -> Result<World> {
    let world = World::of(options, |defender, receiver| {
        let manifest = Manifest::new("soc").graph(&defender.url(), fields);
        manifest.to("127.0.0.1", receiver.port()).more(more).to_string()
    })
    .await?;
    world.mount("defender", "clientSecret", DEMO_TOKEN)?;
    Ok(world)
}

/// The lines that `render` makes of all that Graph has of a stream.
fn rendered(world: &World, stream: Stream) -> Result<BTreeSet<String>> {
    let records = world.defender.graph_records(stream).join("\n");
    Ok(world.forwarder.render(stream.as_str(), &records)?.lines().map(str::to_owned).collect())
}

/// Everything is delivered, and nothing twice.
async fn each_once(world: &World) -> Result<()> {
    world.all_delivered().await?;
    let repeated = world.receiver.ids().into_iter().filter(|(_, count)| *count > 1);
    let repeated: Vec<_> = repeated.collect();
    ensure!(repeated.is_empty(), "repeated: {repeated:?}\n{}", world.forwarder.log()?);
    Ok(())
}

/// How many records of a stream have arrived, each counted once.
fn n_delivered(world: &World, stream: Stream) -> usize {
    let arrived = world.receiver.ids();
    let produced = world.defender.produced();
    produced.iter().filter(|(of, id)| *of == stream && arrived.contains_key(id)).count()
}

/// Waits until more of a stream is delivered than is now.
async fn flows(world: &World, stream: Stream) -> Result<()> {
    let n_before = n_delivered(world, stream);
    eventually(PATIENCE, async || {
        ensure!(
            n_delivered(world, stream) > n_before,
            "{stream} does not flow: {}",
            world.forwarder.log()?
        );
        Ok(())
    })
    .await
}
