//! What is the case on the server and at the forwarder, read from caches. No decisions.

use std::collections::{BTreeMap, BTreeSet};

use crate::agent::Agent;
use crate::api;
use crate::budget::{Others, Share};
use crate::caches;
use crate::live::Live;
use crate::names::Owned;
use crate::reports::Sighting;
use crate::twins::Twin;
use crate::workload::{self, PodSight, Workload};
use crate::world::World;

/// Everything that a pass decides on.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) live: BTreeMap<Owned, Live>,
    /// What the server was asked for and has not.
    pub(crate) absent: BTreeSet<Owned>,
    pub(crate) workload: Workload,
    /// The newest pod.
    pub(crate) pod: Option<PodSight>,
    pub(crate) sighting: Sighting,
    /// This agent's share of the tenant's requests.
    pub(crate) requests_per_minute: u32,
    /// With whom the tenant is shared.
    pub(crate) others: Others,
    /// Agents that export the same source to the same target.
    pub(crate) twins: Vec<Twin>,
    /// Whether the Deployment on the server has been seen through by its controller: a difference is then not the
    /// user's change, but the operator's.
    pub(crate) is_settled: bool,
    /// Whether the watch has shown what this operator last wrote of it.
    pub(crate) is_shown: bool,
}

impl Observed {
    /// Whether something is still there that an earlier agent of the same name owned.
    pub(crate) fn has_leftovers(&self, agent: &Agent) -> bool {
        self.live.values().any(|live| live.is_left_by_a_namesake(agent))
    }
}

/// Reads the caches, and asks the server for wanted objects that no cache has: they may be somebody else's. Of an agent of
/// which nothing was said yet there is most likely nothing: only what has stood in the way is asked for.
///
/// # Errors
/// When the server does not say.
pub(crate) async fn gather(world: &World, agent: &Agent) -> Result<Observed, api::Error> {
    let (key, uid) = (&agent.key, agent.uid.as_str());
    let (mut live, mut absent) = (BTreeMap::new(), BTreeSet::new());
    for which in Owned::ALL {
        let remembered = world.memory.applied(uid, which);
        let cached = world.owned(key, which).as_deref().map(Live::of);
        if cached.is_some() {
            world.memory.set_hidden(key, which, false);
        }
        let found = match (cached, remembered) {
            // What we have just written is newer than what the watch has shown.
            (Some(cached), Some(remembered)) if cached.is_older_than(&remembered) => {
                Some(remembered)
            }
            (Some(cached), _) => Some(cached),
            (None, Some(remembered)) if world.memory.is_fresh(uid, which) => Some(remembered),
            (None, _) if is_asked_for(world, agent, which) => {
                let there =
                    world.server.look(&key.namespace, which, &which.name(&key.name)).await?;
                world.memory.set_hidden(key, which, there.is_some());
                if there.is_none() {
                    absent.insert(which);
                }
                there.as_ref().map(Live::of)
            }
            (None, _) => None,
        };
        if let Some(found) = found {
            live.insert(which, found);
        }
    }
    let pods: Vec<_> = world.pods(key).iter().map(|pod| workload::sight(pod)).collect();
    let deployment = world.owned(key, Owned::Deployment).as_deref().and_then(caches::deployment);
    let sighting = world.reports.sighting(key, uid, pods.first().map(|pod| pod.uid.as_str()));
    let is_shown = world.owned(key, Owned::Deployment).is_some_and(|shown| {
        let written = world.memory.applied(uid, Owned::Deployment);
        written.is_none_or(|written| !Live::of(&shown).is_older_than(&written))
    });
    let is_settled = deployment.as_ref().is_some_and(|deployment| {
        let status = deployment.status.clone().unwrap_or_default();
        status.observed_generation == deployment.metadata.generation
    });
    let Share { requests, others } = world.share(agent);
    Ok(Observed {
        live,
        absent,
        workload: workload::judge(deployment.as_ref(), &pods),
        pod: pods.into_iter().next(),
        sighting,
        requests_per_minute: requests,
        others,
        twins: world.twins(key),
        is_settled,
        is_shown,
    })
}

fn is_asked_for(world: &World, agent: &Agent, which: Owned) -> bool {
    let is_hidden = world.memory.is_hidden(&agent.key, which);
    let is_wanted = match which {
        Owned::Claim => agent.spec.forwarder.persistence.enabled,
        Owned::NetworkPolicy => agent.spec.forwarder.network_policy.enabled,
        Owned::ServiceAccount | Owned::Config | Owned::Deployment => true,
        // Looked at when it is written; only a foreign one is looked at again.
        Owned::Checkpoint => return is_hidden,
    };
    is_wanted && (is_hidden || agent.was_observed())
}
