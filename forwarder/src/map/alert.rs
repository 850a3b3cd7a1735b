//! An alert's fields, in the order in which the vendor's agent writes them. Pure.

use std::borrow::Cow;

use super::text::plain;
use super::{
    Column, Described, IPV6_LABEL, app_symbol, columns, found, given, ipv4, ipv6, joined, number,
};
use crate::event::{Alert, Entity, EntityKind};
use crate::format::cef::Record;

/// What the header holds, in words.
pub(super) const HEADER: Described = Described {
    signature: "by `idValue` where it is known, else by the first `policyType` of the `policyRule` entities, else by `policy.policyType`, else `ALERT_<idValue>`, else `ALERT_UNSPECIFIED`",
    name: "first `label` of the `policyRule` entities, else `policy.label`, else `title`, else SIGNATURE",
    severity: "`severityValue`: 0 (low) 3, 1 (medium) 6, 2 (high) 9, 3 (informational) 1, another or none 5",
};
/// Signatures of known kinds, by `idValue`.
pub(super) const KINDS: [(&str, &str); 7] = [
    ("196608", "ALERT_GEOLOCATION_NEW_COUNTRY"),
    ("14680070", "ALERT_ADMIN_USER"),
    ("14680083", "ALERT_SUSPICIOUS_ACTIVITY"),
    ("15728641", "ALERT_CABINET_EVENT_MATCH_AUDIT"),
    ("15728642", "ALERT_CABINET_EVENT_MATCH_FILE"),
    ("15794945", "ALERT_MANAGEMENT_DISCONNECTED_API"),
    ("15859716", "ALERT_ANUBIS_DETECTION_VELOCITY"),
];
/// Signatures by the policy's type.
pub(super) const POLICY_TYPES: [(&str, &str); 2] =
    [("AUDIT", "ALERT_CABINET_EVENT_MATCH_AUDIT"), ("FILE", "ALERT_CABINET_EVENT_MATCH_FILE")];

/// The extension.
pub(super) const COLUMNS: [Column<Alert>; 14] = [
    Column::new("externalId", "`_id`", |it| given(&it.id)),
    Column::new("rt", "`timestamp`", |it| number(it.timestamp)),
    Column::new("start", "`timestamp`", |it| number(it.timestamp)),
    Column::new("end", "`timestamp`", |it| number(it.timestamp)),
    Column::new("msg", "`description` as plain text", |it| it.description.as_deref().map(plain)),
    Column::new(
        "suser",
        "first `pa` of the `account` entities, else their first `em`, else the first `label` of the `user` entities, else of the `account` entities",
        |it| user(it).and_then(given),
    ),
    Column::new("destinationServiceName", "first `label` of the `service` entities", |it| {
        labels(it, EntityKind::Service).next().and_then(given)
    }),
    Column::new("src", "`id`, else `label`, of the first `ip` entity if IPv4", |it| {
        ipv4(address(it))
    })
    .or_left_out(),
    Column::labelled("cn1", ("cn1Label", "riskScore"), "`threatScore`", |it| {
        it.threat_score.as_deref().and_then(given)
    }),
    Column::labelled(
        "cs1",
        ("cs1Label", "portalURL"),
        "`URL`, else the alert in the portal, by `_id`",
        |it| {
            let made = || format!("https://security.microsoft.com/cloudapps/alerts/{}", it.id);
            Some(it.url.as_deref().map_or_else(|| Cow::Owned(made()), Cow::Borrowed))
        },
    ),
    Column::labelled(
        "cs2",
        ("cs2Label", "uniqueServiceAppIds"),
        "`APPID_` and the symbol of the `id` of each `service` entity, joined by commas",
        |it| joined(ids(it, EntityKind::Service).map(app_symbol)),
    ),
    Column::labelled("cs3", ("cs3Label", "relatedAudits"), "`audits`, joined by commas", |it| {
        joined(it.audits.iter().map(|audit| audit.as_str().into()))
    }),
    Column::labelled(
        "cs4",
        ("cs4Label", "policyIDs"),
        "`id` of each `policyRule` entity, joined by commas",
        |it| joined(ids(it, EntityKind::PolicyRule).map(Cow::Borrowed)),
    ),
    Column::labelled(
        "c6a1",
        ("c6a1Label", IPV6_LABEL),
        "`id`, else `label`, of the first `ip` entity if IPv6",
        |it| ipv6(address(it)),
    )
    .or_left_out(),
];

pub(super) fn record<'a>(alert: &'a Alert, version: &'a str) -> Record<'a> {
    let signature = signature(alert);
    let named = labels(alert, EntityKind::PolicyRule).next();
    let named = named.or(alert.policy_label.as_deref()).or(alert.title.as_deref());
    Record {
        version: version.into(),
        name: named.map_or_else(|| signature.clone(), Cow::Borrowed),
        signature,
        severity: severity(alert),
        extension: columns(&COLUMNS, alert),
    }
}

/// Known kinds first, then the policy's type, then the kind as a number.
fn signature(alert: &Alert) -> Cow<'static, str> {
    let by_policy = |kind: &str| found(&POLICY_TYPES, kind);
    let known = alert.kind.as_deref().and_then(|kind| found(&KINDS, kind.trim()));
    let of_rule = || {
        of_kind(alert, EntityKind::PolicyRule)
            .find_map(|rule| rule.policy_type.as_deref())
            .and_then(by_policy)
    };
    let of_policy = || alert.policy_type.as_deref().and_then(by_policy);
    match (known.or_else(of_rule).or_else(of_policy), &alert.kind) {
        (Some(signature), _) => signature.into(),
        (None, Some(kind)) => format!("ALERT_{kind}").into(),
        (None, None) => "ALERT_UNSPECIFIED".into(),
    }
}

/// CEF counts from 0 to 10.
fn severity(alert: &Alert) -> u8 {
    match alert.severity.as_deref().map(str::trim) {
        Some("0") => 3,
        Some("1") => 6,
        Some("2") => 9,
        Some("3") => 1,
        Some(_) | None => 5,
    }
}

fn address(alert: &Alert) -> Option<&str> {
    of_kind(alert, EntityKind::Ip).next().and_then(|ip| ip.id.as_deref().or(ip.label.as_deref()))
}

fn user(alert: &Alert) -> Option<&str> {
    of_kind(alert, EntityKind::Account)
        .find_map(|account| account.primary_address.as_deref())
        .or_else(|| {
            of_kind(alert, EntityKind::Account).find_map(|account| account.email.as_deref())
        })
        .or_else(|| labels(alert, EntityKind::User).next())
        .or_else(|| labels(alert, EntityKind::Account).next())
}

fn of_kind(alert: &Alert, kind: EntityKind) -> impl Iterator<Item = &Entity> {
    alert.entities.iter().filter(move |entity| entity.kind == kind)
}

fn ids(alert: &Alert, kind: EntityKind) -> impl Iterator<Item = &str> {
    of_kind(alert, kind).filter_map(|entity| entity.id.as_deref())
}

fn labels(alert: &Alert, kind: EntityKind) -> impl Iterator<Item = &str> {
    of_kind(alert, kind).filter_map(|entity| entity.label.as_deref())
}
