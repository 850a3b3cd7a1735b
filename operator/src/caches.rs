//! What the API server shows, kept current by watches and cut down to what is needed.
//!
//! Of owned objects that is their metadata, a digest of what we applied, and a Deployment's status; of pods their status;
//! of agents everything but who wrote it. So a thousand agents take a few megabytes.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PodStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject, NotUsed, Object};
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde_json::{Value, json};
use siem_agent_crds::SiemAgent;
use tracing::warn;

use crate::budget::Key;
use crate::checkpoint;
use crate::digest;
use crate::error_chain::chain;
use crate::names::{AGENT_LABEL, CONTAINER, MANAGED_BY_LABEL, MANAGER, Owned, RELEASE_LABEL};

/// A first list comes in pages of so many objects, each held whole before it is cut down.
const PAGE: u32 = 100;
/// Only in this program's memory: the digest of what we own in the object.
const DIGEST: &str = "digest";
/// `kubectl apply` leaves a second copy of the object there.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An agent, or what can be told of one that this version cannot read.
pub(crate) type Agent = DeserializeGuard<SiemAgent>;

/// A pod: its status is all that matters.
pub(crate) type Pod = Object<NotUsed, PodStatus>;

/// The caches of one namespace, or of all.
#[derive(Debug)]
pub(crate) struct Scope {
    /// `None`: all namespaces.
    namespace: Option<String>,
    agents: Store<Agent>,
    /// By kind.
    owned: BTreeMap<&'static str, Store<DynamicObject>>,
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
        let agent_api: Api<Agent> = match &namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        let (agents, writer) = reflector::store();
        let all = watcher::Config::default().page_size(PAGE);
        let stream =
            watcher(agent_api, all.clone()).modify(trim_agent).default_backoff().reflect(writer);
        sights.push(seen(stream, "SiemAgent", Seen::Listed, |agent: &Agent| {
            Some(key(agent.meta().namespace.as_ref()?, agent.meta().name.as_ref()?))
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
        let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
        let pod_api: Api<Pod> = match &namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let writer = reflector::store::Writer::new(resource);
        let pods = writer.as_reader();
        let stream = watcher(pod_api, mine).modify(trim_pod).default_backoff().reflect(writer);
        sights.push(seen(stream, "Pod", Seen::Relisted, agent_of));
        (Self { namespace, agents, owned, pods }, futures_util::stream::select_all(sights).boxed())
    }

    /// Whether objects of this namespace are here.
    pub(crate) fn covers(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|own| own == namespace)
    }

    /// Waits until every watch has seen a whole list.
    pub(crate) async fn warm(&self) {
        // A writer that is dropped means that the program ends.
        let _ = self.agents.wait_until_ready().await;
        let _ = self.pods.wait_until_ready().await;
        for store in self.owned.values() {
            let _ = store.wait_until_ready().await;
        }
    }

    /// An agent.
    pub(crate) fn agent(&self, key: &Key) -> Option<Arc<Agent>> {
        self.agents.get(&ObjectRef::new(&key.1).within(&key.0))
    }

    /// All agents.
    pub(crate) fn agents(&self) -> Vec<Arc<Agent>> {
        self.agents.state()
    }

    /// An owned object.
    pub(crate) fn owned(&self, key: &Key, which: Owned) -> Option<Arc<DynamicObject>> {
        let reference = ObjectRef::new_with(&which.name(&key.1), which.resource());
        self.owned.get(which.kind())?.get(&reference.within(&key.0))
    }

    /// The pods of the agent's Deployment that are not on their way out, the newest first.
    pub(crate) fn pods(&self, key: &Key) -> Vec<Arc<Pod>> {
        let mut pods = self.pods.state_filter(|pod| forwarder_of(pod).as_ref() == Some(key));
        pods.sort_by_key(|pod| Reverse(age_key(pod)));
        pods
    }

    /// Every agent's newest pod.
    pub(crate) fn pods_by_agent(&self) -> BTreeMap<Key, Arc<Pod>> {
        let mut newest: BTreeMap<Key, Arc<Pod>> = BTreeMap::new();
        for pod in self.pods.state() {
            let Some(key) = forwarder_of(&pod) else { continue };
            let is_newer = newest.get(&key).is_none_or(|there| age_key(there) < age_key(&pod));
            if is_newer {
                newest.insert(key, pod);
            }
        }
        newest
    }
}

/// The agent whose forwarder a pod is, unless it is on its way out.
fn forwarder_of(pod: &Pod) -> Option<Key> {
    let key = agent_of(pod).filter(|_| pod.metadata.deletion_timestamp.is_none())?;
    let prefix = format!("{}-", Owned::Deployment.name(&key.1));
    let is_the_deployments = pod.owner_references().iter().any(|owner| {
        owner.controller == Some(true)
            && owner.kind == "ReplicaSet"
            && owner.name.starts_with(&prefix)
    });
    is_the_deployments.then_some(key)
}

fn age_key(pod: &Pod) -> (Option<jiff::Timestamp>, String) {
    (pod.metadata.creation_timestamp.as_ref().map(|time| time.0), pod.name_any())
}

/// The digest of what we own in a live object, kept by the watch or told by a whole object.
pub(crate) fn digest_of(object: &DynamicObject) -> Option<String> {
    match object.annotations().get(DIGEST) {
        Some(digest) => Some(digest.clone()),
        None => digest::of_live(&serde_json::to_value(object).ok()?, MANAGER),
    }
}

/// The Deployment's status.
pub(crate) fn deployment(object: &DynamicObject) -> Option<Deployment> {
    let status = object.data.get("status").cloned().unwrap_or(Value::Null);
    Some(Deployment {
        metadata: object.metadata.clone(),
        spec: None,
        status: serde_json::from_value(status).ok()?,
    })
}

/// The agent that a thing belongs to: by its owner, whatever its labels say, else by its label.
pub(crate) fn agent_of<K: Resource>(object: &K) -> Option<Key> {
    let owner = object.owner_references().iter().find(|owner| {
        owner.controller == Some(true)
            && owner.kind == SiemAgent::kind(&())
            && owner.api_version == SiemAgent::api_version(&())
    });
    let label = object.meta().labels.as_ref().and_then(|labels| labels.get(AGENT_LABEL));
    let name = owner.map(|owner| &owner.name).or(label)?;
    Some(key(object.meta().namespace.as_ref()?, name))
}

fn key(namespace: &str, name: &str) -> Key {
    (namespace.to_owned(), name.to_owned())
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
                warn!(kind, reason = chain(&error), "the watch is interrupted and goes on");
                None
            }
        };
        std::future::ready(seen)
    });
    seen.boxed()
}

