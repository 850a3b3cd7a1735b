//! What is done for an agent that is gone, or cannot be read: its sidecar is taken out of workloads that host it, of all of
//! them or of those that do not allow it any more. Its own objects go with their owner.
//!
//! There is no finalizer: whoever deletes an agent, or uninstalls the operator, never waits. The label on the workload
//! remembers, also while no operator runs.

use std::time::Duration;

use siem_agent_edge::clock;
use tracing::warn;

use super::Error;
use super::gather::hosts;
use crate::context::Context;
use crate::error_chain::chain;
use crate::events;
use crate::host::Host;
use crate::key::Key;
use crate::objects::Part;

/// The last pod ends within its grace period, mostly.
const SOON: Duration = Duration::from_secs(5);
const WHY: &str = "its SiemAgent is gone, or not allowed there";

/// Takes out what an agent that is gone has left. `None`: nothing is left.
///
/// # Errors
/// [`Error`]; it is tried again.
pub(crate) async fn sweep(context: &Context, key: &Key) -> Result<Option<Duration>, Error> {
    take_out(context, key, |_| true).await
}

/// Takes out what is in workloads that do not allow it any more.
///
/// # Errors
/// [`Error`]; it is tried again.
pub(crate) async fn withdraw(context: &Context, key: &Key) -> Result<(), Error> {
    take_out(context, key, |host| host.allows.as_ref() != Some(&key.name)).await.map(drop)
}

async fn take_out(
    context: &Context,
    key: &Key,
    concerns: impl Fn(&Host) -> bool,
) -> Result<Option<Duration>, Error> {
    let mut again = None;
    for of in context.hosts_of(key) {
        let found = context.server.read_host(&key.namespace, &of).await.map_err(Error::Gather)?;
        let Some(object) = found else { continue };
        let host = Host::of(&object, of, &key.name);
        if !host.has_part() || !concerns(&host) {
            continue;
        }
        let pods = hosts::list(context, key, &host).await.map_err(Error::Gather)?;
        // The label stays until the last pod has ended, so that no other agent begins there before.
        let part = if host.has_sidecar {
            Part::leaving(&key.namespace, &host.of, &key.name)
        } else if pods.iter().any(|pod| pod.has_sidecar) {
            again = Some(SOON);
            continue;
        } else {
            Part::nothing(&key.namespace, &host.of)
        };
        let (namespace, name) = (&key.namespace, &key.name);
        let applied = context.server.apply_part(namespace, &host, name, &part.object, WHY).await;
        let applied = applied.map_err(Error::Apply)?;
        if host.has_sidecar {
            again = Some(SOON);
        }
        if applied.metadata.generation != host.generation {
            let event = events::of_host(key, &host, false, WHY, &context.instance, clock::now());
            if let Err(error) = context.server.create_event(namespace, &event).await {
                warn!(namespace, name, reason = chain(&error), "an Event could not be made");
            }
        }
    }
    Ok(again)
}
