//! How the Deployment and its pod are doing, in the words that Kubernetes itself uses. Pure.
//!
//! A Deployment says nothing when its pod cannot start; only the pod knows. Reasons that Kubernetes alternates between
//! while nothing changes (ErrImagePull and ImagePullBackOff, a crash and the wait after it) are made one.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus};
use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use siem_agent_crds::condition::Reason;

use crate::names::{CONTAINER, RELEASE_LABEL, SIDECAR};
use crate::partial::Pod;

/// A ReplicaSet makes a pod for one that has ended as soon as it sees so.
const REPLACED_WITHIN: SignedDuration = SignedDuration::from_mins(2);

/// The state of an agent's workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Workload {
    /// Something is still on its way.
    Progressing(&'static str),
    /// It will not run unless somebody acts, or Kubernetes gets what it waits for.
    Failing {
        /// Kubernetes' own reason.
        reason: String,
        /// Its own text.
        message: String,
    },
    /// The pod is ready.
    Running,
}

/// How far its controller has come with a Deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeploymentSight {
    generation: Option<i64>,
    observed_generation: Option<i64>,
    replicas: Option<i32>,
    updated_replicas: i32,
    /// Why no pod can be made.
    refused: Option<(String, String)>,
    /// Why it does not get on.
    stuck: Option<(String, String)>,
}

/// A pod of an agent's Deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodSight {
    /// Addresses are reused; this is not.
    pub(crate) uid: String,
    /// Where its report is read.
    pub(crate) address: Option<String>,
    /// Whether its container is ready.
    pub(crate) is_ready: bool,
    /// What hinders it, or has ended it.
    pub(crate) trouble: Option<(String, String)>,
    pub(crate) created: Option<Timestamp>,
    /// The release that it was made by.
    pub(crate) release: Option<String>,
    /// When it ended for good.
    pub(crate) ended: Option<Timestamp>,
}

impl DeploymentSight {
    /// What matters of a Deployment of this generation.
    pub(crate) fn of(generation: Option<i64>, status: &DeploymentStatus) -> Self {
        let condition = |type_: &str| {
            status.conditions.iter().flatten().find(|condition| condition.type_ == type_)
        };
        let says = |condition: Option<&DeploymentCondition>, is: &str, otherwise: &str| {
            let found = condition.filter(|found| found.status == is)?;
            let reason = found.reason.clone().unwrap_or_else(|| otherwise.to_owned());
            Some((reason, found.message.clone().unwrap_or_default()))
        };
        Self {
            generation,
            observed_generation: status.observed_generation,
            replicas: status.replicas,
            updated_replicas: status.updated_replicas.unwrap_or(0),
            refused: says(condition("ReplicaFailure"), "True", "ReplicaFailure"),
            stuck: says(condition("Progressing"), "False", "ProgressDeadlineExceeded"),
        }
    }

    /// Whether it has been seen through by its controller.
    pub(crate) fn is_settled(&self) -> bool {
        self.observed_generation == self.generation
    }
}

