//! All that a reconcile may look at and act through: caches, reports, budgets, expectations, the server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use siem_agent_crds::condition::ConditionType;
use siem_agent_crds::siem_agent::{SidecarOf, TokenState};
use siem_agent_edge::clock;

use crate::agent::{Agent, Decoded};
use crate::api::Server;
use crate::apply::expectations::Expectations;
use crate::budget::{self, Allowed, Claimant, Heard, Shares};
use crate::caches::Scope;
use crate::checkpoint::Keeper;
use crate::forwarders::order::Target;
use crate::forwarders::report::{self, Reports};
use crate::hosts::Hosts;
use crate::key::Key;
use crate::leader_election::Leadership;
use crate::lock::lock;
use crate::metrics::Metrics;
use crate::names::Owned;
use crate::observed_object::ObservedObject;
use crate::records::{OwnedRecord, PodRecord};
use crate::release::Settings;
use crate::tenants::Tenants;
use crate::turns::Turns;
use crate::twins::{Twin, Twins};
use crate::workload::PodSight;

/// What the operator's parts share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) scopes: Vec<Scope>,
    pub(crate) server: Server,
    pub(crate) leadership: Arc<Leadership>,
    /// On Kubernetes, and on OpenShift.
    pub(crate) settings: [Settings; 2],
    pub(crate) is_openshift: AtomicBool,
    /// What the cluster's administrator says of tenants.
    pub(crate) tenants: Tenants,
    pub(crate) turns: Turns,
    pub(crate) reports: Reports,
    pub(crate) expectations: Expectations,
    pub(crate) hosts: Hosts,
    pub(crate) keeper: Keeper,
    pub(crate) metrics: Metrics,
    /// Who reports Events.
    pub(crate) instance: String,
    pub(crate) shares: Mutex<Shares>,
    pub(crate) twins: Mutex<Twins>,
    /// Of which twins each agent has an Event.
    pub(crate) told_twins: Mutex<BTreeMap<Key, BTreeSet<Key>>>,
}

impl Context {
    fn scope(&self, namespace: &str) -> Option<&Scope> {
        self.scopes.iter().find(|scope| scope.covers(namespace))
    }

    /// What this operator was started with, for the platform that the API server is of.
    pub(crate) fn settings(&self) -> &Settings {
        let [kubernetes, openshift] = &self.settings;
        if self.is_openshift.load(Ordering::Relaxed) { openshift } else { kubernetes }
    }

    /// Every agent's newest pod of its own Deployment.
    pub(crate) fn own_pods(&self) -> BTreeMap<Key, Arc<PodRecord>> {
        self.scopes.iter().flat_map(Scope::pods_by_agent).collect()
    }

    /// Whether workloads that host sidecars may be followed there.
    pub(crate) fn follows_hosts(&self, namespace: &str) -> bool {
        self.scope(namespace).is_some_and(Scope::follows_hosts)
    }

    /// UID and resourceVersion of a workload that hosts a sidecar or allows one, as the watch shows it.
    pub(crate) fn host(&self, namespace: &str, of: &SidecarOf) -> Option<(String, String)> {
        self.scope(namespace)?.host(namespace, of)
    }

    /// The workloads that carry an agent's sidecar, as the watch shows them.
    pub(crate) fn hosts_of(&self, key: &Key) -> Vec<SidecarOf> {
        let found = self.scope(&key.namespace).map(|scope| scope.hosts_of(Some(key)));
        found.into_iter().flatten().map(|(_, of)| of).collect()
    }

    /// Every agent whose sidecar some workload carries, whether there is such an agent or not.
    pub(crate) fn hosted(&self) -> BTreeSet<Key> {
        let all = self.scopes.iter().flat_map(|scope| scope.hosts_of(None));
        all.map(|(key, _)| key).collect()
    }

    /// Whether a pod of an agent's own Deployment is there, on its way out or not.
    pub(crate) fn has_own_pods(&self, key: &Key) -> bool {
        self.scope(&key.namespace).is_some_and(|scope| scope.has_own_pods(key))
    }

    /// An agent as the watch shows it.
    pub(crate) fn agent(&self, key: &Key) -> Option<Arc<Decoded>> {
        self.scope(&key.namespace)?.agent(key)
    }

    /// All agents that can be read.
    pub(crate) fn agents(&self) -> Vec<Arc<Decoded>> {
        self.scopes.iter().flat_map(Scope::agents).collect()
    }

    /// Whether nothing has been done for an agent yet.
    pub(crate) fn is_new(&self, key: &Key) -> bool {
        self.agent(key).is_some_and(|agent| {
            agent.0.as_ref().is_ok_and(|agent| {
                !agent.was_observed()
                    && self.expectations.applied(&agent.uid, Owned::Deployment).is_none()
                    && self.owned(key, Owned::Deployment).is_none()
                    && !self.hosts.knows(key)
            })
        })
    }

    /// An owned object as the watch shows it.
    pub(crate) fn owned(&self, key: &Key, which: Owned) -> Option<Arc<OwnedRecord>> {
        self.scope(&key.namespace)?.owned(key, which)
    }

    /// The agent's pods, the newest first.
    pub(crate) fn pods(&self, key: &Key) -> Vec<Arc<PodRecord>> {
        self.scope(&key.namespace).map(|scope| scope.pods(key)).unwrap_or_default()
    }

