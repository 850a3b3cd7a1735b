//! Whether a status is published now, held back or not worth a write, and when to look again. Pure.
//!
//! A status is quiet: what settles by itself within seconds is reported once. [`SETTLING`] holds it while a Deployment's
//! controller is at work, [`is_premature`] while a new leader has read no report, [`is_hasty`] while a progress only changes
//! its words, and [`is_news`] leaves out times. What a status says of an outage is quiet too, which `situation` (young
//! outages) and `conditions` (one outage in several texts) see to.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use siem_agent_crds::condition::{ConditionType, Reason};
use siem_agent_crds::siem_agent::SiemAgentStatus;

use super::{Facts, Outcome, situation, status};
use crate::workload::Workload;

/// A ready agent is looked at again even if nothing is heard of it.
pub(crate) const RESYNC: Duration = Duration::from_secs(10 * 60);
/// One that is not ready may need another word as time goes by.
const RESYNC_OF_TROUBLE: Duration = Duration::from_secs(60);
/// A Deployment is unsettled for a moment after it was made, and after a change of an annotation alone; that is not worth
/// two writes.
const SETTLING: Duration = Duration::from_secs(3);
/// What is on its way out is gone in a moment.
const SOON: Duration = Duration::from_secs(2);
/// How often a host is looked at while the sidecar does not run.
const LOOK_AT_HOST: Duration = Duration::from_secs(15);
/// A progress that lasts longer is reported step by step.
const HASTE: SignedDuration = SignedDuration::from_secs(10);

/// What becomes of a status.
#[derive(Debug, PartialEq)]
pub(crate) struct Decision {
    pub(crate) verdict: Verdict,
    /// When to look again at the latest.
    pub(crate) again: Duration,
}

/// Whether a status is written.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// It is news.
    Publish(Box<SiemAgentStatus>),
    /// The published one says the same.
    Unchanged,
    /// It may say something else in a moment: why.
    Hold(&'static str),
}

/// Decides what becomes of the status of these facts.
pub(crate) fn decide(facts: &Facts<'_>, now: Timestamp) -> Decision {
    let hold = |why| Decision { verdict: Verdict::Hold(why), again: SETTLING };
    if is_settling(facts) {
        return hold("the Deployment settles");
    }
    if is_premature(facts, now) {
        return hold("no report has been read yet");
    }
    let previous = facts.agent.status.clone().unwrap_or_default();
    let next = status(facts, now);
    if is_hasty(&previous, &next, now) {
        return hold("it may pass by itself");
    }
    let again = match facts.outcome {
        Outcome::Waiting | Outcome::Moving(_) => SOON,
        // Nobody watches a host's pods, nor a workload that has nothing to do with sidecars yet.
        Outcome::Applied(_) | Outcome::Queued(_) | Outcome::Stalled(_)
            if facts.agent.spec.sidecar_of().is_some() && *facts.workload != Workload::Running =>
        {
            LOOK_AT_HOST
        }
        // A refused Deployment is tried again; whose turn it is, the roll-out says to the queue.
        Outcome::Stalled(_) | Outcome::Applied(_) | Outcome::Paused(_)
            if next.is(ConditionType::Ready) =>
        {
            RESYNC
        }
        Outcome::Queued(_) | Outcome::Stalled(_) | Outcome::Applied(_) | Outcome::Paused(_) => {
            RESYNC_OF_TROUBLE
        }
    };
    let verdict = if is_news(&previous, &next) {
        Verdict::Publish(Box::new(next))
    } else {
        Verdict::Unchanged
    };
    Decision { verdict, again }
}

/// Whether the Deployment was made or changed a moment ago, by the operator and not by the user.
fn is_settling(facts: &Facts<'_>) -> bool {
    let agent = facts.agent;
    let is_known = agent.is_observed() && facts.has_deployment;
    (!agent.was_observed() || is_known)
        && matches!(facts.outcome, Outcome::Applied(_))
        && facts.unsettled.is_some_and(|unsettled| unsettled < SETTLING)
}

/// Whether nothing is known yet that would be better than what the status says: this operator has just begun to lead, and
/// has not read the report that the status speaks of.
pub(super) fn is_premature(facts: &Facts<'_>, now: Timestamp) -> bool {
    let (agent, sighting) = (facts.agent, facts.sighting);
    let has_applied =
        matches!(facts.outcome, Outcome::Applied(_) | Outcome::Queued(_) | Outcome::Paused(_));
    let may_be_read = sighting
        .failing
        .as_ref()
        .is_none_or(|failing| now.duration_since(failing.since) <= situation::REPORT_PATIENCE);
    let says_something = agent.status.as_ref().is_some_and(|status| {
        (Some(status.observed_generation) == agent.metadata.generation
            || matches!(facts.outcome, Outcome::Paused(_)))
            && status
                .condition(ConditionType::Ready)
                .is_some_and(|ready| ready.reason != Reason::Progressing)
    });
    has_applied
        && !agent.is_suspended()
        && *facts.workload == Workload::Running
        && sighting.report.is_none()
        && may_be_read
        && says_something
}

/// Whether a status only reports another step of its progress, so soon after it began that the end is awaited instead:
/// what starts within seconds is published once.
pub(super) fn is_hasty(previous: &SiemAgentStatus, next: &SiemAgentStatus, now: Timestamp) -> bool {
    let without_words = |status: &SiemAgentStatus| {
        let mut status = status.clone();
        status.conditions.iter_mut().for_each(|condition| condition.message.clear());
        status
    };
    previous.condition(ConditionType::Ready).is_some_and(|ready| {
        ready.reason == Reason::Progressing
            && now.duration_since(ready.last_transition_time.0) < HASTE
    }) && !is_news(&without_words(previous), &without_words(next))
}

/// Whether a status is worth a write: times that only confirm the last status are not.
pub(crate) fn is_news(previous: &SiemAgentStatus, next: &SiemAgentStatus) -> bool {
    let without_times = |status: &SiemAgentStatus| {
        let mut status = status.clone();
        if let Some(token) = &mut status.token {
            token.last_check_time = None;
            token.last_change_time = None;
        }
        // That a stream is there at all is news, its bucket, and that it does not flow; the exact times are not.
        for stream in &mut status.streams {
            stream.delivered_through = None;
            stream.last_event_time = None;
        }
        status
    };
    without_times(previous) != without_times(next)
}
