//! What the API server shows, kept current by watches and cut down to what is needed.
//!
//! Of owned objects that is who owns them, a digest of what we applied, and how far a Deployment is; of ReplicaSets their
//! owner; of pods their descent and state; of agents everything but who wrote it. So a thousand agents take a few megabytes.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::{Arc, OnceLock};

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use siem_agent_crds::siem_agent::{HostKind, SidecarOf};
use tracing::warn;

use crate::agent::Decoded;
use crate::error_chain::chain;
use crate::key::Key;
use crate::lineage::{self, Kin, Member};
use crate::names::{MANAGED_BY_LABEL, MANAGER, Owned, host_resource};
use crate::partial::{Metadata, Pod};
use crate::records::{HostRecord, OwnedRecord, PodRecord, agent_of, agent_of_host};
use crate::store::{Store, store};

/// A first list comes in pages of so many objects, each held whole before it is cut down: the server takes objects of up to
/// 1.5 MB, and they may take many times as much once they are read.
const PAGE: u32 = 8;
/// Of workloads of which the server sends metadata alone, and most are dropped.
const HOSTS_PAGE: u32 = 100;
/// Of agents, whose raw filters have any form.
const AGENTS_PAGE: u32 = 4;

/// The caches of one namespace, or of all.
#[derive(Debug)]
pub(crate) struct Scope {
    /// `None`: all namespaces.
    namespace: Option<String>,
    agents: Store<Decoded>,
    /// By kind.
    owned: BTreeMap<&'static str, Store<OwnedRecord>>,
    /// Between a Deployment and its pods.
    replica_sets: Store<Option<Member>>,
    pods: Store<PodRecord>,
    /// Workloads that host a sidecar or allow one, by kind; only where the operator may follow them.
    hosts: OnceLock<Vec<(HostKind, Store<HostRecord>)>>,
}

/// What a watch has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Something about this agent.
    Agent(Key),
    /// An object of this agent is gone: its UID.
    Gone(Key, String),
    /// A whole list of agents: the server may be another one, with another CRD.
    Listed,
    /// A whole list of something else: what has gone in the meantime is not told one by one.
    Relisted,
}

/// A stream of what is seen; it has to be polled for the caches to stay current.
pub(crate) type Sights = futures_util::stream::BoxStream<'static, Seen>;

impl Scope {
    /// Starts the watches.
    pub(crate) fn new(client: &Client, namespace: Option<String>) -> (Self, Sights) {
        let mut sights: Vec<Sights> = Vec::new();
        let agent_api: Api<Decoded> = match &namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        let all = watcher::Config::default().page_size(PAGE);
        let stream = watcher(agent_api, all.clone().page_size(AGENTS_PAGE)).default_backoff();
        let of_agents = Followed {
            kind: "SiemAgent",
            listed: Seen::Listed,
            keep: |agent: Decoded, _| agent,
            agent: |agent| {
                Some(Key::new(agent.meta().namespace.as_ref()?, agent.meta().name.as_ref()?))
            },
        };
        let (agents, seen_agents) = follow(stream, of_agents);
        sights.push(seen_agents);
        let mine = all.clone().labels(&format!("{MANAGED_BY_LABEL}={MANAGER}"));
        let mut owned = BTreeMap::new();
        for which in Owned::ALL {
            if owned.contains_key(which.kind()) {
                continue;
            }
            let resource = which.resource();
            let api: Api<DynamicObject> = match &namespace {
                Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
                None => Api::all_with(client.clone(), &resource),
            };
            let of_owned = Followed {
                kind: which.kind(),
                listed: Seen::Relisted,
                keep: |object, kind| OwnedRecord::of(&object, kind),
                agent: agent_of::<DynamicObject>,
            };
            let (store, seen_owned) =
                follow(watcher(api, mine.clone()).default_backoff(), of_owned);
            owned.insert(which.kind(), store);
            sights.push(seen_owned);
        }
        let sets = OfMetadata {
            kind: "ReplicaSet",
            resource: ApiResource::erase::<ReplicaSet>(&()),
            config: mine.clone(),
            concerning: Some,
            keep: |set: Metadata, _| Member::of(&set.metadata),
            agent: agent_of,
        };
        let (replica_sets, seen_sets) = sets.follow(client, namespace.as_deref());
        sights.push(seen_sets);
        let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
        let pod_api: Api<Pod> = match &namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let of_pods = Followed {
            kind: "Pod",
            listed: Seen::Relisted,
            keep: |pod, _| PodRecord::of(&pod),
            agent: agent_of::<Pod>,
        };
        let (pods, seen_pods) = follow(watcher(pod_api, mine).default_backoff(), of_pods);
        sights.push(seen_pods);
        let hosts = OnceLock::new();
        let scope = Self { namespace, agents, owned, replica_sets, pods, hosts };
        (scope, futures_util::stream::select_all(sights).boxed())
    }

