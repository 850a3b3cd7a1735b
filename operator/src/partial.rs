//! Objects of which only a part is decoded. Pure.

use k8s_openapi::api::core::v1::PodStatus;
use kube::api::{DynamicObject, Object};
use kube::core::PartialObjectMeta;
use serde::{Deserialize, Serialize};

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
