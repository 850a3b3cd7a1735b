//! A forwarder in another workload's pod: what is written there, and that there is one place at a time.

use serde_json::{Value, json};
use siem_agent_crds::siem_agent::{ALLOW_SIDECAR_ANNOTATION, HostKind, Placement, SidecarOf};

use super::*;
use crate::names::SIDECAR_LABEL;
use crate::workload::PodSight;

fn of() -> SidecarOf {
    SidecarOf { kind: HostKind::Deployment, name: "sc4s".to_owned() }
}

fn hosted() -> SiemAgent {
    let mut agent = agent();
    agent.spec.forwarder.network_policy.enabled = false;
    agent.spec.placement = Some(Placement { sidecar_of: Some(of()) });
    agent
}

/// The workload that allows the sidecar, with what is given changed.
fn host(change: &Value) -> Host {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": "sc4s", "namespace": "ns", "uid": "h", "resourceVersion": "7",
            "annotations": {ALLOW_SIDECAR_ANNOTATION: "soc"},
        },
        "spec": {"replicas": 1, "strategy": {"type": "Recreate"}, "template": {"spec": {}}},
    });
    for (pointer, value) in change.as_object().into_iter().flatten() {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[field] = value.clone();
    }
    Host::of(&serde_json::from_value(object).unwrap(), of(), "soc")
}

/// The same with the sidecar in it, as it would be applied.
fn with_sidecar(change: &Value) -> Host {
    let planned = planned(&hosted(), &found(host(&json!({}))), &stance());
    let mut host = host(change);
    host.taken_by = Some("soc".to_owned());
    host.has_sidecar = true;
    host.live.digest = planned.parts.first().map(|write| write.part.digest.clone());
    host.live.mark = stance().mark;
    host
}

fn found(host: Host) -> Observed {
    let host = HostSight::Found {
        host: Box::new(host),
        pods: Vec::new(),
        written: None,
        is_replaced: false,
        is_contested: false,
    };
    Observed { host: Some(host), ..observed() }
}

fn pod(is_leaving: bool) -> HostPod {
    let sight = PodSight {
        uid: "p".to_owned(),
        address: None,
        is_ready: true,
        trouble: None,
        created: None,
        release: None,
        ended: None,
    };
    HostPod { sight, has_sidecar: true, is_leaving }
}

fn labels(write: &PartWrite) -> Vec<&str> {
    let labels = write.part.object["metadata"]["labels"].as_object();
    labels.into_iter().flatten().map(|(name, _)| name.as_str()).collect()
}

fn config(plan: &Plan) -> String {
    let write = plan.stages[0].iter().find(|write| write.desired.which == Owned::Config).unwrap();
    write.desired.object["data"]["config.yaml"].as_str().unwrap().to_owned()
}

#[test]
fn a_sidecar_is_one_container_with_its_volumes_and_no_deployment() {
    let plan = planned(&hosted(), &found(host(&json!({}))), &stance());
    assert_eq!(told(&plan), [(Owned::Config, "absent")]);
    let [write] = plan.parts.as_slice() else { panic!("{:?}", plan.parts) };
    assert_eq!(write.why, "absent");
    let spec = &write.part.object["spec"];
    assert_eq!(spec.as_object().unwrap().len(), 1);
    let template = spec["template"]["spec"].as_object().unwrap();
    assert_eq!(template.keys().collect::<Vec<_>>(), ["initContainers", "volumes"]);
    let container = &template["initContainers"][0];
    assert_eq!(
        (&container["name"], &container["restartPolicy"]),
        (&json!("siem-forwarder"), &json!("Always"))
    );
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        assert!(container.get(probe).is_none(), "{probe}");
    }
    let of_kinds = ["configMap", "secret"];
    for volume in template["volumes"].as_array().unwrap() {
        assert!(volume["name"].as_str().unwrap().starts_with("siem-forwarder-"), "{volume}");
        for kind in of_kinds.iter().filter_map(|kind| volume.get(kind)) {
            assert_eq!(kind["optional"], true, "{volume}");
        }
    }
    let mounts = container["volumeMounts"].as_array().unwrap();
    let token = "/var/run/secrets/kubernetes.io/serviceaccount";
    assert!(mounts.iter().any(|mount| mount["mountPath"] == token), "the host's token is hidden");
    // Nothing is written where all is as it would be applied.
    let mut settled = found(with_sidecar(&json!({})));
    for write in plan.stages.into_iter().flatten() {
        settled.live.insert(write.desired.which, live(&write.desired, &stance()));
    }
    let again = planned(&hosted(), &settled, &stance());
    assert!(
        told(&again).is_empty() && again.parts.is_empty() && matches!(again.then, Then::Applied(_))
    );
}

