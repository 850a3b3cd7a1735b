//! The contract's table: which conditions a situation has. Pure.
//!
//! `Reconciling` and `Stalled` are there only while they are True, as kstatus has it. A transition time moves only when
//! the condition's status does; a text that only says the same trouble in other words is kept.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use siem_agent_crds::condition::ConditionStatus::{self, False, True, Unknown};
use siem_agent_crds::condition::{ConditionType, Reason};
use siem_agent_crds::printable::printable;
use siem_agent_crds::siem_agent::{PAUSED_ANNOTATION, SiemAgentStatus, TokenState};

use super::situation::forbidden;
use super::{Facts, Outcome, Situation, clip, generation, whole_seconds};
use crate::rollout::Wait;
use crate::workload::Workload;

const KEEPS: &str = "this forwarder keeps running the release before it";
const QUEUED: &str = "the operator's release is rolled out to other agents first; this forwarder keeps running the one before it";

/// Status, reason, message.
struct Verdict(ConditionStatus, String, String);

fn verdict(status: ConditionStatus, reason: Reason, message: impl Into<String>) -> Verdict {
    Verdict(status, reason.as_str().to_owned(), message.into())
}

/// A pod's own reason may be any word of Kubernetes.
fn failing(status: ConditionStatus, reason: &str, message: &str) -> Verdict {
    Verdict(status, reason.to_owned(), message.to_owned())
}

