//! Which workloads host a sidecar, and how it fares there.

use serde_json::json;
use siem_agent_crds::siem_agent::HostKind;

use super::*;
use crate::partial::Pod;
use crate::workload;

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": "sc4s", "namespace": "ns", "uid": "h", "resourceVersion": "7", "generation": 2,
            "annotations": {ALLOW_SIDECAR_ANNOTATION: "soc"},
        },
        "spec": {
            "replicas": 1, "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {"app": "sc4s"}, "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}]},
            "template": {"spec": {"containers": [{"name": "sc4s", "ports": [{"containerPort": 514}]}], "volumes": [{"name": "buffer"}]}},
        },
        "status": {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1},
    })
}

/// With the sidecar, as the server has it after it was applied by this manager.
fn injected(manager: &str) -> Value {
    let mut object = deployment();
    object["metadata"]["labels"] = json!({SIDECAR_LABEL: "soc"});
    object["metadata"]["managedFields"] = json!([{
        "manager": manager, "operation": "Apply", "apiVersion": "apps/v1",
        "fieldsV1": {
            "f:metadata": {"f:labels": {"f:siemagent.dev/sidecar": {}}},
            "f:spec": {"f:template": {"f:spec": {
                "f:initContainers": {"k:{\"name\":\"siem-forwarder\"}": {".": {}, "f:name": {}, "f:image": {}}},
                "f:volumes": {"k:{\"name\":\"siem-forwarder-config\"}": {".": {}, "f:name": {}}},
            }}},
        },
    }]);
    let template = &mut object["spec"]["template"]["spec"];
    template["initContainers"] =
        json!([{"name": "siem-forwarder", "image": "i:1", "ports": [{"containerPort": 9464}]}]);
    template["volumes"] = json!([{"name": "buffer"}, {"name": "siem-forwarder-config"}]);
    object
}

fn host_of(kind: HostKind, object: &Value) -> Host {
    let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
    Host::of(&object, SidecarOf { kind, name: "sc4s".to_owned() }, "soc")
}

fn refused(object: &Value) -> Option<Reason> {
    host_of(HostKind::Deployment, object).refusal("soc", false).map(|(reason, _)| reason)
}

/// A workload, and what is changed of it.
fn with(pointer: &str, value: Value) -> Value {
    let mut object = deployment();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[field] = value;
    object
}

#[test]
fn a_workload_that_allows_it_takes_a_sidecar() {
    let host = host_of(HostKind::Deployment, &deployment());
    assert_eq!(host.refusal("soc", false), None);
    assert!(!host.has_sidecar && host.traits == Traits::default());
    assert_eq!(host.selector, "app=sc4s,tier in (a,b)");
    let host = host_of(HostKind::Deployment, &injected("siem-agent-operator/soc"));
    assert_eq!(host.refusal("soc", false), None, "its own container, volume and port are no clash");
    assert!(host.has_sidecar && host.live.digest.is_some());
    assert!(
        host_of(
            HostKind::Deployment,
            &with("/spec/template/spec/securityContext", json!({"runAsUser": 0}))
        )
        .traits
        .as_root
    );
}

#[test]
fn every_refusal_has_a_reason_of_its_own() {
    let allow = "/metadata/annotations/siemagent.dev~1allow-sidecar";
    let mut silent = deployment();
    *silent.pointer_mut("/metadata/annotations").unwrap() = json!({});
    assert_eq!(refused(&silent), Some(Reason::SidecarNotAllowed));
    let host = host_of(HostKind::Deployment, &silent);
    let (reason, text) = host.refusal("soc", true).unwrap();
    assert_eq!(reason, Reason::SidecarHostReplaced);
    assert!(text.contains("annotate it with siemagent.dev/allow-sidecar=soc"), "{text}");
    let mut others = deployment();
    *others.pointer_mut(allow).unwrap() = json!("other");
    assert_eq!(refused(&others), Some(Reason::SidecarNotAllowed));
    assert_eq!(
        refused(&with("/metadata/labels", json!({SIDECAR_LABEL: "other"}))),
        Some(Reason::SidecarHostTaken)
    );
    assert_eq!(refused(&with("/spec/replicas", json!(2))), Some(Reason::SidecarHostScaled));
    let surge = |surge: Value| {
        refused(&with(
            "/spec/strategy",
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge}}),
        ))
    };
    for none in [json!(0), json!("0%")] {
        assert_eq!(surge(none), None);
    }
    for some in [json!(1), json!("25%"), json!("100%")] {
        assert_eq!(surge(some), Some(Reason::SidecarHostStrategy));
    }
    assert_eq!(refused(&with("/spec/strategy", json!({}))), Some(Reason::SidecarHostStrategy));
    let rolling = with("/spec/strategy", json!({"type": "RollingUpdate"}));
    assert_eq!(host_of(HostKind::StatefulSet, &rolling).refusal("soc", false), None);
}

