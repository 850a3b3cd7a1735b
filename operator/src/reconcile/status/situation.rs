//! What is the case: the first of an ordered list of checks that applies. Pure.
//!
//! The order is the order in which somebody would have to act: a spec that cannot work, a pod that does not run, a report
//! that cannot be read, a token, the SIEM, the portal, and only then a lag that nothing explains.

use jiff::{SignedDuration, Timestamp};
use siem_agent_crds::SiemAgent;
use siem_agent_crds::condition::{ConditionStatus, ConditionType, Reason};
use siem_agent_crds::config::ADMIN_PORT;
use siem_agent_crds::defaults;
use siem_agent_crds::report::{Report, SourceState, Stream, TargetState, forbidden_streams};
use siem_agent_crds::siem_agent::{SiemAgentStatus, TokenState};

use super::{Facts, Outcome, clip, lag};
use crate::twins;
use crate::workload::Workload;

/// Trouble on the way that lasts no longer than this is not told.
const GRACE: SignedDuration = SignedDuration::from_secs(60);
/// A report that cannot be read for so long is missed.
pub(super) const REPORT_PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// What is the case, with the words for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Situation {
    /// The spec cannot work.
    Stalled { reason: Reason, message: String },
    /// `spec.suspend`.
    Suspended,
    /// Its user has paused it, and no pod of it runs.
    Paused { message: String },
    /// The pod does not run: Kubernetes' reason and text.
    PodTrouble { reason: String, message: String },
    /// Something is on its way.
    Progressing { message: String },
    /// The forwarder's report cannot be read.
    ReportUnavailable { message: String },
    /// The Secret or its key is absent.
    SecretMissing { message: String },
    /// 401.
    TokenInvalid { message: String },
    /// 403 on every enabled stream.
    TokenForbidden { message: String },
    /// 403 on one of several enabled streams: the others flow.
    StreamForbidden { message: String },
    /// The SIEM is unreachable or refuses.
    /// The reason says whether there is no connection, or one that takes nothing.
    TargetUnreachable { reason: Reason, message: String, since: Timestamp },
    /// The portal is unreachable or fails.
    SourceUnreachable { message: String, since: Timestamp },
    /// The portal wants fewer requests.
    SourceThrottled { message: String, since: Timestamp },
    /// All is reachable, and yet events are late.
    Lagging { message: String },
    /// All is well.
    Delivering { message: String },
}

impl Situation {
    /// Whether the report is believed to describe the present.
    pub(super) fn speaks_of_delivery(&self) -> bool {
        match self {
            Self::SecretMissing { .. }
            | Self::TokenInvalid { .. }
            | Self::TokenForbidden { .. }
            | Self::StreamForbidden { .. }
            | Self::TargetUnreachable { .. }
            | Self::SourceUnreachable { .. }
            | Self::SourceThrottled { .. }
            | Self::Lagging { .. }
            | Self::Delivering { .. } => true,
            Self::Stalled { .. }
            | Self::Suspended
            | Self::Paused { .. }
            | Self::PodTrouble { .. }
            | Self::Progressing { .. }
            | Self::ReportUnavailable { .. } => false,
        }
    }

    /// Whether what was known of the token still holds while nothing is heard of it.
    pub(super) fn keeps_token(&self) -> bool {
        matches!(
            self,
            Self::TargetUnreachable { .. }
                | Self::SourceUnreachable { .. }
                | Self::SourceThrottled { .. }
        )
    }
}

/// Finds out what is the case.
pub(super) fn situation(
    facts: &Facts<'_>,
    previous: &SiemAgentStatus,
    now: Timestamp,
) -> Situation {
    let checks =
        [spec, suspended, paused, workload, report, token, stream, target, source, lagging];
    checks
        .iter()
        .find_map(|check| check(facts, previous, now))
        .unwrap_or_else(|| Situation::Delivering { message: well(facts) })
}

type Check = Option<Situation>;

fn spec(facts: &Facts<'_>, _: &SiemAgentStatus, _: Timestamp) -> Check {
    match facts.outcome {
        Outcome::Stalled(problems) => {
            let reason =
                problems.first().map_or(Reason::InvalidSpec, |problem| problem.cause.reason());
            let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
            Some(Situation::Stalled { reason, message: clip(&texts.join("; ")) })
        }
        Outcome::Waiting => Some(progressing(
            "what an earlier agent of this name owned is still being removed".to_owned(),
        )),
        Outcome::Moving(before) => Some(progressing(before.clone())),
        Outcome::Applied(_) | Outcome::Queued(_) | Outcome::Paused(_) => None,
    }
}

fn suspended(facts: &Facts<'_>, _: &SiemAgentStatus, _: Timestamp) -> Check {
    facts.agent.is_suspended().then_some(Situation::Suspended)
}

