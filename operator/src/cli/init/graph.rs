//! What `init` asks and says where Microsoft Graph is the source: the application of Entra ID, and how it is let in.

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::names::Owned;

/// Legal, and plainly not meant.
const UNKNOWN_TENANT: &str = "CHANGE-ME.onmicrosoft.com";
const UNKNOWN_CLIENT: &str = "00000000-0000-0000-0000-000000000000";

/// Where alerts and activities come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum SourceKind {
    /// Defender for Cloud Apps' own API, with an API token
    #[default]
    #[value(name = "cloudApps")]
    CloudApps,
    /// Microsoft Graph, with an application of Entra ID
    #[value(name = "graph")]
    Graph,
}

#[derive(Debug, Args)]
pub(super) struct GraphArguments {
    /// The directory (tenant) id, or a domain of the tenant; with --source graph.
    #[arg(long, value_name = "ID")]
    tenant_id: Option<String>,
    /// The application (client) id; with --source graph.
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// The tenant's cloud: Global, USGovernment or USGovernmentDoD; with --source graph. Default: Global
    #[arg(long)]
    cloud: Option<String>,
    /// Takes the pod's own ServiceAccount token in place of a client secret; with --source graph.
    #[arg(long)]
    workload_identity: bool,
}

/// Whose application it is that is let in.
pub(super) struct Whose<'a> {
    pub(super) namespace: Option<&'a str>,
    pub(super) name: &'a str,
    pub(super) secret: &'a str,
    /// The permissions that it needs.
    pub(super) permissions: &'a [&'a str],
}

impl GraphArguments {
    /// Whether any of them is given.
    pub(super) fn is_given(&self) -> bool {
        self.tenant_id.is_some()
            || self.client_id.is_some()
            || self.cloud.is_some()
            || self.workload_identity
    }

    /// Whether the application is named.
    pub(super) fn is_whole(&self) -> bool {
        self.tenant_id.is_some() && self.client_id.is_some()
    }

    /// The lines of `spec.source`, each with its depth.
    pub(super) fn lines(&self, secret: &str) -> Vec<(usize, String)> {
        let quoted = |text: &str| Value::from(text).to_string();
        let cloud = self.cloud.as_ref().map(|cloud| format!("cloud: {}", quoted(cloud)));
        let proof = if self.workload_identity {
            "workloadIdentity: {}".to_owned()
        } else {
            format!("clientSecretRef: {{name: {}}}", quoted(secret))
        };
        let tenant = self.tenant_id.as_deref().unwrap_or(UNKNOWN_TENANT);
        let client = self.client_id.as_deref().unwrap_or(UNKNOWN_CLIENT);
        vec![
            (2, format!("graph: {{{}}}", cloud.unwrap_or_default())),
            (2, "auth:".to_owned()),
            (3, "clientCredentials:".to_owned()),
            (4, format!("tenantId: {}", quoted(tenant))),
            (4, format!("clientId: {}", quoted(client))),
            (4, proof),
        ]
    }

    /// How the application is let in, as comments below the manifest.
    pub(super) fn words(&self, whose: &Whose<'_>) -> String {
        let Whose { namespace, name, secret, permissions } = whose;
        let proof = if self.workload_identity {
            let subject = Owned::ServiceAccount.name(name);
            let own = namespace.unwrap_or("NAMESPACE");
            let named = if namespace.is_some() {
                ""
            } else {
                "# NAMESPACE is the namespace that the SiemAgent goes into.\n"
            };
            format!(
                "# It needs no Secret. Give the application a federated credential (in the Microsoft Entra admin center: App\n\
                 # registrations, Certificates & secrets, Federated credentials, Kubernetes accessing Azure resources):\n\
                 #   issuer:   what `kubectl get --raw /.well-known/openid-configuration` names; Entra ID must be able to reach it\n\
                 #   subject:  system:serviceaccount:{own}:{subject}\n\
                 #   audience: api://AzureADTokenExchange\n{named}"
            )
        } else {
            let namespace =
                namespace.map_or_else(String::new, |name| format!(" --namespace {name}"));
            format!(
                "# The Secret that it names goes into the same namespace. Put a client secret of the application alone into a file\n\
                 # (in the Microsoft Entra admin center: App registrations, Certificates & secrets), and:\n\
                 #   kubectl create secret generic {secret}{namespace} --from-file=clientSecret=FILE\n"
            )
        };
        format!(
            "{proof}# The application needs these application permissions of Microsoft Graph, with an administrator's consent:\n\
             #   {}\n",
            permissions.join(", ")
        )
    }

    /// What the old start line does not know.
    pub(super) fn unknown(&self) -> Vec<&'static str> {
        let of = |is_given: bool, note| (!is_given).then_some(note);
        [
            of(
                self.tenant_id.is_some(),
                "note: the old line does not name the tenant; replace CHANGE-ME in spec.source.auth.clientCredentials.tenantId, or \
                 give --tenant-id",
            ),
            of(
                self.client_id.is_some(),
                "note: the old line does not name an application; replace the zeros in spec.source.auth.clientCredentials.clientId, \
                 or give --client-id",
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
