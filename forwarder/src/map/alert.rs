//! An alert's fields, in the order in which the vendor's agent writes them.

use super::text::plain;
use super::{IPV6_LABEL, addresses, app_symbol, field};
use crate::cef::{Field, Record};
use crate::event::{Alert, Entity};

pub(super) fn record(alert: &Alert, version: &str) -> Record {
    let signature = signature(alert);
    let name = labels(alert, "policyRule")
        .next()
        .or(alert.policy_label.as_deref())
        .or(alert.title.as_deref())
        .unwrap_or(&signature)
        .to_owned();
    let time = alert.timestamp.to_string();
    let address =
        of_kind(alert, "ip").next().and_then(|ip| ip.id.as_deref().or(ip.label.as_deref()));
    let (ipv4, ipv6) = addresses(address);
    let url = alert.url.clone();
    let url = url
        .unwrap_or_else(|| format!("https://security.microsoft.com/cloudapps/alerts/{}", alert.id));
    let services =
        of_kind(alert, "service").filter_map(|service| service.id.as_deref()).map(app_symbol);
    let policies = of_kind(alert, "policyRule").filter_map(|policy| policy.id.as_deref());
    let mut extension: Vec<Field> = vec![
        field("externalId", alert.id.clone()),
        field("rt", time.clone()),
        field("start", time.clone()),
        field("end", time),
        field(
            "msg",
            alert.description.as_deref().map(|text| plain(text).into_owned()).unwrap_or_default(),
        ),
        field("suser", user(alert).unwrap_or_default().to_owned()),
        field(
            "destinationServiceName",
            labels(alert, "service").next().unwrap_or_default().to_owned(),
        ),
    ];
    extension.extend(ipv4.map(|address| field("src", address)));
    extension.extend([
        field("cn1Label", "riskScore"),
        field("cn1", alert.threat_score.clone().unwrap_or_default()),
        field("cs1Label", "portalURL"),
        field("cs1", url),
        field("cs2Label", "uniqueServiceAppIds"),
        field("cs2", services.collect::<Vec<_>>().join(",")),
        field("cs3Label", "relatedAudits"),
        field("cs3", alert.audits.join(",")),
        field("cs4Label", "policyIDs"),
        field("cs4", policies.collect::<Vec<_>>().join(",")),
    ]);
    if let Some(address) = ipv6 {
        extension.extend([field("c6a1Label", IPV6_LABEL), field("c6a1", address)]);
    }
    Record { version: version.to_owned(), signature, name, severity: severity(alert), extension }
}

/// Known kinds first, then the policy's type, then the kind as a number.
fn signature(alert: &Alert) -> String {
    let by_policy = |kind: &str| match kind {
        "AUDIT" => Some("ALERT_CABINET_EVENT_MATCH_AUDIT"),
        "FILE" => Some("ALERT_CABINET_EVENT_MATCH_FILE"),
        _ => None,
    };
    let known = match alert.kind.as_deref() {
        Some("15728642") => Some("ALERT_CABINET_EVENT_MATCH_FILE"),
        Some("15859716") => Some("ALERT_ANUBIS_DETECTION_VELOCITY"),
        Some(_) | None => None,
    };
    let of_rule = || {
        of_kind(alert, "policyRule")
            .find_map(|rule| rule.policy_type.as_deref())
            .and_then(by_policy)
    };
    let of_policy = || alert.policy_type.as_deref().and_then(by_policy);
    match (known.or_else(of_rule).or_else(of_policy), &alert.kind) {
        (Some(signature), _) => signature.to_owned(),
        (None, Some(kind)) => format!("ALERT_{kind}"),
        (None, None) => "ALERT_UNSPECIFIED".to_owned(),
    }
}

/// The API counts LOW 0, MEDIUM 1, HIGH 2, INFORMATIONAL 3; CEF from 0 to 10.
fn severity(alert: &Alert) -> u8 {
    match alert.severity.as_deref().map(str::trim) {
        Some("0") => 3,
        Some("1") => 6,
        Some("2") => 9,
        Some("3") => 1,
        Some(_) | None => 5,
    }
}

fn user(alert: &Alert) -> Option<&str> {
    of_kind(alert, "account")
        .find_map(|account| account.primary_address.as_deref())
        .or_else(|| of_kind(alert, "account").find_map(|account| account.email.as_deref()))
        .or_else(|| labels(alert, "user").next())
        .or_else(|| labels(alert, "account").next())
}

fn of_kind<'a>(alert: &'a Alert, kind: &'static str) -> impl Iterator<Item = &'a Entity> {
    alert.entities.iter().filter(move |entity| entity.kind == kind)
}

fn labels<'a>(alert: &'a Alert, kind: &'static str) -> impl Iterator<Item = &'a str> {
    of_kind(alert, kind).filter_map(|entity| entity.label.as_deref())
}
