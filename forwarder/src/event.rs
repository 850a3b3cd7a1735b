//! The records of the sources as the mapping sees them: checked, and free of the wire's names and looseness. Pure.
//!
//! A field that the record does not have, or has as `null`, `"null"` or blank, is `None` (or left out of a list).

mod graph_alert;
mod row;

pub use siem_agent_crds::report::Stream;

pub use graph_alert::{Evidence, GraphAlert, UserAccount};
pub use row::{ActivityObject, CloudAppEvent, IdentityLogonEvent};

use crate::time::Millis;

/// A record of either stream, from any source.
#[expect(clippy::enum_variant_names, reason = "two are the names of their tables")]
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An alert of the portal's own API.
    Alert(Box<Alert>),
    /// An activity of the portal's own API.
    Activity(Box<Activity>),
    /// An alert of Microsoft Graph.
    GraphAlert(Box<GraphAlert>),
    /// An activity from the table `CloudAppEvents`.
    CloudAppEvent(Box<CloudAppEvent>),
    /// An activity from the table `IdentityLogonEvents`.
    IdentityLogonEvent(Box<IdentityLogonEvent>),
}

/// An activity: somebody did something in an app.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Activity {
    /// `_id`.
    pub id: String,
    /// When it happened, ms.
    pub timestamp: Millis,
    /// When the API saved it, ms.
    pub created: Option<Millis>,
    /// `eventTypeName`.
    pub event_type: Option<String>,
    /// `description_metadata.event_category`.
    pub category: Option<String>,
    /// `description_metadata.operation_name`.
    pub operation: Option<String>,
    /// `description`, as it came.
    pub description: Option<String>,
    /// Who did it: the first name that the record has.
    pub user: Option<String>,
    /// `appName`.
    pub app_name: Option<String>,
    /// `appId`.
    pub app_id: Option<String>,
    /// `device.clientIP`.
    pub client_ip: Option<String>,
    /// `device.userAgent`.
    pub user_agent: Option<String>,
    /// `mainInfo.eventObjects[].name`, in order, empty ones kept.
    pub objects: Vec<String>,
}

/// An alert: a policy or a detection was triggered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Alert {
    /// `_id`.
    pub id: String,
    /// When it happened, ms.
    pub timestamp: Millis,
    /// `idValue`: its kind as a number.
    pub kind: Option<String>,
    /// `policy.policyType`.
    pub policy_type: Option<String>,
    /// `policy.label`.
    pub policy_label: Option<String>,
    /// `title`.
    pub title: Option<String>,
    /// `description`, as it came.
    pub description: Option<String>,
    /// `severityValue`.
    pub severity: Option<String>,
    /// `threatScore`, as the JSON has it.
    pub threat_score: Option<String>,
    /// `URL`.
    pub url: Option<String>,
    /// `audits`.
    pub audits: Vec<String>,
    /// `entities`, in order.
    pub entities: Vec<Entity>,
}

/// Something that an alert is about.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entity {
    /// `type`.
    pub kind: EntityKind,
    /// `id`, of those that are named by it.
    pub id: Option<String>,
    /// `label`.
    pub label: Option<String>,
    /// `pa`, the primary address of an account.
    pub primary_address: Option<String>,
    /// `em`, an account's mail address.
    pub email: Option<String>,
    /// `policyType`, of a policy's rule.
    pub policy_type: Option<String>,
}

/// What an entity is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EntityKind {
    /// `account`.
    Account,
    /// `user`.
    User,
    /// `service`.
    Service,
    /// `policyRule`.
    PolicyRule,
    /// `ip`.
    Ip,
    /// Anything else: nothing of it is exported.
    #[default]
    Other,
}

impl Event {
    /// The id that is exported, and by which the record is recognised when it comes again.
    pub fn id(&self) -> &str {
        match self {
            Self::Alert(alert) => &alert.id,
            Self::Activity(activity) => &activity.id,
            Self::GraphAlert(alert) => alert.external_id(),
            Self::CloudAppEvent(row) => &row.id,
            Self::IdentityLogonEvent(row) => &row.id,
        }
    }

    /// When it happened, ms since the epoch, before the year 10000.
    pub fn timestamp(&self) -> Millis {
        match self {
            Self::Alert(alert) => alert.timestamp,
            Self::Activity(activity) => activity.timestamp,
            Self::GraphAlert(alert) => alert.created,
            Self::CloudAppEvent(row) => row.timestamp,
            Self::IdentityLogonEvent(row) => row.timestamp,
        }
    }

    /// When the API saved it, where it says so beside when it happened.
    pub fn created(&self) -> Option<Millis> {
        match self {
            Self::Activity(activity) => activity.created,
            Self::Alert(_)
            | Self::GraphAlert(_)
            | Self::CloudAppEvent(_)
            | Self::IdentityLogonEvent(_) => None,
        }
    }

    /// The stream that it belongs to.
    pub fn stream(&self) -> Stream {
        match self {
            Self::Alert(_) | Self::GraphAlert(_) => Stream::Alerts,
            Self::Activity(_) | Self::CloudAppEvent(_) | Self::IdentityLogonEvent(_) => {
                Stream::Activities
            }
        }
    }
}
