//! An activity's fields, in the order in which the vendor's agent writes them.

use super::text::plain;
use super::{IPV6_LABEL, addresses, app_symbol, field};
use crate::cef::Record;
use crate::event::Activity;

pub(super) fn record(activity: &Activity, version: &str) -> Record {
    let signature =
        activity.event_type.clone().unwrap_or_else(|| "EVENT_CATEGORY_UNSPECIFIED".to_owned());
    let message =
        activity.description.as_deref().map(|text| plain(text).into_owned()).unwrap_or_default();
    let prefix = message.split(':').next().map(str::trim).filter(|prefix| !prefix.is_empty());
    let name = activity
        .category
        .as_deref()
        .or(activity.operation.as_deref())
        .or(prefix)
        .unwrap_or(&signature);
    let time = activity.timestamp.to_string();
    let (ipv4, ipv6) = addresses(activity.client_ip.as_deref());
    let url = format!(
        "https://security.microsoft.com/cloudapps/activity-log?activity.id=eq({},)",
        activity.id
    );
    let extension = vec![
        field("externalId", activity.id.clone()),
        field("rt", time.clone()),
        field("start", time.clone()),
        field("end", time),
        field("msg", message.clone()),
        field("suser", activity.user.clone().unwrap_or_default()),
        field("destinationServiceName", activity.app_name.clone().unwrap_or_default()),
        field("dvc", ipv4.unwrap_or_default()),
        field("requestClientApplication", activity.user_agent.clone().unwrap_or_default()),
        field("cs1Label", "portalURL"),
        field("cs1", url),
        field("cs2Label", "uniqueServiceAppIds"),
        field("cs2", activity.app_id.as_deref().map(app_symbol).unwrap_or_default()),
        field("cs3Label", "targetObjects"),
        field("cs3", activity.objects.join(",")),
        field("cs4Label", "policyIDs"),
        field("cs4", ""),
        field("c6a1Label", IPV6_LABEL),
        field("c6a1", ipv6.unwrap_or_default()),
    ];
    Record { version: version.to_owned(), name: name.to_owned(), signature, severity: 0, extension }
}
