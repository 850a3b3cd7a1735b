//! The `SiemAgent` resource: what a user writes, field by field.
//!
//! Every default stands in the text of its field, because the schema has none: they are in `plain_defaults` and `defaults`. Rules that span
//! fields are in `schema`. Nothing here resolves a value that depends on the environment.

mod event_types;
mod forwarder;
mod format;
mod graph;
mod placement;
pub(crate) mod plain_defaults;
mod serving;
mod source;
mod status;
mod syslog;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::GoDuration;

pub use event_types::{
    ActivityFilter, ActivityStream, AlertFilter, AlertStream, EventTypes, IpCategory, RawFilter,
    Severity,
};
pub use format::{Dialect, Format, FormatType, TimeFormat};
pub use forwarder::{Forwarder, LogLevel, NetworkPolicy, Persistence, PodOverrides};
pub use graph::{Cloud, Graph, HuntingTable};
pub use placement::{ALLOW_SIDECAR_ANNOTATION, HostKind, Placement, SidecarOf};
pub use serving::{graph_name, kind_of};
pub use source::{
    Auth, BundleKind, BundleRef, ClientCredentials, ClientSecretRef, CloudApps, Proxy,
    ProxyCredentialsRef, SecretKeyRef, SecretRef, Source, WorkloadIdentity,
};
pub use status::{
    PAUSED_ANNOTATION, SiemAgentStatus, State, Stream, StreamSource, StreamStatus, TokenState,
    TokenStatus,
};
pub use syslog::{Framing, Header, Protocol, Receiver, Syslog, SyslogTls};

/// A forwarder that exports alerts and activities of one Microsoft Defender for Cloud Apps tenant to one SIEM.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[kube(
    group = "siemagent.dev",
    version = "v1alpha1",
    kind = "SiemAgent",
    plural = "siemagents",
    shortname = "siem",
    category = "security",
    namespaced,
    status = "SiemAgentStatus",
    derive = "PartialEq",
    doc = "Keeps a forwarder running that exports alerts and activities of Microsoft Defender for Cloud Apps as CEF over syslog to a SIEM.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Token", type_ = "string", json_path = ".status.token.state"),
    printcolumn(name = "Lag", type_ = "string", json_path = ".status.lag"),
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.syslog.host"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        priority = 1
    ),
    printcolumn(
        name = "Source",
        type_ = "string",
        json_path = ".spec.source.cloudApps.url",
        priority = 1
    ),
    printcolumn(name = "Image", type_ = "string", json_path = ".status.image", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct SiemAgentSpec {
    /// The agent's name as people read it. Default: metadata.name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))]
    pub display_name: Option<String>,
    /// Where alerts and activities come from.
    pub source: Source,
    /// The form of the lines.
    #[serde(default)]
    pub format: Format,
    /// Where the lines go.
    pub syslog: Syslog,
    /// What is exported. Both are enabled by default; at least one must be.
    #[serde(default)]
    pub event_types: EventTypes,
    /// How far back before the SiemAgent's creation the first export begins. Default: 48h, at most 4320h (180 days).
    #[serde(default = "plain_defaults::start_from")]
    pub start_from: GoDuration,
    /// Stops the export without losing the place. Default: false.
    #[serde(default)]
    pub suspend: bool,
    /// In whose pod the forwarder runs. Default: none, which is a Deployment of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// A few typed overrides of the forwarder's Deployment.
    #[serde(default)]
    pub forwarder: Forwarder,
}

impl SiemAgentSpec {
    /// The workload in whose pod the forwarder runs, where it has no Deployment of its own.
    pub fn sidecar_of(&self) -> Option<&SidecarOf> {
        self.placement.as_ref()?.sidecar_of.as_ref()
    }
}
