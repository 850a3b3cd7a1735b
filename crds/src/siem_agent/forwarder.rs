//! `spec.forwarder` and `spec.placement`: how and where the forwarder runs in Kubernetes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, LocalObjectReference, ResourceRequirements, Toleration,
};
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the forwarder runs.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Runs the forwarder as a native sidecar of this workload, which must allow it by the annotation
    /// siemagent.dev/allow-sidecar.
    pub sidecar_of: SidecarOf,
}

/// A workload of the agent's namespace.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SidecarOf {
    /// Deployment or StatefulSet.
    pub kind: WorkloadKind,
    /// The workload's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// A kind of workload.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum WorkloadKind {
    /// apps/v1 Deployment.
    Deployment,
    /// apps/v1 StatefulSet.
    StatefulSet,
}

/// Overrides of the forwarder's Deployment.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Forwarder {
    /// Pins the image. Default: the operator's own release.
    #[serde(default)]
    #[schemars(length(max = 512), regex(pattern = r"^[!-~]*$"))]
    pub image: String,
    /// Secrets for pulling the image.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Resources of the forwarder's container.
    #[serde(default)]
    pub resources: ResourceRequirements,
    /// Labels that the node must have.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 64))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pod tolerates, besides `node.kubernetes.io/not-ready` and `node.kubernetes.io/unreachable` for 30 seconds
    /// each, where none of these speaks of them.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// Affinity of the pod.
    #[serde(default)]
    pub affinity: Affinity,
    /// Priority class of the pod.
    #[serde(default)]
    #[schemars(length(max = 253), regex(pattern = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"))]
    pub priority_class_name: String,
    /// Further labels of the pod.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 64))]
    pub pod_labels: BTreeMap<String, String>,
    /// Further annotations of the pod.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 64))]
    pub pod_annotations: BTreeMap<String, String>,
    /// error, warn, info, debug or trace. Default: info.
    #[serde(default)]
    pub log_level: LogLevel,
    /// Keeps the state on a volume instead of an emptyDir.
    #[serde(default)]
    pub persistence: Persistence,
    /// Restricts the forwarder's traffic.
    #[serde(default)]
    pub network_policy: NetworkPolicy,
}

/// How much is logged.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Somebody must act.
    Error,
    /// Somebody may need to act.
    Warn,
    /// The state changed.
    #[default]
    Info,
    /// Each poll, page, batch, confirmation and save, with its numbers.
    Debug,
    /// What the libraries log as well.
    Trace,
}

/// A volume for the state.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Persistence {
    /// Whether there is a volume. Default: false.
    #[serde(default)]
    pub enabled: bool,
    /// Size of the volume. Default: 1Gi.
    #[serde(default = "size")]
    #[schemars(
        length(max = 32),
        regex(pattern = r"^[0-9]+(\.[0-9]+)?(k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$")
    )]
    pub size: String,
    /// Storage class of the volume, as in a PersistentVolumeClaim: "" asks for a volume without a class, which somebody must
    /// have made. Default: the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"))]
    pub storage_class_name: Option<String>,
}

/// Restricts the forwarder's traffic.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicy {
    /// Whether there is a NetworkPolicy. Default: false.
    #[serde(default)]
    pub enabled: bool,
    /// Who may reach the admin port besides the operator's namespace, such as Prometheus: as `from` of a NetworkPolicy.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub from: Vec<NetworkPolicyPeer>,
}

impl Default for Persistence {
    fn default() -> Self {
        Self { enabled: false, size: size(), storage_class_name: None }
    }
}

fn size() -> String {
    "1Gi".to_owned()
}
