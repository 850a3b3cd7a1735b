//! The fields of a row of `CloudAppEvents`, in the order in which the vendor's agent writes those of an activity. Pure.

use std::borrow::Cow;

use super::snake::snake;
use super::{
    Column, Described, IPV6_LABEL, activity_url, app_symbol, columns, given, ipv4, ipv6, joined,
    number,
};
use crate::event::{ActivityObject, CloudAppEvent};
use crate::format::cef::Record;

/// What the header holds, in words.
pub(super) const HEADER: Described = Described {
    signature: "`EVENT_CATEGORY_` and NAME in a signature's words where NAME is one of the table below or `Run command` (`Log on`: `LOGIN`, `Failed log on`: `FAILED_LOGIN`, `Log out`: `LOGOUT`), else `EVENT_CATEGORY_UNSPECIFIED`",
    name: "by `ActionType` in the table below, whatever its capitals and without a full stop at its end; else `Run command` where `ActivityType` is `Run` and `ObjectType` is `Task`; else `ActionType`, else `Unspecified`",
    severity: "0",
};
/// Names by `ActionType`: the words of the vendor's agent, by which parsers know an activity.
pub(super) const ACTIONS: [(&str, &str); 58] = [
    ("FileAccessed", "Access file"),
    ("FileAccessedExtended", "Access file"),
    ("FilePreviewed", "Access file"),
    ("FileDownloaded", "Download file"),
    ("FileUploaded", "Upload file"),
    ("FileModified", "Modify file"),
    ("FileModifiedExtended", "Modify file"),
    ("FileMoved", "Move file"),
    ("FileRenamed", "Rename file"),
    ("FileDeleted", "Delete file"),
    ("FileRecycled", "Delete file"),
    ("FileDeletedFirstStageRecycleBin", "Delete file"),
    ("FileDeletedSecondStageRecycleBin", "Delete file"),
    ("FileCheckedIn", "Check in file"),
    ("FileCheckedOut", "Check out file"),
    ("FileSyncDownloadedFull", "Sync file download"),
    ("FileSyncDownloadedPartial", "Sync file download"),
    ("FileSyncUploadedFull", "Sync file upload"),
    ("FileSyncUploadedPartial", "Sync file upload"),
    ("SharingSet", "Share file"),
    ("SharingInvitationCreated", "Share file"),
    ("AddedToSecureLink", "Share file"),
    ("AnonymousLinkCreated", "Share file"),
    ("CompanyLinkCreated", "Share file"),
    ("SecureLinkCreated", "Share file"),
    ("SharingInvitationAccepted", "Accept file sharing invitation"),
    ("AccessRequestCreated", "Create file access request"),
    ("AccessRequestApproved", "Accept file access request"),
    ("FolderCreated", "Create folder"),
    ("FolderDeleted", "Delete folder"),
    ("FolderRecycled", "Delete folder"),
    ("FolderMoved", "Move folder"),
    ("FolderRenamed", "Rename folder"),
    ("FolderAccessed", "Access folder"),
    ("Create", "Create item"),
    ("Update", "Update message"),
    ("HardDelete", "Purge messages from the mailbox"),
    ("SoftDelete", "Delete messages from Deleted Items folder"),
    ("Move", "Move messages to another folder"),
    ("MoveToDeletedItems", "Move messages to Deleted Items folder"),
    ("SendAs", "Send message using Send As permissions (impersonated)"),
    ("Add-MailboxPermission", "Add permission to mailbox"),
    ("Add-RecipientPermission", "Add recipient mailbox permission"),
    ("Add user", "Create user"),
    ("Update user", "Update user"),
    ("Delete user", "Delete user"),
    ("Change user password", "Change password"),
    ("Reset user password", "Reset password"),
    ("Change user license", "Change user license"),
    ("Add member to group", "Add member to group"),
    ("Remove member from group", "Remove member from group"),
    ("Add member to role", "Add member to role"),
    ("Update group", "Change group settings"),
    ("Set company information", "Set company information"),
    ("Update service principal", "Update service principal"),
    ("UserLoggedIn", LOG_ON.0),
    ("UserLoginFailed", FAILED_LOG_ON.0),
    ("UserLoggedOut", LOG_OUT.0),
];
/// The signature where there is no word for what was done.
pub(super) const UNSPECIFIED: &str = "EVENT_CATEGORY_UNSPECIFIED";
/// Names whose signatures are other words.
pub(super) const LOG_ON: (&str, &str) = ("Log on", "EVENT_CATEGORY_LOGIN");
pub(super) const FAILED_LOG_ON: (&str, &str) = ("Failed log on", "EVENT_CATEGORY_FAILED_LOGIN");
const LOG_OUT: (&str, &str) = ("Log out", "EVENT_CATEGORY_LOGOUT");

