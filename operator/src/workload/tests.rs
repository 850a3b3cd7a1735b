//! Deployments and pods as a cluster shows them.

use serde_json::{Value, json};

use super::*;

fn deployment(status: Value) -> DeploymentSight {
    DeploymentSight::of(Some(2), &serde_json::from_value(status).unwrap())
}

fn pod(status: Value) -> PodSight {
    sight(
        &serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": {}, "status": status}))
            .unwrap(),
    )
}

fn waiting(reason: &str, restarts: i32) -> Value {
    json!({"phase": "Pending", "containerStatuses": [{
        "name": "forwarder", "image": "i:1", "imageID": "", "ready": false, "restartCount": restarts,
        "state": {"waiting": {"reason": reason, "message": "m"}},
    }]})
}

#[test]
fn a_pods_trouble_is_told_in_kubernetes_own_word() {
    let crashed = json!({"phase": "Running", "containerStatuses": [{
        "name": "forwarder", "image": "i:1", "imageID": "", "ready": false, "restartCount": 3,
        "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 2, "reason": "Error"}},
    }]});
    let unschedulable = json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"},
    ]});
    let evicted = json!({"phase": "Failed", "reason": "Evicted", "message": "disk"});
    // As a kubelet 1.37 leaves a pod that it has evicted and that ended with 0.
    let ended_in_order = json!({"phase": "Succeeded",
        "conditions": [{"type": "Ready", "status": "False", "reason": "PodCompleted"}],
        "containerStatuses": [{
            "name": "forwarder", "image": "i:1", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 0, "reason": "Completed"}},
        }],
    });
    let cases = [
        (waiting("ContainerCreating", 0), None),
        (waiting("ErrImagePull", 0), Some("ImagePullBackOff")),
        (waiting("ImagePullBackOff", 0), Some("ImagePullBackOff")),
        (waiting("InvalidImageName", 0), Some("InvalidImageName")),
        (waiting("CreateContainerConfigError", 0), Some("CreateContainerConfigError")),
        (crashed, Some("CrashLoopBackOff")),
        (unschedulable, Some("Unschedulable")),
        (evicted, Some("Evicted")),
        (ended_in_order, Some("PodCompleted")),
        (waiting("RunContainerError", 0), Some("RunContainerError")),
    ];
    for (status, reason) in cases {
        let trouble = pod(status.clone()).trouble;
        assert_eq!(trouble.as_ref().map(|(reason, _)| reason.as_str()), reason, "{status}");
    }
}

#[test]
fn a_container_that_cannot_start_says_the_same_at_every_try() {
    // As a kubelet 1.37 with containerd 2.4 tells of a memory limit of 4 MiB: in turn, and with an id that differs.
    let told = |reason: &str, id: char| {
        let id = id.to_string().repeat(64);
        let text =
            format!("failed to start containerd task \"{id}\": cannot start a stopped process");
        let sight = pod(json!({"phase": "Running", "containerStatuses": [{
            "name": "forwarder", "image": "i:1", "imageID": "", "ready": false, "restartCount": 3,
            "state": {"waiting": {"reason": reason, "message": text}},
            "lastState": {"terminated": {"exitCode": 128, "reason": "StartError", "message": text}},
        }]}));
        sight.trouble.unwrap()
    };
    let (reason, message) = told("CrashLoopBackOff", 'a');
    assert_eq!(reason, "CrashLoopBackOff");
    assert!(message.contains("memory limit"), "{message}");
    assert!(message.ends_with("task \"...\": cannot start a stopped process"), "{message}");
    assert_eq!(told("RunContainerError", 'b'), (reason, message));
}

#[test]
fn a_workload_runs_only_when_the_updated_pod_is_ready_and_alone() {
    let ready = json!({"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]});
    let full =
        json!({"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1});
    let is = |status: &Value, sights: &[PodSight]| judge(Some(&deployment(status.clone())), sights);
    assert_eq!(is(&full, &[pod(ready.clone())]), Workload::Running);
    assert!(matches!(judge(None, &[]), Workload::Progressing(_)));
    let stale = json!({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1});
    assert!(matches!(is(&stale, &[pod(ready.clone())]), Workload::Progressing(_)));
    let replacing = json!({"observedGeneration": 2, "replicas": 1});
    assert!(matches!(is(&replacing, &[pod(ready)]), Workload::Progressing(_)));
    let refused = json!({"observedGeneration": 2, "conditions": [
        {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"},
    ]});
    let expected =
        Workload::Failing { reason: "FailedCreate".to_owned(), message: "quota".to_owned() };
    assert_eq!(is(&refused, &[]), expected);
    let stuck = json!({"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "conditions": [
        {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "late"},
    ]});
    let starting = pod(waiting("ContainerCreating", 0));
    assert!(
        matches!(is(&stuck, &[starting]), Workload::Failing { reason, .. } if reason == "ProgressDeadlineExceeded")
    );
    let image = pod(waiting("ErrImagePull", 0));
    assert!(
        matches!(is(&full, &[image]), Workload::Failing { reason, .. } if reason == "ImagePullBackOff")
    );
}

#[test]
fn the_end_of_a_pod_is_told_until_its_successor_is_ready_or_says_more() {
    let at = |created: &str, status: &Value| {
        let metadata = json!({"uid": "u", "creationTimestamp": created});
        sight(
            &serde_json::from_value(json!({"metadata": metadata, "spec": {}, "status": status}))
                .unwrap(),
        )
    };
    let evicted = |ended: &str| {
        let status = json!({"phase": "Failed", "reason": "Evicted", "message": "too full. ",
            "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": ended}]});
        at("2026-01-01T00:00:00Z", &status)
    };
    let told = |newest: &Value, ended: &str| {
        let deployed = json!({"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1});
        let pods = [at("2026-01-01T12:00:05Z", newest), evicted(ended)];
        match judge(Some(&deployment(deployed)), &pods) {
            Workload::Failing { reason, message } => format!("{reason}: {message}"),
            Workload::Progressing(what) => what.to_owned(),
            Workload::Running => "running".to_owned(),
        }
    };
    let why = "Evicted: too full; a new pod is being started";
    let (just, long_ago) = ("2026-01-01T12:00:00Z", "2026-01-01T11:50:00Z");
    assert_eq!(told(&waiting("ContainerCreating", 0), just), why);
    assert_eq!(told(&json!({"phase": "Pending"}), just), why);
    assert_eq!(told(&json!({"phase": "Pending"}), long_ago), "the pod is starting");
    assert!(told(&waiting("ErrImagePull", 0), just).starts_with("ImagePullBackOff"));
    let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    assert_eq!(told(&ready, just), "running");
    // Before there is another: the same, so that it is told once.
    let trouble = evicted(just).trouble.map(|(reason, message)| format!("{reason}: {message}"));
    assert_eq!(trouble.as_deref(), Some(why));
    // A kubelet that takes no pod in.
    let refused = json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low",
        "startTime": just});
    assert!(at(just, &refused).ended.is_some());
}
