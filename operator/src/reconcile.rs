//! One reconcile of one agent: gather, take its stance in the roll-out, plan, apply, update its status.
//!
//! Level-based: it looks at what is, never at what has happened. Where the live state matches the desired state it sends no
//! writes. `gather` only reads and `apply` only does; `plan` (with `validate` and `objects`) and `status` decide, and are pure.
//! `undecodable` stands for all of it where an agent cannot be decoded, `sweep` where it is gone.

mod gather;
pub(crate) mod validate;
mod plan;
mod apply;
pub(crate) mod status;
mod update_status;
pub(crate) mod undecodable;
pub(crate) mod sweep;

use std::time::Duration;

use crate::agent::Agent;
use crate::api;
use crate::context::Context;
use crate::rollouts;

/// A step that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// What is the case could not be learnt.
    #[error("gather")]
    Gather(#[source] api::Error),
    /// The objects could not be made.
    #[error("build")]
    Build(#[source] crate::objects::Error),
    /// The server did not take an object.
    #[error("apply")]
    Apply(#[source] api::Error),
    /// The server did not take the status.
    #[error("status")]
    Status(#[source] api::Error),
}

/// Whether another reconcile would be just as well off: nothing is wrong with the agent or the server.
pub(crate) fn is_passing(error: &Error) -> bool {
    match error {
        Error::Gather(error) | Error::Apply(error) | Error::Status(error) => {
            matches!(error, api::Error::Conflict(..) | api::Error::NotLeading)
        }
        Error::Build(_) => false,
    }
}

/// One reconcile. When to look again at the latest.
///
/// # Errors
/// [`Error`]: the step that failed.
pub(crate) async fn reconcile(context: &Context, agent: &Agent) -> Result<Duration, Error> {
    let observed = gather::gather(context, agent).await.map_err(Error::Gather)?;
    let stance = rollouts::stance(context, agent, &observed);
    let place = &context.settings().place;
    let plan =
        plan::plan(agent, &observed, &stance, place, &context.tenants).map_err(Error::Build)?;
    let outcome = apply::apply(context, agent, plan).await.map_err(Error::Apply)?;
    update_status::update(context, agent, &observed, &outcome).await.map_err(Error::Status)
}
