//! Keeps each forwarder's checkpoint in its ConfigMap, on a schedule of its own. `checkpoint` decides what is worth it.

use std::sync::Mutex;

use siem_agent_crds::SiemAgent;
use siem_agent_crds::checkpoint::KEY;
use siem_agent_crds::report::Report;
use tracing::{info, warn};

use crate::api::Place;
use crate::budget::Key;
use crate::error_chain::chain;
use crate::live::Live;
use crate::names::Owned;
use crate::pace::Pace;
use crate::world::{World, lock};
use crate::{api, checkpoint, clock, digest};

/// Why a checkpoint was not written.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the checkpoint")]
    Server(#[source] api::Error),
    #[error("encode the checkpoint")]
    Encode(#[source] serde_json::Error),
}

/// Writes what a report tells, if it is due and may be written now.
pub(crate) async fn keep(
    world: &World,
    pace: &Mutex<Pace>,
    key: &Key,
    agent: &SiemAgent,
    report: &Report,
) {
    let uid = agent.metadata.uid.as_deref().unwrap_or_default();
    let live = world.checkpoint(key, uid);
    let written = world.memory.applied(uid, Owned::Checkpoint);
    let is_drifted = match (&live, written) {
        (Some(live), Some(written)) => live.digest != written.digest,
        _ => false,
    };
    let marker = live.and_then(|live| live.delivered);
    let is_due = is_drifted || checkpoint::is_due(marker.as_deref(), report);
    if !is_due || world.memory.is_hidden(key, Owned::Checkpoint) {
        return;
    }
    if !lock(pace).admit(key, World::now()) {
        return;
    }
    match write(world, key, agent, report, is_drifted).await {
        Ok(()) => {}
        Err(Error::Server(api::Error::NotLeading)) => lock(pace).retract(key),
        Err(error) => {
            lock(pace).retract(key);
            warn!(
                namespace = key.0,
                name = key.1,
                reason = chain(&error),
                "the checkpoint is not kept"
            );
        }
    }
}

/// What somebody else has written into it is not believed.
async fn write(
    world: &World,
    key: &Key,
    agent: &SiemAgent,
    report: &Report,
    is_drifted: bool,
) -> Result<(), Error> {
    let uid = agent.metadata.uid.as_deref().unwrap_or_default();
    let which = Owned::Checkpoint;
    let name = which.name(&key.1);
    let there = world.server.read(&key.0, which, &name).await.map_err(Error::Server)?;
    let live = there.as_ref().map(Live::of);
    let is_foreign = live.as_ref().is_some_and(|live| !live.is_owned_by(agent));
    world.memory.set_hidden(
        key,
        which,
        is_foreign && !live.as_ref().is_some_and(|live| live.is_left_by_a_namesake(agent)),
    );
    if is_foreign {
        return Ok(());
    }
    let stored = there
        .as_ref()
        .and_then(|there| there.data.get("data")?.get(KEY)?.as_str().map(str::to_owned))
        .filter(|_| !is_drifted);
    let Some(next) = checkpoint::next(agent, stored.as_deref(), report, clock::now()) else {
        info!(
            namespace = key.0,
            name = key.1,
            "a report is not kept: of another source, or ahead of the time"
        );
        return Ok(());
    };
    let config_map =
        checkpoint::config_map(agent, &next, checkpoint::marker(report)).map_err(Error::Encode)?;
    let object = serde_json::to_value(config_map).map_err(Error::Encode)?;
    let place = live.as_ref().map_or(Place::SeenFree, Place::Held);
    let why = if is_drifted { "drift" } else { "more was delivered" };
    let applied = world
        .server
        .apply(&world.leadership, &key.0, which, &object, place, why)
        .await
        .map_err(Error::Server)?;
    world.memory.note(uid, which, &digest::of_desired(&object), Live::of(&applied));
    Ok(())
}
