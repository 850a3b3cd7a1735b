//! One row of a hunting table becomes an [`Event`], or a [`Reject`]. Pure.
//!
//! Dynamic columns come as JSON, or as JSON in a text: hunting has been seen to write both.

use super::{fields, time};
use crate::event::{ActivityObject, CloudAppEvent, Event, IdentityLogonEvent};
use crate::json::object::{Dynamic, Many};
use crate::json::{repair, text};
use crate::reject::RejectReason;
use crate::source::parse::{self, Reject, identifier, object};

/// A table that holds activities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// What was done in the apps.
    CloudAppEvents,
    /// Interactive sign-ins.
    IdentityLogonEvents,
}

impl Table {
    /// As queries name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CloudAppEvents => "CloudAppEvents",
            Self::IdentityLogonEvents => "IdentityLogonEvents",
        }
    }

    /// The table of this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "CloudAppEvents" => Some(Self::CloudAppEvents),
            "IdentityLogonEvents" => Some(Self::IdentityLogonEvents),
            _ => None,
        }
    }
}

/// Reads one row: an element of a hunting answer's `results`, or the `properties` of a message's record.
///
/// `None` for a sign-in to Active Directory on the premises, which the portal does not list as an activity.
///
/// # Errors
/// [`Reject`] when it has no usable id or `Timestamp`, or is no JSON object.
pub fn row(table: Table, json: &[u8]) -> Result<Option<Event>, Reject> {
    parse::record(json, |json| match table {
        Table::CloudAppEvents => {
            cloud_app_event(json).map(|row| Some(Event::CloudAppEvent(Box::new(row))))
        }
        Table::IdentityLogonEvents => identity_logon_event(json)
            .map(|row| row.map(|row| Event::IdentityLogonEvent(Box::new(row)))),
    })
}

fn cloud_app_event(json: &str) -> Result<CloudAppEvent, RejectReason> {
    let read: fields::CloudAppEvent<'_> = object(json)?;
    let original = original(read.original);
    let address = |name: &String| name.contains('@');
    let account_id = text(read.account_id);
    let user = original
        .user
        .filter(address)
        .or_else(|| account_id.clone().filter(address))
        .or(original.mailbox_owner)
        .or(original.actor)
        .or_else(|| text(read.account_name))
        .or_else(|| text(read.account_object_id))
        .or(account_id);
    Ok(CloudAppEvent {
        id: identifier(text(read.id).or(original.id))?,
        timestamp: time(read.timestamp).ok_or(RejectReason::MissingTimestamp)?,
        action: text(read.action),
        activity_type: text(read.activity_type),
        object_type: text(read.object_type),
        user,
        application: text(read.application),
        application_id: text(read.application_id),
        address: text(read.address),
        user_agent: text(read.user_agent),
        objects: match read.objects {
            Dynamic::Read(objects) => activity_objects(objects),
            Dynamic::Text(json) => {
                within(&json, |json| Some(activity_objects(serde_json::from_str(json).ok()?)))
            }
        },
    })
}

fn identity_logon_event(json: &str) -> Result<Option<IdentityLogonEvent>, RejectReason> {
    let read: fields::IdentityLogonEvent<'_> = object(json)?;
    let application = text(read.application);
    if application.as_deref() == Some("Active Directory") {
        return Ok(None);
    }
    let name = text(read.name);
    let in_domain = || Some(format!("{}@{}", name.as_deref()?, text(read.domain)?));
    let user = text(read.principal_name).or_else(in_domain).or_else(|| name.clone());
    Ok(Some(IdentityLogonEvent {
        id: identifier(text(read.id).or_else(|| original(read.original).id))?,
        timestamp: time(read.timestamp).ok_or(RejectReason::MissingTimestamp)?,
        action: text(read.action),
        failure: text(read.failure),
        user: user.or_else(|| text(read.display_name)).or_else(|| text(read.object_id)),
        application,
        address: text(read.address),
    }))
}

/// What is exported of the event as its own service wrote it.
#[derive(Default)]
struct Original {
    id: Option<String>,
    user: Option<String>,
    mailbox_owner: Option<String>,
    actor: Option<String>,
}

fn original(column: Dynamic<fields::Original<'_>>) -> Original {
    match column {
        Dynamic::Read(read) => original_of(read),
        Dynamic::Text(json) => {
            within(&json, |json| Some(original_of(serde_json::from_str(json).ok()?)))
        }
    }
}

fn original_of(read: fields::Original<'_>) -> Original {
    Original {
        id: text(read.id),
        user: text(read.user),
        mailbox_owner: text(read.mailbox_owner),
        actor: text(read.actor.email),
    }
}

fn activity_objects(read: Many<fields::ActivityObject<'_>>) -> Vec<ActivityObject> {
    read.0.into_iter().map(activity_object).collect()
}

fn activity_object(read: fields::ActivityObject<'_>) -> ActivityObject {
    ActivityObject {
        kind: text(read.kind),
        role: text(read.role),
        name: text(read.name),
        service_type: text(read.service_type),
    }
}

/// Reads the JSON in a text, after [`repair`] where it is only nearly JSON; the default where it holds none.
fn within<T: Default>(json: &str, read: impl Fn(&str) -> Option<T>) -> T {
    read(json).or_else(|| read(&repair(json.as_bytes()))).unwrap_or_default()
}
