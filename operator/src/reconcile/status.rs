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
use siem_agent_crds::siem_agent::{SiemAgentStatus, StreamStatus, TokenState, TokenStatus};

use super::validate::Problem;
use crate::budget::Allowed;
use crate::forwarders::sighting::Sighting;
use crate::objects::{Applied, Objects};
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
    /// Its shares of the tenant's requests.
    pub(crate) allowed: &'a Allowed,
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
    /// The pod that it ran in before has not ended.
    Moving(String),
    /// All is on the server.
    Applied(Objects<Applied>),
    /// The operator brings another release, and this agent keeps the one that it runs: all else is on the server.
    Queued(Wait),
    /// Its user has paused it while this waits to be written.
    Paused(Vec<String>),
}

/// The generation of the spec that a status speaks of: of a paused agent with changes that wait, the one before them.
fn generation(facts: &Facts<'_>, previous: &SiemAgentStatus) -> i64 {
    match facts.outcome {
        Outcome::Paused(_) => previous.observed_generation,
        Outcome::Applied(_)
        | Outcome::Queued(_)
        | Outcome::Stalled(_)
        | Outcome::Waiting
        | Outcome::Moving(_) => facts.agent.metadata.generation.unwrap_or(0),
    }
}

/// The status of an agent.
pub(crate) fn status(facts: &Facts<'_>, now: Timestamp) -> SiemAgentStatus {
    let previous = facts.agent.status.clone().unwrap_or_default();
    let situation = situation::situation(facts, &previous, now);
    let report = facts.sighting.report.as_deref().filter(|_| situation.speaks_of_delivery());
    let lag = lag::seconds(facts, &previous, now);
    SiemAgentStatus {
        observed_generation: generation(facts, &previous),
        state: Some(portal_state::state(&situation, facts, &previous, now)),
        conditions: conditions::conditions(&situation, facts, &previous, now),
        token: Some(token(&situation, facts.agent, report, &previous)),
        lag: lag.map(|lag| lag::bucket(lag, previous.lag.as_deref()).to_owned()),
        streams: streams(facts, report, &previous, now),
        image: match facts.outcome {
            Outcome::Applied(objects) => Some(objects.image.clone()),
            Outcome::Queued(_)
            | Outcome::Stalled(_)
            | Outcome::Waiting
            | Outcome::Moving(_)
            | Outcome::Paused(_) => previous.image,
        },
    }
}

/// The streams that are to be exported.
fn enabled(agent: &SiemAgent) -> Vec<Stream> {
    agent.spec.event_types.enabled().collect()
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

/// How far each enabled stream has come, of those of which anything is known.
fn streams(
    facts: &Facts<'_>,
    report: Option<&Report>,
    previous: &SiemAgentStatus,
    now: Timestamp,
) -> Vec<StreamStatus> {
    let seen = facts.sighting.report.as_ref();
    let stream = |name: Stream| {
        let before = previous.stream(name);
        let seen = seen.and_then(|report| report.streams.get(&name));
        if seen.is_none() && before.is_none() {
            return None;
        }
        let is_forbidden = report
            .and_then(|report| report.streams.get(&name))
            .is_some_and(|stream| stream.forbidden.is_some());
        let lag = lag::of_stream(facts, name, previous, now);
        let time = |seen: Option<Timestamp>| seen.map(whole_seconds);
        let bucket_before = before.and_then(|before| before.lag.as_deref());
        Some(StreamStatus {
            name,
            source: facts.agent.spec.source_of(name),
            lag: lag.map(|lag| lag::bucket(lag, bucket_before).to_owned()),
            delivered_through: match seen {
                Some(seen) => time(seen.delivered_through),
                None => before.and_then(|before| before.delivered_through.clone()),
            },
            last_event_time: match seen {
                Some(seen) => time(seen.last_event_time),
                None => before.and_then(|before| before.last_event_time.clone()),
            },
            reason: is_forbidden.then(|| Reason::StreamForbidden.to_string()),
        })
    };
    facts.agent.spec.event_types.enabled().filter_map(stream).collect()
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
