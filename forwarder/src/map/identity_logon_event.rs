//! The fields of a row of `IdentityLogonEvents`, in the order in which the vendor's agent writes those of an activity.
//! Pure.

use std::borrow::Cow;

use super::cloud_app_event::{FAILED_LOG_ON, LOG_ON, UNSPECIFIED};
use super::{Column, Described, IPV6_LABEL, activity_url, columns, given, ipv4, ipv6, number};
use crate::event::IdentityLogonEvent;
use crate::format::cef::Record;

/// What the header holds, in words.
pub(super) const HEADER: Described = Described {
    signature: "by `ActionType`: `LogonSuccess` `EVENT_CATEGORY_LOGIN`, `LogonFailed` `EVENT_CATEGORY_FAILED_LOGIN`, another or none `EVENT_CATEGORY_UNSPECIFIED`",
    name: "by `ActionType`: `LogonSuccess` `Log on`, `LogonFailed` `Failed log on`, else `ActionType`, else `Unspecified`",
    severity: "0",
};

/// The extension.
pub(super) const COLUMNS: [Column<IdentityLogonEvent>; 14] = [
    Column::new("externalId", "`ReportId`, else `RawEventData.Id`", |it| given(&it.id)),
    Column::new("rt", "`Timestamp`", |it| number(it.timestamp)),
    Column::new("start", "`Timestamp`", |it| number(it.timestamp)),
    Column::new("end", "`Timestamp`", |it| number(it.timestamp)),
    Column::new("msg", "NAME; with a `FailureReason`: `: ` and it", |it| Some(message(it))),
    Column::new(
        "suser",
        "`AccountUpn`, else `AccountName@AccountDomain`, else `AccountName`, else `AccountDisplayName`, else `AccountObjectId`",
        |it| it.user.as_deref().and_then(given),
    ),
    Column::new("destinationServiceName", "`Application`", |it| {
        it.application.as_deref().and_then(given)
    }),
    Column::new("dvc", "`IPAddress` if IPv4", |it| ipv4(it.address.as_deref())),
    Column::new("requestClientApplication", "empty", |_| None),
    Column::labelled(
        "cs1",
        ("cs1Label", "portalURL"),
        "the activity in the portal, by `externalId`",
        |it| activity_url(&it.id),
    ),
    Column::labelled("cs2", ("cs2Label", "uniqueServiceAppIds"), "empty", |_| None),
    Column::labelled("cs3", ("cs3Label", "targetObjects"), "empty", |_| None),
    Column::labelled("cs4", ("cs4Label", "policyIDs"), "empty", |_| None),
    Column::labelled("c6a1", ("c6a1Label", IPV6_LABEL), "`IPAddress` if IPv6", |it| {
        ipv6(it.address.as_deref())
    }),
];

pub(super) fn record<'a>(row: &'a IdentityLogonEvent, version: &'a str) -> Record<'a> {
    let (name, signature) = named(row);
    Record {
        version: version.into(),
        signature: signature.into(),
        name: name.into(),
        severity: 0,
        extension: columns(&COLUMNS, row),
    }
}

/// NAME and SIGNATURE.
fn named(row: &IdentityLogonEvent) -> (&str, &'static str) {
    match row.action.as_deref().map(str::trim) {
        Some("LogonSuccess") => LOG_ON,
        Some("LogonFailed") => FAILED_LOG_ON,
        Some(_) => (row.action.as_deref().unwrap_or_default(), UNSPECIFIED),
        None => ("Unspecified", UNSPECIFIED),
    }
}

fn message(row: &IdentityLogonEvent) -> Cow<'_, str> {
    let (name, _) = named(row);
    match &row.failure {
        Some(failure) => format!("{name}: {failure}").into(),
        None => name.into(),
    }
}