    /// Follows the workloads that host a sidecar or allow one, of which the server sends metadata alone. All others are
    /// dropped as they come: no selector finds an annotation.
    pub(crate) fn follow_hosts(&self, client: &Client) -> Sights {
        let mut sights: Vec<Sights> = Vec::new();
        let mut stores = Vec::new();
        for kind in HostKind::ALL {
            let hosts = OfMetadata {
                kind: kind.as_str(),
                resource: host_resource(kind),
                config: watcher::Config::default().page_size(HOSTS_PAGE),
                concerning,
                keep: |host: Metadata, _| HostRecord::of(host),
                agent: agent_of_host,
            };
            let (store, seen) = hosts.follow(client, self.namespace.as_deref());
            stores.push((kind, store));
            sights.push(seen);
        }
        // It is called once.
        let _ = self.hosts.set(stores);
        futures_util::stream::select_all(sights).boxed()
    }

    /// Waits until every workload has been seen that hosts a sidecar or allows one.
    pub(crate) async fn warm_hosts(&self) {
        for (_, store) in self.hosts.get().into_iter().flatten() {
            store.warm().await;
        }
    }

    /// Whether hosts are followed.
    pub(crate) fn follows_hosts(&self) -> bool {
        self.hosts.get().is_some()
    }

    /// A workload's UID and resourceVersion, if it hosts a sidecar or allows one.
    pub(crate) fn host(&self, namespace: &str, of: &SidecarOf) -> Option<(String, String)> {
        let (_, store) = self.hosts.get()?.iter().find(|(kind, _)| *kind == of.kind)?;
        let host = store.get(namespace, &of.name)?;
        Some((host.uid.clone()?, host.resource_version.clone()?))
    }

    /// The workloads that carry the sidecar of an agent, or of any.
    pub(crate) fn hosts_of(&self, key: Option<&Key>) -> Vec<(Key, SidecarOf)> {
        let mut found = Vec::new();
        for (kind, store) in self.hosts.get().into_iter().flatten() {
            for host in store.all() {
                let Some(agent) = &host.agent else { continue };
                let of = Key::new(&host.key.namespace, agent);
                if key.is_none_or(|key| *key == of) {
                    found.push((of, SidecarOf { kind: *kind, name: host.key.name.clone() }));
                }
            }
        }
        found
    }

    /// Whether a pod of an agent's own Deployment is there still, on its way out or not.
    pub(crate) fn has_own_pods(&self, key: &Key) -> bool {
        let account = Owned::ServiceAccount.name(&key.name);
        let pods = self.pods.some(&key.namespace, |pod| {
            pod.agent.as_deref() == Some(&*key.name)
                && pod.descent.runs_as(&account)
                && !pod.has_ended
        });
        !pods.is_empty()
    }

    /// The namespace, where it is not all of them.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Whether objects of this namespace are here.
    pub(crate) fn covers(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|own| own == namespace)
    }

    /// Waits until every watch has seen a whole list.
    pub(crate) async fn warm(&self) {
        self.agents.warm().await;
        self.replica_sets.warm().await;
        self.pods.warm().await;
        for store in self.owned.values() {
            store.warm().await;
        }
    }

    /// An agent.
    pub(crate) fn agent(&self, key: &Key) -> Option<Arc<Decoded>> {
        self.agents.get(&key.namespace, &key.name)
    }

    /// All agents.
    pub(crate) fn agents(&self) -> Vec<Arc<Decoded>> {
        self.agents.all()
    }

    /// An owned object.
    pub(crate) fn owned(&self, key: &Key, which: Owned) -> Option<Arc<OwnedRecord>> {
        self.owned.get(which.kind())?.get(&key.namespace, &which.name(&key.name))
    }

    /// The pods of the agent's Deployment that are not on their way out, the newest first.
    pub(crate) fn pods(&self, key: &Key) -> Vec<Arc<PodRecord>> {
        // The label alone proves nothing, but a pod without it is not worth a look at its owners.
        let mut pods = self.pods.some(&key.namespace, |pod| {
            pod.agent.as_deref() == Some(&*key.name)
                && lineage::forwarder_of(&key.namespace, &pod.descent, self).as_ref() == Some(key)
        });
        pods.sort_by(|one, two| two.age_key().cmp(&one.age_key()));
        pods
    }

    /// Every agent's newest pod.
    pub(crate) fn pods_by_agent(&self) -> BTreeMap<Key, Arc<PodRecord>> {
        let mut newest: BTreeMap<Key, Arc<PodRecord>> = BTreeMap::new();
        for (namespace, pod) in self.pods.all_placed() {
            let Some(key) = lineage::forwarder_of(&namespace, &pod.descent, self) else { continue };
            let is_newer = newest.get(&key).is_none_or(|there| there.age_key() < pod.age_key());
            if is_newer {
                newest.insert(key, pod);
            }
        }
        newest
    }
}

