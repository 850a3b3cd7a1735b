//! `status`: what the operator has seen.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SiemAgent;
use crate::condition::{ConditionStatus, ConditionType, Reason};

/// What the operator has seen.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiemAgentStatus {
    /// The generation of the spec that this status speaks of; -1 before the first look.
    #[serde(default = "never")]
    pub observed_generation: i64,
    /// The portal's own word for the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Ready, Reconciling, Stalled, Paused, WorkloadAvailable, TokenValid and Delivering.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Whether the API takes the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenStatus>,
    /// The larger lag of the streams, as a bucket: <1m, <5m, <15m, <1h, <6h or >=6h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<String>,
    /// How far each stream has come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub streams: Vec<StreamStatus>,
    /// The image that the forwarder runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// The portal's words for an agent.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum State {
    /// Never connected yet.
    Created,
    /// Connected.
    Connected,
    /// Down for more than two hours.
    ConnectionError,
    /// Down for more than twelve hours.
    Disconnected,
    /// Stopped by `spec.suspend`.
    Suspended,
}

/// What is known of a token.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum TokenState {
    /// The API takes it.
    Valid,
    /// The API refuses it: 401.
    Invalid,
    /// It may not read an enabled stream: 403.
    Forbidden,
    /// The Secret or its key is absent.
    Missing,
    /// Not tried yet.
    Unknown,
}

/// Whether the API takes the token.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenStatus {
    /// Valid, Invalid, Forbidden, Missing or Unknown.
    pub state: TokenState,
    /// Why, in the API's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was last tried; refreshed only together with another change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_check_time: Option<Time>,
    /// When the state last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_change_time: Option<Time>,
}

/// One of the two kinds of records that the API lists.
#[derive(
    Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Alerts.
    Alerts,
    /// Activities.
    Activities,
}

impl Stream {
    /// `alerts` or `activities`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alerts => "alerts",
            Self::Activities => "activities",
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The source of a stream: CloudApps or Graph. Default: Graph for alerts and CloudApps for activities where spec.source gives
/// it, else the other.
#[derive(
    Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema,
)]
pub enum StreamSource {
    /// `spec.source.cloudApps`.
    CloudApps,
    /// `spec.source.graph`.
    Graph,
}

impl StreamSource {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::CloudApps, Self::Graph];

    /// As people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CloudApps => "CloudApps",
            Self::Graph => "Graph",
        }
    }
}

/// How far one stream has come.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamStatus {
    /// alerts or activities.
    pub name: Stream,
    /// Where it comes from: CloudApps or Graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<StreamSource>,
    /// How far it lags, as a bucket: <1m, <5m, <15m, <1h, <6h or >=6h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<String>,
    /// Everything that the API has shown up to this time is delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_through: Option<Time>,
    /// When the newest delivered event happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_event_time: Option<Time>,
    /// Why this stream does not flow, where it does not: StreamForbidden, when the token may not read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Created,
        Self::Connected,
        Self::ConnectionError,
        Self::Disconnected,
        Self::Suspended,
    ];

    /// As it is on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "Created",
            Self::Connected => "Connected",
            Self::ConnectionError => Reason::ConnectionError.as_str(),
            Self::Disconnected => Reason::Disconnected.as_str(),
            Self::Suspended => Reason::Suspended.as_str(),
        }
    }
}

impl TokenState {
    /// As it is on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Valid => Reason::Valid.as_str(),
            Self::Invalid => Reason::Invalid.as_str(),
            Self::Forbidden => Reason::Forbidden.as_str(),
            Self::Missing => Reason::Missing.as_str(),
            Self::Unknown => ConditionStatus::Unknown.as_str(),
        }
    }
}

impl Default for SiemAgentStatus {
    fn default() -> Self {
        Self {
            observed_generation: never(),
            state: None,
            conditions: Vec::new(),
            token: None,
            lag: None,
            streams: Vec::new(),
            image: None,
        }
    }
}

fn never() -> i64 {
    -1
}

impl SiemAgentStatus {
    /// The condition of a type.
    pub fn condition(&self, of: ConditionType) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == of)
    }

    /// The status of a stream.
    pub fn stream(&self, name: Stream) -> Option<&StreamStatus> {
        self.streams.iter().find(|stream| stream.name == name)
    }

    /// Whether the condition of a type is there and True.
    pub fn is(&self, of: ConditionType) -> bool {
        self.condition(of).is_some_and(|condition| condition.status == ConditionStatus::True)
    }
}

/// `"true"` here and the operator writes nothing for the agent: no drift is put back, nothing is rolled out.
pub const PAUSED_ANNOTATION: &str = "siemagent.dev/paused";

impl SiemAgent {
    /// Whether its user has paused the operator for it.
    pub fn is_paused(&self) -> bool {
        let annotations = self.metadata.annotations.as_ref();
        annotations
            .and_then(|annotations| annotations.get(PAUSED_ANNOTATION))
            .is_some_and(|value| value == "true")
    }

    /// Whether nothing is exported: of a paused agent whose spec waits, what the spec before it said.
    pub fn is_suspended(&self) -> bool {
        if self.is_paused() && !self.is_observed() {
            let state = self.status.as_ref().and_then(|status| status.state);
            return state == Some(State::Suspended);
        }
        self.spec.suspend
    }

    /// Whether the condition of a type is there and True.
    pub fn is(&self, of: ConditionType) -> bool {
        self.status.as_ref().is_some_and(|status| status.is(of))
    }

    /// Whether the spec of the present generation cannot work.
    pub fn is_stalled(&self) -> bool {
        let stalled =
            self.status.as_ref().and_then(|status| status.condition(ConditionType::Stalled));
        stalled.is_some_and(|stalled| {
            stalled.status == ConditionStatus::True
                && stalled.observed_generation == self.metadata.generation
        })
    }

    /// Whether a status was ever written: the CRD's default for the observed generation is -1.
    pub fn was_observed(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.observed_generation >= 0)
    }

    /// Whether the status is of the present generation.
    pub fn is_observed(&self) -> bool {
        self.status.as_ref().map(|status| status.observed_generation) == self.metadata.generation
    }
}
