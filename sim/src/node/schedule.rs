//! The scheduler's part: binds a pod whose node selector fits, and says of others why they cannot run.
//!
//! Pods that ask for [`crate::kwok`]'s nodes are left to it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod, PodSpec};
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::Status;
use serde_json::json;

use super::{Shared, status};

/// The label of nodes that only exist in the API.
pub(crate) const ELSEWHERE: (&str, &str) = ("type", "kwok");

/// Gives a pod to a node, as a scheduler does.
pub(crate) async fn bind(pods: &Api<Pod>, name: &str, node: &str) -> kube::Result<Status> {
    let target = ObjectReference {
        kind: Some("Node".to_owned()),
        name: Some(node.to_owned()),
        ..ObjectReference::default()
    };
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let binding = Binding { metadata, target };
    pods.create_subresource("binding", name, &PostParams::default(), &binding).await
}

/// Whether a pod asks for a node that only exists in the API.
pub(crate) fn is_elsewhere(spec: &PodSpec) -> bool {
    let selector = spec.node_selector.as_ref();
    selector.and_then(|selector| selector.get(ELSEWHERE.0)).is_some_and(|at| at == ELSEWHERE.1)
}

/// One look at a pending pod; what fails is tried again at the next.
pub(super) async fn schedule(shared: &Shared, pod: &Pod) {
    let (Some(name), Some(spec)) = (pod.metadata.name.as_deref(), pod.spec.as_ref()) else {
        return;
    };
    if pod.metadata.deletion_timestamp.is_some() || is_elsewhere(spec) {
        return;
    }
    let missing_claim = claims(spec).find(|claim| {
        !shared.claims.state().iter().any(|at| at.metadata.name.as_deref() == Some(claim))
    });
    let why_not = if fits(spec, &shared.labels()) {
        missing_claim.map(|claim| {
            format!("0/1 nodes are available: persistentvolumeclaim \"{claim}\" not found.")
        })
    } else {
        let selector =
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.";
        Some(selector.to_owned())
    };
    match why_not {
        None => {
            // Bound already: the store will know soon.
            let _ = bind(&shared.pods_api(), name, &shared.name).await;
        }
        Some(message) if !says(pod, &message) => {
            let condition = json!({
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
                "lastTransitionTime": status::now(),
            });
            let patch = json!({"status": {"phase": "Pending", "conditions": [condition]}});
            let params = PatchParams::default();
            let _ = shared.pods_api().patch_status(name, &params, &Patch::Merge(&patch)).await;
        }
        Some(_) => {}
    }
}

fn fits(spec: &PodSpec, labels: &BTreeMap<String, String>) -> bool {
    let mut selector = spec.node_selector.iter().flatten();
    selector.all(|(name, value)| labels.get(name) == Some(value))
}

fn claims(spec: &PodSpec) -> impl Iterator<Item = &str> {
    let volumes = spec.volumes.iter().flatten();
    volumes.filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.as_str()))
}

fn says(pod: &Pod, message: &str) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.message.as_deref() == Some(message))
}
