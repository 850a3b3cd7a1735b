//! What is measured of each source: how an agent reads it, which of its requests a backlog takes, and the goals.

use siem_agent_crds::report::Stream;
use siem_agent_sim::defender::{Defender, Request};

/// Where the forwarder's records come from. Every setting is the source's own default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Source {
    /// The portal's own API.
    #[value(name = "CloudApps", alias = "cloudapps")]
    CloudApps,
    /// Microsoft Graph: alerts by alerts_v2, activities by advanced hunting.
    #[value(name = "Graph", alias = "graph")]
    Graph,
}

impl Source {
    /// What stands before its figures.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::CloudApps => "CloudApps: the portal, requestsPerMinute 30, pollInterval 4s",
            Self::Graph => "Graph: alerts_v2 and hunting, requestsPerMinute 30, pollInterval 30s",
        }
    }

    /// The fields of `spec.source` for the simulated tenant at this URL, indented by four.
    pub(crate) fn fields(self, url: &str) -> String {
        match self {
            Self::CloudApps => format!(
                "cloudApps: {{url: '{url}', requestsPerMinute: 30}}\n    \
                 auth: {{tokenSecretRef: {{name: defender}}}}"
            ),
            Self::Graph => format!(
                "graph: {{url: '{url}', requestsPerMinute: 30}}\n    auth:\n      \
                 clientCredentials:\n        tenantId: 00000000-0000-0000-0000-000000000000\n        \
                 clientId: 00000000-0000-0000-0000-000000000000\n        \
                 clientSecretRef: {{name: defender, key: token}}\n        authorityUrl: '{url}'"
            ),
        }
    }

    /// Whether a request was spent of the 30 a minute.
    pub(crate) fn counts(self, request: &Request) -> bool {
        match self {
            Self::CloudApps => ["alerts", "activities"].contains(&request.what),
            Self::Graph => request.what == "graph-hunting",
        }
    }

    /// From where to where latency counts, and its goal.
    pub(crate) fn latency(self) -> (&'static str, &'static str) {
        match self {
            Self::CloudApps => ("created to rsyslogd", "at most 6 s"),
            Self::Graph => ("ingested to rsyslogd", "at most 35 s"),
        }
    }

    /// The goal of the memory at full rate.
    pub(crate) fn memory(self) -> &'static str {
        match self {
            Self::CloudApps => "at most 20 MiB",
            Self::Graph => "at most 24 MiB",
        }
    }

    /// Every id, with the time from which the source shows it, ms.
    pub(crate) fn shows(self, defender: &Defender) -> Vec<(Stream, String, i64)> {
        let times = match self {
            Self::CloudApps => defender.listed(),
            Self::Graph => defender.findable(),
        };
        times.into_iter().map(|((stream, id), at)| (stream, id, at)).collect()
    }
}