fn trim_agent(agent: &mut Agent) {
    let metadata = match &mut agent.0 {
        Ok(agent) => &mut agent.metadata,
        Err(invalid) => &mut invalid.metadata,
    };
    metadata.managed_fields = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
}

fn trim_owned(object: &mut DynamicObject) {
    let digest = digest_of(object);
    let of_checkpoint = [checkpoint::DELIVERED_ANNOTATION, checkpoint::SAVED_ANNOTATION]
        .map(|name| (name, object.annotations().get(name).cloned()));
    let keep = [(DIGEST, digest)].into_iter().chain(of_checkpoint);
    let keep = keep.filter_map(|(name, value)| Some((name.to_owned(), value?)));
    object.metadata.annotations = Some(keep.collect());
    trim_metadata(&mut object.metadata);
    // Items of a list do not say their kind; of those that have a status only Deployments are many.
    object.data = match object.data.get_mut("status").map(Value::take) {
        Some(status) => json!({"status": status}),
        None => Value::Null,
    };
}

fn trim_metadata(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    if let Some(labels) = &mut metadata.labels {
        labels.retain(|name, _| [AGENT_LABEL, RELEASE_LABEL].contains(&name.as_str()));
    }
}

fn trim_pod(pod: &mut Pod) {
    trim_metadata(&mut pod.metadata);
    pod.metadata.annotations = None;
    if let Some(status) = &mut pod.status {
        status.init_container_statuses = None;
        status.pod_ips = None;
        status.host_ips = None;
        if let Some(conditions) = &mut status.conditions {
            conditions.retain(|condition| ["Ready", "PodScheduled"].contains(&&*condition.type_));
            conditions.shrink_to_fit();
        }
        if let Some(containers) = &mut status.container_statuses {
            containers.retain(|container| container.name == CONTAINER);
            containers.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_checkpoint_says_of_itself_stays_in_the_cache() {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "soc-checkpoint", "annotations": {
            checkpoint::DELIVERED_ANNOTATION: "1/2", checkpoint::SAVED_ANNOTATION: "2026-11-29T00:00:00Z", "other": "x",
        }}});
        let mut object: DynamicObject = serde_json::from_value(object).unwrap();
        trim_owned(&mut object);
        let kept = object.annotations();
        assert_eq!(kept[checkpoint::DELIVERED_ANNOTATION], "1/2");
        assert_eq!(kept[checkpoint::SAVED_ANNOTATION], "2026-11-29T00:00:00Z");
        assert!(!kept.contains_key("other"), "{kept:?}");
    }
}
