//! Events: one for each transition that people care about. Pure; `reconcile` sends them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, ObjectMeta};
use kube::{Resource as _, ResourceExt as _};
use siem_agent_crds::siem_agent::State;
use siem_agent_crds::{SiemAgent, SiemAgentStatus};

use crate::names::MANAGER;
use crate::reconcile::status::condition;

/// The server's own limit.
const LONGEST_NOTE: usize = 1_000;

/// The Events of a changed status: Ready turns or gets another reason, the token turns, what has gone on for hours gets
/// its own word, a twin appears.
pub(crate) fn of_change(
    agent: &SiemAgent,
    previous: &SiemAgentStatus,
    next: &SiemAgentStatus,
    instance: &str,
    now: Timestamp,
) -> Vec<Event> {
    let mut events = Vec::new();
    // An agent that has just been made has not turned.
    let is_new = previous.conditions.is_empty();
    let turned = |type_: &str, by_reason: bool| {
        let (before, after) = (condition(previous, type_), condition(next, type_)?);
        let same = before.is_some_and(|before| {
            before.status == after.status && (!by_reason || before.reason == after.reason)
        });
        (!same).then_some(after)
    };
    let ready = turned("Ready", true);
    if let Some(ready) = ready
        && !(is_new && ready.reason == "Progressing")
    {
        let is_well =
            ready.status == "True" || ["Progressing", "Suspended"].contains(&ready.reason.as_str());
        events.push(event(agent, ready, is_well, instance, now));
    }
    if let Some(reconciling) = turned("Reconciling", true)
        && reconciling.reason == "RolloutHalted"
    {
        events.push(event(agent, reconciling, false, instance, now));
    }
    // What Ready says already is not said again.
    if let Some(token) = turned("TokenValid", false)
        && token.status == "False"
        && ready.is_none_or(|ready| ready.message != token.message)
    {
        events.push(event(agent, token, false, instance, now));
    }
    if let Some(state @ (State::ConnectionError | State::Disconnected)) = next.state
        && previous.state != next.state
        && let Some(ready) = condition(next, "Ready")
    {
        let lasting = Condition { reason: format!("{state:?}"), ..ready.clone() };
        events.push(event(agent, &lasting, false, instance, now));
    }
    let is_warned = |status: &SiemAgentStatus| {
        condition(status, "Ready").is_some_and(|ready| ready.message.contains("warning: "))
    };
    if let Some(ready) = condition(next, "Ready")
        && is_warned(next)
        && !is_warned(previous)
    {
        let twin = Condition { reason: "DuplicateExport".to_owned(), ..ready.clone() };
        events.push(event(agent, &twin, false, instance, now));
    }
    events
}

fn event(
    agent: &SiemAgent,
    condition: &Condition,
    is_well: bool,
    instance: &str,
    now: Timestamp,
) -> Event {
    let mut note = condition.message.clone();
    note.truncate(note.floor_char_boundary(LONGEST_NOTE));
    Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", agent.name_any())),
            namespace: agent.namespace(),
            ..ObjectMeta::default()
        },
        event_time: Timestamp::from_microsecond(now.as_microsecond()).ok().map(MicroTime),
        type_: Some(if is_well { "Normal" } else { "Warning" }.to_owned()),
        reason: Some(condition.reason.clone()),
        action: Some("Reconcile".to_owned()),
        note: Some(note),
        reporting_controller: Some(MANAGER.to_owned()),
        reporting_instance: Some(instance.chars().take(128).collect()),
        regarding: Some(ObjectReference {
            api_version: Some(SiemAgent::api_version(&()).into_owned()),
            kind: Some(SiemAgent::kind(&()).into_owned()),
            name: agent.metadata.name.clone(),
            namespace: agent.metadata.namespace.clone(),
            uid: agent.metadata.uid.clone(),
            resource_version: agent.metadata.resource_version.clone(),
            field_path: None,
        }),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(ready: &str, state: State) -> SiemAgentStatus {
        let ready = Condition {
            type_: "Ready".to_owned(),
            status: if ready == "Delivering" { "True" } else { "False" }.to_owned(),
            reason: ready.to_owned(),
            message: "in its own words".to_owned(),
            last_transition_time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                Timestamp::UNIX_EPOCH,
            ),
            observed_generation: Some(1),
        };
        SiemAgentStatus { state: Some(state), conditions: vec![ready], ..Default::default() }
    }

    #[test]
    fn a_halted_roll_out_is_one_event_of_an_agent_that_is_well() {
        let text = "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata: {name: soc, namespace: ns}\n\
                    spec: {source: {url: 'https://t.example', auth: {tokenSecretRef: {name: a}}}, syslog: {host: siem.example}}\n";
        let agent = siem_agent_crds::manifest::read(text).unwrap();
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
        let text = "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata: {name: soc, namespace: ns}\n\
                    spec: {source: {url: 'https://t.example', auth: {tokenSecretRef: {name: a}}}, syslog: {host: siem.example}}\n";
        let agent = siem_agent_crds::manifest::read(text).unwrap();
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
            let said = events.iter().map(|event| {
                assert_eq!(event.note.as_deref(), Some("in its own words"));
                let text = |text: &Option<String>| text.clone().unwrap_or_default();
                format!("{} {}", text(&event.type_), text(&event.reason))
            });
            assert_eq!(said.collect::<Vec<_>>().join(", "), *expected);
        }
    }
}
