//! The contract's table: which conditions a situation has. Pure.
//!
//! `Reconciling` and `Stalled` are there only while they are True, as kstatus has it. A transition time moves only when
//! the condition's status does; a text that only says the same trouble in other words is kept.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use siem_agent_crds::printable::printable;
use siem_agent_crds::siem_agent::{SiemAgentStatus, TokenState};

use super::situation::forbidden;
use super::{Facts, Outcome, Situation, clip, condition, whole_seconds};
use crate::rollout::Wait;
use crate::workload::Workload;

const TRUE: &str = "True";
const FALSE: &str = "False";
const UNKNOWN: &str = "Unknown";

const KEEPS: &str = "this forwarder keeps running the release before it";
const QUEUED: &str = "the operator's release is rolled out to other agents first; this forwarder keeps running the one before it";

/// Status, reason, message.
struct Verdict(&'static str, String, String);

fn verdict(status: &'static str, reason: &str, message: impl Into<String>) -> Verdict {
    Verdict(status, reason.to_owned(), message.into())
}

/// The conditions of a situation.
pub(super) fn conditions(
    situation: &Situation,
    facts: &Facts<'_>,
    previous: &SiemAgentStatus,
    now: Timestamp,
) -> Vec<Condition> {
    let mut row = vec![("Ready", ready(situation))];
    match (facts.outcome, situation) {
        // It keeps exporting, and Ready says how that goes.
        (Outcome::Queued(Wait::Queued), _) => {
            row.push(("Reconciling", verdict(TRUE, "RolloutQueued", QUEUED)));
        }
        (Outcome::Queued(Wait::Halted(why)), _) => {
            let message =
                format!("the roll-out of the operator's release is halted: {why}; {KEEPS}");
            row.push(("Reconciling", verdict(TRUE, "RolloutHalted", clip(&message))));
        }
        (_, Situation::Progressing { message }) => {
            row.push(("Reconciling", verdict(TRUE, "Progressing", message)));
        }
        _ => {}
    }
    if let Situation::Stalled { reason, message } = situation {
        row.push(("Stalled", verdict(TRUE, reason, message)));
    }
    row.push(("WorkloadAvailable", workload(situation, facts)));
    row.push(("TokenValid", token(situation, facts, previous)));
    row.push(("Delivering", delivering(situation)));
    row.into_iter()
        .map(|(type_, verdict)| {
            let Verdict(status, reason, message) = verdict;
            let before = condition(previous, type_);
            let same_status = before.filter(|before| before.status == status);
            let same_trouble = same_status
                .filter(|before| before.reason == reason && is_restated(&reason))
                .map(|before| before.message.clone());
            Condition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                message: same_trouble.unwrap_or_else(|| printable(&message).into_owned()),
                observed_generation: facts.agent.metadata.generation,
                last_transition_time: same_status.map_or_else(
                    || whole_seconds(now),
                    |before| before.last_transition_time.clone(),
                ),
                reason,
            }
        })
        .collect()
}

/// One outage shows as refused, reset and timed out in turn.
fn is_restated(reason: &str) -> bool {
    [
        "TargetUnreachable",
        "TargetStalled",
        "SourceUnreachable",
        "SourceThrottled",
        "ReportUnavailable",
        "CrashLoopBackOff",
        "Unschedulable",
    ]
    .contains(&reason)
}

fn ready(situation: &Situation) -> Verdict {
    match situation {
        Situation::Delivering { message } => verdict(TRUE, "Delivering", message),
        Situation::Stalled { reason, message }
        | Situation::TargetUnreachable { reason, message, .. } => verdict(FALSE, reason, message),
        Situation::Suspended => verdict(FALSE, "Suspended", "spec.suspend is true"),
        Situation::PodTrouble { reason, message } => verdict(FALSE, reason, message),
        Situation::Progressing { message } => verdict(FALSE, "Progressing", message),
        Situation::ReportUnavailable { message } => verdict(FALSE, "ReportUnavailable", message),
        Situation::SecretMissing { message } => verdict(FALSE, "SecretMissing", message),
        Situation::TokenInvalid { message } => verdict(FALSE, "TokenInvalid", message),
        Situation::TokenForbidden { message } => verdict(FALSE, "TokenForbidden", message),
        Situation::StreamForbidden { message } => verdict(FALSE, "StreamForbidden", message),
        Situation::SourceUnreachable { message, .. } => {
            verdict(FALSE, "SourceUnreachable", message)
        }
        Situation::SourceThrottled { message, .. } => verdict(FALSE, "SourceThrottled", message),
        Situation::Lagging { message } => verdict(FALSE, "Lagging", message),
    }
}

