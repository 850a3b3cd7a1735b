//! Keeps each forwarder's checkpoint in its ConfigMap, in the order and at the pace of `limiter`. `decide` says what is worth
//! a write.
//!
//! A poll only says that there is something to keep. When it is an agent's turn its forwarder is asked once more, so that
//! what is written is of that moment, and no report with a day of alerts waits in memory.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::future::FutureExt as _;
use siem_agent_crds::checkpoint::KEY;
use siem_agent_edge::clock;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use crate::agent::Agent;
use crate::api;
use crate::apply::place::Place;
use crate::checkpoint::decide as checkpoint;
use crate::checkpoint::limiter::{Limiter, Next};
use crate::checkpoint_due::is_due;
use crate::context::Context;
use crate::drift;
use crate::error_chain::chain;
use crate::forwarders::report::{self, Asker};
use crate::key::Key;
use crate::lock::lock;
use crate::names::Owned;
use crate::observed_object::ObservedObject;
use siem_agent_crds::report::Report;

/// Checkpoints that are written at once: a slow API server is not asked for ever more.
const WRITES_AT_ONCE: usize = 16;

/// Why a checkpoint was not written.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the checkpoint")]
    Server(#[source] api::Error),
    #[error("cannot encode the checkpoint")]
    Encode(#[source] serde_json::Error),
    #[error("cannot read the forwarder's report")]
    Ask(#[source] report::Error),
}

/// What came of an agent's turn.
enum Turn {
    Saved,
    /// What the report says is not to be kept.
    Refused,
    /// There is nothing to write after all, or nobody to ask.
    Settled,
}

/// Writes what waits, until it is dropped; what is under way then ends with it.
pub(crate) async fn run(world: Arc<Context>, asker: Arc<Asker>) {
    *lock(&world.keeper.limiter) = Limiter::default();
    let mut writes = JoinSet::new();
    loop {
        let next = loop {
            if writes.len() >= WRITES_AT_ONCE {
                break None;
            }
            let next = lock(&world.keeper.limiter).next(Instant::now());
            match next {
                Next::Save(key) => {
                    writes.spawn(keep(Arc::clone(&world), Arc::clone(&asker), key));
                }
                Next::At(next) => break Some(next),
                Next::Idle => break None,
            }
        };
        tokio::select! {
            () = world.keeper.wake.notified(), if writes.len() < WRITES_AT_ONCE => {}
            Some(_) = writes.join_next(), if !writes.is_empty() => {}
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
    }
}

async fn keep(world: Arc<Context>, asker: Arc<Asker>, key: Key) {
    let (namespace, name) = (&key.namespace, &key.name);
    let turn = AssertUnwindSafe(turn(&world, &asker, &key)).catch_unwind().await;
    let mut pace = lock(&world.keeper.limiter);
    match turn {
        Ok(Ok(Turn::Saved)) => pace.saved(&key, Instant::now()),
        Ok(Ok(Turn::Refused)) => pace.refused(&key, Instant::now()),
        Ok(Ok(Turn::Settled)) => pace.settled(&key),
        // The polls say so.
        Ok(Err(Error::Ask(_))) => pace.left(&key),
        Ok(Err(error)) => {
            pace.failed(&key, Instant::now());
            if !matches!(error, Error::Server(api::Error::NotLeading)) {
                warn!(namespace, name, reason = chain(&error), "checkpoint not saved");
            }
        }
        Err(_panic) => {
            pace.failed(&key, Instant::now());
            error!(namespace, name, "saving a checkpoint panicked; other agents are not affected");
            world.metrics.panicked();
        }
    }
}

async fn turn(world: &Context, asker: &Asker, key: &Key) -> Result<Turn, Error> {
    let Some(target) = world.target(key) else { return Ok(Turn::Settled) };
    let report = asker.ask(&target).await.map_err(Error::Ask)?;
    let Some(agent) = world.agent(key) else { return Ok(Turn::Settled) };
    let Ok(agent) = &agent.0 else { return Ok(Turn::Settled) };
    match is_due(world, agent, &report) {
        Some(is_drifted) => write(world, agent, &report, is_drifted).await,
        None => Ok(Turn::Settled),
    }
}

/// What somebody else has written into it is not believed.
async fn write(
    world: &Context,
    agent: &Agent,
    report: &Report,
    is_drifted: bool,
) -> Result<Turn, Error> {
    let key = &agent.key;
    let which = Owned::Checkpoint;
    let name = which.name(&key.name);
    let there = world.server.read(&key.namespace, which, &name).await.map_err(Error::Server)?;
    let live = there.as_ref().map(ObservedObject::of);
    let is_foreign = live.as_ref().is_some_and(|live| !live.is_owned_by(agent));
    world.expectations.set_hidden(
        key,
        which,
        is_foreign && !live.as_ref().is_some_and(|live| live.is_left_by_a_namesake(agent)),
    );
    if is_foreign {
        return Ok(Turn::Refused);
    }
    let stored = there
        .as_ref()
        .and_then(|there| there.data.get("data")?.get(KEY)?.as_str().map(str::to_owned))
        .filter(|_| !is_drifted);
    let Some(next) = checkpoint::next(agent, stored.as_deref(), report, clock::now()) else {
        info!(
            namespace = key.namespace,
            name = key.name,
            "checkpoint not saved: the report is of another source, or ahead of the time"
        );
        return Ok(Turn::Refused);
    };
    let config_map = checkpoint::config_map(agent, &next, checkpoint::marker(report), clock::now())
        .map_err(Error::Encode)?;
    let object = serde_json::to_value(config_map).map_err(Error::Encode)?;
    let place = live.as_ref().map_or(Place::SeenFree, Place::held);
    let why = if is_drifted { "drift" } else { "more was delivered" };
    let applied = world
        .server
        .apply(&key.namespace, which, &object, &place, why)
        .await
        .map_err(Error::Server)?;
    world.expectations.note(
        &agent.uid,
        which,
        &drift::of_desired(&object),
        ObservedObject::of(&applied),
    );
    Ok(Turn::Saved)
}
