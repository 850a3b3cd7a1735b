//! Where a forwarder in a pod finds its files, and under which keys the ConfigMap has them. Pure.

use std::path::PathBuf;

use siem_agent_crds::config::Paths;
use siem_agent_crds::siem_agent::{SiemAgentSpec, WorkloadIdentity};

pub(super) const CONFIG_KEY: &str = "config.yaml";
pub(super) const LIVE_KEY: &str = "live.yaml";
pub(super) const CONFIG: &str = "/etc/siem-forwarder/config";
pub(super) const SECRETS: &str = "/etc/siem-forwarder/secrets";
pub(super) const CONFIG_MAPS: &str = "/etc/siem-forwarder/config-maps";
pub(super) const CHECKPOINT: &str = "/etc/siem-forwarder/checkpoint";
/// The folder of the token that says who the pod is, and the token's file in it.
pub(super) const IDENTITY: &str = "/etc/siem-forwarder/identity";
pub(super) const IDENTITY_TOKEN: &str = "token";
pub(super) const STATE: &str = "/var/lib/siem-forwarder";

/// Where the files of a forwarder in a pod lie.
pub(super) fn paths(spec: &SiemAgentSpec) -> Paths {
    Paths {
        secrets: SECRETS.into(),
        config_maps: CONFIG_MAPS.into(),
        state: STATE.into(),
        checkpoint: Some(CHECKPOINT.into()),
        live: Some(PathBuf::from(CONFIG).join(LIVE_KEY)),
        identity: workload_identity(spec).map(|_| PathBuf::from(IDENTITY).join(IDENTITY_TOKEN)),
    }
}

/// Who the pod is to Entra ID, for an agent without a secret. A host's pod has an identity of its own, so the schema refuses
/// it for a sidecar.
pub(super) fn workload_identity(spec: &SiemAgentSpec) -> Option<&WorkloadIdentity> {
    if spec.sidecar_of().is_some() {
        return None;
    }
    spec.source.auth.client_credentials.as_ref()?.workload_identity.as_ref()
}
