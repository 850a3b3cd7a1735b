//! `spec.eventTypes`: which streams are exported, from which source, and with which filters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::plain_defaults;
use super::status::{Stream, StreamSource};

/// The API's own filters, field to operator to operand: `{"ip.tags": {"eq": […]}}`.
pub type RawFilter = Map<String, Value>;

/// Which streams are exported.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventTypes {
    /// Alerts.
    #[serde(default)]
    pub alerts: AlertStream,
    /// Activities.
    #[serde(default)]
    pub activities: ActivityStream,
}

/// The stream of alerts.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertStream {
    /// Whether alerts are exported. Default: true.
    #[serde(default = "plain_defaults::yes")]
    pub enabled: bool,
    /// Which source serves them: CloudApps or Graph. Default: Graph where source.graph is given, else CloudApps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<StreamSource>,
    /// Filter of this stream; all conditions must hold. Default: everything.
    #[serde(default)]
    pub filter: AlertFilter,
}

/// The stream of activities.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActivityStream {
    /// Whether activities are exported. Default: true.
    #[serde(default = "plain_defaults::yes")]
    pub enabled: bool,
    /// Which source serves them: CloudApps or Graph. Default: CloudApps where source.cloudApps is given, else Graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<StreamSource>,
    /// Filter of this stream; all conditions must hold. Default: everything.
    #[serde(default)]
    pub filter: ActivityFilter,
}

/// Conditions on alerts; an empty list sets none.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertFilter {
    /// Any of these severities: Low, Medium, High, Informational. Default: none.
    #[serde(default)]
    #[schemars(length(max = 4))]
    pub severities: Vec<Severity>,
    /// Any of these apps, by the portal's number. Default: none.
    #[serde(default)]
    #[schemars(length(max = 64), inner(range(min = 0, max = 2_147_483_647)))]
    pub services: Vec<i64>,
    /// Any of these policies, by id. Default: none.
    #[serde(default)]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9_-]+$"))
    )]
    pub policies: Vec<String>,
    /// cloudApps' own filters, such as `{"entity.ip": {"eq": ["192.0.2.1"]}}`. Refused: date, created and paging keys.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub raw: RawFilter,
}

/// Conditions on activities; an empty list sets none.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActivityFilter {
    /// Any of these apps, by the portal's number. Default: none.
    #[serde(default)]
    #[schemars(length(max = 64), inner(range(min = 0, max = 2_147_483_647)))]
    pub services: Vec<i64>,
    /// Any of these user names. Default: none.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 320)))]
    pub users: Vec<String>,
    /// Any of these types, such as EVENT_CATEGORY_LOGIN. Default: none.
    #[serde(default)]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_:.-]+$"))
    )]
    pub event_types: Vec<String>,
    /// Any of these categories of the address: Corporate, Administrative, Risky, VPN, CloudProvider, Other. Default: none.
    #[serde(default)]
    #[schemars(length(max = 6))]
    pub ip_categories: Vec<IpCategory>,
    /// Any of these countries, by ISO 3166 code of two letters. Default: none.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 2, max = 2), regex(pattern = r"^[A-Z]{2}$")))]
    pub countries: Vec<String>,
    /// Any of these policies, by id; for cloudApps alone, because no row of Graph says its policies. Default: none.
    #[serde(default)]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9_-]+$"))
    )]
    pub policies: Vec<String>,
    /// cloudApps' own filters, such as `{"ip.tags": {"eq": […]}}`. Refused: date, created and paging keys.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub raw: RawFilter,
    /// One KQL condition for rows of Graph's hunting tables, such as `ActionType != "MailItemsAccessed"`; it is ANDed to the
    /// query. Default: none.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub condition: Option<String>,
}

/// How severe an alert is.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum Severity {
    /// 0 in the API.
    Low,
    /// 1 in the API.
    Medium,
    /// 2 in the API.
    High,
    /// 3 in the API.
    Informational,
}

/// What kind of network an address belongs to.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum IpCategory {
    /// 1 in the API.
    Corporate,
    /// 2 in the API.
    Administrative,
    /// 3 in the API.
    Risky,
    /// 4 in the API.
    VPN,
    /// 5 in the API.
    CloudProvider,
    /// 6 in the API.
    Other,
}

impl EventTypes {
    /// The streams that are exported.
    pub fn enabled(&self) -> impl Iterator<Item = Stream> + use<> {
        let streams =
            [(Stream::Alerts, self.alerts.enabled), (Stream::Activities, self.activities.enabled)];
        streams.into_iter().filter_map(|(stream, enabled)| enabled.then_some(stream))
    }
}

impl Default for AlertStream {
    fn default() -> Self {
        Self { enabled: plain_defaults::yes(), from: None, filter: AlertFilter::default() }
    }
}

impl Default for ActivityStream {
    fn default() -> Self {
        Self { enabled: plain_defaults::yes(), from: None, filter: ActivityFilter::default() }
    }
}
