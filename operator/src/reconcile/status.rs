//! What the agent's status says. Pure: `(facts, now) -> status`; nothing here is written.
//!
//! `situation` finds out what is the case, by an ordered list of checks; `conditions` is the contract's table, a row a
//! situation; `portal_state` and `lag` are the portal's word and the bucket. `decide` says whether it is worth a write.

mod situation;
mod conditions;
mod portal_state;
mod lag;
mod decide;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use siem_agent_crds::SiemAgent;
use siem_agent_crds::condition::Reason;
use siem_agent_crds::report::{Report, Stream};
use siem_agent_crds::siem_agent::{
    DeliveryStatus, SiemAgentStatus, StreamStatus, TokenState, TokenStatus,
};

use super::build::{Applied, Objects};
use super::validate::Problem;
use crate::budget::Others;
use crate::forwarders::sighting::Sighting;
use crate::rollout::Wait;
use crate::twins::Twin;
use crate::workload::Workload;

pub(crate) use decide::{Decision, RESYNC, Verdict, decide, is_news};
pub(crate) use situation::Situation;

/// Everything that a status is made of.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) agent: &'a SiemAgent,
    pub(crate) outcome: &'a Outcome,
    pub(crate) workload: &'a Workload,
    pub(crate) sighting: &'a Sighting,
    /// Agents that export the same source to the same target.
    pub(crate) twins: &'a [Twin],
    /// With whom the tenant's requests are shared.
    pub(crate) others: &'a Others,
    /// Whether there is a Deployment.
    pub(crate) has_deployment: bool,
    /// How long its controller has not seen it through; `None` when it has.
    pub(crate) unsettled: Option<Duration>,
}

/// How far this reconcile came.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The spec cannot work.
    Stalled(Vec<Problem>),
    /// What an earlier agent of this name owned is still being removed.
    Waiting,
    /// All is on the server.
    Applied(Objects<Applied>),
    /// The operator brings another release, and this agent keeps the one that it runs: all else is on the server.
    Queued(Wait),
}

/// The status of an agent.
pub(crate) fn status(facts: &Facts<'_>, now: Timestamp) -> SiemAgentStatus {
    let previous = facts.agent.status.clone().unwrap_or_default();
    let situation = situation::situation(facts, &previous, now);
    let report = facts.sighting.report.as_deref().filter(|_| situation.speaks_of_delivery());
    let lag = lag::seconds(facts, &previous, now);
    let previous_lag = previous.delivery.as_ref().and_then(|delivery| delivery.lag.as_deref());
    SiemAgentStatus {
        observed_generation: facts.agent.metadata.generation.unwrap_or(0),
        state: Some(portal_state::state(&situation, facts, &previous, now)),
        conditions: conditions::conditions(&situation, facts, &previous, now),
        token: Some(token(&situation, facts.agent, report, &previous)),
        delivery: delivery(facts, report, &previous, lag.map(|lag| lag::bucket(lag, previous_lag))),
        image: match facts.outcome {
            Outcome::Applied(objects) => Some(objects.image.clone()),
            Outcome::Queued(_) | Outcome::Stalled(_) | Outcome::Waiting => previous.image,
        },
    }
}

/// The streams that are to be exported.
fn enabled(agent: &SiemAgent) -> Vec<Stream> {
    let types = &agent.spec.event_types;
    [(Stream::Alerts, types.alerts.enabled), (Stream::Activities, types.activities.enabled)]
        .into_iter()
        .filter_map(|(stream, enabled)| enabled.then_some(stream))
        .collect()
}

/// The worst that a report says of the token on any enabled stream.
fn token_state(agent: &SiemAgent, report: &Report) -> TokenState {
    match report.token.state {
        state @ (TokenState::Missing | TokenState::Invalid) => state,
        state @ (TokenState::Valid | TokenState::Forbidden | TokenState::Unknown) => {
            if situation::forbidden(agent, report).is_some() {
                TokenState::Forbidden
            } else {
                state
            }
        }
    }
}

/// What is known of the token; where nothing is known just now, Unknown.
fn token(
    situation: &Situation,
    agent: &SiemAgent,
    report: Option<&Report>,
    previous: &SiemAgentStatus,
) -> TokenStatus {
    let time = |time: Option<Timestamp>| time.map(whole_seconds);
    let told = report.map(|report| (report, token_state(agent, report)));
    match told {
        Some((report, state)) if state != TokenState::Unknown => TokenStatus {
            state,
            reason: Some(match state {
                TokenState::Valid => state.as_str().to_owned(),
                TokenState::Forbidden
                | TokenState::Invalid
                | TokenState::Missing
                | TokenState::Unknown => situation::forbidden(agent, report)
                    .filter(|_| state == TokenState::Forbidden)
                    .or_else(|| report.token.reason.as_deref().map(clip))
                    .unwrap_or_else(|| state.as_str().to_owned()),
            }),
            last_check_time: time(report.token.last_check_time),
            last_change_time: time(report.token.last_change_time),
        },
        _ => {
            let before = previous.token.clone();
            // A forwarder that was started while the portal is away has not tried it yet.
            let keeps = situation.keeps_token();
            before.filter(|before| keeps || before.state == TokenState::Unknown).unwrap_or_else(
                || TokenStatus {
                    state: TokenState::Unknown,
                    reason: None,
                    last_check_time: previous
                        .token
                        .as_ref()
                        .and_then(|token| token.last_check_time.clone()),
                    last_change_time: None,
                },
            )
        }
    }
}

fn delivery(
    facts: &Facts<'_>,
    report: Option<&Report>,
    previous: &SiemAgentStatus,
    lag: Option<&'static str>,
) -> Option<DeliveryStatus> {
    let before = previous.delivery.clone().unwrap_or_default();
    let stream = |stream: Stream, enabled: bool, before: Option<StreamStatus>| {
        if !enabled {
            return None;
        }
        let now = report.and_then(|report| report.streams.get(&stream));
        let is_forbidden = now.is_some_and(|told| told.forbidden.is_some());
        let reason = is_forbidden.then(|| Reason::StreamForbidden.to_string());
        let told = facts.sighting.report.as_ref().and_then(|report| report.streams.get(&stream));
        let Some(told) = told else {
            return before.map(|before| StreamStatus { reason, ..before });
        };
        Some(StreamStatus {
            reason,
            delivered_through: told.delivered_through.map(whole_seconds),
            last_event_time: told.last_event_time.map(whole_seconds),
        })
    };
    let types = &facts.agent.spec.event_types;
    let delivery = DeliveryStatus {
        lag: lag.map(str::to_owned),
        alerts: stream(Stream::Alerts, types.alerts.enabled, before.alerts),
        activities: stream(Stream::Activities, types.activities.enabled, before.activities),
    };
    (delivery != DeliveryStatus::default()).then_some(delivery)
}

/// `Time` is written in whole seconds; anything finer would differ from what comes back.
fn whole_seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

/// Somebody else's text, as long as a person reads, and without what a terminal would obey.
fn clip(text: &str) -> String {
    const LONGEST: usize = 1_000;
    let cut = &text[..text.floor_char_boundary(LONGEST)];
    let more = if cut.len() < text.len() { "…" } else { "" };
    cut.replace(char::is_control, " ") + more
}

#[cfg(test)]
mod tests;
