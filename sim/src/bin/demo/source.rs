//! Which API the demo's agent reads, and how its manifest says so.

/// Both have the same events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Source {
    /// The portal's own API, with a token of the portal.
    #[default]
    #[value(name = "CloudApps", alias = "cloudapps")]
    CloudApps,
    /// Microsoft Graph, with the secret of an application.
    #[value(name = "Graph", alias = "graph")]
    Graph,
}

impl Source {
    /// The fields of `spec.source` for the simulated tenant at this URL, indented by four.
    pub(crate) fn fields(self, url: &str) -> String {
        match self {
            Self::CloudApps => format!(
                "cloudApps: {{url: '{url}', requestsPerMinute: 600, pollInterval: 1s}}\n    \
                 auth: {{tokenSecretRef: {{name: defender}}}}"
            ),
            Self::Graph => format!(
                "graph: {{url: '{url}', requestsPerMinute: 600, pollInterval: 1s, overlap: 1m}}\n    \
                 auth:\n      clientCredentials:\n        \
                 tenantId: 00000000-0000-0000-0000-000000000000\n        \
                 clientId: 00000000-0000-0000-0000-000000000000\n        \
                 clientSecretRef: {{name: defender, key: token}}\n        authorityUrl: '{url}'"
            ),
        }
    }

    /// What is good in its Secret, for people.
    pub(crate) fn secret(self) -> &'static str {
        match self {
            Self::CloudApps => "the portal's token",
            Self::Graph => "the application's client secret",
        }
    }
}
