//! What to do when the identity provider refuses an application: which of its settings is wrong. Pure.
//!
//! By the numbers of Entra ID's errors, else by OAuth's own (RFC 6749, section 5.2). Never a new token of the portal:
//! an application has none.

use std::fmt;

use super::answer::TokenRefusal;

/// What has to be mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mend {
    /// The client secret has expired.
    SecretExpired,
    /// The client secret is another one than the application's.
    SecretWrong,
    /// The client secret is wrong, and has the form of a secret's ID.
    SecretId,
    /// The application trusts no ServiceAccount of this name.
    Subject,
    /// The application does not trust this cluster.
    Issuer,
    /// The ServiceAccount token was made for somebody else.
    Audience,
    /// The ServiceAccount token has expired, or its clock is ahead.
    AssertionExpired,
    /// The ServiceAccount token cannot be verified.
    Assertion,
    /// There is no such application in this directory.
    Application,
    /// The application is switched off.
    Disabled,
    /// There is no such directory.
    Tenant,
    /// Nobody has consented to the permission.
    Consent,
    /// The directory does not know the API.
    Resource,
    /// A policy keeps the application out.
    Policy,
    /// The secret or the application, the provider does not say which.
    Client,
    /// Anything.
    Unknown,
}

impl Mend {
    /// What this refusal asks for; `secret` is what was sent, which may be a ServiceAccount's token.
    pub(in crate::source) fn of(refusal: &TokenRefusal, secret: &str, is_assertion: bool) -> Self {
        match refusal.number() {
            // Microsoft Entra ID, "Workload identity federation", error codes.
            Some(700_213 | 700_223) => Self::Subject,
            Some(700_211) => Self::Issuer,
            Some(700_212) => Self::Audience,
            Some(700_024) => Self::AssertionExpired,
            Some(50_027 | 500_135 | 700_021 | 700_025 | 700_027) if is_assertion => Self::Assertion,
            Some(7_000_222) => Self::SecretExpired,
            Some(7_000_215 | 7_000_216 | 7_000_218 | 50_012) if is_id(secret) => Self::SecretId,
            Some(7_000_215 | 7_000_216 | 7_000_218 | 50_012) => Self::SecretWrong,
            Some(700_016 | 70_001 | 700_011 | 700_027 | 900_144 | 700_038) => Self::Application,
            Some(7_000_112 | 7_000_113 | 500_113) => Self::Disabled,
            Some(
                90_002 | 90_019 | 900_021 | 900_023 | 900_382 | 50_059 | 50_020 | 50_194 | 16_000,
            ) => Self::Tenant,
            Some(
                65_001 | 65_004 | 65_005 | 90_094 | 90_008 | 50_105 | 501_051 | 650_056 | 700_022,
            ) => Self::Consent,
            Some(500_011 | 500_014 | 650_052 | 650_053 | 650_057 | 70_011 | 1_002_012 | 28_002) => {
                Self::Resource
            }
            Some(53_000..=53_011 | 530_000..=530_099 | 50_076 | 50_079) => Self::Policy,
            Some(_) | None => match refusal.error.as_str() {
                "invalid_client" if is_assertion => Self::Assertion,
                "invalid_client" if is_id(secret) => Self::SecretId,
                "invalid_client" => Self::Client,
                "unauthorized_client" => Self::Application,
                "invalid_scope" | "invalid_resource" | "invalid_target" => Self::Resource,
                "access_denied" | "consent_required" | "interaction_required" => Self::Consent,
                _ => Self::Unknown,
            },
        }
    }
}

/// Whether a refusal is about the provider's own state and passes by itself.
pub(in crate::source) fn is_passing(refusal: &TokenRefusal) -> bool {
    matches!(refusal.error.as_str(), "temporarily_unavailable" | "server_error" | "slow_down")
        || matches!(refusal.number(), Some(90_006 | 90_024 | 90_033 | 90_055))
}

