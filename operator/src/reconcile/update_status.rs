//! The last step: writes the status and makes the Events that `status` and `events` decide on. No decisions.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use siem_agent_crds::SiemAgentStatus;
use siem_agent_crds::condition::ConditionType;
use siem_agent_edge::clock;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::status::{self, Decision, Facts, Outcome, Verdict};
use crate::agent::Agent;
use crate::context::Context;
use crate::error_chain::chain;
use crate::key::Key;
use crate::lock::lock;
use crate::observed::Observed;
use crate::twins::Twin;
use crate::{api, events};

/// Writes the status if it is news, and makes an Event of each transition. When to look again.
///
/// # Errors
/// When the server does not take the status.
pub(super) async fn update(
    context: &Context,
    agent: &Agent,
    observed: &Observed,
    outcome: &Outcome,
) -> Result<Duration, api::Error> {
    let now = clock::now();
    let facts = Facts {
        agent,
        outcome,
        workload: &observed.workload,
        sighting: &observed.sighting,
        twins: &observed.twins,
        allowed: &observed.allowed,
        has_deployment: observed.placed().is_some(),
        unsettled: context.expectations.unsettled(&agent.key, observed.is_settled, Instant::now()),
    };
    let (namespace, name) = (&agent.key.namespace, &agent.key.name);
    let Decision { verdict, again } = status::decide(&facts, now);
    match verdict {
        Verdict::Hold(reason) => {
            debug!(namespace, name, reason, "status held");
            return Ok(again);
        }
        Verdict::Unchanged => debug!(namespace, name, "status unchanged"),
        Verdict::Publish(next) => publish(context, agent, &next, now).await?,
    }
    report_twins(context, agent, &observed.twins, now).await;
    Ok(again)
}

async fn publish(
    context: &Context,
    agent: &Agent,
    next: &SiemAgentStatus,
    now: Timestamp,
) -> Result<(), api::Error> {
    let version = agent.metadata.resource_version.as_deref();
    let why = next.condition(ConditionType::Ready).map_or("", |ready| ready.reason.as_str());
    let written = context.server.write_status(&agent.key, version, next, why).await?;
    if let Some(version) = written {
        context.expectations.note_status(&agent.uid, &version, next.clone());
    }
    let previous = agent.status.clone().unwrap_or_default();
    for event in events::of_change(agent, &previous, next, &context.instance, now) {
        if let Err(error) = context.server.create_event(&agent.key.namespace, &event).await {
            // The status says the same; an Event is not worth another try.
            no_event(agent, &error);
        }
    }
    Ok(())
}

/// Makes an Event when an agent gets a twin. What an operator finds when it starts is no news where the agent's status is
/// of its present generation: the one before it has said so, and an unchanged fleet gets no request.
async fn report_twins(context: &Context, agent: &Agent, twins: &[Twin], now: Timestamp) {
    let key = &agent.key;
    let now_twins: BTreeSet<Key> = twins.iter().map(|twin| twin.key.clone()).collect();
    let is_reported = {
        let mut reported = lock(&context.told_twins);
        let is_known =
            reported.get(key).map_or(now_twins.is_empty(), |known| now_twins.is_subset(known));
        if is_known {
            reported.insert(key.clone(), now_twins.clone());
        }
        is_known
    };
    if is_reported {
        return;
    }
    let event = events::of_twins(agent, twins, &context.instance, now);
    match context.server.create_event(&key.namespace, &event).await {
        Ok(()) | Err(api::Error::Conflict(..)) => {
            lock(&context.told_twins).insert(key.clone(), now_twins);
        }
        Err(error) => no_event(agent, &error),
    }
}

fn no_event(agent: &Agent, error: &api::Error) {
    let (namespace, name) = (&agent.key.namespace, &agent.key.name);
    warn!(namespace, name, reason = chain(error), "an Event could not be made");
}
