//! Does what `plan` says: server-side apply, then what is no longer wanted is removed. No decisions.

use futures_util::future::join_all;
use siem_agent_edge::clock;
use tracing::warn;

use super::plan::{self, PartWrite, Plan, Then, Write};
use super::status::Outcome;
use crate::agent::Agent;
use crate::api;
use crate::apply::place::Place;
use crate::context::Context;
use crate::error_chain::chain;
use crate::events;
use crate::host::Host;
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
    let Plan { stages, removals, parts, then } = plan;
    for stage in stages {
        let written = join_all(stage.iter().map(|one| write(context, agent, one))).await;
        for (one, written) in stage.iter().zip(written) {
            match written {
                Err(error @ api::Error::Rejected(..)) => {
                    return Ok(refused(context, agent, one.halts.as_ref(), then, &error));
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
    for one in &parts {
        match write_part(context, agent, one).await {
            Err(error @ api::Error::Rejected(..)) => {
                return Ok(refused(context, agent, one.halts.as_ref(), then, &error));
            }
            Err(api::Error::Failed(what, kube::Error::Api(status))) if status.code == 403 => {
                return Ok(plan::not_enabled(&what));
            }
            other => other?,
        }
    }
    Ok(match then {
        Then::Stalled(problems) => Outcome::Stalled(problems),
        Then::Waiting => Outcome::Waiting,
        Then::Moving(before) => Outcome::Moving(before),
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

/// Changes a workload that is somebody else's, and says so in an Event where its pods are started anew.
async fn write_part(context: &Context, agent: &Agent, write: &PartWrite) -> Result<(), api::Error> {
    let PartWrite { host, part, why, brings, halts: _ } = write;
    let key = &agent.key;
    let applied =
        context.server.apply_part(&key.namespace, host, &key.name, &part.object, why).await?;
    if *brings {
        context.turns.accept(key);
    }
    let after = Host::of(&applied, host.of.clone(), &key.name);
    if applied.metadata.generation != host.generation {
        let (instance, now) = (&context.instance, clock::now());
        let of_host = events::of_host(key, host, after.has_sidecar, why, instance, now);
        for event in [events::of_its_agent(agent, &of_host), of_host] {
            // The log says the same; an Event is not worth another try.
            if let Err(error) = context.server.create_event(&key.namespace, &event).await {
                let (namespace, name) = (&key.namespace, &key.name);
                warn!(namespace, name, reason = chain(&error), "an Event could not be made");
            }
        }
    }
    if let Some(digest) = &after.live.digest {
        context.expectations.keep_written(&agent.uid, digest);
    }
    context.hosts.note(key, &part.digest, after, *why == "drift");
    Ok(())
}

fn refused(
    context: &Context,
    agent: &Agent,
    halts: Option<&String>,
    then: Then,
    error: &api::Error,
) -> Outcome {
    let Some(release) = halts else { return plan::refused(then, false, chain(error)) };
    let why = format!("the API server refuses the forwarder's place: {}", chain(error));
    context.turns.refuse(&agent.key, release, &why);
    plan::refused(then, true, why)
}