#[test]
fn an_edit_of_the_agent_changes_the_configuration_and_never_the_host() {
    let settled = found(with_sidecar(&json!({})));
    let mut edited = hosted();
    edited.metadata.generation = Some(3);
    edited.spec.syslog.host = "other".to_owned();
    edited.spec.suspend = true;
    edited.spec.source.auth.token_secret_ref.as_mut().unwrap().key = "another".to_owned();
    let plan = planned(&edited, &settled, &stance());
    assert!(plan.parts.is_empty() && config(&plan).contains("suspend: true"), "{}", config(&plan));
    let mut image = hosted();
    image.metadata.generation = Some(3);
    let other = Stance { image: "image:2".to_owned(), ..stance() };
    let plan = planned(&image, &settled, &other);
    assert_eq!(plan.parts.iter().map(|write| write.why).collect::<Vec<_>>(), ["spec changed"]);
}

#[test]
fn a_host_that_cannot_is_left_alone_and_one_that_no_longer_can_is_stopped_or_left() {
    let cause = |plan: &Plan| match &plan.then {
        Then::Stalled(problems) => problems.first().map(|problem| problem.cause),
        _ => None,
    };
    let not_allowed = json!({"/metadata/annotations": {}});
    let scaled = json!({"/spec/replicas": 2});
    for (change, reason) in
        [(&not_allowed, Reason::SidecarNotAllowed), (&scaled, Reason::SidecarHostScaled)]
    {
        let plan = planned(&hosted(), &found(host(change)), &stance());
        assert_eq!(cause(&plan), Some(Cause::Host(reason)));
        assert!(told(&plan).is_empty() && plan.parts.is_empty(), "nothing is touched");
    }
    // The annotation is taken away: the sidecar too, and then the label.
    let plan = planned(&hosted(), &found(with_sidecar(&not_allowed)), &stance());
    let [write] = plan.parts.as_slice() else { panic!("{:?}", plan.parts) };
    assert_eq!(labels(write), [SIDECAR_LABEL]);
    assert!(write.part.object.get("spec").is_none() && cause(&plan).is_some());
    // Scaled up: every forwarder idles, and no pod is started anew.
    let plan = planned(&hosted(), &found(with_sidecar(&scaled)), &stance());
    assert!(plan.parts.is_empty() && config(&plan).contains("suspend: true"));
    assert_eq!(cause(&plan), Some(Cause::Host(Reason::SidecarHostScaled)));
    for (sight, reason) in [
        (HostSight::NotEnabled, Reason::SidecarNotEnabled),
        (HostSight::Missing, Reason::SidecarHostMissing),
    ] {
        let plan = planned(&hosted(), &Observed { host: Some(sight), ..observed() }, &stance());
        assert_eq!(cause(&plan), Some(Cause::Host(reason)));
    }
}

#[test]
fn from_a_deployment_to_a_host_the_last_pod_ends_first() {
    let mut moving = found(host(&json!({})));
    let deployment = planned(&agent(), &observed(), &stance()).stages.into_iter().flatten();
    for write in deployment.filter(|write| write.desired.which == Owned::Deployment) {
        moving.live.insert(Owned::Deployment, live(&write.desired, &stance()));
    }
    let plan = planned(&hosted(), &moving, &stance());
    assert!(matches!(plan.removals.as_slice(), [(Owned::Deployment, _)]));
    assert!(plan.parts.is_empty() && matches!(plan.then, Then::Moving(_)));
    moving.live.clear();
    moving.has_own_pods = true;
    let plan = planned(&hosted(), &moving, &stance());
    assert!(plan.parts.is_empty() && matches!(plan.then, Then::Moving(_)));
    moving.has_own_pods = false;
    assert_eq!(planned(&hosted(), &moving, &stance()).parts.len(), 1);
}

