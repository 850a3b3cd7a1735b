//! What a reconcile decides on, and where each part of it is looked for. Pure.

use std::collections::{BTreeMap, BTreeSet};

use siem_agent_crds::SiemAgent;

use crate::budget::Allowed;
use crate::forwarders::sighting::Sighting;
use crate::host::{Host, HostPod};
use crate::names::Owned;
use crate::objects::validated::Traits;
use crate::observed_object::{ObservedObject, Written};
use crate::twins::Twin;
use crate::workload::{PodSight, Workload};

/// Everything that a reconcile decides on.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) live: BTreeMap<Owned, ObservedObject>,
    /// What the server was asked for and has not.
    pub(crate) absent: BTreeSet<Owned>,
    /// What this operator has last written of each.
    pub(crate) written: BTreeMap<Owned, Written>,
    /// The digest that the Deployment of an agent that waits for its roll-out had when it was first seen or last written.
    pub(crate) kept: Option<String>,
    pub(crate) workload: Workload,
    /// The newest pod.
    pub(crate) pod: Option<PodSight>,
    pub(crate) sighting: Sighting,
    /// This agent's shares of the tenant's requests.
    pub(crate) allowed: Allowed,
    /// Agents that export the same source to the same target.
    pub(crate) twins: Vec<Twin>,
    /// Whether the Deployment on the server has been seen through by its controller: a difference is then not the
    /// user's change, but the operator's.
    pub(crate) is_settled: bool,
    /// Whether the watch has shown what this operator last wrote of it.
    pub(crate) is_shown: bool,
    /// The workload that is to host its sidecar; `None` where it has a Deployment of its own.
    pub(crate) host: Option<HostSight>,
    /// Other workloads that its sidecar is in, or whose pod with it has not ended.
    pub(crate) left: Vec<Left>,
    /// Whether a pod of its own Deployment is there, on its way out or not.
    pub(crate) has_own_pods: bool,
}

/// What is found of the workload that an agent names as its host.
#[derive(Debug)]
pub(crate) enum HostSight {
    /// This operator may not look.
    NotEnabled,
    /// The host does not exist.
    Missing,
    Found {
        host: Box<Host>,
        pods: Vec<HostPod>,
        /// What was last written of it.
        written: Option<Box<Written>>,
        /// Whether it is another object than the one that the sidecar was in.
        is_replaced: bool,
        /// Whether what was written there was changed back again and again.
        is_contested: bool,
    },
}

/// A workload that the sidecar is leaving, or has left by being deleted.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) host: Host,
    /// Whether it is there still.
    pub(crate) is_there: bool,
    pub(crate) pods: Vec<HostPod>,
}

impl HostSight {
    pub(crate) fn has_sidecar(&self) -> bool {
        matches!(self, Self::Found { host, .. } if host.has_sidecar)
    }

    pub(crate) fn traits(&self) -> Traits {
        match self {
            Self::Found { host, .. } => host.traits,
            Self::NotEnabled | Self::Missing => Traits::default(),
        }
    }
}

impl Observed {
    /// What the forwarder runs in, where it does: its own Deployment, or its part of a host.
    pub(crate) fn placed(&self) -> Option<&ObservedObject> {
        match &self.host {
            None => self.live.get(&Owned::Deployment),
            Some(HostSight::Found { host, .. }) => Some(&host.live).filter(|_| host.has_sidecar),
            Some(HostSight::NotEnabled | HostSight::Missing) => None,
        }
    }

    /// Whether something is still there that an earlier agent of the same name owned.
    pub(crate) fn has_leftovers(&self, agent: &SiemAgent) -> bool {
        self.live.values().any(|live| live.is_left_by_a_namesake(agent))
    }
}

/// What is known of an owned object without a request.
#[derive(Debug)]
pub(crate) struct Known<'a> {
    /// As the watch shows it.
    pub(crate) cached: Option<ObservedObject>,
    pub(crate) written: Option<&'a Written>,
    /// Whether there was something of this name that no watch shows.
    pub(crate) is_hidden: bool,
}

/// Where it is found out what there is of an owned object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// It is known.
    Here(Box<ObservedObject>),
    /// The server says: it may be somebody else's.
    Server,
    /// No such object matters.
    Nowhere,
}

/// Where to find out what there is of an owned object. Of an agent without a status there is most likely nothing: only what
/// has stood in the way is asked for.
pub(crate) fn source(agent: &SiemAgent, which: Owned, known: Known<'_>) -> Source {
    let Known { cached, written, is_hidden } = known;
    match (cached, written) {
        // What we have just written is newer than what the watch has shown.
        (Some(cached), Some(written)) if cached.is_older_than(&written.live) => {
            Source::Here(Box::new(written.live.clone()))
        }
        (Some(cached), _) => Source::Here(Box::new(cached)),
        (None, Some(written)) if written.is_fresh => Source::Here(Box::new(written.live.clone())),
        (None, _) if is_asked_for(agent, which, is_hidden) => Source::Server,
        (None, _) => Source::Nowhere,
    }
}

fn is_asked_for(agent: &SiemAgent, which: Owned, is_hidden: bool) -> bool {
    let is_wanted = match which {
        Owned::Claim => agent.spec.forwarder.persistence.enabled,
        Owned::NetworkPolicy => agent.spec.forwarder.network_policy.enabled,
        Owned::Config => true,
        Owned::ServiceAccount | Owned::Deployment => agent.spec.sidecar_of().is_none(),
        // Looked at when it is written; only a foreign one is looked at again.
        Owned::Checkpoint => return is_hidden,
    };
    is_wanted && (is_hidden || agent.was_observed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_asked_only_for_what_may_be_somebody_elses() {
        let text = "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata: {name: soc, namespace: ns, uid: u}\n\
                    spec: {source: {cloudApps: {url: 'https://t.example'}, auth: {tokenSecretRef: {name: a}}}, syslog: {host: h}}\n";
        let new = siem_agent_crds::manifest::read(text).unwrap();
        let mut old = new.clone();
        old.status = serde_json::from_value(serde_json::json!({"observedGeneration": 1})).ok();
        let asked = |agent: &SiemAgent, which, is_hidden| {
            let known = Known { cached: None, written: None, is_hidden };
            source(agent, which, known) == Source::Server
        };
        for which in [Owned::ServiceAccount, Owned::Config, Owned::Deployment] {
            assert!(!asked(&new, which, false) && asked(&new, which, true));
            assert!(asked(&old, which, false));
        }
        assert!(!asked(&old, Owned::Claim, true), "it is not wanted");
        assert!(!asked(&old, Owned::Checkpoint, false) && asked(&new, Owned::Checkpoint, true));
    }
}
