//! Rows of the advanced hunting tables that hold activities, free of the wire's names and looseness. Pure.

use crate::time::Millis;

/// A row of `CloudAppEvents`: somebody did something in an app.
///
/// <https://learn.microsoft.com/defender-xdr/advanced-hunting-cloudappevents-table>
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CloudAppEvent {
    /// `ReportId`, else `RawEventData.Id`.
    pub id: String,
    /// `Timestamp`, ms.
    pub timestamp: Millis,
    /// `ActionType`.
    pub action: Option<String>,
    /// `ActivityType`.
    pub activity_type: Option<String>,
    /// `ObjectType`.
    pub object_type: Option<String>,
    /// Who did it: the first name that the row has.
    pub user: Option<String>,
    /// `Application`.
    pub application: Option<String>,
    /// `ApplicationId`.
    pub application_id: Option<String>,
    /// `IPAddress`.
    pub address: Option<String>,
    /// `UserAgent`.
    pub user_agent: Option<String>,
    /// `ActivityObjects`, in order.
    pub objects: Vec<ActivityObject>,
}

/// What an activity was about, or who did it, or how.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ActivityObject {
    /// `Type`.
    pub kind: Option<String>,
    /// `Role`.
    pub role: Option<String>,
    /// `Name`.
    pub name: Option<String>,
    /// `ServiceObjectType`.
    pub service_type: Option<String>,
}

/// A row of `IdentityLogonEvents`: somebody signed in, or tried to.
///
/// <https://learn.microsoft.com/defender-xdr/advanced-hunting-identitylogonevents-table>
#[derive(Debug, Clone, Default, PartialEq)]
pub struct IdentityLogonEvent {
    /// `ReportId`.
    pub id: String,
    /// `Timestamp`, ms.
    pub timestamp: Millis,
    /// `ActionType`.
    pub action: Option<String>,
    /// `FailureReason`.
    pub failure: Option<String>,
    /// Who it was: the first name that the row has.
    pub user: Option<String>,
    /// `Application`.
    pub application: Option<String>,
    /// `IPAddress`.
    pub address: Option<String>,
}
