//! One alert of `alerts_v2` becomes an [`Event`], or a [`Reject`]. Pure.

use super::{fields, time};
use crate::event::{Event, Evidence, GraphAlert, UserAccount};
use crate::json::text;
use crate::reject::RejectReason;
use crate::source::parse::{self, Reject, identifier, object};

/// Reads one alert, an element of `value`.
///
/// # Errors
/// [`Reject`] when it has no usable `id` or `createdDateTime`, or is no JSON object.
pub fn alert(json: &[u8]) -> Result<Event, Reject> {
    parse::record(json, read).map(|alert| Event::GraphAlert(Box::new(alert)))
}

fn read(json: &str) -> Result<GraphAlert, RejectReason> {
    let read: fields::Alert<'_> = object(json)?;
    let id = identifier(text(read.id))?;
    // An alert of Defender for Cloud Apps: what the provider calls it is what the portal calls it.
    let portal_id = text(read.provider_id).filter(|_| id.starts_with("ca"));
    Ok(GraphAlert {
        id,
        portal_id: portal_id.map(|id| identifier(Some(id))).transpose()?,
        created: time(read.created).ok_or(RejectReason::MissingTimestamp)?,
        first_activity: time(read.first_activity),
        last_activity: time(read.last_activity),
        policy_id: text(read.policy_id),
        detector_id: text(read.detector_id),
        category: text(read.category),
        title: text(read.title),
        description: text(read.description),
        severity: text(read.severity),
        actor: text(read.actor),
        url: text(read.url),
        evidence: read.evidence.0.into_iter().filter_map(evidence).collect(),
    })
}

/// `None` for a kind of which nothing is exported. A kind is the end of a type's name, whatever its name space.
fn evidence(read: fields::Evidence<'_>) -> Option<Evidence> {
    let kind = text(read.kind)?;
    Some(match kind.rsplit(['.', '#']).next()? {
        "userEvidence" => Evidence::User(account(read.user_account)),
        "mailboxEvidence" => Evidence::Mailbox {
            principal_name: text(read.principal_name),
            primary_address: text(read.primary_address),
        },
        "cloudLogonSessionEvidence" => Evidence::CloudLogonSession(account(read.account)),
        "cloudApplicationEvidence" => Evidence::CloudApplication {
            app_id: text(read.app_id).or_else(|| text(read.saas_app_id)),
            name: text(read.display_name),
            instance_name: text(read.instance_name),
        },
        "oauthApplicationEvidence" => Evidence::OauthApplication(text(read.display_name)),
        "ipEvidence" => Evidence::Ip(text(read.address)),
        "fileEvidence" => Evidence::File,
        _ => return None,
    })
}

fn account(read: fields::Account<'_>) -> UserAccount {
    UserAccount {
        principal_name: text(read.principal_name),
        name: text(read.name),
        domain: text(read.domain),
        display_name: text(read.display_name),
    }
}
