//! What the API server shows, kept current by watches and cut down to what is needed.
//!
//! Of owned objects that is their metadata, a digest of what we applied, and a Deployment's status; of ReplicaSets their
//! owner; of pods their account and status; of agents everything but who wrote it. So a thousand agents take a few megabytes.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::ready;
use std::hash::Hash;
use std::sync::{Arc, OnceLock};

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use siem_agent_crds::SiemAgent;
use siem_agent_crds::siem_agent::{ALLOW_SIDECAR_ANNOTATION, HostKind, SidecarOf};
use tracing::warn;

use crate::agent::Decoded;
use crate::error_chain::chain;
use crate::key::Key;
use crate::lineage::{self, Kin, Member};
use crate::names::{AGENT_LABEL, MANAGED_BY_LABEL, MANAGER, Owned, SIDECAR_LABEL, host_resource};
use crate::trim::{Metadata, Pod, trim_host, trim_owned, trim_pod, trim_replica_set};

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
    owned: BTreeMap<&'static str, Store<DynamicObject>>,
    /// Between a Deployment and its pods.
    replica_sets: Store<Metadata>,
    pods: Store<Pod>,
    /// Workloads that host a sidecar or allow one, by kind; only where the operator may follow them.
    hosts: OnceLock<Vec<(HostKind, Store<Metadata>)>>,
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
        let (agents, writer) = reflector::store();
        let all = watcher::Config::default().page_size(PAGE);
        let stream = watcher(agent_api, all.clone().page_size(AGENTS_PAGE))
            .default_backoff()
            .reflect(writer);
        sights.push(seen(stream, "SiemAgent", Seen::Listed, |agent: &Decoded| {
            Some(Key::new(agent.meta().namespace.as_ref()?, agent.meta().name.as_ref()?))
        }));
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
            let writer = reflector::store::Writer::new(resource);
            owned.insert(which.kind(), writer.as_reader());
            let stream =
                watcher(api, mine.clone()).modify(trim_owned).default_backoff().reflect(writer);
            sights.push(seen(stream, which.kind(), Seen::Relisted, agent_of));
        }
        let sets = OfMetadata {
            kind: "ReplicaSet",
            resource: ApiResource::erase::<ReplicaSet>(&()),
            config: mine.clone(),
            concerning: Some,
            trim: trim_replica_set,
            agent: agent_of,
        };
        let (replica_sets, seen_sets) = sets.follow(client, namespace.as_deref());
        sights.push(seen_sets);
        let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
        let pod_api: Api<Pod> = match &namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let writer = reflector::store::Writer::new(resource);
        let pods = writer.as_reader();
        let stream = watcher(pod_api, mine).modify(trim_pod).default_backoff().reflect(writer);
        sights.push(seen(stream, "Pod", Seen::Relisted, agent_of));
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
                trim: trim_host,
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
            let _ = store.wait_until_ready().await;
        }
    }

    /// Whether hosts are followed.
    pub(crate) fn follows_hosts(&self) -> bool {
        self.hosts.get().is_some()
    }

    /// A workload's UID and resourceVersion, if it hosts a sidecar or allows one.
    pub(crate) fn host(&self, namespace: &str, of: &SidecarOf) -> Option<(String, String)> {
        let (_, store) = self.hosts.get()?.iter().find(|(kind, _)| *kind == of.kind)?;
        let reference = ObjectRef::new_with(&of.name, host_resource(of.kind));
        let metadata = store.get(&reference.within(namespace))?.metadata.clone();
        Some((metadata.uid?, metadata.resource_version?))
    }

    /// The workloads that carry the sidecar of an agent, or of any.
    pub(crate) fn hosts_of(&self, key: Option<&Key>) -> Vec<(Key, SidecarOf)> {
        let mut found = Vec::new();
        for (kind, store) in self.hosts.get().into_iter().flatten() {
            for host in store.state() {
                let labels = host.metadata.labels.as_ref();
                let agent = labels.and_then(|labels| labels.get(SIDECAR_LABEL));
                let (Some(agent), Some(namespace), Some(name)) =
                    (agent, &host.metadata.namespace, &host.metadata.name)
                else {
                    continue;
                };
                let of = Key::new(namespace, agent);
                if key.is_none_or(|key| *key == of) {
                    found.push((of, SidecarOf { kind: *kind, name: name.clone() }));
                }
            }
        }
        found
    }

    /// Whether a pod of an agent's own Deployment is there still, on its way out or not.
    pub(crate) fn has_own_pods(&self, key: &Key) -> bool {
        let account = Owned::ServiceAccount.name(&key.name);
        let pods = self.pods.state_filter(|pod| {
            pod.metadata.namespace.as_ref() == Some(&key.namespace)
                && agent_name(pod) == Some(&key.name)
                && pod.spec.service_account_name.as_ref() == Some(&account)
                && !pod.status.as_ref().is_some_and(|status| {
                    matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"))
                })
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
        // A writer that is dropped means that the program ends.
        let _ = self.agents.wait_until_ready().await;
        let _ = self.replica_sets.wait_until_ready().await;
        let _ = self.pods.wait_until_ready().await;
        for store in self.owned.values() {
            let _ = store.wait_until_ready().await;
        }
    }

    /// An agent.
    pub(crate) fn agent(&self, key: &Key) -> Option<Arc<Decoded>> {
        self.agents.get(&ObjectRef::new(&key.name).within(&key.namespace))
    }

    /// All agents.
    pub(crate) fn agents(&self) -> Vec<Arc<Decoded>> {
        self.agents.state()
    }

    /// An owned object.
    pub(crate) fn owned(&self, key: &Key, which: Owned) -> Option<Arc<DynamicObject>> {
        self.named(which, &key.namespace, &which.name(&key.name))
    }

    fn named(&self, which: Owned, namespace: &str, name: &str) -> Option<Arc<DynamicObject>> {
        let reference = ObjectRef::new_with(name, which.resource());
        self.owned.get(which.kind())?.get(&reference.within(namespace))
    }

    /// The pods of the agent's Deployment that are not on their way out, the newest first.
    pub(crate) fn pods(&self, key: &Key) -> Vec<Arc<Pod>> {
        // The label alone proves nothing, but a pod without it is not worth a look at its owners.
        let mut pods = self.pods.state_filter(|pod| {
            pod.metadata.namespace.as_ref() == Some(&key.namespace)
                && agent_name(pod) == Some(&key.name)
                && lineage::forwarder_of(pod, self).as_ref() == Some(key)
        });
        pods.sort_by_key(|pod| Reverse(age_key(pod)));
        pods
    }

    /// Every agent's newest pod.
    pub(crate) fn pods_by_agent(&self) -> BTreeMap<Key, Arc<Pod>> {
        let mut newest: BTreeMap<Key, Arc<Pod>> = BTreeMap::new();
        for pod in self.pods.state() {
            let Some(key) = lineage::forwarder_of(&pod, self) else { continue };
            let is_newer = newest.get(&key).is_none_or(|there| age_key(there) < age_key(&pod));
            if is_newer {
                newest.insert(key, pod);
            }
        }
        newest
    }
}

impl Kin for Scope {
    fn replica_set(&self, namespace: &str, name: &str) -> Option<Member> {
        let resource = ApiResource::erase::<ReplicaSet>(&());
        let reference = ObjectRef::new_with(name, resource);
        let set = self.replica_sets.get(&reference.within(namespace))?;
        Member::of(&set.metadata)
    }

    fn deployment(&self, namespace: &str, name: &str) -> Option<Member> {
        Member::of(&self.named(Owned::Deployment, namespace, name)?.metadata)
    }

    fn agent(&self, namespace: &str, name: &str) -> Option<Member> {
        let agent = self.agents.get(&ObjectRef::new(name).within(namespace))?;
        Member::of(agent.meta()).filter(|_| agent.meta().deletion_timestamp.is_none())
    }
}

/// A watch of objects of which the server sends metadata alone. One for all kinds: what follows is compiled once.
struct OfMetadata {
    kind: &'static str,
    resource: ApiResource,
    config: watcher::Config,
    concerning: fn(Event<Metadata>) -> Option<Event<Metadata>>,
    trim: fn(&mut Metadata),
    agent: fn(&Metadata) -> Option<Key>,
}

impl OfMetadata {
    fn follow(self, client: &Client, namespace: Option<&str>) -> (Store<Metadata>, Sights) {
        let Self { kind, resource, config, concerning, trim, agent } = self;
        let api: Api<Metadata> = match namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let writer = reflector::store::Writer::new(resource);
        let store = writer.as_reader();
        let stream =
            watcher(api, config).filter_map(move |event| ready(event.map(concerning).transpose()));
        let stream = stream.modify(trim).default_backoff().reflect(writer);
        (store, seen(stream, kind, Seen::Relisted, agent))
    }
}

/// The agent whose sidecar a workload has, else the one that it allows.
fn agent_of_host(host: &Metadata) -> Option<Key> {
    let label = host.metadata.labels.as_ref().and_then(|labels| labels.get(SIDECAR_LABEL));
    let annotations = host.metadata.annotations.as_ref();
    let allowed = annotations.and_then(|all| all.get(ALLOW_SIDECAR_ANNOTATION));
    Some(Key::new(host.metadata.namespace.as_ref()?, label.or(allowed)?))
}

/// What a watch shows, but for workloads that have nothing to do with sidecars. One that has no longer is as good as gone.
fn concerning(event: Event<Metadata>) -> Option<Event<Metadata>> {
    match event {
        Event::Apply(host) if agent_of_host(&host).is_none() => Some(Event::Delete(host)),
        Event::InitApply(host) if agent_of_host(&host).is_none() => None,
        event => Some(event),
    }
}

fn age_key(pod: &Pod) -> (Option<jiff::Timestamp>, String) {
    (pod.metadata.creation_timestamp.as_ref().map(|time| time.0), pod.name_any())
}

/// The agent that a thing belongs to: by its owner, whatever its labels say, else by its label.
pub(crate) fn agent_of<K: Resource>(object: &K) -> Option<Key> {
    Some(Key::new(object.meta().namespace.as_ref()?, agent_name(object)?))
}

fn agent_name<K: Resource>(object: &K) -> Option<&String> {
    let owner = object.owner_references().iter().find(|owner| {
        owner.controller == Some(true)
            && owner.kind == SiemAgent::kind(&())
            // Whichever version of the API its owner was written by.
            && owner.api_version.split_once('/').map(|(group, _)| group)
                == Some(&*SiemAgent::group(&()))
    });
    let label = object.meta().labels.as_ref().and_then(|labels| labels.get(AGENT_LABEL));
    owner.map(|owner| &owner.name).or(label)
}

fn seen<K>(
    stream: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    kind: &'static str,
    listed: Seen,
    agent: impl Fn(&K) -> Option<Key> + Send + 'static,
) -> Sights
where
    K: Resource + Clone + Debug + Send + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    let seen = stream.filter_map(move |event| {
        let seen = match event {
            Ok(Event::Apply(object)) => agent(&object).map(Seen::Agent),
            Ok(Event::Delete(object)) => {
                let uid = object.meta().uid.clone().unwrap_or_default();
                agent(&object).map(|key| Seen::Gone(key, uid))
            }
            Ok(Event::InitDone) => Some(listed.clone()),
            Ok(Event::Init | Event::InitApply(_)) => None,
            Err(error) => {
                warn!(kind, reason = chain(&error), "watch interrupted, reconnecting");
                None
            }
        };
        ready(seen)
    });
    seen.boxed()
}