/// The conditions of a situation.
pub(super) fn conditions(
    situation: &Situation,
    facts: &Facts<'_>,
    previous: &SiemAgentStatus,
    now: Timestamp,
) -> Vec<Condition> {
    let mut row = vec![(ConditionType::Ready, ready(situation))];
    match (facts.outcome, situation) {
        // It keeps exporting, and Ready says how that goes.
        (Outcome::Queued(Wait::Queued), _) => {
            row.push((ConditionType::Reconciling, verdict(True, Reason::RolloutQueued, QUEUED)));
        }
        (Outcome::Queued(Wait::Halted(why)), _) => {
            let message =
                format!("the roll-out of the operator's release is halted: {why}; {KEEPS}");
            row.push((
                ConditionType::Reconciling,
                verdict(True, Reason::RolloutHalted, clip(&message)),
            ));
        }
        (_, Situation::Progressing { message }) => {
            row.push((ConditionType::Reconciling, verdict(True, Reason::Progressing, message)));
        }
        _ => {}
    }
    if let Situation::Stalled { reason, message } = situation {
        row.push((ConditionType::Stalled, verdict(True, *reason, message)));
    }
    if facts.agent.is_paused() {
        row.push((ConditionType::Paused, verdict(True, Reason::Paused, paused(facts))));
    }
    row.push((ConditionType::WorkloadAvailable, workload(situation, facts)));
    row.push((ConditionType::TokenValid, token(situation, facts, previous)));
    row.push((ConditionType::Delivering, delivering(situation)));
    row.into_iter()
        .map(|(type_, verdict)| {
            let Verdict(status, reason, message) = verdict;
            let before = previous.condition(type_);
            let same_status = before.filter(|before| before.status == status);
            let same_trouble = same_status
                .filter(|before| before.reason == reason && is_restated(&reason))
                .map(|before| before.message.clone());
            Condition {
                type_: type_.to_string(),
                status: status.to_string(),
                message: same_trouble.unwrap_or_else(|| printable(&message).into_owned()),
                // A condition has none before the first look.
                observed_generation: Some(generation(facts, previous)).filter(|it| *it >= 0),
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
    const RESTATED: [Reason; 7] = [
        Reason::TargetUnreachable,
        Reason::TargetStalled,
        Reason::SourceUnreachable,
        Reason::SourceThrottled,
        Reason::ReportUnavailable,
        Reason::CrashLoopBackOff,
        Reason::Unschedulable,
    ];
    RESTATED.iter().any(|restated| *reason == *restated)
}

fn paused(facts: &Facts<'_>) -> String {
    let waits = match facts.outcome {
        Outcome::Paused(pending) => format!("; pending: {}", pending.join(", ")),
        _ => String::new(),
    };
    format!(
        "paused by the annotation {PAUSED_ANNOTATION}: no object is changed and no checkpoint is saved; a forwarder that runs \
         keeps exporting{waits}"
    )
}

fn ready(situation: &Situation) -> Verdict {
    match situation {
        Situation::Delivering { message } => verdict(True, Reason::Delivering, message),
        Situation::Stalled { reason, message }
        | Situation::TargetUnreachable { reason, message, .. } => verdict(False, *reason, message),
        Situation::Suspended => verdict(False, Reason::Suspended, "spec.suspend is true"),
        Situation::Paused { message } => verdict(False, Reason::Paused, message),
        Situation::PodTrouble { reason, message } => failing(False, reason, message),
        Situation::Progressing { message } => verdict(False, Reason::Progressing, message),
        Situation::ReportUnavailable { message } => {
            verdict(False, Reason::ReportUnavailable, message)
        }
        Situation::SecretMissing { message } => verdict(False, Reason::SecretMissing, message),
        Situation::TokenInvalid { message } => verdict(False, Reason::TokenInvalid, message),
        Situation::TokenForbidden { message } => verdict(False, Reason::TokenForbidden, message),
        Situation::StreamForbidden { message } => verdict(False, Reason::StreamForbidden, message),
        Situation::SourceUnreachable { message, .. } => {
            verdict(False, Reason::SourceUnreachable, message)
        }
        Situation::SourceThrottled { message, .. } => {
            verdict(False, Reason::SourceThrottled, message)
        }
        Situation::Lagging { message } => verdict(False, Reason::Lagging, message),
    }
}

fn workload(situation: &Situation, facts: &Facts<'_>) -> Verdict {
    match situation {
        Situation::Stalled { reason, .. } => {
            return verdict(Unknown, *reason, "the spec cannot work");
        }
        Situation::Suspended => {
            let message = match facts.agent.spec.sidecar_of() {
                Some(of) => {
                    format!("the forwarder in the pod of {of} idles while spec.suspend is true")
                }
                None => "there is no pod while spec.suspend is true".to_owned(),
            };
            return verdict(False, Reason::Suspended, message);
        }
        _ => {}
    }
    match facts.workload {
        Workload::Running => match facts.agent.spec.sidecar_of() {
            Some(of) => {
                let message = format!("the forwarder runs in the pod of {of}");
                verdict(True, Reason::AvailableAsSidecar, message)
            }
            None => verdict(True, Reason::Available, "the forwarder's pod is ready"),
        },
        Workload::Progressing(what) => {
            let host = facts.agent.spec.sidecar_of().map(|of| format!("{of}: "));
            verdict(False, Reason::Progressing, host.unwrap_or_default() + what)
        }
        Workload::Failing { .. } => match situation {
            Situation::PodTrouble { reason, message } => failing(False, reason, message),
            _ => verdict(False, Reason::Progressing, "the pod is being replaced"),
        },
    }
}

fn token(situation: &Situation, facts: &Facts<'_>, previous: &SiemAgentStatus) -> Verdict {
    match situation {
        Situation::SecretMissing { message } => verdict(False, Reason::Missing, message),
        Situation::TokenInvalid { message } => verdict(False, Reason::Invalid, message),
        Situation::TokenForbidden { message } | Situation::StreamForbidden { message } => {
            verdict(False, Reason::Forbidden, message)
        }
        Situation::TargetUnreachable { .. }
        | Situation::SourceUnreachable { .. }
        | Situation::SourceThrottled { .. }
        | Situation::Lagging { .. }
        | Situation::Delivering { .. } => {
            let report = facts.sighting.report.as_ref();
            // An outage hides nothing that is known of the token.
            if let Some(message) = report.and_then(|report| forbidden(facts.agent, report)) {
                return verdict(False, Reason::Forbidden, message);
            }
            if report.is_some_and(|report| report.token.state == TokenState::Valid) {
                return verdict(True, Reason::Valid, "the API takes the token");
            }
            previous.condition(ConditionType::TokenValid).map_or_else(
                || verdict(Unknown, Reason::NotTried, "the token has not been tried yet"),
                |before| {
                    Verdict(status(&before.status), before.reason.clone(), before.message.clone())
                },
            )
        }
        Situation::Stalled { reason, .. } => verdict(Unknown, *reason, "the spec cannot work"),
        Situation::Suspended => {
            verdict(Unknown, Reason::Suspended, "nothing is asked while suspended")
        }
        Situation::Paused { message } => verdict(Unknown, Reason::Paused, message),
        Situation::PodTrouble { reason, .. } => {
            failing(Unknown, reason, "the forwarder does not run")
        }
        Situation::Progressing { .. } => {
            verdict(Unknown, Reason::Progressing, "the forwarder's report is awaited")
        }
        Situation::ReportUnavailable { .. } => {
            verdict(Unknown, Reason::ReportUnavailable, "the forwarder's report cannot be read")
        }
    }
}

fn delivering(situation: &Situation) -> Verdict {
    match situation {
        Situation::Delivering { .. } => {
            verdict(True, Reason::Healthy, "events are delivered as they appear")
        }
        Situation::Suspended => verdict(False, Reason::Suspended, "spec.suspend is true"),
        Situation::TokenInvalid { message } => verdict(False, Reason::TokenInvalid, message),
        Situation::TokenForbidden { message } => verdict(False, Reason::TokenForbidden, message),
        Situation::StreamForbidden { message } => verdict(False, Reason::StreamForbidden, message),
        Situation::TargetUnreachable { reason, message, .. } => verdict(False, *reason, message),
        Situation::SourceUnreachable { message, .. } => {
            verdict(False, Reason::SourceUnreachable, message)
        }
        Situation::SourceThrottled { message, .. } => {
            verdict(False, Reason::SourceThrottled, message)
        }
        Situation::Lagging { message } => verdict(False, Reason::Lagging, message),
        Situation::SecretMissing { .. } => {
            verdict(Unknown, Reason::SecretMissing, "nothing can be asked without a secret")
        }
        Situation::Stalled { reason, .. } => verdict(Unknown, *reason, "the spec cannot work"),
        Situation::Paused { message } => verdict(Unknown, Reason::Paused, message),
        Situation::PodTrouble { reason, .. } => {
            failing(Unknown, reason, "the forwarder does not run")
        }
        Situation::Progressing { .. } => {
            verdict(Unknown, Reason::Progressing, "the forwarder's report is awaited")
        }
        Situation::ReportUnavailable { .. } => {
            verdict(Unknown, Reason::ReportUnavailable, "the forwarder's report cannot be read")
        }
    }
}

fn status(text: &str) -> ConditionStatus {
    ConditionStatus::ALL.iter().copied().find(|status| *text == *status).unwrap_or(Unknown)
}