#[test]
fn from_a_host_to_a_deployment_or_another_host_the_last_pod_ends_first() {
    let deploys = |plan: &Plan| !plan.stages[1].is_empty();
    let leaves = |host: Host, pods: Vec<HostPod>| Observed {
        left: vec![Left { host, is_there: true, pods }],
        ..observed()
    };
    let plan = planned(&agent(), &leaves(with_sidecar(&json!({})), vec![pod(false)]), &stance());
    assert_eq!(plan.parts.iter().map(labels).collect::<Vec<_>>(), [[SIDECAR_LABEL]]);
    assert!(!deploys(&plan) && matches!(plan.then, Then::Moving(_)));
    // It is out of the template, and the last pod is on its way out.
    let without = || {
        let mut host = with_sidecar(&json!({}));
        host.has_sidecar = false;
        host
    };
    let plan = planned(&agent(), &leaves(without(), vec![pod(true)]), &stance());
    assert!(plan.parts.is_empty() && !deploys(&plan));
    let Then::Moving(before) = plan.then else { panic!("it waits") };
    assert_eq!(before, "the pod of Deployment sc4s with the sidecar ends first");
    // It has ended: the label goes, and a moment later the Deployment is made.
    let plan = planned(&agent(), &leaves(without(), Vec::new()), &stance());
    assert_eq!(plan.parts.iter().map(labels).collect::<Vec<_>>(), [Vec::<&str>::new()]);
    assert!(!deploys(&plan));
    assert!(deploys(&planned(&agent(), &observed(), &stance())));
    // From one host to another.
    let mut other = found(host(&json!({})));
    let mut left = with_sidecar(&json!({}));
    left.of.name = "old".to_owned();
    other.left.push(Left { host: left, is_there: true, pods: vec![pod(false)] });
    let plan = planned(&hosted(), &other, &stance());
    let hosts: Vec<_> = plan.parts.iter().map(|write| write.host.of.name.as_str()).collect();
    assert_eq!(hosts, ["old"]);
}

#[test]
fn a_host_that_is_gone_is_waited_for_while_its_pods_are_not() {
    let gone = |pods: Vec<HostPod>| Observed {
        left: vec![Left { host: with_sidecar(&json!({})), is_there: false, pods }],
        ..observed()
    };
    let plan = planned(&agent(), &gone(vec![pod(true)]), &stance());
    assert!(plan.parts.is_empty() && plan.stages[1].is_empty(), "{plan:?}");
    assert!(matches!(plan.then, Then::Moving(_)));
}

#[test]
fn an_owner_who_withdraws_is_obeyed_whatever_becomes_of_the_agent() {
    let withdrawn = || found(with_sidecar(&json!({"/metadata/annotations": {}})));
    let mut paused = hosted();
    let pause = (PAUSED_ANNOTATION.to_owned(), "true".to_owned());
    paused.metadata.annotations = Some(BTreeMap::from([pause]));
    let mut invalid = hosted();
    let resources = json!({"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}});
    invalid.spec.forwarder.resources = serde_json::from_value(resources).unwrap();
    for agent in [paused, invalid] {
        let plan = planned(&agent, &withdrawn(), &stance());
        assert_eq!(plan.parts.iter().map(labels).collect::<Vec<_>>(), [[SIDECAR_LABEL]]);
        assert!(told(&plan).is_empty(), "and nothing else is done: {plan:?}");
    }
}

#[test]
fn the_administrators_word_on_a_tenant_stops_it_wherever_it_runs() {
    let place =
        platform::Place { platform: Platform::Kubernetes, namespace: "siem-system".to_owned() };
    let text = r#"{"url": "https://t.example", "namespaces": ["other"]}"#.to_owned();
    let tenants = Tenants::read(&[text]).unwrap();
    let of = |observed: &Observed| plan(&hosted(), observed, &stance(), &place, &tenants).unwrap();
    assert!(config(&of(&found(with_sidecar(&json!({}))))).contains("suspend: true"));
    // A Deployment that is there still, though the agent names a host that is not.
    let mut with_deployment = Observed { host: Some(HostSight::Missing), ..observed() };
    let made = planned(&agent(), &observed(), &stance());
    for write in made.stages.into_iter().flatten() {
        with_deployment.live.insert(write.desired.which, live(&write.desired, &stance()));
    }
    let stopped = of(&with_deployment);
    assert_eq!(stopped.stages[1].first().unwrap().desired.object["spec"]["replicas"], 0);
    let left = Left { host: with_sidecar(&json!({})), is_there: true, pods: vec![pod(false)] };
    let elsewhere = Observed { host: Some(HostSight::Missing), left: vec![left], ..observed() };
    assert_eq!(of(&elsewhere).parts.iter().map(labels).collect::<Vec<_>>(), [[SIDECAR_LABEL]]);
}

#[test]
fn what_is_changed_back_again_and_again_is_left_alone() {
    let mut contested = found(host(&json!({})));
    if let Some(HostSight::Found { is_contested, .. }) = &mut contested.host {
        *is_contested = true;
    }
    let plan = planned(&hosted(), &contested, &stance());
    assert!(plan.parts.is_empty());
    let Then::Stalled(problems) = plan.then else { panic!("it is stalled") };
    assert_eq!(problems[0].cause, Cause::Host(Reason::SidecarContested));
}
