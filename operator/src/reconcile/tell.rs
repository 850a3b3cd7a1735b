//! The last step: the status is written where it is news, and transitions are told as Events. `status` decides what it says.

use std::collections::BTreeSet;
use std::time::Duration;

use siem_agent_crds::condition::ConditionType;
use siem_agent_edge::clock;
use tracing::{debug, warn};

use super::gather::Observed;
use super::status::{self, Facts, Outcome};
use crate::agent::Agent;
use crate::error_chain::chain;
use crate::key::Key;
use crate::names::Owned;
use crate::twins::Twin;
use crate::world::{World, lock};
use crate::{api, events};

/// A ready agent is looked at again even if nothing is heard of it.
pub(super) const RESYNC: Duration = Duration::from_secs(10 * 60);
/// One that is not ready may need another word as time goes by.
const RESYNC_OF_TROUBLE: Duration = Duration::from_secs(60);
/// A Deployment is unsettled for a moment after it was made, and after a change of an annotation alone; that is not worth
/// two writes.
const SETTLING: Duration = Duration::from_secs(3);
/// What is on its way out is gone in a moment.
const SOON: Duration = Duration::from_secs(2);

/// Computes the status, writes it if it is news, and makes an Event of each transition. When to look again.
///
/// # Errors
/// When the server does not take the status.
pub(super) async fn tell(
    world: &World,
    agent: &Agent,
    observed: &Observed,
    outcome: &Outcome,
) -> Result<Duration, api::Error> {
    let key = &agent.key;
    let now = clock::now();
    let unsettled = world.memory.unsettled(key, observed.is_settled, World::now());
    let is_known = agent.is_observed() && observed.live.contains_key(&Owned::Deployment);
    if (!agent.was_observed() || is_known)
        && matches!(outcome, Outcome::Applied(_))
        && unsettled.is_some_and(|unsettled| unsettled < SETTLING)
    {
        debug!(namespace = key.namespace, name = key.name, "status held: the Deployment settles");
        return Ok(SETTLING);
    }
    let facts = Facts {
        agent,
        outcome,
        workload: &observed.workload,
        sighting: &observed.sighting,
        twins: &observed.twins,
        others: &observed.others,
    };
    if status::is_premature(&facts, now) {
        debug!(
            namespace = key.namespace,
            name = key.name,
            "status held: no report has been read yet"
        );
        return Ok(SETTLING);
    }
    let next = status::status(&facts, now);
    let previous = agent.status.clone().unwrap_or_default();
    if status::is_hasty(&previous, &next, now) {
        debug!(namespace = key.namespace, name = key.name, "status held: it may pass by itself");
        return Ok(SETTLING);
    }
    let ready = next.condition(ConditionType::Ready).cloned();
    if status::is_news(&previous, &next) {
        let resource_version = agent.metadata.resource_version.as_deref();
        let why = ready.as_ref().map_or("", |ready| ready.reason.as_str());
        let written = world
            .server
            .write_status((&key.namespace, &key.name, resource_version), &next, why)
            .await?;
        if let Some(version) = written {
            world.memory.note_status(&agent.uid, &version, next.clone());
        }
        for event in events::of_change(agent, &previous, &next, &world.instance, now) {
            if let Err(error) = world.server.tell(&key.namespace, &event).await {
                // The status says the same; an Event is not worth another try.
                warn!(
                    namespace = key.namespace,
                    name = key.name,
                    reason = chain(&error),
                    "an Event could not be made"
                );
            }
        }
    } else {
        debug!(namespace = key.namespace, name = key.name, "status unchanged");
    }
    tell_of_twins(world, agent, &observed.twins).await;
    Ok(match outcome {
        Outcome::Waiting => SOON,
        // A refused Deployment is tried again; whose turn it is, is told to the queue.
        Outcome::Queued(_) => RESYNC_OF_TROUBLE,
        Outcome::Stalled(_) | Outcome::Applied(_) => {
            let is_ready = next.is(ConditionType::Ready);
            if is_ready { RESYNC } else { RESYNC_OF_TROUBLE }
        }
    })
}

/// Makes an Event when an agent gets a twin. What an operator finds when it starts is no news where the agent's status is
/// of its present generation: the one before it has said so, and an unchanged world gets no request.
async fn tell_of_twins(world: &World, agent: &Agent, twins: &[Twin]) {
    let key = &agent.key;
    let now_twins: BTreeSet<Key> = twins.iter().map(|twin| twin.key.clone()).collect();
    let is_told = {
        let mut told = lock(&world.told_twins);
        let is_known =
            told.get(key).map_or(now_twins.is_empty(), |known| now_twins.is_subset(known));
        if is_known {
            told.insert(key.clone(), now_twins.clone());
        }
        is_known
    };
    if is_told {
        return;
    }
    let event = events::of_twins(agent, twins, &world.instance, clock::now());
    match world.server.tell(&key.namespace, &event).await {
        Ok(()) | Err(api::Error::Conflict(..)) => {
            lock(&world.told_twins).insert(key.clone(), now_twins);
        }
        Err(error) => {
            let (namespace, name) = (&key.namespace, &key.name);
            warn!(namespace, name, reason = chain(&error), "an Event could not be made");
        }
    }
}