fn paused(facts: &Facts<'_>, _: &SiemAgentStatus, _: Timestamp) -> Check {
    let waits = matches!(facts.outcome, Outcome::Paused(_));
    (waits && *facts.workload != Workload::Running).then(|| Situation::Paused {
        message: "no pod of it is ready, and nothing is done while it is paused".to_owned(),
    })
}

fn workload(facts: &Facts<'_>, _: &SiemAgentStatus, _: Timestamp) -> Check {
    match facts.workload {
        Workload::Running => None,
        Workload::Progressing(what) => Some(progressing((*what).to_owned())),
        Workload::Failing { reason, message } => {
            Some(Situation::PodTrouble { reason: word(reason), message: clip(message) })
        }
    }
}

fn report(facts: &Facts<'_>, previous: &SiemAgentStatus, now: Timestamp) -> Check {
    let sighting = facts.sighting;
    let missed = sighting
        .failing
        .as_ref()
        .filter(|failing| now.duration_since(failing.since) > REPORT_PATIENCE);
    if let Some(missed) = missed {
        return Some(Situation::ReportUnavailable {
            message: clip(&format!(
                "the forwarder's report cannot be read from port {ADMIN_PORT} of its pod: {}",
                missed.reason
            )),
        });
    }
    let Some(report) = sighting.current() else {
        return Some(progressing("the forwarder's report is awaited".to_owned()));
    };
    match facts.outcome {
        Outcome::Applied(objects) if report.config_hash != objects.config_hash => {
            let message = "the forwarder starts with the changed configuration";
            return Some(progressing(message.to_owned()));
        }
        // Its pod was made by another release, whose configuration may be another one.
        Outcome::Applied(_) | Outcome::Queued(_) | Outcome::Paused(_) => {}
        Outcome::Stalled(_) | Outcome::Waiting | Outcome::Moving(_) => return None,
    }
    // A forwarder that has just been started knows neither side yet.
    let knows_nothing = report.source.state == SourceState::Unknown
        && report.token.state == TokenState::Unknown
        && !matches!(report.target.state, TargetState::Down | TargetState::Stalled);
    (knows_nothing && !was_ready(previous))
        .then(|| progressing("the forwarder has not reached the source yet".to_owned()))
}

fn token(facts: &Facts<'_>, _: &SiemAgentStatus, _: Timestamp) -> Check {
    let report = facts.sighting.report.as_ref()?;
    let message = clip(report.token.reason.as_deref().unwrap_or("the API gave no reason"));
    match super::token_state(facts.agent, report) {
        TokenState::Missing => Some(Situation::SecretMissing { message }),
        TokenState::Invalid => Some(Situation::TokenInvalid { message }),
        TokenState::Forbidden if flowing(facts.agent, report).is_empty() => {
            let message = forbidden(facts.agent, report).unwrap_or(message);
            Some(Situation::TokenForbidden { message })
        }
        TokenState::Forbidden | TokenState::Valid | TokenState::Unknown => None,
    }
}

/// One of several streams may not be read: told at once. Only an outage that is beyond its grace is worse, because it stops
/// the other stream too.
fn stream(facts: &Facts<'_>, previous: &SiemAgentStatus, now: Timestamp) -> Check {
    let report = facts.sighting.report.as_ref()?;
    let forbidden = forbidden(facts.agent, report)?;
    let outage = [target, source].iter().find_map(|check| {
        check(facts, previous, now).filter(|found| {
            matches!(
                found,
                Situation::TargetUnreachable { .. }
                    | Situation::SourceUnreachable { .. }
                    | Situation::SourceThrottled { .. }
            )
        })
    });
    outage.or_else(|| {
        let others = flowing(facts.agent, report).join(" and ");
        let message = format!("{forbidden}; it may read {others}");
        Some(Situation::StreamForbidden { message })
    })
}

fn target(facts: &Facts<'_>, previous: &SiemAgentStatus, now: Timestamp) -> Check {
    let report = facts.sighting.report.as_ref()?;
    match report.target.state {
        TargetState::Down | TargetState::Stalled => {
            let reason_word = match report.target.state {
                TargetState::Stalled => Reason::TargetStalled,
                _ => Reason::TargetUnreachable,
            };
            let since = since(report.target.since, report, previous, now);
            let reason = report.target.reason.as_deref().unwrap_or("no reason is known");
            let syslog = &facts.agent.spec.syslog;
            let message =
                format!("{} port {}: {}", syslog.bare_host(), defaults::port(syslog), clip(reason));
            let known = Situation::TargetUnreachable { reason: reason_word, message, since };
            beyond_grace(known, since, previous, now)
        }
        // A first connection is being made.
        TargetState::Unknown if !was_ready(previous) && !was_down(previous) => {
            Some(progressing("the SIEM has not been reached yet".to_owned()))
        }
        TargetState::Unknown | TargetState::Up | TargetState::Datagram => None,
    }
}

