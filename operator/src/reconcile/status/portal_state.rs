//! The portal's word for an agent. Pure; the times are the portal's own: two hours and twelve.

use jiff::{SignedDuration, Timestamp};
use siem_agent_crds::condition::{ConditionStatus, ConditionType};
use siem_agent_crds::siem_agent::{SiemAgentStatus, State};

use super::{Facts, Situation};

const CONNECTION_ERROR_AFTER: SignedDuration = SignedDuration::from_hours(2);
const DISCONNECTED_AFTER: SignedDuration = SignedDuration::from_hours(12);

/// The word.
pub(super) fn state(
    situation: &Situation,
    facts: &Facts<'_>,
    previous: &SiemAgentStatus,
    now: Timestamp,
) -> State {
    match situation {
        Situation::Suspended => State::Suspended,
        Situation::Delivering { .. } | Situation::Lagging { .. } => State::Connected,
        Situation::TargetUnreachable { since, .. } => down(State::Connected, *since, now),
        Situation::SourceUnreachable { since, .. } | Situation::SourceThrottled { since, .. } => {
            down(ever(previous), *since, now)
        }
        Situation::Stalled { .. }
        | Situation::SecretMissing { .. }
        | Situation::TokenInvalid { .. }
        | Situation::TokenForbidden { .. }
        | Situation::StreamForbidden { .. } => last_seen(previous),
        Situation::Progressing { .. }
        | Situation::Paused { .. }
        | Situation::PodTrouble { .. }
        | Situation::ReportUnavailable { .. } => match ever(previous) {
            State::Created => State::Created,
            connected => match last_report(facts, previous) {
                Some(last) => down(connected, last, now),
                None => last_seen(previous),
            },
        },
    }
}

fn down(young: State, since: Timestamp, now: Timestamp) -> State {
    let age = now.duration_since(since);
    if age > DISCONNECTED_AFTER {
        State::Disconnected
    } else if age > CONNECTION_ERROR_AFTER {
        State::ConnectionError
    } else {
        young
    }
}

/// Created until it was connected once.
fn ever(previous: &SiemAgentStatus) -> State {
    let was_connected = match previous.state {
        None | Some(State::Created) => false,
        Some(State::Connected | State::ConnectionError | State::Disconnected) => true,
        Some(State::Suspended) => !previous.streams.is_empty(),
    };
    if was_connected { State::Connected } else { State::Created }
}

fn last_seen(previous: &SiemAgentStatus) -> State {
    match previous.state {
        Some(
            state @ (State::Created
            | State::Connected
            | State::ConnectionError
            | State::Disconnected),
        ) => state,
        Some(State::Suspended) | None => ever(previous),
    }
}

/// When a report was last read. What this operator has not seen itself, the status remembers: it was ready, or it has
/// not been since.
fn last_report(facts: &Facts<'_>, previous: &SiemAgentStatus) -> Option<Timestamp> {
    facts.sighting.last_read.or_else(|| {
        previous
            .condition(ConditionType::Ready)
            .filter(|ready| ready.status == ConditionStatus::False)
            .map(|ready| ready.last_transition_time.0)
    })
}
