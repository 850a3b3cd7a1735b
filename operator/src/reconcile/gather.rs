//! What is the case on the server and at the forwarder, read from caches. No decisions.

use std::collections::BTreeMap;

use siem_agent_crds::SiemAgent;

use crate::names::Owned;
use crate::reports::Sighting;
use crate::workload::{PodSight, Workload};

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
    pub(crate) workload: Workload,
    pub(crate) pod: Option<PodSight>,
    pub(crate) sighting: Sighting,
    /// This agent's share of the tenant's requests.
    pub(crate) requests_per_minute: u32,
    /// Agents that export the same source to the same target.
    pub(crate) twins: Vec<String>,
    /// Whether the Deployment on the server has been seen through by its controller: a difference is then not the
    /// user's change, but the operator's.
    pub(crate) is_settled: bool,
}
