//! Reads what there is on the server and at the forwarder, from caches. No decisions: `observed` says what to ask for.

use std::collections::{BTreeMap, BTreeSet};

use super::observed::{self, Known, Observed, Source};
use crate::agent::Agent;
use crate::api;
use crate::budget::Share;
use crate::caches;
use crate::live::Live;
use crate::names::Owned;
use crate::workload;
use crate::world::World;

/// Reads the caches, and asks the server for what no cache has.
///
/// # Errors
/// When the server does not say.
pub(crate) async fn gather(world: &World, agent: &Agent) -> Result<Observed, api::Error> {
    let (key, uid) = (&agent.key, agent.uid.as_str());
    let written = world.memory.written(uid);
    let (mut live, mut absent) = (BTreeMap::new(), BTreeSet::new());
    for which in Owned::ALL {
        let cached = world.owned(key, which).as_deref().map(Live::of);
        if cached.is_some() {
            world.memory.set_hidden(key, which, false);
        }
        let is_hidden = world.memory.is_hidden(key, which);
        let known = Known { cached, written: written.get(&which), is_hidden };
        let found = match observed::source(agent, which, known) {
            Source::Here(live) => Some(live),
            Source::Server => {
                let there =
                    world.server.look(&key.namespace, which, &which.name(&key.name)).await?;
                world.memory.set_hidden(key, which, there.is_some());
                if there.is_none() {
                    absent.insert(which);
                }
                there.as_ref().map(Live::of)
            }
            Source::Nowhere => None,
        };
        if let Some(found) = found {
            live.insert(which, found);
        }
    }
    let pods: Vec<_> = world.pods(key).iter().map(|pod| workload::sight(pod)).collect();
    let shown = world.owned(key, Owned::Deployment);
    let deployment = shown.as_deref().and_then(caches::deployment);
    let is_shown = shown.as_deref().map(Live::of).is_some_and(|shown| {
        let written = written.get(&Owned::Deployment);
        written.is_none_or(|written| !shown.is_older_than(&written.live))
    });
    let Share { requests, others } = world.share(agent);
    Ok(Observed {
        live,
        absent,
        written,
        kept: world.memory.kept(uid),
        workload: workload::judge(deployment.as_ref(), &pods),
        sighting: world.reports.sighting(key, uid, pods.first().map(|pod| pod.uid.as_str())),
        pod: pods.into_iter().next(),
        requests_per_minute: requests,
        others,
        twins: world.twins(key),
        is_settled: deployment.as_ref().is_some_and(observed::is_settled),
        is_shown,
    })
}
