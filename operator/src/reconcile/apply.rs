//! Does what `plan` says: server-side apply, then what is no longer wanted is removed. No decisions.

use futures_util::future::join_all;

use super::plan::{self, Plan, Then, Write};
use super::status::Outcome;
use crate::agent::Agent;
use crate::api;
use crate::apply::place::Place;
use crate::context::Context;
use crate::error_chain::chain;
use crate::observed_object::ObservedObject;

/// Applies and prunes. What the server refuses for good stalls the agent.
///
/// # Errors
/// The first request that did not succeed; the next reconcile does the rest.
pub(super) async fn apply(
    context: &Context,
    agent: &Agent,
    plan: Plan,
) -> Result<Outcome, api::Error> {
    let Plan { stages, removals, then } = plan;
    for stage in stages {
        let written = join_all(stage.iter().map(|one| write(context, agent, one))).await;
        for (one, written) in stage.iter().zip(written) {
            match written {
                Err(error @ api::Error::Rejected(..)) => {
                    return Ok(refused(context, agent, one, then, &error));
                }
                other => other?,
            }
        }
    }
    for (which, live) in removals {
        let (namespace, name) = (&agent.key.namespace, which.name(&agent.key.name));
        match context.server.delete(namespace, which, &name, &live, "no longer wanted").await {
            Err(error @ api::Error::Rejected(..)) => {
                return Ok(plan::refused(then, false, chain(&error)));
            }
            other => other?,
        }
        context.expectations.forget_object(&live.uid);
    }
    Ok(match then {
        Then::Stalled(problems) => Outcome::Stalled(problems),
        Then::Waiting => Outcome::Waiting,
        Then::Applied(objects) => Outcome::Applied(objects.into_applied()),
        Then::Queued(wait) => Outcome::Queued(wait),
        Then::Paused(pending) => Outcome::Paused(pending),
    })
}

async fn write(context: &Context, agent: &Agent, write: &Write) -> Result<(), api::Error> {
    let Write { desired, place, why, brings, halts: _ } = write;
    let (key, which) = (&agent.key, desired.which);
    let applied = context.server.apply(&key.namespace, which, &desired.object, place, why).await;
    let applied = applied.inspect_err(|error| {
        // The next reconcile asks what is there.
        if matches!((place, error), (Place::Free, api::Error::Conflict(..))) {
            context.expectations.set_hidden(key, which, true);
        }
    })?;
    if *brings {
        context.turns.accept(key);
    }
    context.expectations.note(&agent.uid, which, &desired.digest, ObservedObject::of(&applied));
    Ok(())
}

fn refused(
    context: &Context,
    agent: &Agent,
    write: &Write,
    then: Then,
    error: &api::Error,
) -> Outcome {
    let Some(release) = &write.halts else { return plan::refused(then, false, chain(error)) };
    let why = format!("the API server refuses its Deployment: {}", chain(error));
    context.turns.refuse(&agent.key, release, &why);
    plan::refused(then, true, why)
}