#[test]
fn what_a_host_shares_with_its_node_or_between_its_containers_counts() {
    let template = |field: &str| with(&format!("/spec/template/spec/{field}"), json!(true));
    for shared in ["shareProcessNamespace", "hostPID"] {
        assert_eq!(refused(&template(shared)), Some(Reason::SidecarHostProcesses));
    }
    let on_node = host_of(HostKind::Deployment, &template("hostNetwork"));
    assert!(on_node.traits.on_node && on_node.refusal("soc", false).is_none());
}

#[test]
fn a_name_or_port_of_the_hosts_own_is_a_clash_and_is_named() {
    let clash = |object: &Value| {
        let refusal = host_of(HostKind::Deployment, object).refusal("soc", false);
        let (reason, text) = refusal.unwrap();
        assert_eq!(reason, Reason::SidecarNameClash);
        text
    };
    let template = |field: &str, value: Value| with(&format!("/spec/template/spec/{field}"), value);
    let named = json!([{"name": "siem-forwarder"}]);
    for list in ["containers", "initContainers"] {
        assert!(clash(&template(list, named.clone())).contains("a container siem-forwarder"));
    }
    let volume = json!([{"name": "siem-forwarder-state"}]);
    assert!(clash(&template("volumes", volume)).contains("a volume siem-forwarder-state"));
    let port = json!([{"name": "web", "ports": [{"containerPort": 9464}]}]);
    assert!(clash(&template("containers", port)).contains("the port 9464 in the container web"));
    // Somebody else's apply of it is no edit that is put back.
    assert!(clash(&injected("helm")).contains("a container siem-forwarder"));
    let mut shared = injected("siem-agent-operator/soc");
    let entries = shared["metadata"]["managedFields"].as_array_mut().unwrap();
    let mut other = entries[0].clone();
    other["manager"] = json!("argocd");
    entries.push(other);
    clash(&shared);
    assert_eq!(host_of(HostKind::Deployment, &shared).also_applied_by, ["argocd"]);
    // An edit is.
    shared["metadata"]["managedFields"][1]["operation"] = json!("Update");
    assert_eq!(refused(&shared), None);
}

fn pod(state: Value) -> HostPod {
    let pod = json!({
        "metadata": {"uid": "p"},
        "spec": {"initContainers": [{"name": "siem-forwarder"}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "initContainerStatuses": [{
            "name": "siem-forwarder", "image": "i:1", "imageID": "", "ready": true, "restartCount": 0, "state": state,
        }]},
    });
    let pod: Pod = serde_json::from_value(pod).unwrap();
    HostPod { sight: workload::sight_of_sidecar(&pod), has_sidecar: true, is_leaving: false }
}

#[test]
fn the_sidecar_runs_where_its_container_does_whatever_the_host_says_of_itself() {
    let judged = |object: &Value, pods: &[HostPod]| match host_of(HostKind::Deployment, object)
        .judge(pods)
    {
        Workload::Running => "running".to_owned(),
        Workload::Progressing(what) => what.to_owned(),
        Workload::Failing { reason, message } => format!("{reason}: {message}"),
    };
    let runs = || pod(json!({"running": {}}));
    let host = deployment();
    assert_eq!(judged(&host, &[runs()]), "running");
    let waits = pod(json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}));
    assert_eq!(
        judged(&host, &[waits]),
        "ImagePullBackOff: Deployment sc4s: the image i:1 cannot be pulled"
    );
    let before = HostPod { has_sidecar: false, ..runs() };
    assert!(judged(&host, &[before]).contains("is being replaced by one with the sidecar"));
    let leaving = HostPod { is_leaving: true, ..runs() };
    assert!(judged(&host, &[leaving]).contains("is being made"));
    assert!(
        judged(&with("/status/observedGeneration", json!(1)), &[runs()]).contains("rolled out")
    );
    assert!(
        judged(&with("/spec/replicas", json!(0)), &[]).starts_with("SidecarHostScaledToZero: ")
    );
    let quota = json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}]);
    let refused = with("/status", json!({"observedGeneration": 2, "conditions": quota}));
    assert_eq!(judged(&refused, &[]), "FailedCreate: Deployment sc4s: exceeded quota");
    let mut by_hand = with("/status/updatedReplicas", json!(0));
    by_hand["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
    let by_hand = host_of(HostKind::StatefulSet, &by_hand).judge(&[runs()]);
    assert!(matches!(by_hand, Workload::Progressing(what) if what.contains("delete its pod")));
}
