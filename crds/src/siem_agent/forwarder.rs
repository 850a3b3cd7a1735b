//! `spec.forwarder`: how the forwarder runs in Kubernetes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration};
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::plain_defaults;
use super::source::SecretRef;

/// Overrides of the forwarder's Deployment.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Forwarder {
    /// Pins the image. Default: the operator's own release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^[!-~]+$"))]
    pub image: Option<String>,
    /// Secrets for pulling the image. Default: none.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<SecretRef>,
    /// Resources of the forwarder's container. Default: requests of 10m CPU and 32Mi memory, a limit of 128Mi memory.
    #[serde(default)]
    pub resources: ResourceRequirements,
    /// Labels that the node must have. Default: none.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 64))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pod tolerates, besides `node.kubernetes.io/not-ready` and `node.kubernetes.io/unreachable` for 30 seconds
    /// each, where none of these speaks of them. Default: none.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// Affinity of the pod. Default: none.
    #[serde(default)]
    pub affinity: Affinity,
    /// Priority class of the pod. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub priority_class_name: Option<String>,
    /// Further labels of the pod. Default: none.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 64))]
    pub pod_labels: BTreeMap<String, String>,
    /// Further annotations of the pod. Default: none.
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
    /// A strategic merge patch on the pod template, for what the fields above do not cover: volumes, environment, security
    /// context, DNS, topology spread, a mesh's annotations. What the operator needs itself cannot be overridden: the
    /// container's command, arguments, image, probes, life cycle, environment, ports and mounts, the pod's own volumes, its
    /// ServiceAccount, restart policy and time to end, the labels by which pods are selected. Nor may it give the pod more
    /// than the restricted profile of Pod Security. At most 16384 bytes as JSON. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_overrides: Option<PodOverrides>,
}

/// A strategic merge patch on the pod template.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodOverrides {
    /// Labels and annotations, as in a PodTemplateSpec. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
    /// Fields of a PodSpec. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Map<String, Value>>,
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
    #[serde(default = "plain_defaults::volume_size")]
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
    /// Who may reach the admin port besides the operator's namespace, such as Prometheus: as `from` of a NetworkPolicy. Default: none.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub from: Vec<NetworkPolicyPeer>,
}

impl Default for Persistence {
    fn default() -> Self {
        Self { enabled: false, size: plain_defaults::volume_size(), storage_class_name: None }
    }
}
