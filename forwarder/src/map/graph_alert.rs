//! The fields of an alert of Graph, in the order in which the vendor's agent writes those of an alert. Pure.

use std::borrow::Cow;

use super::snake::snake;
use super::text::plain;
use super::{
    Column, Described, IPV6_LABEL, app_symbol, columns, given, ipv4, ipv6, joined, number,
};
use crate::event::{Evidence, GraphAlert, UserAccount};
use crate::format::cef::Record;
use crate::format::cef::escape::sanitized;

/// What the header holds, in words.
pub(super) const HEADER: Described = Described {
    signature: "with `alertPolicyId`: `ALERT_CABINET_EVENT_MATCH_FILE` where there is a `fileEvidence`, else `ALERT_CABINET_EVENT_MATCH_AUDIT`; without: `ALERT_` and `detectorId` in a signature's words unless that is a GUID, else `ALERT_` and `category` in a signature's words, else `ALERT_UNSPECIFIED`",
    name: "`title`, else SIGNATURE",
    severity: "`severity`: `informational` 1, `low` 3, `medium` 6, `high` 9, another or none 5",
};

/// The extension.
pub(super) const COLUMNS: [Column<GraphAlert>; 14] = [
    Column::new(
        "externalId",
        "`providerAlertId` where `id` begins with `ca` and there is one, else `id`",
        |it| given(it.external_id()),
    ),
    Column::new("rt", "`createdDateTime`", |it| number(it.created)),
    Column::new("start", "`firstActivityDateTime`, else `createdDateTime`", |it| number(start(it))),
    Column::new("end", "`lastActivityDateTime`, else as `start`", |it| {
        number(it.last_activity.unwrap_or_else(|| start(it)))
    }),
    Column::new("msg", "`description` as plain text, else `title`", |it| {
        let description = it.description.as_deref().map(plain);
        let description = description.filter(|text| !sanitized(text).is_empty());
        description.or_else(|| it.title.as_deref().map(Cow::Borrowed))
    }),
    Column::new(
        "suser",
        "first `userPrincipalName` of the `userEvidence`, else their first `accountName@domainName`, else `accountName`, else `displayName`, else the first `upn` of the `mailboxEvidence`, else their first `primaryAddress`, else the first `account.userPrincipalName` of the `cloudLogonSessionEvidence`, else `actorDisplayName`",
        user,
    ),
    Column::new(
        "destinationServiceName",
        "first `displayName` of the `cloudApplicationEvidence`, else their first `instanceName`, else the first `displayName` of the `oauthApplicationEvidence`",
        |it| service(it).map(Cow::Borrowed),
    ),
    Column::new("src", "`ipAddress` of the first `ipEvidence` if IPv4", |it| ipv4(address(it)))
        .or_left_out(),
    Column::labelled("cn1", ("cn1Label", "riskScore"), "empty", |_| None),
    Column::labelled(
        "cs1",
        ("cs1Label", "portalURL"),
        "`alertWebUrl`, else the alert in the portal, by `id`",
        |it| {
            let made = || format!("https://security.microsoft.com/alerts/{}", it.id);
            Some(it.url.as_deref().map_or_else(|| Cow::Owned(made()), Cow::Borrowed))
        },
    ),
    Column::labelled(
        "cs2",
        ("cs2Label", "uniqueServiceAppIds"),
        "`APPID_` and the symbol of the `appId`, else of the `saasAppId`, of each `cloudApplicationEvidence`, joined by commas",
        |it| {
            joined(it.evidence.iter().filter_map(|evidence| match evidence {
                Evidence::CloudApplication { app_id, .. } => app_id.as_deref().map(app_symbol),
                _ => None,
            }))
        },
    ),
    Column::labelled("cs3", ("cs3Label", "relatedAudits"), "empty", |_| None),
    Column::labelled("cs4", ("cs4Label", "policyIDs"), "`alertPolicyId`", |it| {
        it.policy_id.as_deref().and_then(given)
    }),
    Column::labelled(
        "c6a1",
        ("c6a1Label", IPV6_LABEL),
        "`ipAddress` of the first `ipEvidence` if IPv6",
        |it| ipv6(address(it)),
    )
    .or_left_out(),
];

