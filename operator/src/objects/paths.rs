//! Where a forwarder in a pod finds its files, and under which keys the ConfigMap has them. Pure.

use std::path::PathBuf;

use siem_agent_crds::config::Paths;

pub(super) const CONFIG_KEY: &str = "config.yaml";
pub(super) const LIVE_KEY: &str = "live.yaml";
pub(super) const CONFIG: &str = "/etc/siem-forwarder/config";
pub(super) const SECRETS: &str = "/etc/siem-forwarder/secrets";
pub(super) const CONFIG_MAPS: &str = "/etc/siem-forwarder/config-maps";
pub(super) const CHECKPOINT: &str = "/etc/siem-forwarder/checkpoint";
pub(super) const STATE: &str = "/var/lib/siem-forwarder";

/// Where the files of a forwarder in a pod lie.
pub(super) fn paths() -> Paths {
    Paths {
        secrets: SECRETS.into(),
        config_maps: CONFIG_MAPS.into(),
        state: STATE.into(),
        checkpoint: Some(CHECKPOINT.into()),
        live: Some(PathBuf::from(CONFIG).join(LIVE_KEY)),
    }
}
