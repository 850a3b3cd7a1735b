//! The forwarder's configuration, and beside it the file of what changes without a restart. Pure.
//!
//! The configuration's text is what the pod template's hash is taken of, so it must not hold anything that may change
//! while a forwarder runs: the share of the budget and the level of the logs stand in the live file alone.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use serde::Serialize;
use siem_agent_crds::config::{Config, Live, VERSION};
use siem_agent_crds::siem_agent::LogLevel;

use super::paths::{self, CONFIG_KEY, LIVE_KEY};
use super::validated::Validated;
use super::{Error, encoded};
use crate::names::{self, Owned};

const HEADER: &str = "# Written by siem-agent-operator from the SiemAgent; edits are put back.\n";
const CONFIG_HEADER: &str =
    "# requestsPerMinute and logLevel hold only until live.yaml beside this is read.\n";
/// What a forwarder may ask before it has read its share.
const FIRST_REQUESTS_PER_MINUTE: i32 = 1;

/// The configuration's text.
pub(super) fn configuration(validated: &Validated<'_>) -> Result<String, Error> {
    let mut config = Config::for_agent(validated.agent, paths::paths(validated.spec()));
    config.log_level = LogLevel::default();
    // A Deployment has no pod then; a sidecar's stays.
    config.suspend = validated.spec().suspend;
    if let Some(portal) = &mut config.source.cloud_apps {
        portal.requests_per_minute = Some(FIRST_REQUESTS_PER_MINUTE);
    }
    if let Some(graph) = &mut config.source.graph {
        graph.requests_per_minute = Some(FIRST_REQUESTS_PER_MINUTE);
    }
    let text = yaml(&config)?;
    Ok(format!("{HEADER}{CONFIG_HEADER}{text}"))
}

pub(super) fn config_map(
    validated: &Validated<'_>,
    configuration: String,
) -> Result<ConfigMap, Error> {
    let live = Live {
        version: VERSION,
        requests_per_minute: validated.allowed.requests_per_minute(),
        hunting_per_minute: validated.allowed.hunting_per_minute(),
        log_level: validated.spec().forwarder.log_level,
    };
    let live = yaml(&live)?;
    let data = BTreeMap::from([
        (CONFIG_KEY.to_owned(), configuration),
        (LIVE_KEY.to_owned(), format!("{HEADER}{live}")),
    ]);
    Ok(ConfigMap {
        metadata: names::metadata(validated.agent, Owned::Config),
        data: Some(data),
        ..ConfigMap::default()
    })
}

/// By way of JSON: what writes YAML is compiled once, for one type.
fn yaml(value: &impl Serialize) -> Result<String, Error> {
    let value = encoded(Owned::Config, value)?;
    serde_saphyr::to_string(&value).map_err(Error::Configuration)
}
