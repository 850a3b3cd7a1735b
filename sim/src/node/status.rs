//! A pod's status as a kubelet writes it, from the states of its containers. Pure, but for the time.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::container::{Again, Container, Ended, State};
use crate::clock;

/// The time as the API writes it: whole seconds.
pub(super) fn now() -> String {
    let now = Timestamp::from_millisecond(clock::millis()).unwrap_or_default();
    format!("{now:.0}")
}

/// What is known of a pod.
pub(super) struct Known<'a> {
    pub(super) pod: &'a Pod,
    pub(super) inits: &'a [(Container, bool)],
    pub(super) containers: &'a [Container],
    pub(super) again: Again,
    pub(super) address: IpAddr,
    pub(super) start_time: &'a str,
    pub(super) has_volumes: bool,
    pub(super) is_initialized: bool,
}

/// The whole status.
pub(super) fn status(known: &Known<'_>) -> Value {
    let unready: Vec<&str> = known
        .containers
        .iter()
        .filter(|container| !container.ready)
        .chain(
            known
                .inits
                .iter()
                .filter(|(init, sidecar)| *sidecar && !init.ready)
                .map(|(init, _)| init),
        )
        .map(|container| container.spec.name.as_str())
        .collect();
    let uninitialized: Vec<&str> = known
        .inits
        .iter()
        .filter(|(init, sidecar)| if *sidecar { !init.started } else { !init.has_succeeded() })
        .map(|(init, _)| init.spec.name.as_str())
        .collect();
    let initialized = known.is_initialized || uninitialized.is_empty();
    let (phase, is_over) = phase(known);
    let not_ready = if is_over {
        Some(("PodCompleted", String::new()))
    } else if unready.is_empty() {
        None
    } else {
        Some((
            "ContainersNotReady",
            format!("containers with unready status: [{}]", unready.join(" ")),
        ))
    };
    let not_initialized = (!initialized).then(|| {
        let names = uninitialized.join(" ");
        ("ContainersNotInitialized", format!("containers with incomplete status: [{names}]"))
    });
    let no_volumes = (!known.has_volumes).then(|| ("", String::new()));
    let conditions: Vec<Value> = [
        ("PodReadyToStartContainers", no_volumes),
        ("Initialized", not_initialized),
        ("Ready", not_ready.clone()),
        ("ContainersReady", not_ready),
        ("PodScheduled", None),
    ]
    .into_iter()
    .map(|(type_, why_not)| condition(known.pod, type_, why_not))
    .collect();
    let mut status = json!({
        "phase": phase,
        "conditions": conditions,
        "hostIP": "127.0.0.1",
        "startTime": known.start_time,
        "containerStatuses": known.containers.iter().map(container).collect::<Vec<_>>(),
    });
    if !known.inits.is_empty() {
        status["initContainerStatuses"] =
            known.inits.iter().map(|(init, _)| container(init)).collect();
    }
    if known.has_volumes {
        let address = known.address.to_string();
        status["podIP"] = json!(address);
        status["podIPs"] = json!([{"ip": address}]);
    }
    status
}

fn phase(known: &Known<'_>) -> (&'static str, bool) {
    let init_failed = known.again == Again::Never
        && known
            .inits
            .iter()
            .any(|(init, sidecar)| !sidecar && init.is_over(Again::Never) && !init.has_succeeded());
    if init_failed {
        return ("Failed", true);
    }
    if known.containers.iter().all(|container| container.is_over(known.again)) {
        let succeeded = known.containers.iter().all(Container::has_succeeded);
        return (if succeeded { "Succeeded" } else { "Failed" }, true);
    }
    let created = |container: &Container| {
        !matches!(container.state, State::Waiting { .. }) || container.last.is_some()
    };
    (if known.containers.iter().all(created) { "Running" } else { "Pending" }, false)
}

fn condition(pod: &Pod, type_: &str, why_not: Option<(&'static str, String)>) -> Value {
    let is = if why_not.is_none() { "True" } else { "False" };
    let before = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .find(|before| before.type_ == type_ && before.status == is)
        .and_then(|before| before.last_transition_time.as_ref())
        .map(|time| format!("{:.0}", time.0));
    let mut condition = json!({
        "type": type_,
        "status": is,
        "lastTransitionTime": before.unwrap_or_else(now),
    });
    if let Some((reason, message)) = why_not.filter(|(reason, _)| !reason.is_empty()) {
        condition["reason"] = json!(reason);
        condition["message"] = json!(message);
    }
    condition
}

fn container(container: &Container) -> Value {
    let image = container.spec.image.as_deref().unwrap_or_default();
    let runs = container.is_running();
    let mut status = json!({
        "name": container.spec.name,
        "image": image,
        "imageID": if runs || container.last.is_some() { format!("stand-in/{image}") } else { String::new() },
        "ready": container.ready,
        "started": container.started,
        "restartCount": container.n_restarts,
        "state": match &container.state {
            State::Waiting { reason, message } if message.is_empty() => json!({"waiting": {"reason": reason}}),
            State::Waiting { reason, message } => {
                json!({"waiting": {"reason": reason, "message": message}})
            }
            State::Running { started_at } => json!({"running": {"startedAt": started_at}}),
            State::Terminated(ended) => terminated(ended),
        },
    });
    let restarted = !matches!(container.state, State::Terminated(_));
    if let Some(last) = container.last.as_ref().filter(|_| restarted) {
        status["lastState"] = terminated(last);
    }
    status
}

fn terminated(ended: &Ended) -> Value {
    let Ended { code, reason, started_at, finished_at } = ended;
    json!({"terminated": {
        "exitCode": code, "reason": reason, "startedAt": started_at, "finishedAt": finished_at,
    }})
}
