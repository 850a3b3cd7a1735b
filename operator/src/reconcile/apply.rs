//! Brings what is on the server to what it shall be: server-side apply in the order of the list, then what is no longer
//! wanted is removed. Sends nothing for an object that is as it shall be.

use super::build::{Desired, Objects, Prepared};
use super::gather::Observed;
use super::status::Outcome;
use super::validate::{Cause, Problem};
use crate::agent::Agent;
use crate::api::{self, Place};
use crate::error_chain::chain;
use crate::live::Live;
use crate::names::Owned;
use crate::rollout::{Stance, Wait};
use crate::world::World;

/// What may be removed when it is not wanted.
const OPTIONAL: [Owned; 2] = [Owned::NetworkPolicy, Owned::Claim];

/// Applies and prunes. What the server refuses for good stalls the agent.
///
/// # Errors
/// The first request that did not succeed; the next pass goes on.
pub(super) async fn apply(
    world: &World,
    agent: &Agent,
    observed: &Observed,
    stance: &Stance,
    objects: Objects<Prepared>,
) -> Result<Outcome, api::Error> {
    match bring(world, agent, observed, stance, objects).await {
        Err(error @ api::Error::Rejected(..)) => {
            Ok(Outcome::Stalled(vec![Problem { cause: Cause::Rejected, text: chain(&error) }]))
        }
        other => other,
    }
}

async fn bring(
    world: &World,
    agent: &Agent,
    observed: &Observed,
    stance: &Stance,
    objects: Objects<Prepared>,
) -> Result<Outcome, api::Error> {
    let (key, uid) = (&agent.key, agent.uid.as_str());
    let differs = |desired: &&Desired| {
        observed.live.get(&desired.which).is_none_or(|live| {
            live.digest.as_ref() != Some(&desired.digest)
                && !world.memory.came_of(uid, desired.which, &desired.digest, live)
        })
    };
    let different: Vec<_> = objects.list.iter().filter(differs).cloned().collect();
    // A change that the user has made is theirs to time; one that comes with another operator waits for its turn.
    let is_the_users = !agent.is_observed();
    // Of a Deployment that waits, a difference alone says nothing of whether somebody else has changed it.
    let is_kept = match observed.live.get(&Owned::Deployment) {
        Some(live) if stance.wait.is_some() => !world.memory.is_drifted(uid, live),
        Some(_) | None => false,
    };
    for desired in different {
        let held = observed.live.get(&desired.which);
        let waits = desired.which == Owned::Deployment && stance.wait.is_some();
        if waits && is_kept && !is_the_users {
            continue;
        }
        let is_drifted = (waits && !is_kept)
            || held.is_some() && world.memory.has_applied(uid, desired.which, &desired.digest);
        let release = stance.mark.as_ref().map(|mark| mark.release.as_str());
        let is_brought = held.is_some_and(|live| {
            desired.which == Owned::Deployment
                && live.mark.as_ref().map(|mark| mark.release.as_str()) != release
        });
        let why = match held {
            None => "absent",
            Some(_) if is_drifted => "drift",
            Some(_) if is_the_users => "spec changed",
            Some(_) if is_brought => "release changed",
            Some(live) if desired.which == Owned::Deployment && live.mark != stance.mark => {
                "came up with the release"
            }
            Some(_) if desired.which == Owned::Config => "share of the requests changed",
            Some(_) => "operator changed",
        };
        let place = match held {
            Some(live) => Place::Held(live),
            None if observed.absent.contains(&desired.which) => Place::SeenFree,
            None => Place::Free,
        };
        let applied = world
            .server
            .apply(&key.namespace, desired.which, &desired.object, place, why)
            .await
            .inspect_err(|error| {
                // The next pass asks what is there.
                if matches!((place, error), (Place::Free, api::Error::Conflict(..))) {
                    world.memory.set_hidden(key, desired.which, true);
                }
            });
        let applied = match applied {
            Err(error @ api::Error::Rejected(..)) if is_brought && !is_the_users => {
                let why = format!("the API server refuses its Deployment: {}", chain(&error));
                world.turns.refuse(key, release.unwrap_or_default(), &why);
                return Ok(Outcome::Queued(Wait::Halted(why)));
            }
            applied => applied?,
        };
        if is_brought {
            world.turns.accept(key);
        }
        let live = Live::of(&applied);
        world.memory.note(uid, desired.which, &desired.digest, live);
    }
    for which in OPTIONAL {
        let is_wanted = objects.list.iter().any(|desired| desired.which == which);
        if let Some(live) = observed.live.get(&which)
            && !is_wanted
            && live.is_owned_by(agent)
        {
            let why = "no longer wanted";
            world.server.delete(&key.namespace, which, &which.name(&key.name), live, why).await?;
            world.memory.forget_object(&live.uid);
        }
    }
    Ok(match &stance.wait {
        Some(wait) => Outcome::Queued(wait.clone()),
        None => Outcome::Applied(objects.into_applied()),
    })
}
