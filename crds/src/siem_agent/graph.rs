//! `spec.source.graph`: Microsoft Graph, its cloud, and what is read there.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::plain_defaults;
use crate::duration::GoDuration;

/// Microsoft Graph.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Graph {
    /// The cloud that the tenant lives in: Global, USGovernment (GCC High) or USGovernmentDoD. Default: Global.
    #[serde(default)]
    pub cloud: Cloud,
    /// Graph's URL, for private endpoints: https only, except to 127.x.y.z, `[::1]` or localhost; no user info, path, query
    /// or fragment. Default: the cloud's own, such as `https://graph.microsoft.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub url: Option<String>,
    /// Whose alerts, as Graph names its services. Default: microsoftDefenderForCloudApps and microsoftAppGovernance.
    #[serde(default = "plain_defaults::service_sources")]
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9]+$"))
    )]
    pub service_sources: Vec<String>,
    /// The tables of advanced hunting that activities are read from. Default: CloudAppEvents and IdentityLogonEvents.
    #[serde(default = "HuntingTable::all")]
    #[schemars(length(min = 1, max = 2))]
    pub tables: Vec<HuntingTable>,
    /// Maximum hunting queries a minute of this agent; alerts have a budget of their own. Default: its share of 30, of the 45
    /// that Graph allows a tenant, or of what the cluster's administrator gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 6000))]
    pub requests_per_minute: Option<i32>,
    /// Poll interval of each stream. Lengthened automatically when requestsPerMinute is too low. Default: 30s, at least 1s,
    /// at most 1h.
    #[serde(default = "plain_defaults::graph_poll_interval")]
    pub poll_interval: GoDuration,
    /// How far behind its newest rows each table is looked at again, for rows that were ingested out of order. Default: 30m,
    /// at most 24h.
    #[serde(default = "plain_defaults::graph_overlap")]
    pub overlap: GoDuration,
}

/// A cloud with hosts of its own. Microsoft Graph in China has neither security/alerts_v2 nor advanced hunting (Microsoft
/// Graph, "National cloud deployments").
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum Cloud {
    /// Worldwide, and GCC.
    #[default]
    Global,
    /// GCC High.
    USGovernment,
    /// The Department of Defense.
    USGovernmentDoD,
}

impl Cloud {
    /// Graph's URL there.
    pub fn graph_url(self) -> &'static str {
        match self {
            Self::Global => "https://graph.microsoft.com",
            Self::USGovernment => "https://graph.microsoft.us",
            Self::USGovernmentDoD => "https://dod-graph.microsoft.us",
        }
    }

    /// The identity provider's URL there.
    pub fn authority_url(self) -> &'static str {
        match self {
            Self::Global => "https://login.microsoftonline.com",
            Self::USGovernment | Self::USGovernmentDoD => "https://login.microsoftonline.us",
        }
    }
}

/// A table of advanced hunting that holds activities.
#[derive(
    Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema,
)]
pub enum HuntingTable {
    /// What was done in connected apps.
    CloudAppEvents,
    /// Sign-ins.
    IdentityLogonEvents,
}

impl HuntingTable {
    fn all() -> Vec<Self> {
        vec![Self::CloudAppEvents, Self::IdentityLogonEvents]
    }

    /// As queries name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CloudAppEvents => "CloudAppEvents",
            Self::IdentityLogonEvents => "IdentityLogonEvents",
        }
    }
}