/// The extension.
pub(super) const COLUMNS: [Column<CloudAppEvent>; 14] = [
    Column::new("externalId", "`ReportId`, else `RawEventData.Id`", |it| given(&it.id)),
    Column::new("rt", "`Timestamp`", |it| number(it.timestamp)),
    Column::new("start", "`Timestamp`", |it| number(it.timestamp)),
    Column::new("end", "`Timestamp`", |it| number(it.timestamp)),
    Column::new(
        "msg",
        "NAME; of the first of `ActivityObjects` with `Role` `Target object` and a `Name`: `: `, its `Type` in small letters, a space and its `Name`; of those with `Role` `Parameter` and `Type` `Structured object`: `; Parameters: ` and their `ServiceObjectType`, joined by `, `",
        |it| Some(message(it)),
    ),
    Column::new(
        "suser",
        "`RawEventData.UserId` with an `@`, else `AccountId` with an `@`, else `RawEventData.MailboxOwnerUPN`, else `RawEventData.actor.email`, else `AccountDisplayName`, else `AccountObjectId`, else `AccountId`",
        |it| it.user.as_deref().and_then(given),
    ),
    Column::new("destinationServiceName", "`Application`", |it| {
        it.application.as_deref().and_then(given)
    }),
    Column::new("dvc", "`IPAddress` if IPv4", |it| ipv4(it.address.as_deref())),
    Column::new("requestClientApplication", "`UserAgent`", |it| {
        it.user_agent.as_deref().and_then(given)
    }),
    Column::labelled(
        "cs1",
        ("cs1Label", "portalURL"),
        "the activity in the portal, by `externalId`",
        |it| activity_url(&it.id),
    ),
    Column::labelled(
        "cs2",
        ("cs2Label", "uniqueServiceAppIds"),
        "`APPID_` and the symbol of `ApplicationId`",
        |it| it.application_id.as_deref().map(app_symbol),
    ),
    Column::labelled(
        "cs3",
        ("cs3Label", "targetObjects"),
        "`ActivityObjects[].Name` but those of `Type` `Property`, joined by commas, empty names kept",
        |it| {
            let named = it.objects.iter().filter(|it| it.kind.as_deref() != Some("Property"));
            joined(named.map(|it| it.name.as_deref().unwrap_or_default().into()))
        },
    ),
    Column::labelled("cs4", ("cs4Label", "policyIDs"), "empty", |_| None),
    Column::labelled("c6a1", ("c6a1Label", IPV6_LABEL), "`IPAddress` if IPv6", |it| {
        ipv6(it.address.as_deref())
    }),
];

pub(super) fn record<'a>(row: &'a CloudAppEvent, version: &'a str) -> Record<'a> {
    let name = name(row);
    Record {
        version: version.into(),
        signature: name.signature(),
        name: name.text.into(),
        severity: 0,
        extension: columns(&COLUMNS, row),
    }
}

/// What was done.
struct Name<'a> {
    text: &'a str,
    /// Whether it is a name of the vendor's agent, and not only the row's own word.
    is_known: bool,
}

impl Name<'_> {
    fn signature(&self) -> Cow<'static, str> {
        if !self.is_known {
            return UNSPECIFIED.into();
        }
        match [LOG_ON, FAILED_LOG_ON, LOG_OUT].iter().find(|(known, _)| *known == self.text) {
            Some((_, signature)) => (*signature).into(),
            None => format!("EVENT_CATEGORY_{}", snake(self.text)).into(),
        }
    }
}

fn name(row: &CloudAppEvent) -> Name<'_> {
    let is = |field: &Option<String>, word| field.as_deref().map(str::trim) == Some(word);
    let wanted = row.action.as_deref().unwrap_or_default().trim();
    let wanted = wanted.strip_suffix('.').unwrap_or(wanted);
    let known = ACTIONS.iter().find(|(action, _)| action.eq_ignore_ascii_case(wanted));
    if let Some((_, name)) = known {
        Name { text: name, is_known: true }
    } else if is(&row.activity_type, "Run") && is(&row.object_type, "Task") {
        Name { text: "Run command", is_known: true }
    } else {
        Name { text: row.action.as_deref().unwrap_or("Unspecified"), is_known: false }
    }
}

fn message(row: &CloudAppEvent) -> Cow<'_, str> {
    let plays = |object: &ActivityObject, role| object.role.as_deref() == Some(role);
    let mut message = Cow::Borrowed(name(row).text);
    let mut targets = row.objects.iter().filter(|object| plays(object, "Target object"));
    if let Some((name, kind)) = targets.find_map(|it| Some((it.name.as_deref()?, &it.kind))) {
        let message = message.to_mut();
        message.push_str(": ");
        if let Some(kind) = kind {
            message.push_str(&kind.to_lowercase());
            message.push(' ');
        }
        message.push_str(name);
    }
    let parameters = row.objects.iter().filter(|object| {
        plays(object, "Parameter") && object.kind.as_deref() == Some("Structured object")
    });
    let kinds: Vec<&str> = parameters.filter_map(|it| it.service_type.as_deref()).collect();
    if !kinds.is_empty() {
        let message = message.to_mut();
        message.push_str("; Parameters: ");
        message.push_str(&kinds.join(", "));
    }
    message
}
