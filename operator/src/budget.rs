//! How the agents on one URL share the tenant's requests. Pure.
//!
//! The API allows so many requests a minute for a whole tenant, whoever asks. The smallest budget that any agent on the
//! URL gives is divided evenly among those that work; what does not divide goes to the first by name, so that nothing of
//! it lies idle. An agent that does not work gets what it would have if it did, so that it can begin before the others
//! have heard of it.

use std::collections::BTreeMap;

use siem_agent_crds::SiemAgent;
use siem_agent_crds::siem_agent::TokenState;

use crate::same;

/// Namespace and name.
pub(crate) type Key = (String, String);

/// What every agent may ask, requests a minute.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Shares(BTreeMap<Key, u32>);

impl Shares {
    /// Divides the budgets of all these agents.
    pub(crate) fn of<'a>(agents: impl IntoIterator<Item = &'a SiemAgent>) -> Self {
        let mut by_url: BTreeMap<String, Vec<(Key, u32, bool)>> = BTreeMap::new();
        for agent in agents {
            let budget = u32::try_from(agent.spec.source.requests_per_minute).unwrap_or(1).max(1);
            by_url.entry(same::tenant(&agent.spec.source.url)).or_default().push((
                key(agent),
                budget,
                works(agent),
            ));
        }
        let mut shares = BTreeMap::new();
        for mut agents in by_url.into_values() {
            agents.sort();
            let of_working = |works: bool| {
                agents
                    .iter()
                    .filter(move |(.., working)| *working || !works)
                    .map(|(_, budget, _)| *budget)
            };
            let total = of_working(true).min().or_else(|| of_working(false).min()).unwrap_or(1);
            let n_working = u32::try_from(of_working(true).count()).unwrap_or(u32::MAX);
            let mut rest = total.checked_rem(n_working).unwrap_or(0);
            for (key, _, works) in agents {
                let share = if works {
                    let extra = u32::from(rest > 0);
                    rest -= extra;
                    total / n_working + extra
                } else {
                    total / (n_working + 1)
                };
                shares.insert(key, share.max(1));
            }
        }
        Self(shares)
    }

    /// The share of one agent.
    pub(crate) fn share(&self, key: &Key) -> Option<u32> {
        self.0.get(key).copied()
    }

    /// An agent has been told this share.
    pub(crate) fn told(&mut self, key: &Key, share: u32) {
        self.0.insert(key.clone(), share);
    }

    /// The agents whose share is another one than before.
    pub(crate) fn changed_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a Key> {
        self.0.iter().filter(|(key, share)| before.0.get(*key) != Some(*share)).map(|(key, _)| key)
    }
}

/// Namespace and name of an agent.
pub(crate) fn key(agent: &SiemAgent) -> Key {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    (text(&agent.metadata.namespace), text(&agent.metadata.name))
}

/// Suspended, refused and impossible agents ask nothing worth counting.
fn works(agent: &SiemAgent) -> bool {
    let status = agent.status.as_ref();
    let is_stalled = status.is_some_and(|status| {
        status.conditions.iter().any(|condition| {
            condition.type_ == "Stalled"
                && condition.status == "True"
                && condition.observed_generation == agent.metadata.generation
        })
    });
    let is_refused =
        status.and_then(|status| status.token.as_ref()).is_some_and(|token| match token.state {
            TokenState::Invalid | TokenState::Missing => true,
            TokenState::Forbidden => !reads_a_stream(agent),
            TokenState::Valid | TokenState::Unknown => false,
        });
    !agent.spec.suspend
        && agent.spec.placement.is_none()
        && agent.metadata.deletion_timestamp.is_none()
        && !is_stalled
        && !is_refused
}

