//! `spec.source`: the tenant's APIs and how to authenticate to them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::graph::Graph;
use super::plain_defaults;

use crate::duration::GoDuration;

/// The APIs that serve the tenant's alerts and activities, and how to authenticate to them: at least one of cloudApps and
/// graph. Alerts come from graph where it is given, activities from cloudApps where it is given; eventTypes says otherwise.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// How to authenticate: exactly one of tokenSecretRef and clientCredentials.
    pub auth: Auth,
    /// Defender for Cloud Apps' own API: alerts and activities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_apps: Option<CloudApps>,
    /// Microsoft Graph: alerts by security/alerts_v2, activities by advanced hunting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<Graph>,
    /// The proxy on the way to the API, reached by CONNECT. A URL in plain text, which is loopback only, is asked without it. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// The certificate authorities to trust for the API. Default: the public roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<BundleRef>,
}

/// Defender for Cloud Apps' own API.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CloudApps {
    /// The tenant's API URL, such as `https://contoso.us2.portal.cloudappsecurity.com`: https only, except to 127.x.y.z,
    /// `[::1]` or localhost; no user info, path, query or fragment.
    #[schemars(length(max = 512))]
    pub url: String,
    /// Maximum API requests a minute of this agent. Default: its share of the tenant's 30, or of what
    /// the cluster's administrator gives the tenant. Working agents on one URL share evenly, and what one may not use goes to
    /// the others. While all of them are in one namespace, the largest value given there is the tenant's budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 6000))]
    pub requests_per_minute: Option<i32>,
    /// Poll interval of each stream. Lengthened automatically when requestsPerMinute is too low. Default: 4s, at least 1s, at
    /// most 1h.
    #[serde(default = "plain_defaults::poll_interval")]
    pub poll_interval: GoDuration,
    /// How far behind the watermark each poll looks again for late activities. Default: 5m, at most 24h.
    #[serde(default = "plain_defaults::overlap")]
    pub overlap: GoDuration,
}

/// Exactly one way to authenticate.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// The Secret of the agent's namespace that holds an API token of the portal, for cloudApps alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<SecretKeyRef>,
    /// An application of Entra ID, for every source, with the permissions that they need: Investigation.read for cloudApps,
    /// SecurityAlert.Read.All for Graph's alerts, ThreatHunting.Read.All for Graph's activities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_credentials: Option<ClientCredentials>,
}

/// A key of a Secret in the agent's namespace.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// The key in the Secret. Default: token.
    #[serde(default = "plain_defaults::token_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// An application of Entra ID.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientCredentials {
    /// The directory (tenant) id, or a domain of the tenant.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$")
    )]
    pub tenant_id: String,
    /// The application (client) id.
    #[schemars(
        length(max = 36),
        regex(
            pattern = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
        )
    )]
    pub client_id: String,
    /// The Secret of the agent's namespace that holds the client secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret_ref: Option<ClientSecretRef>,
    /// The pod's own ServiceAccount token in place of a secret: it is exchanged for an access token by a federated
    /// credential of the application, whose subject is `system:serviceaccount:<namespace>:<name>-forwarder`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_identity: Option<WorkloadIdentity>,
    /// The identity provider, for national clouds. Default: `https://login.microsoftonline.com`, or
    /// `https://login.microsoftonline.us` with graph.cloud USGovernment or USGovernmentDoD; https only, except to loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub authority_url: Option<String>,
}

/// Who the pod is to Entra ID.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadIdentity {
    /// The audience of the ServiceAccount token, as the federated credential names it. Default: `api://AzureADTokenExchange`.
    #[serde(default = "plain_defaults::audience")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[!-~]+$"))]
    pub audience: String,
}

/// A key of a Secret in the agent's namespace.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientSecretRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// The key in the Secret. Default: clientSecret.
    #[serde(default = "plain_defaults::client_secret_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// A proxy.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Proxy {
    /// The proxy's URL, `http://host:port` or `https://host:port`; no user info: use credentialsSecretRef.
    #[schemars(length(max = 512))]
    pub url: String,
    /// What is reached without the proxy: `*`, a domain with all below it (`example.com`), an address, a network
    /// (`10.0.0.0/8`, `10.*`); all but a network in that form also with `:PORT`. Default: none.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub no_proxy: Vec<String>,
    /// The Secret of the agent's namespace with the proxy's user name and password. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<ProxyCredentialsRef>,
}

/// A Secret of the agent's namespace with a user name and a password.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyCredentialsRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// The key of the user name in the Secret. Default: username.
    #[serde(default = "plain_defaults::username_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub username_key: String,
    /// The key of the password in the Secret. Default: password.
    #[serde(default = "plain_defaults::password_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub password_key: String,
}

/// A Secret of the agent's namespace.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// A key of a Secret or ConfigMap of the agent's namespace, holding certificates in PEM.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BundleRef {
    /// Secret or ConfigMap. Default: ConfigMap.
    #[serde(default)]
    pub kind: BundleKind,
    /// The object's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// The key in the Secret or ConfigMap. Default: ca.crt.
    #[serde(default = "plain_defaults::ca_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// What holds a bundle.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum BundleKind {
    /// A Secret.
    Secret,
    /// A ConfigMap.
    #[default]
    ConfigMap,
}
