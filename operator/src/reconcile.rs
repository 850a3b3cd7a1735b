//! One pass over one agent: gather, validate, build, apply, tell.
//!
//! Level-based: it looks at what is, never at what has happened, and a pass over a world that is as it shall be sends no
//! request that changes anything. `refuse` stands for all of it where an agent cannot be read.

pub(crate) mod gather;
pub(crate) mod validate;
pub(crate) mod build;
pub(crate) mod apply;
pub(crate) mod status;
pub(crate) mod tell;
pub(crate) mod refuse;

use std::time::Duration;

use siem_agent_crds::SiemAgent;

use self::gather::Observed;
use self::status::Outcome;
use crate::agent::Agent;
use crate::api;
use crate::names::Owned;
use crate::rollout::Stance;
use crate::turns;
use crate::world::World;

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
    Tell(#[source] api::Error),
}

/// Whether another pass would be just as well off: nothing is wrong with the agent or the server.
pub(crate) fn is_passing(error: &Error) -> bool {
    match error {
        Error::Gather(error) | Error::Apply(error) | Error::Tell(error) => {
            matches!(error, api::Error::Conflict(..) | api::Error::NotLeading)
        }
        Error::Build(_) => false,
    }
}

/// One pass. When to look again at the latest.
///
/// # Errors
/// [`Error`]: the step that failed.
pub(crate) async fn reconcile(world: &World, agent: &Agent) -> Result<Duration, Error> {
    let observed = gather::gather(world, agent).await.map_err(Error::Gather)?;
    let stance = turns::stance(world, agent, &observed);
    let place = &world.settings().place;
    let outcome = match validate::validate(agent, &observed, &stance, place) {
        _ if let Some(problem) = validate::refused(agent, &world.tenants) => {
            stop(world, agent, &observed, &stance).await?;
            Outcome::Stalled(vec![problem])
        }
        Err(problems) => Outcome::Stalled(problems),
        Ok(_) if observed.has_leftovers(agent) => Outcome::Waiting,
        Ok(validated) => {
            let objects = build::objects(&validated).map_err(Error::Build)?;
            apply::apply(world, agent, &observed, &stance, objects).await.map_err(Error::Apply)?
        }
    };
    tell::tell(world, agent, &observed, &outcome).await.map_err(Error::Tell)
}

/// Stops a forwarder that may run no longer, where there is one, and keeps what it needs to resume.
async fn stop(
    world: &World,
    agent: &Agent,
    observed: &Observed,
    stance: &Stance,
) -> Result<(), Error> {
    if !observed.live.contains_key(&Owned::Deployment) {
        return Ok(());
    }
    let mut suspended = SiemAgent::clone(agent);
    suspended.spec.suspend = true;
    // What makes it impossible does not keep it running.
    suspended.spec.placement = None;
    let place = &world.settings().place;
    let Ok(validated) = validate::validate(&suspended, observed, stance, place) else {
        return Ok(());
    };
    let objects = build::objects(&validated).map_err(Error::Build)?;
    apply::apply(world, agent, observed, stance, objects).await.map(drop).map_err(Error::Apply)
}
