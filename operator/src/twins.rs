//! Which agents export the same events to the same receiver, so that every event arrives there more than once. Pure.
//!
//! Agents are compared by what they are: the receiver's host and port (of a sidecar's loopback, the host of the sidecar
//! too), and each stream with its source and its filters. No text that anybody else has written decides about it. Whether a
//! portal and Graph are of one tenant cannot be known, so agents of the two are no twins.

use std::collections::{BTreeMap, BTreeSet};

use siem_agent_crds::defaults;
use siem_agent_crds::siem_agent::{Graph, Stream, StreamSource};

use crate::agent::Agent;
use crate::drift;
use crate::key::Key;
use crate::same;

/// More names than these help nobody.
const MOST: usize = 3;

/// One of an agent's twins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Twin {
    pub(crate) key: Key,
    uid: String,
    generation: i64,
}

/// The twins of every agent that has some, in the order of their names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Twins(BTreeMap<Key, Vec<Twin>>);

impl Twins {
    /// Compares all these agents.
    pub(crate) fn of<'a>(agents: impl IntoIterator<Item = &'a Agent>) -> Self {
        let mut by_route: BTreeMap<_, Vec<&Agent>> = BTreeMap::new();
        for agent in agents.into_iter().filter(|agent| exports(agent)) {
            let spec = &agent.spec;
            // What is on loopback is in the pod, and another pod's is another one.
            let pod = spec.sidecar_of().filter(|_| is_loopback(&spec.syslog.host));
            for stream in [Stream::Alerts, Stream::Activities] {
                let Some(source) = spec.source_name(stream) else { continue };
                let route = (
                    stream,
                    same::tenant(&source),
                    same::host(&spec.syslog.host),
                    defaults::port(&spec.syslog),
                    pod.map(|of| (agent.key.namespace.as_str(), of)),
                );
                by_route.entry(route).or_default().push(agent);
            }
        }
        let mut twins: BTreeMap<Key, Vec<Twin>> = BTreeMap::new();
        for ((stream, ..), mut agents) in by_route {
            agents.sort_by(|one, two| one.key.cmp(&two.key));
            for agent in &agents {
                let others = agents.iter().filter(|other| other.key != agent.key);
                for other in others.filter(|other| overlap(stream, agent, other)).take(MOST) {
                    twins.entry(agent.key.clone()).or_default().push(twin(other));
                }
            }
        }
        // The first of both streams are among the first of each.
        for found in twins.values_mut() {
            found.sort_by(|one, two| one.key.cmp(&two.key));
            found.dedup();
            found.truncate(MOST);
        }
        Self(twins)
    }

    /// The twins of one agent.
    pub(crate) fn twins(&self, key: &Key) -> &[Twin] {
        self.0.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    /// The agents whose twins are others than before.
    pub(crate) fn changed_since<'a>(&'a self, before: &'a Self) -> BTreeSet<&'a Key> {
        let all = self.0.keys().chain(before.0.keys());
        let names = |of: &Self, key: &Key| -> Vec<Key> {
            of.twins(key).iter().map(|twin| twin.key.clone()).collect()
        };
        all.filter(|key| names(self, key) != names(before, key)).collect()
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn twin(agent: &Agent) -> Twin {
    Twin { key: agent.key.clone(), uid: agent.uid.clone(), generation: agent.generation() }
}

/// The twins in words.
pub(crate) fn words(twins: &[Twin]) -> String {
    let names: Vec<_> = twins.iter().map(|twin| twin.key.to_string()).collect();
    let verb = if names.len() == 1 { "exports" } else { "export" };
    format!(
        "{} {verb} the same source to the same target, so every event arrives more than once",
        names.join(", ")
    )
}

/// A name of what is so between an agent and its twins: the same again after a restart of the operator, another one when
/// one of them is changed or is another agent.
pub(crate) fn fingerprint(agent: &Agent, twins: &[Twin]) -> String {
    let of = |uid: &str, generation: i64| format!("{uid}/{generation}");
    let own = twin(agent);
    let all: Vec<_> =
        std::iter::once(&own).chain(twins).map(|twin| of(&twin.uid, twin.generation)).collect();
    drift::hex(all.join(" ")).chars().take(16).collect()
}

/// Suspended, deleted and impossible agents export nothing.
fn exports(agent: &Agent) -> bool {
    !agent.is_suspended() && agent.metadata.deletion_timestamp.is_none() && !agent.is_stalled()
}

/// Whether there may be an event of a stream that both export, which have it from the same source.
fn overlap(stream: Stream, one: &Agent, two: &Agent) -> bool {
    let (one, two) = (&one.spec, &two.spec);
    let is_graph = one.source_of(stream) == Some(StreamSource::Graph);
    let graphs = one.source.graph.as_ref().zip(two.source.graph.as_ref()).filter(|_| is_graph);
    match stream {
        Stream::Alerts => {
            let [one, two] = [one, two].map(|spec| &spec.event_types.alerts.filter);
            let services =
                |(one, two): (&Graph, &Graph)| meet(&one.service_sources, &two.service_sources);
            meet(&one.severities, &two.severities) && graphs.is_none_or(services)
        }
        Stream::Activities => {
            let [one, two] = [one, two].map(|spec| &spec.event_types.activities.filter);
            let tables = |(one, two): (&Graph, &Graph)| meet(&one.tables, &two.tables);
            meet(&one.event_types, &two.event_types)
                && meet(&one.ip_categories, &two.ip_categories)
                && meet(&one.countries, &two.countries)
                && graphs.is_none_or(tables)
        }
    }
}

/// Whether one value, of which a record has exactly one, can be in both lists; an empty list sets no condition.
fn meet<T: PartialEq>(one: &[T], two: &[T]) -> bool {
    one.is_empty() || two.is_empty() || one.iter().any(|value| two.contains(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(namespace: &str, name: &str, url: &str, host: &str, more: &str) -> Agent {
        let text = format!(
            "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\n\
             metadata: {{name: {name}, namespace: {namespace}, uid: u-{name}, generation: 1}}\n\
             spec:\n  source: {{cloudApps: {{url: '{url}'}}, auth: {{tokenSecretRef: {{name: a}}}}}}\n  syslog: {{host: '{host}'}}\n{more}"
        );
        Agent::for_test(siem_agent_crds::manifest::read(&text).unwrap())
    }

    fn names(twins: &Twins, namespace: &str, name: &str) -> Vec<String> {
        let found = twins.twins(&Key::new(namespace, name)).iter();
        found.map(|twin| twin.key.to_string()).collect()
    }

    fn are_twins(one: &Agent, two: &Agent) -> bool {
        let twins = Twins::of([one, two]);
        let both = [names(&twins, "red", "one"), names(&twins, "blue", "two")];
        let expected = [vec!["blue/two".to_owned()], vec!["red/one".to_owned()]];
        assert!(both == expected || both.iter().all(Vec::is_empty), "{both:?}");
        both == expected
    }

    #[test]
    fn twins_are_known_however_tenant_and_receiver_are_written() {
        let one = |url: &str, host: &str, more: &str| agent("red", "one", url, host, more);
        let two = |url: &str, host: &str, more: &str| agent("blue", "two", url, host, more);
        let (url, host) = ("https://t.example", "siem.example");
        for (other_url, other_host) in [
            (url, host),
            ("https://T.Example.:443/", "SIEM.example."),
            ("https://t.example/", "Siem.Example"),
        ] {
            assert!(are_twins(&one(url, host, ""), &two(other_url, other_host, "")), "{other_url}");
        }
        let six = "2001:db8::1";
        for other in ["[2001:DB8::1]", "2001:db8:0:0::0001", "[2001:db8::0:1]"] {
            assert!(are_twins(&one(url, six, ""), &two(url, other, "")), "{other}");
        }
        assert!(are_twins(&one(url, "10.0.0.1", ""), &two(url, "::ffff:10.0.0.1", "")));
        for (other_url, other_host) in
            [("https://u.example", host), ("https://t.example:8443", host), (url, "other.example")]
        {
            assert!(
                !are_twins(&one(url, host, ""), &two(other_url, other_host, "")),
                "{other_url}"
            );
        }
        assert!(!are_twins(&one(url, six, ""), &two(url, "2001:db8::2", "")));
    }

    #[test]
    fn twins_have_a_port_and_a_stream_in_common_and_both_export() {
        let of = |namespace: &str, name: &str, more: &str| {
            let text = format!(
                "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
                 spec:\n  source: {{cloudApps: {{url: 'https://t.example'}}, auth: {{tokenSecretRef: {{name: a}}}}}}\n{more}"
            );
            Agent::for_test(siem_agent_crds::manifest::read(&text).unwrap())
        };
        let cases = [
            ("{host: h}", "{host: h, port: 514}", "", "", true),
            ("{host: h, protocol: TLS}", "{host: h, port: 6514}", "", "", true),
            ("{host: h}", "{host: h, protocol: TLS}", "", "", false),
            ("{host: h}", "{host: h}", "alerts: {enabled: false}", "", true),
            (
                "{host: h}",
                "{host: h}",
                "alerts: {enabled: false}",
                "activities: {enabled: false}",
                false,
            ),
            (
                "{host: h}",
                "{host: h}",
                "alerts: {enabled: false}",
                "alerts: {enabled: false}",
                true,
            ),
            (
                "{host: h}",
                "{host: h}",
                "activities: {enabled: false}, alerts: {filter: {severities: [High]}}",
                "alerts: {filter: {severities: [Low, Medium]}}",
                false,
            ),
            (
                "{host: h}",
                "{host: h}",
                "activities: {enabled: false}, alerts: {filter: {severities: [High]}}",
                "alerts: {filter: {severities: [Low, High]}}",
                true,
            ),
            (
                "{host: h}",
                "{host: h}",
                "alerts: {enabled: false}, activities: {filter: {countries: [DE]}}",
                "activities: {filter: {countries: [FR]}}",
                false,
            ),
            // A record may concern several users.
            (
                "{host: h}",
                "{host: h}",
                "alerts: {enabled: false}, activities: {filter: {users: [a]}}",
                "activities: {filter: {users: [b]}}",
                true,
            ),
        ];
        for (one, two, one_streams, two_streams, expected) in cases {
            let more = |syslog: &str, streams: &str| {
                format!("  syslog: {syslog}\n  eventTypes: {{{streams}}}\n")
            };
            let one = of("red", "one", &more(one, one_streams));
            let two = of("blue", "two", &more(two, two_streams));
            assert_eq!(are_twins(&one, &two), expected, "{:?} {:?}", one.spec, two.spec);
        }
        let one = of("red", "one", "  syslog: {host: h}\n");
        let mut two = of("blue", "two", "  syslog: {host: h}\n");
        two.spec.suspend = true;
        assert!(!are_twins(&one, &two));
        two.spec.suspend = false;
        two.metadata.deletion_timestamp = serde_json::from_str("\"2026-01-01T00:00:00Z\"").ok();
        assert!(!are_twins(&one, &two));
        two.metadata.deletion_timestamp = None;
        two.metadata.generation = Some(2);
        let stalled = |generation: i64| {
            serde_json::from_value(serde_json::json!({"observedGeneration": generation, "conditions": [{
                "type": "Stalled", "status": "True", "reason": "r", "message": "", "observedGeneration": generation,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]}))
            .ok()
        };
        two.status = stalled(2);
        assert!(!are_twins(&one, &two));
        two.status = stalled(1);
        assert!(are_twins(&one, &two), "the spec was mended");
    }

    #[test]
    fn streams_are_compared_by_the_source_that_serves_them() {
        let of = |name: &str, source: &str, types: &str| {
            let text = format!(
                "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata: {{name: {name}, namespace: ns}}\nspec:\n  source: {{{source}, \
                 auth: {{clientCredentials: {{tenantId: Contoso.com, clientId: 00000000-0000-0000-0000-000000000000, \
                 clientSecretRef: {{name: a}}}}}}}}\n  syslog: {{host: h}}\n  eventTypes: {{{types}}}\n"
            );
            Agent::for_test(siem_agent_crds::manifest::read(&text).unwrap())
        };
        let (portal, graph) = ("cloudApps: {url: 'https://t.example'}", "graph: {}");
        let both = &format!("{portal}, {graph}");
        let (no_alerts, no_activities) =
            ("alerts: {enabled: false}", "activities: {enabled: false}");
        let crossed = "alerts: {from: CloudApps}, activities: {from: Graph}";
        let sign_ins = "graph: {tables: [IdentityLogonEvents]}";
        let governance = "graph: {serviceSources: [microsoftAppGovernance]}";
        for (one, one_types, two, two_types, expected) in [
            (portal, "", graph, "", false),
            (both, "", graph, "", true),
            (both, "", portal, "", true),
            (both, "", portal, no_activities, false),
            (both, "", graph, no_alerts, false),
            (both, crossed, portal, no_alerts, false),
            (both, crossed, graph, no_alerts, true),
            ("graph: {tables: [CloudAppEvents]}", no_alerts, sign_ins, "", false),
            (graph, no_alerts, sign_ins, "", true),
            ("graph: {serviceSources: [a]}", no_activities, governance, "", false),
            (graph, no_activities, governance, "", true),
        ] {
            let agents = [of("one", one, one_types), of("two", two, two_types)];
            let twins = Twins::of(&agents);
            assert_eq!(!names(&twins, "ns", "one").is_empty(), expected, "{one} {two}");
            assert_eq!(!names(&twins, "ns", "two").is_empty(), expected, "{one} {two}");
        }
    }

    #[test]
    fn many_twins_are_found_fast_and_named_in_part() {
        let one = agent("ns", "one", "https://t.example", "h", "");
        let named = |n: usize| {
            let mut agent = one.clone();
            agent.key.name = format!("a{n:04}");
            agent
        };
        let agents: Vec<_> = (0..5_000).map(named).collect();
        let twins = Twins::of(&agents);
        assert_eq!(names(&twins, "ns", "a4999"), ["ns/a0000", "ns/a0001", "ns/a0002"]);
        assert_eq!(names(&twins, "ns", "a0000"), ["ns/a0001", "ns/a0002", "ns/a0003"]);
        let fewer = Twins::of(&agents[1..]);
        let changed = fewer.changed_since(&twins);
        assert_eq!(changed.len(), 5_000);
        assert!(twins.changed_since(&twins).is_empty());
    }

    #[test]
    fn a_fingerprint_is_the_same_until_one_of_them_changes() {
        let of = |name: &str| agent("ns", name, "https://t.example", "h", "");
        let [one, two, three] = ["one", "two", "three"].map(of);
        let print =
            |agents: &[Agent]| fingerprint(&agents[0], Twins::of(agents).twins(&agents[0].key));
        let first = print(&[one.clone(), two.clone()]);
        assert_eq!(print(&[one.clone(), two.clone()]), first);
        assert_ne!(print(&[one.clone(), two.clone(), three]), first);
        let mut changed = two.clone();
        changed.metadata.generation = Some(2);
        assert_ne!(print(&[one.clone(), changed]), first);
        let mut another = two;
        another.uid = "u-later".to_owned();
        assert_ne!(print(&[one, another]), first);
    }
}
