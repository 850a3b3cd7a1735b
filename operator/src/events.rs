//! Events: one for each transition that people care about. Pure; `reconcile` sends them.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, ObjectMeta, Time};
use kube::Resource as _;
use siem_agent_crds::condition::{ConditionStatus, ConditionType, Reason};
use siem_agent_crds::siem_agent::State;
use siem_agent_crds::{SiemAgent, SiemAgentStatus};

use crate::agent::Agent;
use crate::host::Host;
use crate::key::Key;
use crate::names::{MANAGER, SIDECAR};
use crate::twins::{self, Twin};

/// Ready's reasons that speak of the token.
const OF_TOKEN: [Reason; 4] =
    [Reason::SecretMissing, Reason::TokenInvalid, Reason::TokenForbidden, Reason::StreamForbidden];
/// An agent has its first status within this.
const FIRST: SignedDuration = SignedDuration::from_mins(2);
/// The server's own limit.
const LONGEST_NOTE: usize = 1_000;

/// The Events of a changed status: Ready turns or gets another reason, the token turns, what has gone on for hours gets
/// its own word. Texts decide about none: somebody else may have written them.
pub(crate) fn of_change(
    agent: &Agent,
    previous: &SiemAgentStatus,
    next: &SiemAgentStatus,
    instance: &str,
    now: Timestamp,
) -> Vec<Event> {
    let mut events = Vec::new();
    // An agent that has just been made has not turned.
    let is_new = previous.conditions.is_empty();
    let turned = |of: ConditionType, by_reason: bool| {
        let (before, after) = (previous.condition(of), next.condition(of)?);
        let same = before.is_some_and(|before| {
            before.status == after.status && (!by_reason || before.reason == after.reason)
        });
        (!same).then_some(after)
    };
    let ready = turned(ConditionType::Ready, true);
    // The backlog of an agent that was never ready is what it was made for.
    let has_backlog =
        |ready: &Condition| ready.reason == Reason::Lagging && !was_ready(agent, previous);
    if let Some(ready) = ready
        && !(is_new && ready.reason == Reason::Progressing)
        && !has_backlog(ready)
    {
        let is_well = ready.status == ConditionStatus::True
            || ready.reason == Reason::Progressing
            || ready.reason == Reason::Suspended;
        events.push(event(agent, ready, is_well, instance, now));
    }
    if let Some(reconciling) = turned(ConditionType::Reconciling, true)
        && reconciling.reason == Reason::RolloutHalted
    {
        events.push(event(agent, reconciling, false, instance, now));
    }
    // What Ready says already is not said again.
    if let Some(token) = turned(ConditionType::TokenValid, false)
        && token.status == ConditionStatus::False
        && ready.is_none_or(|ready| !OF_TOKEN.iter().any(|of_token| ready.reason == *of_token))
    {
        events.push(event(agent, token, false, instance, now));
    }
    if let Some(state @ (State::ConnectionError | State::Disconnected)) = next.state
        && previous.state != next.state
        && let Some(ready) = next.condition(ConditionType::Ready)
    {
        let lasting = Condition { reason: state.as_str().to_owned(), ..ready.clone() };
        events.push(event(agent, &lasting, false, instance, now));
    }
    events
}

/// Whether an agent has been ready once: a Ready that is false since the agent was made has never turned.
fn was_ready(agent: &Agent, previous: &SiemAgentStatus) -> bool {
    previous.condition(ConditionType::Ready).is_some_and(|ready| {
        let turned = ready.last_transition_time.0;
        let made = agent.metadata.creation_timestamp.as_ref();
        ready.status == ConditionStatus::True
            || made.is_some_and(|made| turned.duration_since(made.0) > FIRST)
    })
}

/// The Event of an agent that exports the same as others. Its name is the same as long as they are: the server refuses a
/// second one of an operator that was started again.
pub(crate) fn of_twins(agent: &Agent, twins: &[Twin], instance: &str, now: Timestamp) -> Event {
    let condition = Condition {
        type_: ConditionType::Ready.to_string(),
        status: ConditionStatus::False.to_string(),
        reason: Reason::DuplicateExport.to_string(),
        message: twins::words(twins),
        observed_generation: agent.metadata.generation,
        last_transition_time: Time(now),
    };
    let mut event = event(agent, &condition, false, instance, now);
    event.metadata.generate_name = None;
    let print = twins::fingerprint(agent, twins);
    event.metadata.name = Some(format!("{}-duplicate-{print}", agent.key.name));
    event
}