pub(super) fn record<'a>(alert: &'a GraphAlert, version: &'a str) -> Record<'a> {
    let signature = signature(alert);
    Record {
        version: version.into(),
        name: alert.title.as_deref().map_or_else(|| signature.clone(), Cow::Borrowed),
        signature,
        severity: severity(alert),
        extension: columns(&COLUMNS, alert),
    }
}

/// What the policy is about, then what detected it, then the tactic.
fn signature(alert: &GraphAlert) -> Cow<'static, str> {
    if alert.policy_id.is_some() {
        return if alert.evidence.contains(&Evidence::File) {
            "ALERT_CABINET_EVENT_MATCH_FILE".into()
        } else {
            "ALERT_CABINET_EVENT_MATCH_AUDIT".into()
        };
    }
    let detector = alert.detector_id.as_deref().filter(|id| !is_guid(id.trim()));
    let mut words = [detector, alert.category.as_deref()].into_iter().flatten().map(snake);
    match words.find(|words| !words.is_empty()) {
        Some(words) => format!("ALERT_{words}").into(),
        None => "ALERT_UNSPECIFIED".into(),
    }
}

/// Hexadecimal digits in groups of 8, 4, 4, 4 and 12, with or without braces.
fn is_guid(text: &str) -> bool {
    let text = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
    let groups = text.split('-').map(|group| {
        if group.bytes().all(|byte| byte.is_ascii_hexdigit()) { group.len() } else { 0 }
    });
    groups.eq([8, 4, 4, 4, 12])
}

/// CEF counts from 0 to 10.
fn severity(alert: &GraphAlert) -> u8 {
    match alert.severity.as_deref().map(str::trim) {
        Some("informational") => 1,
        Some("low") => 3,
        Some("medium") => 6,
        Some("high") => 9,
        Some(_) | None => 5,
    }
}

fn start(alert: &GraphAlert) -> i64 {
    alert.first_activity.unwrap_or(alert.created)
}

fn user(alert: &GraphAlert) -> Option<Cow<'_, str>> {
    let users = || {
        alert.evidence.iter().filter_map(|evidence| match evidence {
            Evidence::User(account) => Some(account),
            _ => None,
        })
    };
    let mailboxes = || {
        alert.evidence.iter().filter_map(|evidence| match evidence {
            Evidence::Mailbox { principal_name, primary_address } => {
                Some((principal_name.as_deref(), primary_address.as_deref()))
            }
            _ => None,
        })
    };
    let in_domain = |account: &UserAccount| {
        Some(Cow::Owned(format!("{}@{}", account.name.as_deref()?, account.domain.as_deref()?)))
    };
    users()
        .find_map(|account| principal_name(account).map(Cow::Borrowed))
        .or_else(|| users().find_map(in_domain))
        .or_else(|| users().find_map(|account| account.name.as_deref().map(Cow::Borrowed)))
        .or_else(|| users().find_map(|account| account.display_name.as_deref().map(Cow::Borrowed)))
        .or_else(|| mailboxes().find_map(|(name, _)| name.map(Cow::Borrowed)))
        .or_else(|| mailboxes().find_map(|(_, address)| address.map(Cow::Borrowed)))
        .or_else(|| alert.evidence.iter().find_map(of_session).map(Cow::Borrowed))
        .or_else(|| alert.actor.as_deref().map(Cow::Borrowed))
}

fn of_session(evidence: &Evidence) -> Option<&str> {
    match evidence {
        Evidence::CloudLogonSession(account) => principal_name(account),
        _ => None,
    }
}

fn principal_name(account: &UserAccount) -> Option<&str> {
    account.principal_name.as_deref()
}

fn service(alert: &GraphAlert) -> Option<&str> {
    let first =
        |name: for<'a> fn(&'a Evidence) -> Option<&'a str>| alert.evidence.iter().find_map(name);
    first(|evidence| match evidence {
        Evidence::CloudApplication { name, .. } => name.as_deref(),
        _ => None,
    })
    .or_else(|| {
        first(|evidence| match evidence {
            Evidence::CloudApplication { instance_name, .. } => instance_name.as_deref(),
            _ => None,
        })
    })
    .or_else(|| {
        first(|evidence| match evidence {
            Evidence::OauthApplication(name) => name.as_deref(),
            _ => None,
        })
    })
}

fn address(alert: &GraphAlert) -> Option<&str> {
    let first = alert.evidence.iter().find_map(|evidence| match evidence {
        Evidence::Ip(address) => Some(address.as_deref()),
        _ => None,
    });
    first.flatten()
}
