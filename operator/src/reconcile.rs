//! One pass over one agent: gather, validate, build, apply, status.
//!
//! Level-based: it looks at what is, never at what has happened, and a pass over a world that is as it shall be sends no
//! request that changes anything.

pub(crate) mod gather;
pub(crate) mod validate;
pub(crate) mod build;
pub(crate) mod apply;
pub(crate) mod status;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use kube::core::error_boundary::InvalidObject;
use siem_agent_crds::siem_agent::{SiemAgent, SiemAgentStatus};
use tracing::{info, warn};

use self::apply::Progress;
use self::status::{Facts, Outcome};
use self::validate::{Cause, Problem};
use crate::budget::Key;
use crate::clock;
use crate::error_chain::chain;
use crate::names::Owned;
use crate::workload::Workload;
use crate::world::World;
use crate::{api, events};

/// A ready agent is looked at again even if nothing is heard of it.
const RESYNC: Duration = Duration::from_secs(10 * 60);
/// One that is not ready may need another word as time goes by.
const RESYNC_OF_TROUBLE: Duration = Duration::from_secs(60);
/// A change of an annotation alone makes a Deployment unsettled for a moment; it is not worth two writes.
const SETTLING: Duration = Duration::from_secs(3);
/// What is on its way out is gone in a moment.
const SOON: Duration = Duration::from_secs(2);

