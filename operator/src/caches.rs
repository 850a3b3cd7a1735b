//! What the API server shows, kept current by watches and cut down to what is needed.
//!
//! Of owned objects that is their metadata, a digest of what we applied, and a Deployment's status; of ReplicaSets their
//! owner; of pods their account and status; of agents everything but who wrote it. So a thousand agents take a few megabytes.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::api::{ApiResource, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use siem_agent_crds::SiemAgent;
use tracing::warn;

use crate::agent::Decoded;
use crate::error_chain::chain;
use crate::key::Key;
use crate::lineage::{self, Kin, Member};
use crate::names::{AGENT_LABEL, MANAGED_BY_LABEL, MANAGER, Owned};
use crate::trim::{Pod, trim_owned, trim_pod, trim_replica_set};

/// A first list comes in pages of so many objects, each held whole before it is cut down: the server takes objects of up to
/// 1.5 MB, and they may take many times as much once they are read.
const PAGE: u32 = 8;
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
    replica_sets: Store<PartialObjectMeta<ReplicaSet>>,
    pods: Store<Pod>,
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
        // Of these the server sends metadata alone.
        let set_api: Api<PartialObjectMeta<ReplicaSet>> = match &namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        let (replica_sets, writer) = reflector::store();
        let stream = watcher(set_api, mine.clone());
        let stream = stream.modify(trim_replica_set).default_backoff().reflect(writer);
        sights.push(seen(stream, "ReplicaSet", Seen::Relisted, agent_of));
        let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
        let pod_api: Api<Pod> = match &namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let writer = reflector::store::Writer::new(resource);
        let pods = writer.as_reader();
        let stream = watcher(pod_api, mine).modify(trim_pod).default_backoff().reflect(writer);
        sights.push(seen(stream, "Pod", Seen::Relisted, agent_of));
        let scope = Self { namespace, agents, owned, replica_sets, pods };
        (scope, futures_util::stream::select_all(sights).boxed())
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
        let set = self.replica_sets.get(&ObjectRef::new(name).within(namespace))?;
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
        std::future::ready(seen)
    });
    seen.boxed()
}