fn source(facts: &Facts<'_>, previous: &SiemAgentStatus, now: Timestamp) -> Check {
    let report = facts.sighting.report.as_ref()?;
    let since = since(report.source.since, report, previous, now);
    let message = clip(report.source.reason.as_deref().unwrap_or("no reason is known"));
    let known = match report.source.state {
        SourceState::Unreachable => Situation::SourceUnreachable { message, since },
        SourceState::Throttled => {
            Situation::SourceThrottled { message: message + &facts.allowed.shared(), since }
        }
        SourceState::Unknown if !was_ready(previous) && !was_down(previous) => {
            return Some(progressing("the forwarder has not reached the source yet".to_owned()));
        }
        SourceState::Unknown | SourceState::Reachable => return None,
    };
    beyond_grace(known, since, previous, now)
}

fn lagging(facts: &Facts<'_>, previous: &SiemAgentStatus, now: Timestamp) -> Check {
    facts.sighting.report.as_ref()?;
    let message = "delivery is more than 15 minutes behind though source and SIEM answer: a backlog is being worked off, or \
                   the request budget or the SIEM is too slow";
    lag::is_lagging(facts, previous, now)
        .then(|| Situation::Lagging { message: message.to_owned() + &facts.allowed.shared() })
}

fn well(facts: &Facts<'_>) -> String {
    let mut message = "events are delivered as they appear".to_owned();
    message.push_str(&facts.allowed.shared());
    if !facts.twins.is_empty() {
        message.push_str("; warning: ");
        message.push_str(&twins::words(facts.twins));
    }
    message
}

/// In words, the enabled streams that the token may not read.
pub(super) fn forbidden(agent: &SiemAgent, report: &Report) -> Option<String> {
    let enabled = super::enabled(agent).into_iter();
    let reasons = enabled
        .filter_map(|stream| {
            Some((stream, clip(report.streams.get(&stream)?.forbidden.as_deref()?)))
        })
        .collect::<Vec<_>>();
    forbidden_streams(reasons.iter().map(|(stream, reason)| (*stream, reason.as_str())))
}

/// The enabled streams of a report that the token may read.
fn flowing(agent: &SiemAgent, report: &Report) -> Vec<&'static str> {
    let enabled = super::enabled(agent).into_iter();
    let may_be_read =
        |stream: &Stream| report.streams.get(stream).is_some_and(|told| told.forbidden.is_none());
    // A forwarder that names none says so of them all.
    let names_none = report.token.state == TokenState::Forbidden
        && report.streams.values().all(|told| told.forbidden.is_none());
    enabled.filter(may_be_read).filter(|_| !names_none).map(Stream::as_str).collect()
}

fn progressing(message: String) -> Situation {
    Situation::Progressing { message }
}

fn was_ready(previous: &SiemAgentStatus) -> bool {
    previous.is(ConditionType::Ready)
}

/// Whether the way to the SIEM or from the portal was broken at the last look.
fn was_down(previous: &SiemAgentStatus) -> bool {
    down_since(previous).is_some()
}

/// Since when the status has said so: a forwarder that was started again counts from zero.
fn down_since(previous: &SiemAgentStatus) -> Option<Timestamp> {
    const REASONS: [Reason; 4] = [
        Reason::TargetUnreachable,
        Reason::TargetStalled,
        Reason::SourceUnreachable,
        Reason::SourceThrottled,
    ];
    previous
        .condition(ConditionType::Delivering)
        .filter(|delivering| {
            delivering.status == ConditionStatus::False
                && REASONS.iter().any(|reason| delivering.reason == *reason)
        })
        .map(|delivering| delivering.last_transition_time.0)
}

/// When an outage began. The forwarder knows, unless it was started since; then the status does. The status alone cannot be
/// believed: Delivering may have been False before for another reason, such as a stream that is forbidden.
fn since(
    told: Option<Timestamp>,
    report: &Report,
    previous: &SiemAgentStatus,
    now: Timestamp,
) -> Timestamp {
    let remembered = down_since(previous).filter(|since| report.started_at > *since);
    [told, remembered].into_iter().flatten().min().unwrap_or(now)
}

/// Trouble that is young leaves a ready agent ready, and one that was never ready on its way.
fn beyond_grace(
    known: Situation,
    since: Timestamp,
    previous: &SiemAgentStatus,
    now: Timestamp,
) -> Check {
    if now.duration_since(since) >= GRACE {
        return Some(known);
    }
    if was_ready(previous) {
        return None;
    }
    Some(match known {
        Situation::TargetUnreachable { message, .. }
        | Situation::SourceUnreachable { message, .. }
        | Situation::SourceThrottled { message, .. } => progressing(message),
        other => other,
    })
}

/// A condition's reason is one word.
fn word(reason: &str) -> String {
    let word: String =
        reason.chars().filter(|char| char.is_ascii_alphanumeric() || *char == '_').collect();
    match word.chars().next() {
        Some(first) if first.is_ascii_alphabetic() => word,
        _ => Reason::PodFailed.to_string(),
    }
}