/// Whether a token that is forbidden one stream may still read another.
fn reads_a_stream(agent: &SiemAgent) -> bool {
    let delivery = agent.status.as_ref().and_then(|status| status.delivery.as_ref());
    let Some(delivery) = delivery else { return false };
    let types = &agent.spec.event_types;
    let streams = [
        (types.alerts.enabled, &delivery.alerts),
        (types.activities.enabled, &delivery.activities),
    ];
    let enabled =
        streams.into_iter().filter_map(|(enabled, stream)| stream.as_ref().filter(|_| enabled));
    let (stands, flows): (Vec<_>, Vec<_>) = enabled.partition(|stream| stream.reason.is_some());
    !stands.is_empty() && !flows.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str, url: &str, budget: i32) -> SiemAgent {
        let text = format!(
            "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata: {{name: {name}, namespace: ns}}\n\
             spec:\n  source: {{url: '{url}', requestsPerMinute: {budget}, auth: {{tokenSecretRef: {{name: a}}}}}}\n  syslog: {{host: h}}\n"
        );
        siem_agent_crds::manifest::read(&text).unwrap()
    }

    fn share(agents: &[SiemAgent], name: &str) -> u32 {
        Shares::of(agents).share(&("ns".to_owned(), name.to_owned())).unwrap()
    }

    #[test]
    fn the_smallest_budget_is_divided_whole_among_those_that_work() {
        let mut agents = vec![
            agent("a", "https://t.example", 30),
            agent("b", "https://T.example/", 31),
            agent("c", "https://t.example", 40),
            agent("d", "https://t.example", 30),
            agent("e", "https://other.example", 30),
        ];
        assert_eq!([share(&agents, "a"), share(&agents, "d"), share(&agents, "e")], [8, 7, 30]);
        let sum: u32 = ["a", "b", "c", "d"].iter().map(|name| share(&agents, name)).sum();
        assert_eq!(sum, 30);
        agents[3].spec.suspend = true;
        assert_eq!([share(&agents, "a"), share(&agents, "d")], [10, 7]);
        agents[1].spec.source.requests_per_minute = 3;
        assert_eq!([share(&agents, "a"), share(&agents, "b")], [1, 1]);
    }

    #[test]
    fn an_agent_that_cannot_ask_takes_nothing_from_the_others() {
        let status = |token: &str, stalled: &str| {
            let status = serde_json::json!({
                "observedGeneration": 1, "token": {"state": token},
                "conditions": [{
                    "type": "Stalled", "status": stalled, "reason": "r", "message": "", "observedGeneration": 1,
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }],
            });
            serde_json::from_value(status).ok()
        };
        let mut agents =
            vec![agent("a", "https://t.example", 30), agent("b", "https://t.example", 30)];
        agents[1].metadata.generation = Some(1);
        for (token, stalled, expected) in [
            ("Valid", "False", 15),
            ("Unknown", "False", 15),
            ("Invalid", "False", 30),
            ("Forbidden", "False", 30),
            ("Missing", "False", 30),
            ("Valid", "True", 30),
        ] {
            agents[1].status = status(token, stalled);
            assert_eq!(share(&agents, "a"), expected, "{token} {stalled}");
        }
        // One stream of two is still asked for.
        agents[1].status = status("Forbidden", "False");
        let forbidden: serde_json::Value = serde_json::json!({"reason": "StreamForbidden"});
        for (alerts, activities, expected) in [
            (&forbidden, &serde_json::json!({}), 15),
            (&serde_json::json!({}), &forbidden, 15),
            (&forbidden, &forbidden, 30),
        ] {
            let delivery = serde_json::json!({"alerts": alerts, "activities": activities});
            agents[1].status.as_mut().unwrap().delivery = serde_json::from_value(delivery).ok();
            assert_eq!(share(&agents, "a"), expected, "{alerts} {activities}");
        }
        agents[1].status = status("Valid", "True");
        // Stalled was what the spec was before.
        agents[1].metadata.generation = Some(2);
        assert_eq!(share(&agents, "a"), 15);
    }

    #[test]
    fn everybody_may_ask_once_a_minute_at_least() {
        let agents: Vec<_> =
            (0..5).map(|n| agent(&format!("a{n}"), "https://t.example", 2)).collect();
        assert!((0..5).all(|n| share(&agents, &format!("a{n}")) == 1));
    }

    #[test]
    fn only_those_are_told_whose_share_has_changed() {
        let two = [agent("a", "https://t.example", 30), agent("b", "https://u.example", 30)];
        let three = [two[0].clone(), two[1].clone(), agent("c", "https://t.example", 30)];
        let (before, after) = (Shares::of(&two), Shares::of(&three));
        let changed: Vec<_> = after.changed_since(&before).map(|(_, name)| name.as_str()).collect();
        assert_eq!(changed, ["a", "c"]);
    }
}