/// The Event on a host that is rolled out anew for a sidecar. Its owner may know nothing of agents.
pub(crate) fn of_host(
    key: &Key,
    host: &Host,
    has_sidecar: bool,
    why: &str,
    instance: &str,
    now: Timestamp,
) -> Event {
    let what = match (host.has_sidecar, has_sidecar) {
        (false, _) => "adds",
        (true, true) => "changes",
        (true, false) => "removes",
    };
    let note = format!(
        "{} is rolled out anew: the operator {what} the container {SIDECAR} of SiemAgent {} ({why})",
        host.of, key.name
    );
    let regarding = ObjectReference {
        api_version: Some("apps/v1".to_owned()),
        kind: Some(host.of.kind.as_str().to_owned()),
        name: Some(host.of.name.clone()),
        namespace: Some(key.namespace.clone()),
        uid: Some(host.live.uid.clone()),
        ..ObjectReference::default()
    };
    let reason = Reason::SidecarHostRestart.as_str();
    let made = made(key, instance, now);
    Event { regarding: Some(regarding), ..said(made, true, reason, note) }
}

/// The same on the agent.
pub(crate) fn of_its_agent(agent: &Agent, of_host: &Event) -> Event {
    Event {
        regarding: Some(reference(agent)),
        related: of_host.regarding.clone(),
        ..of_host.clone()
    }
}

fn reference(agent: &Agent) -> ObjectReference {
    ObjectReference {
        api_version: Some(SiemAgent::api_version(&()).into_owned()),
        kind: Some(SiemAgent::kind(&()).into_owned()),
        name: Some(agent.key.name.clone()),
        namespace: Some(agent.key.namespace.clone()),
        uid: Some(agent.uid.clone()),
        resource_version: agent.metadata.resource_version.clone(),
        field_path: None,
    }
}

fn made(key: &Key, instance: &str, now: Timestamp) -> Event {
    Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", key.name)),
            namespace: Some(key.namespace.clone()),
            ..ObjectMeta::default()
        },
        event_time: Timestamp::from_microsecond(now.as_microsecond()).ok().map(MicroTime),
        action: Some("Reconcile".to_owned()),
        reporting_controller: Some(MANAGER.to_owned()),
        reporting_instance: Some(instance.chars().take(128).collect()),
        ..Event::default()
    }
}

fn said(made: Event, is_well: bool, reason: &str, mut note: String) -> Event {
    note.truncate(note.floor_char_boundary(LONGEST_NOTE));
    Event {
        type_: Some(if is_well { "Normal" } else { "Warning" }.to_owned()),
        reason: Some(reason.to_owned()),
        note: Some(note),
        ..made
    }
}

