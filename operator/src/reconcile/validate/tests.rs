//! What an agent is refused for.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Toleration;
use serde_json::json;

use super::*;
use crate::budget::Allowed;
use crate::forwarders::sighting::Sighting;
use crate::platform::Platform;
use crate::workload::Workload;

fn agent() -> SiemAgent {
    let text = "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata: {name: soc, namespace: ns, uid: u}\n\
                spec: {source: {cloudApps: {url: 'https://t.example'}, auth: {tokenSecretRef: {name: a}}}, syslog: {host: h}}\n";
    manifest::read(text).unwrap()
}

fn observed() -> Observed {
    Observed {
        live: BTreeMap::new(),
        absent: BTreeSet::new(),
        written: BTreeMap::new(),
        kept: None,
        workload: Workload::Running,
        pod: None,
        sighting: Sighting::default(),
        allowed: Allowed::default(),
        twins: Vec::new(),
        is_settled: true,
        is_shown: true,
        host: None,
        left: Vec::new(),
        has_own_pods: false,
    }
}

fn problems(agent: &SiemAgent, observed: &Observed) -> Vec<Problem> {
    let stance = Stance { image: "default".to_owned(), mark: None, wait: None };
    let place = Place { platform: Platform::Kubernetes, namespace: "siem-system".to_owned() };
    validate(agent, observed, &stance, &place).err().unwrap_or_default()
}

fn live(kind: &str, name: &str, uid: &str) -> ObservedObject {
    ObservedObject {
        uid: "x".to_owned(),
        resource_version: "1".to_owned(),
        controller: Some((kind.to_owned(), name.to_owned(), uid.to_owned())),
        digest: None,
        delivered: None,
        mark: None,
        saved: None,
        latest: None,
    }
}

#[test]
fn an_agent_is_refused_by_the_field_that_cannot_work() {
    type Change = fn(&mut SiemAgentSpec);
    let cases: [(&str, Change); 13] = [
        ("spec.syslog.host", |spec| {
            spec.syslog.protocol = Protocol::TLS;
            spec.syslog.host = "a_b..c".to_owned();
        }),
        ("spec.eventTypes.alerts.filter.raw.severity.eq", |spec| {
            let filter = &mut spec.event_types.alerts.filter;
            filter.severities = vec![siem_agent_crds::siem_agent::Severity::High];
            filter.raw.insert("severity".to_owned(), json!({"eq": [1]}));
        }),
        ("spec.eventTypes.activities.filter.raw.x", |spec| {
            spec.event_types.activities.filter.raw.insert("x".to_owned(), json!([1]));
        }),
        ("spec.forwarder.resources.limits.cpu", |spec| {
            let lots = BTreeMap::from([("cpu".to_owned(), Quantity("lots".to_owned()))]);
            spec.forwarder.resources.limits = Some(lots);
        }),
        ("spec.forwarder.resources.requests.cpu", |spec| {
            let of = |text: &str| BTreeMap::from([("cpu".to_owned(), Quantity(text.to_owned()))]);
            spec.forwarder.resources.requests = Some(of("1"));
            spec.forwarder.resources.limits = Some(of("500m"));
        }),
        ("spec.forwarder.resources.claims", |spec| {
            spec.forwarder.resources.claims = Some(Vec::new());
        }),
        ("spec.forwarder.podLabels.app.kubernetes.io/name", |spec| {
            let labels = &mut spec.forwarder.pod_labels;
            labels.insert("app.kubernetes.io/name".to_owned(), "mine".to_owned());
        }),
        ("spec.forwarder.podLabels.a", |spec| {
            spec.forwarder.pod_labels.insert("a".to_owned(), "no value".to_owned());
        }),
        ("spec.forwarder.podAnnotations.a b", |spec| {
            spec.forwarder.pod_annotations.insert("a b".to_owned(), String::new());
        }),
        ("spec.forwarder.nodeSelector.-", |spec| {
            spec.forwarder.node_selector.insert("-".to_owned(), String::new());
        }),
        ("spec.forwarder.tolerations[0].operator", |spec| {
            spec.forwarder.tolerations =
                vec![Toleration { operator: Some("Nope".to_owned()), ..Default::default() }];
        }),
        ("spec.forwarder.tolerations[0].effect", |spec| {
            spec.forwarder.tolerations = vec![Toleration {
                key: Some("a".to_owned()),
                effect: Some("Sometimes".to_owned()),
                ..Default::default()
            }];
        }),
        ("spec.forwarder.tolerations[0].tolerationSeconds", |spec| {
            spec.forwarder.tolerations = vec![Toleration {
                key: Some("a".to_owned()),
                toleration_seconds: Some(1),
                ..Default::default()
            }];
        }),
    ];
    assert_eq!(problems(&agent(), &observed()), []);
    for (path, change) in cases {
        let mut agent = agent();
        change(&mut agent.spec);
        let problems = problems(&agent, &observed());
        assert_eq!(problems.len(), 1, "{path}: {problems:?}");
        assert_eq!(problems[0].cause, Cause::InvalidSpec);
        assert!(problems[0].text.starts_with(&format!("{path}: ")), "{path}: {problems:?}");
    }
}

#[test]
fn all_problems_are_told_the_gravest_first() {
    let mut agent = agent();
    agent.spec.forwarder.pod_labels.insert("a".to_owned(), "no value".to_owned());
    let mut observed = observed();
    observed.live.insert(Owned::Deployment, live("ReplicaSet", "x", "y"));
    let causes: Vec<_> =
        problems(&agent, &observed).into_iter().map(|problem| problem.cause).collect();
    assert_eq!(causes, [Cause::ForeignObject, Cause::InvalidSpec]);
}

#[test]
fn a_foreign_object_is_named_and_a_namesakes_is_waited_for() {
    let mut observed = observed();
    observed.live.insert(Owned::Deployment, live("SiemAgent", "soc", "u"));
    observed.live.insert(Owned::Config, live("SiemAgent", "soc", "earlier"));
    assert_eq!(problems(&agent(), &observed), []);
    let nobodys = ObservedObject { controller: None, ..live("", "", "") };
    for foreign in [nobodys, live("SiemAgent", "other", "w"), live("Application", "soc", "w")] {
        observed.live.insert(Owned::ServiceAccount, foreign);
        let problems = problems(&agent(), &observed);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].text.starts_with("ServiceAccount soc-forwarder "), "{problems:?}");
    }
}
