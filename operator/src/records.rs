//! What the caches keep of an object: what a decision is made of, and nothing else. Pure.

use k8s_openapi::api::apps::v1::DeploymentStatus;
use kube::api::DynamicObject;
use kube::{Resource, ResourceExt as _};
use serde_json::Value;
use siem_agent_crds::SiemAgent;
use siem_agent_crds::siem_agent::ALLOW_SIDECAR_ANNOTATION;

use crate::key::Key;
use crate::lineage::{Descent, Member};
use crate::names::{AGENT_LABEL, Owned, SIDECAR_LABEL};
use crate::observed_object::ObservedObject;
use crate::partial::{Metadata, Pod};
use crate::workload::{self, DeploymentSight, PodSight};

/// An owned object.
#[derive(Debug)]
pub(crate) struct OwnedRecord {
    pub(crate) observed: ObservedObject,
    /// Of a Deployment.
    pub(crate) deployment: Option<Box<DeploymentRecord>>,
}

/// A Deployment.
#[derive(Debug)]
pub(crate) struct DeploymentRecord {
    pub(crate) member: Option<Member>,
    /// `None` where the status cannot be read.
    pub(crate) sight: Option<DeploymentSight>,
}

/// A pod of an agent.
#[derive(Debug)]
pub(crate) struct PodRecord {
    pub(crate) name: Box<str>,
    /// Which agent it says it is of.
    pub(crate) agent: Option<Box<str>>,
    pub(crate) descent: Descent,
    pub(crate) sight: PodSight,
    /// Whether it has ended for good.
    pub(crate) has_ended: bool,
}

/// A workload that hosts a sidecar or allows one.
#[derive(Debug)]
pub(crate) struct HostRecord {
    pub(crate) key: Key,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    /// The agent whose sidecar is in it, by its label.
    pub(crate) agent: Option<String>,
}

impl OwnedRecord {
    /// Of an object of this kind: items of a list do not say theirs.
    pub(crate) fn of(object: &DynamicObject, kind: &str) -> Self {
        let is_deployment = kind == Owned::Deployment.kind();
        Self {
            observed: ObservedObject::of(object),
            deployment: is_deployment.then(|| Box::new(DeploymentRecord::of(object))),
        }
    }
}

impl DeploymentRecord {
    fn of(object: &DynamicObject) -> Self {
        let status = object.data.get("status").cloned().unwrap_or(Value::Null);
        let status = serde_json::from_value::<Option<DeploymentStatus>>(status).ok();
        let sight = |status: Option<DeploymentStatus>| {
            DeploymentSight::of(object.metadata.generation, &status.unwrap_or_default())
        };
        Self { member: Member::of(&object.metadata), sight: status.map(sight) }
    }
}

impl PodRecord {
    pub(crate) fn of(pod: &Pod) -> Self {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        Self {
            name: pod.name_any().into(),
            agent: agent_name(pod).map(|name| name.as_str().into()),
            descent: Descent::of(pod),
            sight: workload::sight(pod),
            has_ended: matches!(phase, Some("Failed" | "Succeeded")),
        }
    }

    /// Whichever of two has more of it is newer.
    pub(crate) fn age_key(&self) -> (Option<jiff::Timestamp>, &str) {
        (self.sight.created, &self.name)
    }
}

impl HostRecord {
    pub(crate) fn of(host: Metadata) -> Self {
        let metadata = host.metadata;
        let key =
            Key::new(metadata.namespace.unwrap_or_default(), metadata.name.unwrap_or_default());
        Self {
            key,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            agent: metadata.labels.and_then(|mut labels| labels.remove(SIDECAR_LABEL)),
        }
    }
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

/// The agent whose sidecar a workload has, else the one that it allows.
pub(crate) fn agent_of_host(host: &Metadata) -> Option<Key> {
    let label = host.metadata.labels.as_ref().and_then(|labels| labels.get(SIDECAR_LABEL));
    let annotations = host.metadata.annotations.as_ref();
    let allowed = annotations.and_then(|all| all.get(ALLOW_SIDECAR_ANNOTATION));
    Some(Key::new(host.metadata.namespace.as_ref()?, label.or(allowed)?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checkpoint::decide as checkpoint;

    #[test]
    fn what_a_checkpoint_says_of_itself_stays_in_the_cache() {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "soc-checkpoint", "annotations": {
            checkpoint::DELIVERED_ANNOTATION: "1/2", checkpoint::SAVED_ANNOTATION: "2026-11-29T00:00:00Z", "other": "x",
        }}});
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let kept = OwnedRecord::of(&object, "ConfigMap");
        assert_eq!(kept.observed.delivered.as_deref(), Some("1/2"));
        assert_eq!(kept.observed.saved, "2026-11-29T00:00:00Z".parse().ok());
        assert!(kept.deployment.is_none());
    }

    #[test]
    fn of_a_deployment_its_state_is_kept_and_of_one_that_cannot_be_read_that_it_is_there() {
        let of = |status: Value| {
            let object = json!({"metadata": {"name": "soc-forwarder", "uid": "d", "generation": 2}, "status": status});
            OwnedRecord::of(&serde_json::from_value(object).unwrap(), "Deployment")
                .deployment
                .unwrap()
        };
        assert!(of(json!({"observedGeneration": 2})).sight.unwrap().is_settled());
        assert!(!of(json!({"observedGeneration": 1})).sight.unwrap().is_settled());
        assert!(!of(Value::Null).sight.unwrap().is_settled());
        let unreadable = of(json!({"replicas": "many"}));
        assert!(unreadable.sight.is_none() && unreadable.member.is_some());
    }
}