/// A step that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// What is the case could not be learnt.
    #[error("gather")]
    Gather(#[source] api::Error),
    /// The objects could not be made.
    #[error("build")]
    Build(#[source] build::Error),
    /// The server did not take an object.
    #[error("apply")]
    Apply(#[source] api::Error),
    /// The server did not take the status.
    #[error("status")]
    Status(#[source] api::Error),
}

/// Whether another pass would be just as well off: nothing is wrong with the agent or the server.
pub(crate) fn is_passing(error: &Error) -> bool {
    match error {
        Error::Gather(error) | Error::Apply(error) | Error::Status(error) => {
            matches!(error, api::Error::Conflict(..) | api::Error::NotLeading)
        }
        Error::Build(_) => false,
    }
}

/// One pass. When to look again at the latest.
///
/// # Errors
/// [`Error`]: the step that failed.
pub(crate) async fn reconcile(
    world: &World,
    key: &Key,
    agent: &SiemAgent,
) -> Result<Duration, Error> {
    let observed = gather::gather(world, key, agent).await.map_err(Error::Gather)?;
    let left_behind = observed.live.values().any(|live| live.is_left_by_a_namesake(agent));
    match validate::validate(agent, &observed, &world.settings) {
        Err(problems) => {
            write_status(world, key, agent, &observed, Outcome::Stalled(&problems)).await
        }
        Ok(_) if left_behind => {
            write_status(world, key, agent, &observed, Outcome::Waiting).await?;
            Ok(SOON)
        }
        Ok(validated) => {
            let objects = build::objects(&validated).map_err(Error::Build)?;
            match apply::apply(world, key, agent, &observed, objects).await {
                Ok(Progress::Done(objects)) => {
                    write_status(world, key, agent, &observed, Outcome::Applied(&objects)).await
                }
                Ok(Progress::Queued(objects)) => {
                    write_status(world, key, agent, &observed, Outcome::Queued(&objects)).await?;
                    Ok(SOON)
                }
                Err(error @ api::Error::Rejected(..)) => {
                    let problem = Problem { cause: Cause::Rejected, text: chain(&error) };
                    write_status(world, key, agent, &observed, Outcome::Stalled(&[problem])).await
                }
                Err(error) => Err(Error::Apply(error)),
            }
        }
    }
}

/// Computes the status, writes it if it is news, and tells of transitions.
async fn write_status(
    world: &World,
    key: &Key,
    agent: &SiemAgent,
    observed: &gather::Observed,
    outcome: Outcome<'_>,
) -> Result<Duration, Error> {
    let now = clock::now();
    let unsettled = world.memory.unsettled(key, observed.is_settled, World::now());
    let seen = agent.status.as_ref().map(|status| status.observed_generation);
    if seen == agent.metadata.generation
        && matches!(outcome, Outcome::Applied(_))
        && observed.live.contains_key(&Owned::Deployment)
        && unsettled.is_some_and(|unsettled| unsettled < SETTLING)
    {
        return Ok(SETTLING);
    }
    if observed.workload == Workload::Running && observed.is_settled {
        world.memory.rolled_out(key);
    }
    let facts = Facts {
        agent,
        outcome,
        workload: &observed.workload,
        sighting: &observed.sighting,
        twins: &observed.twins,
    };
    let next = status::status(&facts, now);
    let previous = agent.status.clone().unwrap_or_default();
    let ready = status::condition(&next, "Ready").cloned();
    if status::is_news(&previous, &next) {
        let resource_version = agent.metadata.resource_version.as_deref();
        let written = world
            .server
            .write_status(&world.leadership, (&key.0, &key.1, resource_version), &next)
            .await
            .map_err(Error::Status)?;
        if let (Some(uid), Some(version)) = (&agent.metadata.uid, written) {
            world.memory.note_status(uid, &version, next.clone());
        }
        let reason = ready.as_ref().map(|ready| ready.reason.as_str());
        info!(namespace = key.0, name = key.1, reason, "status changed");
        for event in events::of_change(agent, &previous, &next, &world.instance, now) {
            if let Err(error) = world.server.tell(&world.leadership, &key.0, &event).await {
                // The status says the same; an Event is not worth another try.
                warn!(
                    namespace = key.0,
                    name = key.1,
                    reason = chain(&error),
                    "an Event could not be made"
                );
            }
        }
    }
    let is_ready = ready.is_some_and(|ready| ready.status == "True");
    Ok(if is_ready { RESYNC } else { RESYNC_OF_TROUBLE })
}

/// An agent that this version cannot read: its status says so, and its forwarder goes on as it is.
///
/// # Errors
/// [`Error`].
pub(crate) async fn refuse(
    world: &World,
    key: &Key,
    invalid: &InvalidObject,
) -> Result<Duration, Error> {
    let live = world.server.read_agent(&key.0, &key.1).await.map_err(Error::Gather)?;
    let Some(live) = live else { return Ok(RESYNC) };
    let now = Time(jiff::Timestamp::from_second(clock::now().as_second()).unwrap_or_default());
    let message = format!(
        "this version of the operator cannot read the SiemAgent: {}; are CRD and operator of one release?",
        invalid.error.chars().take(800).collect::<String>()
    );
    let condition = |type_: &str, status: &str| Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: "Undecodable".to_owned(),
        message: message.clone(),
        observed_generation: live.metadata.generation,
        last_transition_time: now.clone(),
    };
    let previous: SiemAgentStatus =
        serde_json::from_value(live.data.get("status").cloned().unwrap_or_default())
            .unwrap_or_default();
    let mut next = SiemAgentStatus {
        observed_generation: live.metadata.generation.unwrap_or(0),
        conditions: vec![condition("Ready", "False"), condition("Stalled", "True")],
        ..previous.clone()
    };
    for condition in &mut next.conditions {
        if let Some(before) = status::condition(&previous, &condition.type_)
            && before.status == condition.status
        {
            condition.last_transition_time = before.last_transition_time.clone();
        }
    }
    if status::is_news(&previous, &next) {
        let ObjectMeta { resource_version, .. } = live.metadata;
        let metadata = (key.0.as_str(), key.1.as_str(), resource_version.as_deref());
        world
            .server
            .write_status(&world.leadership, metadata, &next)
            .await
            .map_err(Error::Status)?;
        warn!(namespace = key.0, name = key.1, reason = message, "an agent cannot be read");
    }
    Ok(RESYNC)
}