/// Judges a Deployment and those of its pods that are not on their way out, the newest first.
pub(crate) fn judge(deployment: Option<&DeploymentSight>, pods: &[PodSight]) -> Workload {
    let pod = pods.first();
    let Some(deployment) = deployment else {
        return Workload::Progressing("the Deployment is being made");
    };
    let failing = |reason: &str, message: &str| Workload::Failing {
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    if deployment.observed_generation < deployment.generation {
        return Workload::Progressing("the Deployment is being rolled out");
    }
    if let Some((reason, message)) = pod.and_then(|pod| pod.trouble.as_ref()) {
        return failing(reason, message);
    }
    if let Some((reason, message)) = &deployment.refused {
        return failing(reason, message);
    }
    let is_updated = deployment.updated_replicas == 1 && deployment.replicas == Some(1);
    match pod {
        Some(pod) if pod.is_ready && is_updated => Workload::Running,
        _ => match &deployment.stuck {
            Some((reason, message)) => failing(reason, message),
            _ if let Some((reason, message)) = end_before(pods) => failing(reason, message),
            _ if pod.is_none() => Workload::Progressing("the pod is being made"),
            _ if !is_updated => Workload::Progressing("the earlier pod is being replaced"),
            _ => Workload::Progressing("the pod is starting"),
        },
    }
}

/// What ended the pod for which the newest was made. While that is not ready it is the only one that knows.
fn end_before(pods: &[PodSight]) -> Option<&(String, String)> {
    let [newest, before, ..] = pods else { return None };
    let took = newest.created?.duration_since(before.ended?);
    before.trouble.as_ref().filter(|_| !newest.is_ready && took <= REPLACED_WITHIN)
}

/// What matters of a pod of the agent's own Deployment.
pub(crate) fn sight(pod: &Pod) -> PodSight {
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    let container = containers.iter().find(|container| container.name == CONTAINER).cloned();
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    let is_ready = ready.is_some_and(|ready| ready.status == "True");
    look(pod, &status, container.as_ref(), is_ready)
}

/// What matters of a host's pod: whether it is ready itself is the host's.
pub(crate) fn sight_of_sidecar(pod: &Pod) -> PodSight {
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.init_container_statuses.as_deref().unwrap_or_default();
    let container = containers.iter().find(|container| container.name == SIDECAR).cloned();
    let runs = container.as_ref().is_some_and(|container| {
        container.state.as_ref().is_some_and(|state| state.running.is_some())
    });
    let is_running = runs && status.phase.as_deref() != Some("Failed");
    look(pod, &status, container.as_ref(), is_running)
}

fn look(
    pod: &Pod,
    status: &PodStatus,
    container: Option<&ContainerStatus>,
    is_ready: bool,
) -> PodSight {
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    let unschedulable = status.conditions.iter().flatten().find(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some(Reason::Unschedulable.as_str())
    });
    let trouble = if is_ready {
        None
    } else if let Some(condition) = unschedulable {
        Some((Reason::Unschedulable.to_string(), condition.message.clone().unwrap_or_default()))
    } else if status.phase.as_deref() == Some("Failed") {
        let message = status.message.as_deref().unwrap_or_default();
        Some(replaced(status.reason.as_deref().unwrap_or(Reason::PodFailed.as_str()), message))
    } else if status.phase.as_deref() == Some("Succeeded") {
        // A forwarder that is told to end ends with 0, and a kubelet that has evicted its pod then keeps no reason.
        Some(replaced(
            "PodCompleted",
            "the kubelet has ended the pod for good, as when it evicts one or its node shuts down; kubectl get events says why",
        ))
    } else {
        container.and_then(trouble)
    };
    let has_ended = matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"));
    let finished = container
        .and_then(|container| container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    let turned = ready.and_then(|ready| ready.last_transition_time.as_ref());
    // A kubelet that takes no pod in ends it without a word of when.
    let ended = finished.or(turned).or(status.start_time.as_ref()).filter(|_| has_ended);
    PodSight {
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        address: status.pod_ip.clone().filter(|address| !address.is_empty()),
        is_ready,
        trouble,
        created: pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
        release: pod.metadata.labels.as_ref().and_then(|labels| labels.get(RELEASE_LABEL).cloned()),
        ended: ended.map(|time| time.0),
    }
}

/// The words for a pod that has ended; the same before and after there is another.
fn replaced(reason: &str, message: &str) -> (String, String) {
    let message = message.trim_end_matches([' ', '.']);
    let joint = if message.is_empty() { "" } else { "; " };
    (reason.to_owned(), format!("{message}{joint}a new pod is being started"))
}

fn trouble(container: &ContainerStatus) -> Option<(String, String)> {
    let state = container.state.clone().unwrap_or_default();
    let ended =
        state.terminated.or_else(|| container.last_state.clone().and_then(|last| last.terminated));
    if let Some(waiting) = state.waiting {
        let message = waiting.message.unwrap_or_default();
        match waiting.reason.as_deref() {
            None | Some("ContainerCreating" | "PodInitializing") => {}
            Some(reason) if *reason == Reason::CrashLoopBackOff => {}
            // The next moment it waits as after a crash.
            Some("RunContainerError") if ended.is_some() => {}
            Some("ErrImagePull" | "ImagePullBackOff") => {
                return Some((
                    "ImagePullBackOff".to_owned(),
                    format!("the image {} cannot be pulled", container.image),
                ));
            }
            Some(reason) => return Some((reason.to_owned(), message)),
        }
    }
    // Also while it is up again for a moment between two crashes.
    let ended = ended.filter(|_| container.restart_count > 0 || !container.ready)?;
    let why = ended.reason.unwrap_or_else(|| "Error".to_owned());
    let message = match ended.message.filter(|_| why == "StartError") {
        Some(text) => format!(
            "the container cannot be started, which a memory limit that is too small may cause: {}",
            without_ids(&text)
        ),
        None => format!(
            "the forwarder ended with exit code {} ({why}); its log says why: kubectl logs --previous",
            ended.exit_code
        ),
    };
    Some((Reason::CrashLoopBackOff.to_string(), message))
}

/// A text that is the same at the next try: a container's id differs each time.
fn without_ids(text: &str) -> String {
    let is_id = |part: &&str| part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts = text.split('"').map(|part| if is_id(&part) { "..." } else { part });
    parts.collect::<Vec<_>>().join("\"")
}

#[cfg(test)]
mod tests;