    /// The checkpoint's ConfigMap, as it was last seen or written.
    pub(crate) fn checkpoint(&self, agent: &Agent) -> Option<ObservedObject> {
        let uid = agent.uid.as_str();
        let cached = self.owned(&agent.key, Owned::Checkpoint).map(|kept| kept.observed.clone());
        let written = self
            .expectations
            .applied(uid, Owned::Checkpoint)
            .filter(|_| cached.is_some() || self.expectations.is_fresh(uid, Owned::Checkpoint));
        match (cached, written) {
            (Some(cached), Some(written)) if cached.is_older_than(&written) => Some(written),
            (cached, written) => cached.or(written),
        }
    }

    /// The agent's shares of its tenant's requests; for an agent that nobody has counted yet, or not with the APIs that it
    /// asks now, what they will be, until all are counted.
    pub(crate) fn allowed(&self, agent: &Agent) -> Allowed {
        let key = &agent.key;
        let known = lock(&self.shares).allowed(key).cloned();
        if let Some(known) = known.filter(|known| known.is_for(&agent.spec)) {
            return known;
        }
        // Of other tenants nothing has to be known.
        let own: Vec<_> = budget::tenants(&agent.spec).collect();
        if own.is_empty() {
            return Allowed::default();
        }
        let counted =
            self.counted(|other| budget::tenants(&other.spec).any(|tenant| own.contains(&tenant)));
        let counted = counted.allowed(key).filter(|counted| counted.is_for(&agent.spec)).cloned();
        let Some(allowed) = counted else {
            return budget::alone(agent, &self.tenants);
        };
        lock(&self.shares).given(key, allowed.clone());
        allowed
    }

    fn counted(&self, counts: impl Fn(&Agent) -> bool) -> Shares {
        let now = clock::now();
        let agents = self.agents();
        let claimants = agents
            .iter()
            .filter_map(|agent| agent.0.as_ref().ok())
            .filter(|agent| counts(agent))
            .flat_map(|agent| Claimant::of(agent, self.heard(agent), &self.tenants, now));
        Shares::of(&claimants.collect::<Vec<_>>(), &self.tenants)
    }

    fn heard(&self, agent: &Agent) -> Option<Heard> {
        let sighting = self.reports.sighting(&agent.key, &agent.uid, None);
        let report = sighting.report.as_ref()?;
        let token = if report::works(report) { TokenState::Valid } else { report.token.state };
        Some(Heard { token, valid: sighting.valid })
    }

    /// Counts and compares all agents again. Those whose share has changed, or whose twins have.
    pub(crate) fn count(&self) -> BTreeSet<Key> {
        let agents = self.agents();
        let readable = agents.iter().filter_map(|agent| agent.0.as_ref().ok());
        let (shares, twins) = (self.counted(|_| true), Twins::of(readable));
        let mut known_shares = lock(&self.shares);
        let mut known_twins = lock(&self.twins);
        let other_shares = shares.changed_since(&known_shares);
        let changed = other_shares.chain(twins.changed_since(&known_twins)).cloned().collect();
        *known_shares = shares;
        *known_twins = twins;
        changed
    }

    /// Counts, and takes it that the operator before this one has made the Events of twins, but of agents that have been
    /// changed since it looked at them.
    pub(crate) fn take_over_twins(&self) {
        self.count();
        let mut told = BTreeMap::new();
        for agent in self.agents() {
            let Ok(agent) = agent.0.as_ref() else { continue };
            if agent.is_observed() {
                let twins = self.twins(&agent.key).into_iter().map(|twin| twin.key).collect();
                told.insert(agent.key.clone(), twins);
            }
        }
        *lock(&self.told_twins) = told;
    }

    /// Agents that export the same events to the same receiver as this one, as of the last count.
    pub(crate) fn twins(&self, key: &Key) -> Vec<Twin> {
        lock(&self.twins).twins(key).to_vec()
    }

    /// Whom to ask for reports: every agent that may have one and whose pod is ready.
    pub(crate) fn targets(&self) -> Vec<Target> {
        // Of one that moves, the one that exports still.
        let hosted = self.hosts.pods();
        let is_hosted = |of: &Key| hosted.iter().any(|(key, _)| key == of);
        let own = self.scopes.iter().flat_map(Scope::pods_by_agent);
        let own = own.filter(|(key, _)| !is_hosted(key));
        let own: Vec<_> = own.map(|(key, pod)| (key, pod.sight.clone())).collect();
        let pods = own.into_iter().chain(hosted);
        pods.filter_map(|(key, pod)| self.target_of(key, pod)).collect()
    }

    /// Whom to ask for one agent's report.
    pub(crate) fn target(&self, key: &Key) -> Option<Target> {
        let own = || self.pods(key).first().map(|pod| pod.sight.clone());
        let pod = self.hosts.pod(key).or_else(own)?;
        self.target_of(key.clone(), pod)
    }

    fn target_of(&self, key: Key, pod: PodSight) -> Option<Target> {
        let agent = self.agent(&key)?;
        let agent = agent.0.as_ref().ok()?;
        let is_ready = agent.is(ConditionType::Ready);
        pod.is_ready.then_some(Target {
            key,
            agent_uid: agent.uid.clone(),
            pod_uid: pod.uid,
            address: pod.address?,
            is_ready,
        })
    }

    /// Forgets an agent that is gone.
    pub(crate) fn forget(&self, key: &Key) {
        self.reports.forget(key);
        self.expectations.forget(key);
        self.hosts.forget(key);
        self.turns.forget(key);
        self.keeper.forget(key);
        lock(&self.told_twins).remove(key);
    }
}
