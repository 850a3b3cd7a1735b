//! An alert of Microsoft Graph (`alerts_v2`), free of the wire's names and looseness. Pure.

use crate::time::Millis;

/// An alert: a policy or a detection was triggered.
///
/// <https://learn.microsoft.com/graph/api/resources/security-alert>
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GraphAlert {
    /// `id`.
    pub id: String,
    /// `providerAlertId`, where it is what the portal's own API calls the alert: where `id` begins with `ca`.
    pub portal_id: Option<String>,
    /// `createdDateTime`, ms.
    pub created: Millis,
    /// `firstActivityDateTime`, ms.
    pub first_activity: Option<Millis>,
    /// `lastActivityDateTime`, ms.
    pub last_activity: Option<Millis>,
    /// `alertPolicyId`.
    pub policy_id: Option<String>,
    /// `detectorId`.
    pub detector_id: Option<String>,
    /// `category`.
    pub category: Option<String>,
    /// `title`.
    pub title: Option<String>,
    /// `description`, as it came.
    pub description: Option<String>,
    /// `severity`.
    pub severity: Option<String>,
    /// `actorDisplayName`.
    pub actor: Option<String>,
    /// `alertWebUrl`.
    pub url: Option<String>,
    /// `evidence`, in order, without the kinds of which nothing is exported.
    pub evidence: Vec<Evidence>,
}

/// Something that an alert rests on.
///
/// <https://learn.microsoft.com/graph/api/resources/security-alertevidence>
#[derive(Debug, Clone, PartialEq)]
pub enum Evidence {
    /// `userEvidence`.
    User(UserAccount),
    /// `mailboxEvidence`.
    Mailbox {
        /// `upn`.
        principal_name: Option<String>,
        /// `primaryAddress`.
        primary_address: Option<String>,
    },
    /// `cloudLogonSessionEvidence`: its `account`.
    CloudLogonSession(UserAccount),
    /// `cloudApplicationEvidence`.
    CloudApplication {
        /// `appId`, else `saasAppId`.
        app_id: Option<String>,
        /// `displayName`.
        name: Option<String>,
        /// `instanceName`.
        instance_name: Option<String>,
    },
    /// `oauthApplicationEvidence`: its `displayName`.
    OauthApplication(Option<String>),
    /// `ipEvidence`: its `ipAddress`.
    Ip(Option<String>),
    /// `fileEvidence`.
    File,
}

/// Whose account it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UserAccount {
    /// `userPrincipalName`.
    pub principal_name: Option<String>,
    /// `accountName`.
    pub name: Option<String>,
    /// `domainName`.
    pub domain: Option<String>,
    /// `displayName`.
    pub display_name: Option<String>,
}

impl GraphAlert {
    /// The id by which the portal's own API and the vendor's agent know the alert, where it has one.
    pub fn external_id(&self) -> &str {
        self.portal_id.as_deref().unwrap_or(&self.id)
    }
}
