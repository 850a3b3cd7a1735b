//! Brings what is on the server to what it shall be: server-side apply in the order of the list, then what is no longer
//! wanted is removed. Sends nothing for an object that is as it shall be.

use siem_agent_crds::SiemAgent;
use tokio::time::Instant;

use super::build::{Desired, Objects, Prepared};
use super::gather::Observed;
use super::status::Outcome;
use super::validate::{Cause, Problem};
use crate::api::{self, Place};
use crate::budget::Key;
use crate::error_chain::chain;
use crate::live::Live;
use crate::names::Owned;
use crate::world::World;

/// What may be removed when it is not wanted.
const OPTIONAL: [Owned; 2] = [Owned::NetworkPolicy, Owned::Claim];

/// Applies and prunes. What the server refuses for good stalls the agent.
///
/// # Errors
/// The first request that did not succeed; the next pass goes on.
pub(super) async fn apply(
    world: &World,
    key: &Key,
    agent: &SiemAgent,
    observed: &Observed,
    objects: Objects<Prepared>,
) -> Result<Outcome, api::Error> {
    match bring(world, key, agent, observed, objects).await {
        Err(error @ api::Error::Rejected(..)) => {
            Ok(Outcome::Stalled(vec![Problem { cause: Cause::Rejected, text: chain(&error) }]))
        }
        other => other,
    }
}

async fn bring(
    world: &World,
    key: &Key,
    agent: &SiemAgent,
    observed: &Observed,
    objects: Objects<Prepared>,
) -> Result<Outcome, api::Error> {
    let uid = agent.metadata.uid.as_deref().unwrap_or_default();
    let differs = |desired: &&Desired| {
        observed.live.get(&desired.which).is_none_or(|live| {
            live.digest.as_ref() != Some(&desired.digest)
                && !world.memory.came_of(uid, desired.which, &desired.digest, live)
        })
    };
    let different: Vec<_> = objects.list.iter().filter(differs).cloned().collect();
    let rolls_out = different.iter().any(|desired| {
        desired.which == Owned::Deployment && observed.live.contains_key(&Owned::Deployment)
    });
    // A change that the user has made is theirs to time; one that comes with another operator is spread.
    let seen = agent.status.as_ref().map(|status| status.observed_generation);
    let is_the_users = seen != agent.metadata.generation;
    if rolls_out
        && !is_the_users
        && observed.is_settled
        && !world.memory.may_roll_out(key, Instant::now())
    {
        return Ok(Outcome::Queued(objects.into_applied()));
    }
    for desired in different {
        let place = match observed.live.get(&desired.which) {
            Some(live) => Place::Held(live),
            None if observed.absent.contains(&desired.which) => Place::SeenFree,
            None => Place::Free,
        };
        let applied = world
            .server
            .apply(&world.leadership, &key.0, desired.which, &desired.object, place)
            .await
            .inspect_err(|error| {
                // The next pass asks what is there.
                if matches!((place, error), (Place::Free, api::Error::Conflict(..))) {
                    world.memory.set_hidden(key, desired.which, true);
                }
            })?;
        let live = Live::of(&applied);
        world.memory.note(uid, desired.which, &desired.digest, live);
    }
    for which in OPTIONAL {
        let is_wanted = objects.list.iter().any(|desired| desired.which == which);
        if let Some(live) = observed.live.get(&which)
            && !is_wanted
            && live.is_owned_by(agent)
        {
            world
                .server
                .delete(&world.leadership, &key.0, which, &which.name(&key.1), live)
                .await?;
            world.memory.forget_object(&live.uid);
        }
    }
    Ok(Outcome::Applied(objects.into_applied()))
}