/// A GUID, which a secret's ID is and its value never.
fn is_id(secret: &str) -> bool {
    let parts: Vec<&str> = secret.split('-').collect();
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl fmt::Display for Mend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::SecretExpired => {
                "The client secret has expired: make another one for this application in Entra ID (Certificates & secrets), and store it in the Secret of clientSecretRef"
            }
            Self::SecretWrong => {
                "The client secret is wrong: copy the Value of a secret of the application clientId in Entra ID (Certificates & secrets), not its Secret ID, and store it in the Secret of clientSecretRef"
            }
            Self::SecretId => {
                "What is stored has the form of a Secret ID: copy the secret's Value in Entra ID (Certificates & secrets; it is shown only once), and store it in the Secret of clientSecretRef"
            }
            Self::Subject => {
                "The application has no federated credential with this subject: add one whose subject is the one that the message names (system:serviceaccount:<namespace>:<name>-forwarder)"
            }
            Self::Issuer => {
                "The application has no federated credential with this issuer: its issuer must be the cluster's, as kubectl get --raw /.well-known/openid-configuration shows it"
            }
            Self::Audience => {
                "The audience of the federated credential is another one than spec.source.auth.clientCredentials.workloadIdentity.audience: make them equal"
            }
            Self::AssertionExpired => {
                "The ServiceAccount token is not valid at this time: check the clocks of the node and of the API server, and that the kubelet renews the file"
            }
            Self::Assertion => {
                "Entra ID cannot verify the ServiceAccount token: the issuer's keys (its jwks_uri) must be reachable from the internet and be the cluster's current ones"
            }
            Self::Application => {
                "Check clientId, and that tenantId is the directory in which this application is registered"
            }
            Self::Disabled => "The application is disabled: let an administrator enable it in Entra ID",
            Self::Tenant => {
                "Check tenantId: it is the directory's ID or one of its domains; and authorityUrl, where the tenant is in a national cloud"
            }
            Self::Consent => {
                "Give the application its permissions in Entra ID (API permissions, application permissions): Investigation.read of Microsoft Cloud App Security for cloudApps, SecurityAlert.Read.All and ThreatHunting.Read.All of Microsoft Graph for graph; and let an administrator grant consent"
            }
            Self::Resource => {
                "The directory does not know the API (Microsoft Cloud App Security for cloudApps, Microsoft Graph for graph): check that tenantId is the tenant with Defender for Cloud Apps, add the API's permission (Investigation.read for cloudApps) to the application and grant consent"
            }
            Self::Policy => {
                "A Conditional Access policy keeps the application out: let an administrator of Entra ID exempt it or its address"
            }
            Self::Client => "Check clientId and the client secret in the Secret of clientSecretRef",
            Self::Unknown => {
                "Check tenantId, clientId, the client secret and the administrator's consent"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mend(error: &str, description: &str, secret: &str) -> Mend {
        let json = serde_json::json!({"error": error, "error_description": description});
        Mend::of(&serde_json::from_value(json).unwrap(), secret, false)
    }

    #[test]
    fn each_refusal_of_a_service_accounts_token_names_what_to_mend() {
        for (number, expected) in [
            (700_213, Mend::Subject),
            (700_211, Mend::Issuer),
            (700_212, Mend::Audience),
            (700_024, Mend::AssertionExpired),
            (50_027, Mend::Assertion),
            (700_016, Mend::Application),
            (0, Mend::Assertion),
        ] {
            let words = format!("AADSTS{number}: no.");
            let json = serde_json::json!({"error": "invalid_client", "error_description": words});
            let refusal = serde_json::from_value(json).unwrap();
            assert_eq!(Mend::of(&refusal, "a.b.c", true), expected, "{number}");
        }
    }

    const ID: &str = "0b5f0c4e-1f9e-4d6b-8a57-8d0f3a7c9e21";

    #[test]
    fn each_refusal_names_the_setting_and_none_a_token_of_the_portal() {
        for (error, description, secret, words) in [
            (
                "invalid_client",
                "AADSTS7000222: The provided client secret keys are expired.",
                "x",
                "has expired",
            ),
            (
                "invalid_client",
                "AADSTS7000215: Invalid client secret provided.",
                "x",
                "not its Secret ID",
            ),
            (
                "invalid_client",
                "AADSTS7000215: Invalid client secret provided.",
                ID,
                "has the form of a Secret ID",
            ),
            (
                "unauthorized_client",
                "AADSTS700016: Application was not found in the directory.",
                "x",
                "clientId",
            ),
            ("invalid_client", "AADSTS7000112: Application is disabled.", "x", "disabled"),
            ("invalid_request", "AADSTS90002: Tenant 'x' not found.", "x", "tenantId"),
            (
                "invalid_request",
                "AADSTS900023: Specified tenant identifier is neither valid.",
                "x",
                "tenantId",
            ),
            (
                "invalid_grant",
                "AADSTS65001: The user or administrator has not consented.",
                "x",
                "consent",
            ),
            (
                "invalid_resource",
                "AADSTS500011: The resource principal was not found.",
                "x",
                "consent",
            ),
            (
                "invalid_scope",
                "AADSTS1002012: The provided value for scope is not valid.",
                "x",
                "consent",
            ),
            (
                "access_denied",
                "AADSTS53003: Access has been blocked by Conditional Access policies.",
                "x",
                "Conditional Access",
            ),
            ("invalid_client", "", "x", "clientId and the client secret"),
            ("invalid_client", "", ID, "Secret ID"),
            ("unauthorized_client", "", "x", "clientId"),
            (
                "invalid_request",
                "AADSTS999999: something new",
                "x",
                "tenantId, clientId, the client secret",
            ),
        ] {
            let advice = mend(error, description, secret).to_string();
            assert!(advice.contains(words), "{description}: {advice}");
            assert!(!advice.contains("portal") && !advice.contains("new token"), "{advice}");
        }
    }

    #[test]
    fn what_passes_by_itself_is_not_the_application() {
        let passes = |error: &str, description: &str| {
            let json = serde_json::json!({"error": error, "error_description": description});
            is_passing(&serde_json::from_value(json).unwrap())
        };
        assert!(passes("temporarily_unavailable", ""));
        assert!(passes("invalid_request", "AADSTS90033: A transient error has occurred."));
        assert!(!passes("invalid_client", "AADSTS7000215: Invalid client secret provided."));
    }
}
