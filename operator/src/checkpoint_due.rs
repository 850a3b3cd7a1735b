//! Whether a forwarder's report has something to keep, and the line that its agent then waits in. No requests.

use siem_agent_crds::report::Report;
use siem_agent_edge::clock;
use tokio::time::Instant;

use crate::agent::Agent;
use crate::checkpoint::decide as checkpoint;
use crate::context::Context;
use crate::lock::lock;
use crate::names::Owned;

/// Looks whether a report has something to keep.
pub(crate) fn look(world: &Context, agent: &Agent, report: &Report) {
    let key = &agent.key;
    let is_due = is_due(world, agent, report).is_some();
    let mut pace = lock(&world.keeper.limiter);
    if is_due {
        pace.wants(key, Instant::now());
        drop(pace);
        world.keeper.wake.notify_one();
    } else {
        pace.settled(key);
    }
}

/// Whether there is something to keep, and if so, whether somebody else has written into what is there.
pub(crate) fn is_due(world: &Context, agent: &Agent, report: &Report) -> Option<bool> {
    if agent.is_paused() {
        return None;
    }
    let live = world.checkpoint(agent);
    let written = world.expectations.applied(&agent.uid, Owned::Checkpoint);
    let is_drifted = match (&live, written) {
        (Some(live), Some(written)) => live.digest != written.digest,
        _ => false,
    };
    let is_ahead =
        live.as_ref().is_some_and(|live| checkpoint::is_ahead(live.latest, clock::now()));
    let marker = live.and_then(|live| live.delivered);
    let is_due = is_drifted || is_ahead || checkpoint::is_due(marker.as_deref(), report);
    (is_due && !world.expectations.is_hidden(&agent.key, Owned::Checkpoint)).then_some(is_drifted)
}
