//! An activity's fields, in the order in which the vendor's agent writes them. Pure.

use std::borrow::Cow;

use super::text::plain;
use super::{
    Column, Described, IPV6_LABEL, activity_url, app_symbol, columns, given, ipv4, ipv6, number,
};
use crate::event::Activity;
use crate::format::cef::Record;
use crate::format::cef::escape::sanitized;

/// What the header holds, in words.
pub(super) const HEADER: Described = Described {
    signature: "`eventTypeName`, else `EVENT_CATEGORY_UNSPECIFIED`",
    name: "`description_metadata.event_category`, else `description_metadata.operation_name`, else the plain `description` up to its first `:`, else SIGNATURE",
    severity: "0",
};

/// The extension.
pub(super) const COLUMNS: [Column<Activity>; 14] = [
    Column::new("externalId", "`_id`", |it| given(&it.id)),
    Column::new("rt", "`timestamp`", |it| number(it.timestamp)),
    Column::new("start", "`timestamp`", |it| number(it.timestamp)),
    Column::new("end", "`timestamp`", |it| number(it.timestamp)),
    Column::new("msg", "`description` as plain text", |it| it.description.as_deref().map(plain)),
    Column::new(
        "suser",
        "`user.userName`, else `failedUserData.userName`, else `resolvedActor.name`, else `resolvedActor.id`",
        |it| it.user.as_deref().and_then(given),
    ),
    Column::new("destinationServiceName", "`appName`", |it| it.app_name.as_deref().and_then(given)),
    Column::new("dvc", "`device.clientIP` if IPv4", |it| ipv4(it.client_ip.as_deref())),
    Column::new("requestClientApplication", "`device.userAgent`", |it| {
        it.user_agent.as_deref().and_then(given)
    }),
    Column::labelled(
        "cs1",
        ("cs1Label", "portalURL"),
        "the activity in the portal, by `_id`",
        |it| activity_url(&it.id),
    ),
    Column::labelled(
        "cs2",
        ("cs2Label", "uniqueServiceAppIds"),
        "`APPID_` and the symbol of `appId`",
        |it| it.app_id.as_deref().map(app_symbol),
    ),
    Column::labelled(
        "cs3",
        ("cs3Label", "targetObjects"),
        "`mainInfo.eventObjects[].name`, joined by commas, empty names kept",
        |it| Some(Cow::Owned(it.objects.join(","))),
    ),
    Column::labelled("cs4", ("cs4Label", "policyIDs"), "empty", |_| None),
    Column::labelled("c6a1", ("c6a1Label", IPV6_LABEL), "`device.clientIP` if IPv6", |it| {
        ipv6(it.client_ip.as_deref())
    }),
];

pub(super) fn record<'a>(activity: &'a Activity, version: &'a str) -> Record<'a> {
    let signature = activity.event_type.as_deref().unwrap_or("EVENT_CATEGORY_UNSPECIFIED");
    let named = activity.category.as_deref().or(activity.operation.as_deref());
    Record {
        version: version.into(),
        signature: signature.into(),
        name: named
            .map(Cow::Borrowed)
            .or_else(|| prefix(activity))
            .unwrap_or_else(|| signature.into()),
        severity: 0,
        extension: columns(&COLUMNS, activity),
    }
}

/// The plain description up to its first colon.
fn prefix(activity: &Activity) -> Option<Cow<'_, str>> {
    let message = plain(activity.description.as_deref()?);
    let prefix = sanitized(message.split(':').next()?);
    (!prefix.is_empty()).then(|| Cow::Owned(prefix.into_owned()))
}