impl Kin for Scope {
    fn replica_set(&self, namespace: &str, name: &str) -> Option<Member> {
        self.replica_sets.get(namespace, name)?.as_ref().clone()
    }

    fn deployment(&self, namespace: &str, name: &str) -> Option<Member> {
        let deployment = self.owned.get(Owned::Deployment.kind())?.get(namespace, name)?;
        deployment.deployment.as_ref()?.member.clone()
    }

    fn agent(&self, namespace: &str, name: &str) -> Option<Member> {
        let agent = self.agents.get(namespace, name)?;
        Member::of(agent.meta()).filter(|_| agent.meta().deletion_timestamp.is_none())
    }
}

/// What becomes of what a watch shows.
struct Followed<K, T> {
    kind: &'static str,
    /// What a whole list is.
    listed: Seen,
    keep: fn(K, &'static str) -> T,
    agent: fn(&K) -> Option<Key>,
}

/// A watch of objects of which the server sends metadata alone. One for all kinds of a record: what follows is compiled
/// once.
struct OfMetadata<T> {
    kind: &'static str,
    resource: ApiResource,
    config: watcher::Config,
    concerning: fn(Event<Metadata>) -> Option<Event<Metadata>>,
    keep: fn(Metadata, &'static str) -> T,
    agent: fn(&Metadata) -> Option<Key>,
}

impl<T: Send + Sync + 'static> OfMetadata<T> {
    fn follow(self, client: &Client, namespace: Option<&str>) -> (Store<T>, Sights) {
        let Self { kind, resource, config, concerning, keep, agent } = self;
        let api: Api<Metadata> = match namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let stream =
            watcher(api, config).filter_map(move |event| ready(event.map(concerning).transpose()));
        follow(stream.default_backoff(), Followed { kind, listed: Seen::Relisted, keep, agent })
    }
}

/// What a watch shows, but for workloads that have nothing to do with sidecars. One that has no longer is as good as gone.
fn concerning(event: Event<Metadata>) -> Option<Event<Metadata>> {
    match event {
        Event::Apply(host) if agent_of_host(&host).is_none() => Some(Event::Delete(host)),
        Event::InitApply(host) if agent_of_host(&host).is_none() => None,
        event => Some(event),
    }
}

/// Follows a watch into a store of its own.
fn follow<K, T>(
    stream: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    of: Followed<K, T>,
) -> (Store<T>, Sights)
where
    K: Resource + Send + 'static,
    T: Send + Sync + 'static,
{
    let Followed { kind, listed, keep, agent } = of;
    let (store, mut writer) = store();
    let sights = stream.filter_map(move |event| {
        let seen = match &event {
            Ok(Event::Apply(object)) => agent(object).map(Seen::Agent),
            Ok(Event::Delete(object)) => {
                let uid = object.meta().uid.clone().unwrap_or_default();
                agent(object).map(|key| Seen::Gone(key, uid))
            }
            Ok(Event::InitDone) => Some(listed.clone()),
            Ok(Event::Init | Event::InitApply(_)) => None,
            Err(error) => {
                warn!(kind, reason = chain(error), "watch interrupted, reconnecting");
                None
            }
        };
        // What is seen is in the store by then.
        if let Ok(event) = event {
            writer.take(event, |object| keep(object, kind));
        }
        ready(seen)
    });
    (store, sights.boxed())
}