fn event(
    agent: &Agent,
    condition: &Condition,
    is_well: bool,
    instance: &str,
    now: Timestamp,
) -> Event {
    let made = made(&agent.key, instance, now);
    let said = said(made, is_well, &condition.reason, condition.message.clone());
    Event { regarding: Some(reference(agent)), ..said }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> Agent {
        let text = "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata: {name: soc, namespace: ns}\n\
                    spec: {source: {cloudApps: {url: 'https://t.example'}, auth: {tokenSecretRef: {name: a}}}, syslog: {host: siem.example}}\n";
        Agent::for_test(siem_agent_crds::manifest::read(text).unwrap())
    }

    /// Type and reason of each.
    fn said(events: &[Event]) -> String {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let each =
            events.iter().map(|event| format!("{} {}", text(&event.type_), text(&event.reason)));
        each.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn words_of_others_make_no_event() {
        let with = |ready: &str, message: &str, token: Option<&str>| {
            let mut status = status(ready, State::Connected);
            status.conditions[0].message = message.to_owned();
            let token = token.map(|message| Condition {
                type_: "TokenValid".to_owned(),
                status: "False".to_owned(),
                reason: "Forbidden".to_owned(),
                message: message.to_owned(),
                ..status.conditions[0].clone()
            });
            status.conditions.extend(token);
            status
        };
        let texts =
            ["warning: the token ends soon", "; warning: ns/x exports the same", "DuplicateExport"];
        for (text, reason) in
            texts.iter().flat_map(|text| [(text, "Lagging"), (text, "Delivering")])
        {
            let before = with(reason, "in its own words", None);
            let after = with(reason, text, None);
            let events = of_change(&agent(), &before, &after, "i", Timestamp::UNIX_EPOCH);
            assert_eq!(said(&events), "", "{text}");
        }
        // One refusal is one Event, though the two conditions put it in other words.
        let before = with("Delivering", "m", None);
        let after = with("StreamForbidden", "alerts: no; activities flow", Some("alerts: no"));
        let events = of_change(&agent(), &before, &after, "i", Timestamp::UNIX_EPOCH);
        assert_eq!(said(&events), "Warning StreamForbidden");
        // Two troubles are two, though a portal gives the same text for both.
        let after = with("SourceUnreachable", "no", Some("no"));
        let events = of_change(&agent(), &before, &after, "i", Timestamp::UNIX_EPOCH);
        assert_eq!(said(&events), "Warning SourceUnreachable, Warning Forbidden");
    }

    #[test]
    fn a_new_agents_own_backlog_makes_no_event() {
        let at = |seconds| Time(Timestamp::from_second(seconds).unwrap());
        let mut agent = agent();
        agent.metadata.creation_timestamp = Some(at(1_000));
        let with = |reason: &str, turned| {
            let mut status = status(reason, State::Connected);
            status.conditions[0].last_transition_time = at(turned);
            status
        };
        let lags = with("Lagging", 1_001);
        let of = |before: &SiemAgentStatus| {
            said(&of_change(&agent, before, &lags, "i", Timestamp::UNIX_EPOCH))
        };
        for never_ready in [SiemAgentStatus::default(), with("SecretMissing", 1_001)] {
            assert_eq!(of(&never_ready), "");
        }
        for was_ready in [with("Delivering", 1_060), with("TokenInvalid", 9_000)] {
            assert_eq!(of(&was_ready), "Warning Lagging");
        }
    }

    #[test]
    fn the_event_of_twins_has_one_name_while_they_are_the_same() {
        let mut other = agent();
        other.key.namespace = "another".to_owned();
        let all = twins::Twins::of([&agent(), &other]);
        let twins = all.twins(&agent().key);
        let of = |second| of_twins(&agent(), twins, "i", Timestamp::constant(second, 0));
        let (first, again) = (of(1), of(5_000));
        assert_eq!(first.metadata.name, again.metadata.name);
        assert!(first.metadata.name.is_some() && first.metadata.generate_name.is_none());
        assert_eq!(said(std::slice::from_ref(&first)), "Warning DuplicateExport");
        let note = first.note.unwrap_or_default();
        assert!(note.starts_with("another/soc exports the same source"), "{note}");
    }

    fn status(ready: &str, state: State) -> SiemAgentStatus {
        let ready = Condition {
            type_: "Ready".to_owned(),
            status: if ready == "Delivering" { "True" } else { "False" }.to_owned(),
            reason: ready.to_owned(),
            message: "in its own words".to_owned(),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            observed_generation: Some(1),
        };
        SiemAgentStatus { state: Some(state), conditions: vec![ready], ..Default::default() }
    }

    #[test]
    fn a_halted_roll_out_is_one_event_of_an_agent_that_is_well() {
        let agent = agent();
        let well = || status("Delivering", State::Connected);
        let with = |reason: &str| {
            let mut status = well();
            let ready = status.conditions[0].clone();
            let (type_, reason) = ("Reconciling".to_owned(), reason.to_owned());
            status.conditions.push(Condition { type_, reason, ..ready });
            status
        };
        let n = |before: &SiemAgentStatus, after: &SiemAgentStatus| {
            of_change(&agent, before, after, "i", Timestamp::UNIX_EPOCH).len()
        };
        assert_eq!(n(&well(), &with("RolloutQueued")), 0);
        assert_eq!(n(&with("RolloutQueued"), &with("RolloutHalted")), 1);
        assert_eq!(n(&with("RolloutHalted"), &with("RolloutHalted")), 0);
        assert_eq!(n(&with("RolloutHalted"), &well()), 0);
    }

    #[test]
    fn each_turn_is_one_event() {
        let agent = agent();
        let life = [
            (status("Delivering", State::Connected), ""),
            (status("Delivering", State::Connected), ""),
            (status("TargetUnreachable", State::Connected), "Warning TargetUnreachable"),
            (status("TargetUnreachable", State::Connected), ""),
            (status("TargetUnreachable", State::ConnectionError), "Warning ConnectionError"),
            (status("TargetUnreachable", State::ConnectionError), ""),
            (status("TargetUnreachable", State::Disconnected), "Warning Disconnected"),
            (status("TargetUnreachable", State::Disconnected), ""),
            (status("Delivering", State::Connected), "Normal Delivering"),
        ];
        for pair in life.windows(2) {
            let [(before, _), (after, expected)] = pair else { panic!("pairs") };
            let events = of_change(&agent, before, after, "i", Timestamp::UNIX_EPOCH);
            assert!(events.iter().all(|event| event.note.as_deref() == Some("in its own words")));
            assert_eq!(said(&events), *expected);
        }
    }
}
