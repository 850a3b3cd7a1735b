//! The forwarder's configuration file: the operator writes it, the forwarder reads it once and is restarted by a change.
//!
//! What may change without a restart stands in a second, small file ([`Live`]). Both are versioned; a field that this
//! version does not know is refused by its path, at any depth. Secrets are never in it, only the places of their files.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::defaults::{self, EffectiveFormat, EffectiveSyslog};
use crate::duration::GoDuration;
use crate::manifest::{Problem, Problems, quote};
use crate::siem_agent::{EventTypes, LogLevel, SidecarOf, SiemAgent, Source};

/// The version of both files.
pub const VERSION: u32 = 1;
/// The forwarder's admin port: `/livez`, `/readyz`, `/metrics` and `/status`.
pub const ADMIN_PORT: u16 = 9464;

/// The whole configuration of a forwarder.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Always [`VERSION`].
    pub version: u32,
    /// The agent that is served.
    pub agent: AgentIdentity,
    /// `spec.source`, with its defaults.
    pub source: Source,
    /// `spec.format`, with its defaults.
    pub format: EffectiveFormat,
    /// `spec.syslog`, with its defaults.
    pub syslog: EffectiveSyslog,
    /// `spec.eventTypes`.
    #[serde(default)]
    pub event_types: EventTypes,
    /// `spec.startFrom`.
    pub start_from: GoDuration,
    /// The workload that hosts the forwarder, as `KIND/NAME`: a sidecar of any other exports nothing. Absent for a pod of
    /// the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar_of: Option<String>,
    /// `spec.suspend`, for a sidecar, whose pod stays: nothing is exported. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    /// Where files lie.
    pub paths: Paths,
    /// The admin port's address. Default: `[::]:9464`, which is both families.
    #[serde(default = "listen")]
    pub listen: String,
    /// How much is logged.
    #[serde(default)]
    pub log_level: LogLevel,
}

/// The agent that a forwarder serves.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentIdentity {
    /// `metadata.namespace`; `default` outside a cluster.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`; absent outside a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The name that people read.
    pub display_name: String,
    /// `metadata.creationTimestamp`; absent outside a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<Timestamp>,
}

/// Where files lie.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Paths {
    /// `<secrets>/<Secret's name>/<key>`.
    pub secrets: PathBuf,
    /// `<config_maps>/<ConfigMap's name>/<key>`.
    pub config_maps: PathBuf,
    /// The folder of the forwarder's own state.
    pub state: PathBuf,
    /// The folder in which the operator keeps the checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<PathBuf>,
    /// The file of what may change without a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<PathBuf>,
    /// The file of the token that says who the pod is; with `workloadIdentity` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<PathBuf>,
}

/// What may change without a restart.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Live {
    /// Always [`VERSION`].
    pub version: u32,
    /// This agent's share of the requests that the portal allows the tenant.
    pub requests_per_minute: u32,
    /// Its share of the hunting queries that Graph allows the tenant; absent where the agent asks Graph for no activities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hunting_per_minute: Option<u32>,
    /// How much is logged.
    pub log_level: LogLevel,
}

impl Config {
    /// The configuration of the forwarder of this agent.
    pub fn for_agent(agent: &SiemAgent, paths: Paths) -> Self {
        Self {
            version: VERSION,
            agent: AgentIdentity {
                namespace: agent.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()),
                display_name: defaults::display_name(agent),
                name: agent.metadata.name.clone().unwrap_or_default(),
                uid: agent.metadata.uid.clone(),
                creation_timestamp: agent.metadata.creation_timestamp.as_ref().map(|time| time.0),
            },
            source: defaults::source(&agent.spec),
            format: defaults::format(agent),
            syslog: defaults::syslog(&agent.spec),
            event_types: agent.spec.event_types.clone(),
            start_from: agent.spec.start_from,
            sidecar_of: agent.spec.sidecar_of().map(SidecarOf::path),
            suspend: false,
            paths,
            listen: listen(),
            log_level: agent.spec.forwarder.log_level,
        }
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// [`Problems`]: unknown fields by their paths, an unknown version, a value of the wrong kind.
    pub fn read(text: &str) -> Result<Self, Problems> {
        let config: Self = strict(text)?;
        check_version(config.version)?;
        Ok(config)
    }
}

impl Live {
    /// Reads the file's text.
    ///
    /// # Errors
    /// [`Problems`], as [`Config::read`].
    pub fn read(text: &str) -> Result<Self, Problems> {
        let live: Self = strict(text)?;
        check_version(live.version)?;
        Ok(live)
    }
}

fn strict<'de, T: Deserialize<'de>>(text: &str) -> Result<T, Problems> {
    let value: serde_json::Value = serde_saphyr::from_str(text).map_err(|error| {
        Problems::one(
            "",
            format!("this is not YAML: {}", quote::yaml_error(&error.to_string(), text)),
        )
    })?;
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let deserializer = serde_path_to_error::Deserializer::new(value, &mut track);
    let result = serde_ignored::deserialize(deserializer, |path| {
        // An optional field on the way shows as a step of its own.
        unknown.push(Problem::new(path.to_string().replace(".?", ""), "unknown field"));
    });
    match result {
        Ok(read) if unknown.is_empty() => Ok(read),
        Ok(_) => Err(Problems(unknown)),
        Err(error) => Err(Problems::one(track.path().to_string(), error.to_string())),
    }
}

fn check_version(version: u32) -> Result<(), Problems> {
    if version == VERSION {
        return Ok(());
    }
    Err(Problems::one("version", format!("is {version}; this program reads version {VERSION}")))
}

fn listen() -> String {
    format!("[::]:{ADMIN_PORT}")
}
