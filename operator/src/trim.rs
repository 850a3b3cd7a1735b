//! What the caches keep of an object, and how that is read. Pure.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PodStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use kube::api::{DynamicObject, Object};
use kube::core::PartialObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use siem_agent_crds::siem_agent::ALLOW_SIDECAR_ANNOTATION;

use crate::checkpoint::decide as checkpoint;
use crate::drift;
use crate::names::{AGENT_LABEL, CONTAINER, MANAGER, RELEASE_LABEL, SIDECAR_LABEL};

/// Only in this program's memory: the digest of what we own in the object.
const DIGEST: &str = "digest";
/// Only in this program's memory: the later watermark of a checkpoint.
const LATEST: &str = "latest";

/// A pod: who it runs as, and its status.
pub(crate) type Pod = Object<PodAccount, PodStatus>;

/// What matters of a pod's spec.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodAccount {
    /// The ServiceAccount.
    #[serde(default)]
    pub(crate) service_account_name: Option<String>,
    /// Of a host's pod: whether a sidecar is in it.
    #[serde(default)]
    pub(crate) init_containers: Vec<Named>,
}

/// A container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Named {
    #[serde(default)]
    pub(crate) name: String,
}

/// What is watched for its metadata alone.
pub(crate) type Metadata = PartialObjectMeta<DynamicObject>;

/// The digest of what we own in a live object, kept by the watch or told by a whole object.
pub(crate) fn digest_of(object: &DynamicObject) -> Option<String> {
    match object.annotations().get(DIGEST) {
        Some(digest) => Some(digest.clone()),
        None => drift::of_live(&serde_json::to_value(object).ok()?, MANAGER),
    }
}

/// The later watermark of a checkpoint, kept by the watch or told by a whole object.
pub(crate) fn latest_of(object: &DynamicObject) -> Option<i64> {
    match object.annotations().get(LATEST) {
        Some(latest) => latest.parse().ok(),
        None => checkpoint::latest(object),
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

/// Of an owned object: its metadata, a digest of what we applied, and a Deployment's status.
pub(crate) fn trim_owned(object: &mut DynamicObject) {
    let digest = digest_of(object);
    let annotation = |name: &str| object.annotations().get(name).cloned();
    let latest = latest_of(object).map(|latest| latest.to_string());
    let keep = [
        (DIGEST, digest),
        (LATEST, latest),
        (checkpoint::DELIVERED_ANNOTATION, annotation(checkpoint::DELIVERED_ANNOTATION)),
        (checkpoint::SAVED_ANNOTATION, annotation(checkpoint::SAVED_ANNOTATION)),
    ];
    let keep = keep.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
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
        let kept = [AGENT_LABEL, RELEASE_LABEL, SIDECAR_LABEL];
        labels.retain(|name, _| kept.contains(&name.as_str()));
    }
}

/// Of a ReplicaSet: its owner.
pub(crate) fn trim_replica_set(set: &mut Metadata) {
    trim_metadata(&mut set.metadata);
    set.metadata.annotations = None;
}

/// Of a workload that hosts a sidecar or allows one: whose.
pub(crate) fn trim_host(host: &mut Metadata) {
    trim_metadata(&mut host.metadata);
    host.metadata.owner_references = None;
    if let Some(annotations) = &mut host.metadata.annotations {
        annotations.retain(|name, _| name == ALLOW_SIDECAR_ANNOTATION);
    }
}

/// Of a pod: its account and its status.
pub(crate) fn trim_pod(pod: &mut Pod) {
    trim_metadata(&mut pod.metadata);
    pod.metadata.annotations = None;
    pod.spec.init_containers = Vec::new();
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
