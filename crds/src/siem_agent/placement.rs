//! `spec.placement`: in whose pod the forwarder runs.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// In whose pod the forwarder runs.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Adds the forwarder to the pods of this workload as a native sidecar, instead of a Deployment of its own. The workload
    /// must allow it by the annotation `siemagent.dev/allow-sidecar`, whose value is the agent's name. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar_of: Option<SidecarOf>,
}

/// The workload that hosts a sidecar, in the agent's namespace.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SidecarOf {
    /// Deployment or StatefulSet, of one replica.
    pub kind: HostKind,
    /// Name of the workload.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// The kind of a workload that may host a sidecar.
#[derive(
    Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema,
)]
pub enum HostKind {
    /// Its update strategy must be Recreate, or RollingUpdate with a maxSurge of 0.
    Deployment,
    /// Of any update strategy: it never runs two pods of one ordinal.
    StatefulSet,
}

impl HostKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Deployment, Self::StatefulSet];

    /// As it is on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
        }
    }
}

impl SidecarOf {
    /// As `KIND/NAME`.
    pub fn path(&self) -> String {
        format!("{}/{}", self.kind.as_str(), self.name)
    }
}

impl fmt::Display for SidecarOf {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind.as_str(), self.name)
    }
}

/// On a workload: the name of the one SiemAgent whose forwarder it takes as a sidecar.
pub const ALLOW_SIDECAR_ANNOTATION: &str = "siemagent.dev/allow-sidecar";