fn workload(situation: &Situation, facts: &Facts<'_>) -> Verdict {
    match situation {
        Situation::Stalled { reason, .. } => {
            return verdict(UNKNOWN, reason, "the spec cannot work");
        }
        Situation::Suspended => {
            return verdict(FALSE, "Suspended", "there is no pod while spec.suspend is true");
        }
        _ => {}
    }
    match facts.workload {
        Workload::Running => verdict(TRUE, "Available", "the forwarder's pod is ready"),
        Workload::Progressing(what) => verdict(FALSE, "Progressing", *what),
        Workload::Failing { .. } => match situation {
            Situation::PodTrouble { reason, message } => verdict(FALSE, reason, message),
            _ => verdict(FALSE, "Progressing", "the pod is being replaced"),
        },
    }
}

fn token(situation: &Situation, facts: &Facts<'_>, previous: &SiemAgentStatus) -> Verdict {
    match situation {
        Situation::SecretMissing { message } => verdict(FALSE, "Missing", message),
        Situation::TokenInvalid { message } => verdict(FALSE, "Invalid", message),
        Situation::TokenForbidden { message } | Situation::StreamForbidden { message } => {
            verdict(FALSE, "Forbidden", message)
        }
        Situation::TargetUnreachable { .. }
        | Situation::SourceUnreachable { .. }
        | Situation::SourceThrottled { .. }
        | Situation::Lagging { .. }
        | Situation::Delivering { .. } => {
            let report = facts.sighting.report.as_ref();
            // An outage hides nothing that is known of the token.
            if let Some(message) = report.and_then(|report| forbidden(facts.agent, report)) {
                return verdict(FALSE, "Forbidden", message);
            }
            if report.is_some_and(|report| report.token.state == TokenState::Valid) {
                return verdict(TRUE, "Valid", "the API takes the token");
            }
            condition(previous, "TokenValid").map_or_else(
                || verdict(UNKNOWN, "NotTried", "the token has not been tried yet"),
                |before| {
                    Verdict(status(&before.status), before.reason.clone(), before.message.clone())
                },
            )
        }
        Situation::Stalled { reason, .. } => verdict(UNKNOWN, reason, "the spec cannot work"),
        Situation::Suspended => verdict(UNKNOWN, "Suspended", "nothing is asked while suspended"),
        Situation::PodTrouble { reason, .. } => {
            verdict(UNKNOWN, reason, "the forwarder does not run")
        }
        Situation::Progressing { .. } => {
            verdict(UNKNOWN, "Progressing", "the forwarder's report is awaited")
        }
        Situation::ReportUnavailable { .. } => {
            verdict(UNKNOWN, "ReportUnavailable", "the forwarder's report cannot be read")
        }
    }
}

fn delivering(situation: &Situation) -> Verdict {
    match situation {
        Situation::Delivering { .. } => {
            verdict(TRUE, "Healthy", "events are delivered as they appear")
        }
        Situation::Suspended => verdict(FALSE, "Suspended", "spec.suspend is true"),
        Situation::TokenInvalid { message } => verdict(FALSE, "TokenInvalid", message),
        Situation::TokenForbidden { message } => verdict(FALSE, "TokenForbidden", message),
        Situation::StreamForbidden { message } => verdict(FALSE, "StreamForbidden", message),
        Situation::TargetUnreachable { reason, message, .. } => verdict(FALSE, reason, message),
        Situation::SourceUnreachable { message, .. } => {
            verdict(FALSE, "SourceUnreachable", message)
        }
        Situation::SourceThrottled { message, .. } => verdict(FALSE, "SourceThrottled", message),
        Situation::Lagging { message } => verdict(FALSE, "Lagging", message),
        Situation::SecretMissing { .. } => {
            verdict(UNKNOWN, "SecretMissing", "nothing can be asked without a secret")
        }
        Situation::Stalled { reason, .. } => verdict(UNKNOWN, reason, "the spec cannot work"),
        Situation::PodTrouble { reason, .. } => {
            verdict(UNKNOWN, reason, "the forwarder does not run")
        }
        Situation::Progressing { .. } => {
            verdict(UNKNOWN, "Progressing", "the forwarder's report is awaited")
        }
        Situation::ReportUnavailable { .. } => {
            verdict(UNKNOWN, "ReportUnavailable", "the forwarder's report cannot be read")
        }
    }
}

fn status(text: &str) -> &'static str {
    match text {
        TRUE => TRUE,
        FALSE => FALSE,
        _ => UNKNOWN,
    }
}
