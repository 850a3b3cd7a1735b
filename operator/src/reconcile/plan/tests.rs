//! What is written for what is observed.

use std::collections::{BTreeMap, BTreeSet};

use siem_agent_crds::SiemAgentStatus;
use siem_agent_crds::siem_agent::PAUSED_ANNOTATION;

use super::*;
use crate::budget::Allowed;
use crate::forwarders::sighting::Sighting;
use crate::observed::Left;
use crate::observed_object::Written;
use crate::platform::Platform;
use crate::rollout::{Mark, Trial};
use crate::workload::Workload;

fn agent() -> SiemAgent {
    let text = "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata: {name: soc, namespace: ns, uid: u, generation: 2}\n\
                spec: {source: {cloudApps: {url: 'https://t.example'}, auth: {tokenSecretRef: {name: a}}}, syslog: {host: h},\n\
                forwarder: {networkPolicy: {enabled: true}}}\n";
    let mut agent = siem_agent_crds::manifest::read(text).unwrap();
    agent.status = Some(SiemAgentStatus { observed_generation: 2, ..SiemAgentStatus::default() });
    agent
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

fn stance() -> Stance {
    let mark = Some(Mark::new("r1", Trial::Passed));
    Stance { image: "image:1".to_owned(), mark, wait: None }
}

fn planned(agent: &SiemAgent, observed: &Observed, stance: &Stance) -> Plan {
    let place =
        platform::Place { platform: Platform::Kubernetes, namespace: "siem-system".to_owned() };
    plan(agent, observed, stance, &place, &Tenants::default()).unwrap()
}

/// As the server has it after it was applied.
fn live(desired: &Desired, stance: &Stance) -> ObservedObject {
    ObservedObject {
        uid: desired.which.name("x"),
        resource_version: "7".to_owned(),
        controller: Some(("SiemAgent".to_owned(), "soc".to_owned(), "u".to_owned())),
        digest: Some(desired.digest.clone()),
        delivered: None,
        mark: stance.mark.clone().filter(|_| desired.which == Owned::Deployment),
        saved: None,
        latest: None,
    }
}

/// Everything is there as it would be applied.
fn settled() -> Observed {
    let mut observed = observed();
    for write in planned(&agent(), &observed, &stance()).stages.into_iter().flatten() {
        observed.live.insert(write.desired.which, live(&write.desired, &stance()));
    }
    observed
}

fn told(plan: &Plan) -> Vec<(Owned, &'static str)> {
    plan.stages.iter().flatten().map(|write| (write.desired.which, write.why)).collect()
}

#[test]
fn a_new_agents_deployment_comes_after_what_its_pod_needs_and_into_free_places() {
    let plan = planned(&agent(), &observed(), &stance());
    let [first, last] = &plan.stages;
    let first: Vec<_> = first.iter().map(|write| write.desired.which).collect();
    assert_eq!(first, [Owned::ServiceAccount, Owned::Config, Owned::NetworkPolicy]);
    assert_eq!(last.len(), 1);
    assert!(plan.stages.iter().flatten().all(|write| write.place == Place::Free));
    assert!(matches!(plan.then, Then::Applied(_)));
    let mut asked = observed();
    asked.absent.insert(Owned::Config);
    let plan = planned(&agent(), &asked, &stance());
    assert_eq!(plan.stages[0][1].place, Place::SeenFree);
}

#[test]
fn nothing_is_written_where_all_is_as_it_would_be_applied() {
    let plan = planned(&agent(), &settled(), &stance());
    assert!(told(&plan).is_empty() && plan.removals.is_empty());
    // The server may write a value in another form.
    let mut other_form = settled();
    let config = other_form.live.get_mut(&Owned::Config).unwrap();
    let desired = config.digest.replace("as the server writes it".to_owned()).unwrap();
    let written = Written { desired, live: config.clone(), is_fresh: false };
    other_form.written.insert(Owned::Config, written);
    assert!(told(&planned(&agent(), &other_form, &stance())).is_empty());
}

#[test]
fn what_differs_is_written_with_the_reason() {
    let mut changed = settled();
    changed.live.get_mut(&Owned::Config).unwrap().digest = None;
    let share = [(Owned::Config, "share of the requests changed")];
    assert_eq!(told(&planned(&agent(), &changed, &stance())), share);
    let mut edited = agent();
    edited.metadata.generation = Some(3);
    let spec = [(Owned::Config, "spec changed")];
    assert_eq!(told(&planned(&edited, &changed, &stance())), spec);
    let desired = settled().live[&Owned::Config].digest.clone().unwrap();
    let written = Written { desired, live: changed.live[&Owned::Config].clone(), is_fresh: true };
    changed.written.insert(Owned::Config, written);
    assert_eq!(told(&planned(&agent(), &changed, &stance())), [(Owned::Config, "drift")]);
    let plan = planned(&agent(), &changed, &stance());
    assert_eq!(plan.stages[0][0].place, Place::Held("7".to_owned()));
}

#[test]
fn a_deployment_that_waits_is_written_only_for_its_user_or_against_drift() {
    let waiting = Stance { wait: Some(Wait::Queued), ..stance() };
    let mut observed = settled();
    let deployment = observed.live.get_mut(&Owned::Deployment).unwrap();
    deployment.digest = Some("an earlier operator's".to_owned());
    assert!(told(&planned(&agent(), &observed, &waiting)).is_empty());
    observed.kept = Some("an earlier operator's".to_owned());
    assert!(told(&planned(&agent(), &observed, &waiting)).is_empty());
    let mut edited = agent();
    edited.metadata.generation = Some(3);
    let plan = planned(&edited, &observed, &waiting);
    assert_eq!(told(&plan), [(Owned::Deployment, "spec changed")]);
    assert!(matches!(plan.then, Then::Queued(Wait::Queued)));
    observed.kept = Some("what it was".to_owned());
    let plan = planned(&agent(), &observed, &waiting);
    assert_eq!(told(&plan), [(Owned::Deployment, "drift")]);
}

#[test]
fn a_refused_release_halts_its_roll_out_and_a_refused_spec_stalls_its_agent() {
    let mut observed = settled();
    let deployment = observed.live.get_mut(&Owned::Deployment).unwrap();
    deployment.mark = Some(Mark::new("r0", Trial::Passed));
    deployment.digest = Some("an earlier operator's".to_owned());
    let plan = planned(&agent(), &observed, &stance());
    assert_eq!(told(&plan), [(Owned::Deployment, "release changed")]);
    assert_eq!(plan.stages[1][0].halts.as_deref(), Some("r1"));
    assert!(matches!(refused(plan.then, true, String::new()), Outcome::Queued(Wait::Halted(_))));
    let mut edited = agent();
    edited.metadata.generation = Some(3);
    let plan = planned(&edited, &observed, &stance());
    assert_eq!(plan.stages[1][0].halts, None);
    let Outcome::Stalled(problems) = refused(plan.then, false, "no".to_owned()) else {
        panic!("it is stalled")
    };
    assert_eq!((problems[0].cause, problems[0].text.as_str()), (Cause::Rejected, "no"));
}

#[test]
fn what_is_no_longer_wanted_is_removed_and_only_if_it_is_the_agents_own() {
    let mut unwanted = agent();
    unwanted.spec.forwarder.network_policy.enabled = false;
    let plan = planned(&unwanted, &settled(), &stance());
    assert!(matches!(plan.removals.as_slice(), [(Owned::NetworkPolicy, _)]));
    let mut foreign = settled();
    foreign.live.get_mut(&Owned::NetworkPolicy).unwrap().controller = None;
    let plan = planned(&unwanted, &foreign, &stance());
    assert!(plan.removals.is_empty() && matches!(plan.then, Then::Stalled(_)));
}

#[test]
fn an_agent_that_may_not_export_is_stopped_and_one_without_a_forwarder_left_alone() {
    let place =
        platform::Place { platform: Platform::Kubernetes, namespace: "siem-system".to_owned() };
    let text = r#"{"url": "https://t.example", "namespaces": ["other"]}"#.to_owned();
    let tenants = Tenants::read(&[text]).unwrap();
    let of = |observed: &Observed| plan(&agent(), observed, &stance(), &place, &tenants).unwrap();
    let stopped = of(&settled());
    let deployment = stopped.stages[1].first().unwrap();
    assert_eq!(deployment.desired.object["spec"]["replicas"], 0);
    let cause = |plan: &Plan| match &plan.then {
        Then::Stalled(problems) => problems.first().map(|problem| problem.cause),
        _ => None,
    };
    assert_eq!(cause(&stopped), Some(Cause::SourceNotAllowed));
    let nothing = of(&observed());
    assert!(told(&nothing).is_empty());
    assert_eq!(cause(&nothing), Some(Cause::SourceNotAllowed));
}

#[test]
fn of_a_paused_agent_nothing_is_written_and_what_waits_is_named() {
    let annotations = |value: &str| {
        let mut agent = agent();
        let pause = (PAUSED_ANNOTATION.to_owned(), value.to_owned());
        agent.metadata.annotations = Some(BTreeMap::from([pause]));
        agent
    };
    let writes = |plan: &Plan| plan.stages.iter().flatten().count() + plan.removals.len();
    let paused = planned(&annotations("true"), &observed(), &stance());
    assert_eq!(writes(&paused), 0);
    let Then::Paused(pending) = paused.then else { panic!("it is paused") };
    let expected = [
        "ServiceAccount soc-forwarder",
        "ConfigMap soc-config",
        "NetworkPolicy soc-forwarder",
        "Deployment soc-forwarder",
    ];
    assert_eq!(pending, expected);
    assert!(writes(&planned(&annotations("false"), &observed(), &stance())) > 0);
    // Where nothing waits it is as without the pause.
    let mut all = observed();
    let plan = planned(&agent(), &observed(), &stance());
    for write in plan.stages.iter().flatten() {
        all.live.insert(write.desired.which, live(&write.desired, &stance()));
    }
    assert!(matches!(planned(&annotations("true"), &all, &stance()).then, Then::Applied(_)));
    let waits = Stance { wait: Some(Wait::Queued), ..stance() };
    let Then::Paused(pending) = planned(&annotations("true"), &all, &waits).then else {
        panic!("the release waits")
    };
    assert_eq!(pending, ["the operator's release"]);
    // The administrator's word stands above it.
    let tenants =
        Tenants::read(&[r#"{"url": "https://t.example", "namespaces": ["other"]}"#.to_owned()])
            .unwrap();
    let place =
        platform::Place { platform: Platform::Kubernetes, namespace: "siem-system".to_owned() };
    let fenced = plan_of(&annotations("true"), &all, &place, &tenants);
    assert!(matches!(fenced.then, Then::Stalled(_)) && writes(&fenced) > 0);
}

fn plan_of(
    agent: &SiemAgent,
    observed: &Observed,
    place: &platform::Place,
    tenants: &Tenants,
) -> Plan {
    plan(agent, observed, &stance(), place, tenants).unwrap()
}

#[test]
fn a_patch_on_what_is_the_operators_stalls_the_agent_by_its_path() {
    let mut agent = agent();
    let overrides = serde_json::json!({"spec": {"serviceAccountName": "admin"}});
    agent.spec.forwarder.pod_overrides = Some(serde_json::from_value(overrides).unwrap());
    let Then::Stalled(problems) = planned(&agent, &observed(), &stance()).then else {
        panic!("it is refused")
    };
    assert_eq!(problems[0].cause, Cause::InvalidSpec);
    let path = "spec.forwarder.podOverrides.spec.serviceAccountName: ";
    assert!(problems[0].text.starts_with(path), "{problems:?}");
}

mod sidecar;
