//! What is the case on the server and at the forwarder, read from caches. No decisions.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt as _;
use kube::api::DynamicObject;
use siem_agent_crds::SiemAgent;

use super::status::is_untold;
use crate::api;
use crate::budget::Key;
use crate::caches;
use crate::checkpoint;
use crate::names::Owned;
use crate::reports::Sighting;
use crate::workload::{self, Workload};
use crate::world::World;

/// An object of an owned name, as it is on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    /// Kind, name and UID of its controller.
    pub(crate) controller: Option<(String, String, String)>,
    /// The digest of what we applied, as it is now.
    pub(crate) digest: Option<String>,
    /// Its `siemagent.dev/delivered`.
    pub(crate) delivered: Option<String>,
}

impl Live {
    /// Whether this agent controls it.
    pub(crate) fn is_owned_by(&self, agent: &SiemAgent) -> bool {
        self.controller.as_ref().is_some_and(|(.., uid)| Some(uid) == agent.metadata.uid.as_ref())
    }

    /// Whether an agent of the same name that is gone controls it: the garbage collector is about to take it.
    pub(crate) fn is_left_by_a_namesake(&self, agent: &SiemAgent) -> bool {
        !self.is_owned_by(agent)
            && self.controller.as_ref().is_some_and(|(kind, name, _)| {
                kind == "SiemAgent" && Some(name) == agent.metadata.name.as_ref()
            })
    }
}

/// Everything that a pass decides on.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) live: BTreeMap<Owned, Live>,
    /// What the server was asked for and has not.
    pub(crate) absent: BTreeSet<Owned>,
    pub(crate) workload: Workload,
    pub(crate) sighting: Sighting,
    /// This agent's share of the tenant's requests.
    pub(crate) requests_per_minute: u32,
    /// Agents that export the same source to the same target.
    pub(crate) twins: Vec<String>,
    /// Whether the Deployment on the server has been seen through by its controller: a difference is then not the
    /// user's change, but the operator's.
    pub(crate) is_settled: bool,
}

impl Observed {
    /// Whether something is still there that an earlier agent of the same name owned.
    pub(crate) fn has_leftovers(&self, agent: &SiemAgent) -> bool {
        self.live.values().any(|live| live.is_left_by_a_namesake(agent))
    }
}

/// Reads the caches, and asks the server for wanted objects that no cache has: they may be somebody else's. Of an agent of
/// which nothing was said yet there is most likely nothing: only what has stood in the way is asked for.
///
/// # Errors
/// When the server does not say.
pub(crate) async fn gather(
    world: &World,
    key: &Key,
    agent: &SiemAgent,
) -> Result<Observed, api::Error> {
    let uid = agent.metadata.uid.as_deref().unwrap_or_default();
    let (mut live, mut absent) = (BTreeMap::new(), BTreeSet::new());
    for which in Owned::ALL {
        let remembered = world.memory.applied(uid, which);
        let cached = world.owned(key, which).as_deref().map(of_object);
        if cached.is_some() {
            world.memory.set_hidden(key, which, false);
        }
        let found = match (cached, remembered) {
            // What we have just written is newer than what the watch has shown.
            (Some(cached), Some(remembered)) if is_older(&cached, &remembered) => Some(remembered),
            (Some(cached), _) => Some(cached),
            (None, Some(remembered)) if world.memory.is_fresh(uid, which) => Some(remembered),
            (None, _) if is_asked_for(world, key, agent, which) => {
                let there = world.server.look(&key.0, which, &which.name(&key.1)).await?;
                world.memory.set_hidden(key, which, there.is_some());
                if there.is_none() {
                    absent.insert(which);
                }
                there.as_ref().map(of_object)
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
    let is_settled = deployment.as_ref().is_some_and(|deployment| {
        let status = deployment.status.clone().unwrap_or_default();
        status.observed_generation == deployment.metadata.generation
    });
    Ok(Observed {
        live,
        absent,
        workload: workload::judge(deployment.as_ref(), &pods),
        sighting,
        requests_per_minute: world.share(key, agent),
        twins: world.twins(key, agent),
        is_settled,
    })
}

/// What matters of a live object.
pub(crate) fn of_object(object: &DynamicObject) -> Live {
    let controller = object.owner_references().iter().find(|owner| owner.controller == Some(true));
    Live {
        uid: object.metadata.uid.clone().unwrap_or_default(),
        resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
        controller: controller
            .map(|owner| (owner.kind.clone(), owner.name.clone(), owner.uid.clone())),
        digest: caches::digest_of(object),
        delivered: object.annotations().get(checkpoint::DELIVERED_ANNOTATION).cloned(),
    }
}

fn is_asked_for(world: &World, key: &Key, agent: &SiemAgent, which: Owned) -> bool {
    let is_hidden = world.memory.is_hidden(key, which);
    let is_wanted = match which {
        Owned::Claim => agent.spec.forwarder.persistence.enabled,
        Owned::NetworkPolicy => agent.spec.forwarder.network_policy.enabled,
        Owned::ServiceAccount | Owned::Config | Owned::Deployment => true,
        // Looked at when it is written; only a foreign one is looked at again.
        Owned::Checkpoint => return is_hidden,
    };
    is_wanted && (is_hidden || !is_untold(agent))
}

pub(crate) fn is_older(cached: &Live, remembered: &Live) -> bool {
    let number = |live: &Live| live.resource_version.parse::<u64>().unwrap_or(0);
    cached.uid == remembered.uid && number(cached) < number(remembered)
}
